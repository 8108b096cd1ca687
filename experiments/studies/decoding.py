"""What a search is worth: greedy, beams of several widths, length penalties, and all there is to find."""

from typing import Any

from seqjax.decoding.options import Decoding
from seqjax.studies import charts, searches
from seqjax.studies.axes import Settings, cross
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row, Table, difference, interval

__all__ = ['decoding']

NARROW = 5
OTHERS = {'rctm': {}, 'convs2s': {'model.num_layers': 3}, 'decoderonly': {
    'model.num_layers': 4, 'model.num_heads': 4, 'model.feedforward_size': 256}}
SMALL, LARGE = 'digits', 'fr'  # targets over which everything can be tried, and not


def decoding(form: Form = 'full') -> Study:
    """A beam of five finds what exhaustive search would, translates better than greedy, and as well as a wider one.

    Sutskever et al. 2014, section 3.6 and table 1: a beam of 2 gives most of what beams give. One training a seed, many
    decodings. Numbers below 10,000 into digits: ten words, at most four of them, so that all 16,105 sequences can be
    tried and search errors counted (Stahlberg and Byrne 2019). Numbers below a million into French: search errors are a
    lower bound there, against the best that any search found. Training is short, for a model that is sure of
    everything leaves nothing to search. The claim is tested on a GRU. Into digits other systems stand beside it, with
    the searches that the claim is about; the statistical one with its own, whose errors it counts on short numbers.

    python launch.py --study=decoding [--quick | --smoke]
    Cost: 18 runs of 400 to 1,000 steps and up to seven minutes of decoding each: 55 minutes on two cores, beside other
    work.
    """
    sizes = {'full': dict(beams=(2, 5, 10, 30), steps=(400, 1000), count=400, repeats=3, width=64),
             'quick': dict(beams=(2, 5, 10), steps=(200,), count=64, repeats=3, width=64),
             'smoke': dict(beams=(5,), steps=(4,), count=4, repeats=1, width=8)}[form]
    names = {'greedy': Decoding(batch_size=64)}
    for alpha in (0.0, 0.6, 1.0) if form == 'full' else (0.0,) if form == 'smoke' else (0.0, 1.0):
        names |= {f'beam {beam}, penalty {alpha:g}': Decoding(
            method='beam', beam_size=beam, length_penalty=alpha, batch_size=64) for beam in sizes['beams']}
    # EOS counts: so many digits, and the end.
    targets: list[Settings] = [
        {'task.target': SMALL, 'task.highest': 9999, 'task.train_size': 5000,
         'task.max_length': 16, 'decoding.max_length': 5 if form == 'full' else 4, 'training.steps': sizes['steps'][0]},
        {'task.target': LARGE, 'task.highest': 999_999, 'task.max_length': 32, 'training.steps': sizes['steps'][-1]}]
    steps = min(sizes['steps'])
    gradient = {'model': 'gru', 'model.hidden_size': sizes['width'], 'model.num_layers': 1, 'model.dropout': 0.0,
                'training.evaluate_every': steps, 'training.checkpoint_every': steps, 'optimizer.learning_rate': 3e-3,
                'optimizer.schedule': 'linear', 'optimizer.warmup_steps': min(50, steps // 2)}
    small = targets[0]
    if form != 'full':
        targets = [targets[0] | {'task.highest': 999, 'task.train_size': 700, 'task.buckets': 1}]
    axes = cross([gradient], targets)
    if form == 'full':
        axes += [gradient | small | {'model': model} | size for model, size in OTHERS.items()]
        axes.append({name: value for name, value in small.items() if name.startswith('task')} | {
            'model': 'smt', 'decoding.search_errors': 6})
    return Study(
        claim='A beam of five finds nearly always what exhaustive search would, translates better than greedy search, '
              'and a wider one gains nothing more.',
        source='Sutskever et al. 2014, section 3.6 and table 1; Stahlberg and Byrne 2019 for the search errors',
        expect='Greedy search misses the best sequence now and then, a beam of five hardly ever; the likeliest '
               'sequence is not always the right one, so that quality gains less.',
        base={'experiment': 'numerals', 'task.metric': 'loss', 'task.valid_size': 100 if form != 'smoke' else 10,
              'task.test_size': max(sizes['count'], 20)},
        axes=axes, measure=lambda subject: measure(subject, names, sizes['count'], sizes['repeats']),
        verdict=verdict, figures=figures, seeds={'full': 3, 'quick': 2, 'smoke': 1}[form], floors=trivial, workers=1,
        published=[{'published': f'five LSTMs, beam {beam} (Sutskever et al. 2014, table 1), WMT en-fr', 'beam': beam,
                    'bleu': bleu} for beam, bleu in ((1, 33.00), (2, 34.50), (12, 34.81))],
        shown=(('model', 'task.target', 'search'),
               ('exact_match', 'bleu', 'search_errors', 'log_prob', 'length', 'milliseconds', 'beam')))


def measure(subject: Subject, names: dict[str, Decoding], count: int, repeats: int) -> list[Row]:
    """A row for each search; of the other systems, for those that the claim is about."""
    task, model = subject.composed.task, type(subject.model).__name__.lower()
    if model == 'smt':
        test = subject.summary['test']
        return [{'search': 'phrases', **{name: test[name] for name in ('exact_match', 'bleu', 'search_errors')
                                         if name in test}}]
    if model != 'gru':
        names = {name: search for name, search in names.items()
                 if search.method == 'greedy' or (search.length_penalty == 0 and search.beam_size == NARROW)}
    limit = subject.composed.decoding.max_length
    named = {name: Decoding(**{**vars(search), 'max_length': limit}) for name, search in names.items()}
    return searches.compare(subject, named, count, task.target == SMALL, repeats)


def trivial(subject: Subject) -> list[Row]:
    """What needs no model."""
    return [row | {'task.target': subject.composed.task.target} for row in subject.floors()]


def verdict(table: Table) -> Verdict:
    """Errors of search that the beam mends, points that it gains, and those that a wider one gains on it."""
    plain = table.where(lambda row: row.get('penalty') == 0 and row.get('model') not in OTHERS)
    small = plain.where({'task.target': SMALL})
    greedy, narrow = (small.where({'beam': beam}).per_seed('search_errors') for beam in (1, NARROW))
    mended = interval([100 * (1 - narrow[seed] / greedy[seed]) for seed in greedy if greedy[seed]])
    found = [decide(mended, 90, f'Greedy search misses {interval(greedy.values()).mean:.1f} % of the best sequences; '
                                f'a beam of {NARROW} finds {mended.mean:.0f} % of those.', '% of the search errors')]
    for target in plain.values('task.target'):
        part = plain.where({'task.target': target})
        widest = max(beam for beam in part.values('beam'))
        ours = part.where({'beam': NARROW})
        gain = difference(ours, part.where({'beam': 1}), 'exact_match')
        more = difference(ours, part.where({'beam': widest}), 'exact_match')
        found.append(decide(gain, 0.1, f'Into {target} the beam gains {gain.mean:+.2f} points of exact match.'))
        if widest > NARROW:
            found.append(decide(more, -0.5, f'A beam of {widest} gains {round(-more.mean, 2) + 0.0:+.2f} more.'))
    return all_of(found)


def figures(table: Table) -> dict[str, Any]:
    """Quality and search errors over the beam's width, and quality over time, for each task and penalty."""
    beams = table.where(lambda row: row.get('beam') is not None and row.get('model') not in OTHERS)
    # Greedy search is the beam of one, whatever the penalty.
    rows = [row for row in beams.rows if row['beam'] > 1]
    for row in beams.where({'beam': 1}).rows:
        rows += [{**row, 'penalty': penalty} for penalty in beams.values('penalty')]
    shown, targets = Table.of(rows), beams.values('task.target')
    figure, axes = charts.panels(len(targets), 3, width=3.9)
    for line, target in zip(axes, targets):
        part = shown.where({'task.target': target})
        for axis, column, name in zip(line, ('exact_match', 'search_errors', 'milliseconds'), (
                'exact match, %', 'search errors, %', 'milliseconds a sentence')):
            charts.lines(part, 'beam', column, 'penalty', axis=axis, logx=True, xlabel='beam', ylabel=name,
                         title=f'into {target}, by penalty')
    found = {'quality, search errors and time by width of the beam': figure}
    both = table.where(lambda row: row['task.target'] == SMALL and row.get('penalty') == 0 and row.get('beam') in (
        1, NARROW))
    if len(both.values('model')) > 1:
        found['search errors of each system'] = charts.bars(both, 'model', 'search_errors', 'search',
                                                            ylabel='search errors, %')
    return found
