"""Is one vector enough? Fixed vectors against attention, over the length of the source."""

from typing import Any, NamedTuple

import numpy as np

from experiments.translation import numerals
from seqjax.studies import charts
from seqjax.studies.axes import Settings, chain, cross, grid, lasting
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row, Table, difference, interval
from seqjax.tasks import floors
from seqjax.tasks.by_position import bins_of, by_length, by_place, middle_places
from seqjax.tasks.corpora import Reverse
from seqjax.tasks.forced import forced
from seqjax.tasks.scores import bleu

__all__ = ['bottleneck']

FIXED = ('rnn', 'lstm', 'gru', 'rctm')  # RCTM I: the source is folded into a vector, not read into one
WIDTH = 128  # of the fixed vectors that are compared with attention
PLACES = 10
LISTS = {'task.highest': 9, 'task.train_length': 60, 'task.test_length': 60, 'task.max_length': 64, 'task.buckets': 3}
NUMBERS = {'task.highest': 10**18 - 1, 'task.max_length': 64, 'task.buckets': 3}


def bottleneck(form: Form = 'full') -> Study:
    """A fixed vector holds a short source, loses a long one, and holds more as it grows wider.

    Claim: Bahdanau et al. 2015, section 5.2.1 and figure 2. Lists of digits backwards (1 to 60 of them) and numbers up
    to 10^18 from English into French (up to some 45 tokens). Lengths are the same in training and in the test, so that
    it is capacity that is measured and not extrapolation. Fixed vectors get twice the width, more parameters and half
    as many steps again as recurrent attention; the Transformer, which has to learn what places are, more than twice
    as many. Of the systems before and beside these, RCTM I is a fixed vector too (the source folded by convolutions);
    ConvS2S and one stack alone are tried on the lists, the statistical system on numbers.

    python launch.py --study=bottleneck [--quick | --smoke]
    Cost: 60 runs of 800 to 2,000 steps, an hour on two cores with --workers=2.
    """
    steps, rows = {'full': (800, 900), 'quick': (300, 240), 'smoke': (4, 16)}[form]
    every = {'training.batch_size': 64, 'task.metric': 'loss', 'task.valid_size': 100, 'task.test_size': rows}
    gradient = {**lasting(steps), 'optimizer.name': 'adam', 'optimizer.learning_rate': 3e-3,
                'optimizer.schedule': 'linear', 'optimizer.warmup_steps': min(50, steps // 2),
                'optimizer.clip_norm': 1.0}
    if form == 'full':
        long = lasting(2000) | {'optimizer.warmup_steps': 200}
        main = cross(vectors(FIXED[:3], WIDTH), [lasting(1200)]) + attention(('bahdanau', 'luong'), 64) + cross(
            attention(('transformer',), 64), [long])
        lists = chain(main, cross(vectors(('gru',), 32, 64, 256), [lasting(1200)]),
                      cross(vectors(('gru',), WIDTH), [lasting(1200) | {'model.reverse_source': True}]),
                      cross(attention(('rctm',), WIDTH), [lasting(1200)]),
                      cross(attention(('convs2s', 'decoderonly'), 64), [long]))
        axes = chain(cross([gradient], [{'experiment': 'reverse'} | LISTS], lists),
                     cross([gradient], [{'experiment': 'numerals'} | NUMBERS], main),
                     [{'experiment': 'numerals', 'model': 'smt', 'model.tuning_rounds': 3} | NUMBERS])
        seeds = 3
    else:
        every |= LISTS | {'task.train_size': 5000, 'task.buckets': 1}
        if form == 'quick':
            every |= {'task.train_length': 20, 'task.test_length': 20, 'task.max_length': 22}
            lists = vectors(('gru',), 32, WIDTH) + attention(('bahdanau',), 64)
        else:
            every |= {'task.train_length': 8, 'task.test_length': 8, 'task.max_length': 10, 'task.train_size': 200,
                      'task.valid_size': 10, 'training.batch_size': 16}
            lists = vectors(('rnn',), 8) + attention(('bahdanau',), 8)
        axes = cross([gradient], [{'experiment': 'reverse'}], lists)
        seeds = 1 if form == 'smoke' else 2
    return Study(
        claim='One vector of fixed width holds a short source as well as attention does, loses at least 30 points of '
              'exact match on the longest ones, and holds longer ones as it grows wider.',
        source='Bahdanau et al. 2015, section 5.2.1 and figure 2',
        expect='No gap up to 10 tokens, 30 points and more above 50, and gains with every doubling of the width.',
        base=every, axes=axes, measure=measure, verdict=verdict, figures=figures, seeds=seeds,
        floors=lambda subject: trivial(subject, both=form == 'full'),
        published=[{'published': f'{name} (Bahdanau et al. 2015, table 1), WMT en-fr', 'bleu': bleu} for name, bleu in (
            ('RNNencdec-30', 13.93), ('RNNencdec-50', 17.82), ('RNNsearch-30', 21.50), ('RNNsearch-50', 26.75))],
        shown=(('experiment', 'model', 'model.hidden_size', *(['model.reverse_source'] if form == 'full' else [])),
               ('exact_match', 'short', 'long', 'held', 'error_beginning', 'error_end', 'bleu', 'parameters')))


def vectors(models: tuple[str, ...], *widths: int) -> list[Settings]:
    """One-way encoders whose last state is all that the decoder gets."""
    return [setting | {'model.embedding_size': 32, 'model.num_layers': 1, 'model.dropout': 0.0,
                       'model.bidirectional': False}
            for setting in grid({'model': models, 'model.hidden_size': widths})]


def attention(models: tuple[str, ...], width: int) -> list[Settings]:
    """The models that look back at the source; and RCTM I, whose vector is made by convolutions."""
    special = {'rctm': {'model.embedding_size': 64, 'model.num_layers': 1, 'model.variant': 'sentence'},
               'convs2s': {'model.embedding_size': 32, 'model.num_layers': 3},
               'decoderonly': {'model.num_layers': 4, 'model.num_heads': 4, 'model.feedforward_size': 4 * width},
               'bahdanau': {'model.embedding_size': 32, 'model.num_layers': 1},
               'luong': {'model.embedding_size': 32, 'model.num_layers': 1, 'model.bidirectional': False},
               'transformer': {'model.num_layers': 2, 'model.num_heads': 4, 'model.feedforward_size': 4 * width}}
    return [{'model': model, 'model.hidden_size': width, 'model.dropout': 0.0} | special[model] for model in models]


class Spans(NamedTuple):
    """Which sources are short and which long, in tokens."""

    short: int  # no longer than this
    long: int  # no shorter than this
    longest: int


def spans(task: Any) -> Spans:
    """A sixth of the lengths at either end; of numbers, which are seldom long, the last fourth."""
    if isinstance(task, Reverse):
        sixth = max(1, task.test_length // 6)
        return Spans(sixth, task.test_length - sixth + 1, task.test_length)
    return Spans(10, 31, 50)


def measure(subject: Subject) -> list[Row]:
    """Scores of the whole test split, of its short and its long sources, by length; and errors by place."""
    span, right = spans(subject.composed.task), subject.right
    lengths = subject.data.ids['test'][0].lengths - 1  # EOS
    found = by_length(right, lengths, bins_of(span.longest, span.short))
    errors = errors_by_place(subject, np.flatnonzero(lengths >= min(span.long, lengths.max())))
    overall = {'exact_match': float(np.mean(right)), **parts(right, lengths, span),
               'held': sum(row['mean'] / 100 * (row['to'] - row['from'] + 1) for row in found),
               'bleu': subject.summary['test']['bleu'], 'nll': subject.summary['test']['nll'],
               'parameters': subject.summary['parameters']}
    if errors:
        overall |= {'error_beginning': float(np.mean(errors[:2])), 'error_end': float(np.mean(errors[-2:]))}
    rows: list[Row] = [overall]
    rows += [{'length': row['length'], 'pairs': row['pairs'], 'exact_match_at': row['mean']} for row in found]
    rows += [{'place': (place + 0.5) / PLACES, 'error_at': error} for place, error in enumerate(errors)]
    return rows


def errors_by_place(subject: Subject, rows: Any) -> list[float]:
    """Percent of wrong words of some test pairs, by the place in the source that they stand for, told what came before.

    Empty where a model writes phrases, which have no next word that the beginning of the target foretells.
    """
    if subject.model.searches != 'tokens':
        return []
    source, target = subject.data.ids['test']
    told = forced(subject.evaluator, subject.params, source.take(rows), target.take(rows), subject.composed.decoding)
    # Both languages of numbers go from left to right, so that the share of the target is that of the source.
    backwards = isinstance(subject.composed.task, Reverse)
    places = [middle_places(len(one.right) - 1, backwards=backwards) for one in told]
    return by_place([100.0 * ~one.right[:-1] for one in told], places, PLACES)


def parts(right: list[float], lengths: Any, span: Spans) -> Row:
    """Exact match of short and of long sources."""
    values = {'short': [r for r, n in zip(right, lengths) if n <= span.short],
              'long': [r for r, n in zip(right, lengths) if n >= span.long]}
    return {name: float(np.mean(part)) for name, part in values.items() if part}


def trivial(subject: Subject, both: bool) -> list[Row]:
    """Floors of lists, or of both tasks."""
    rows: list[Row] = []
    known = {'reverse': (subject.composed.task, subject.data)}
    if both:
        fields = {name.partition('.')[2]: value for name, value in NUMBERS.items()}
        task = numerals('gru').replace('task', **fields).task
        known['numerals'] = task, task.prepare()
    for name, (task, data) in known.items():
        sources, references = data.text['test']
        for floor, lines in floors.outputs(data.text['train'], sources).items():
            right = [100.0 * (line == reference) for line, reference in zip(lines, references)]
            rows.append({'floor': floor, 'experiment': name, 'exact_match': float(np.mean(right)),
                         'bleu': bleu(lines, references).value,
                         **parts(right, data.ids['test'][0].lengths - 1, spans(task))})
    return rows


def verdict(table: Table) -> Verdict:
    """The gap on the longest sources, none on the short, and what width gives; on each task that was run.

    Against Bahdanau's attention stands the best of the three fixed vectors.
    """
    found = []
    for task in table.values('experiment'):
        part = table.where({'experiment': task})
        ours = part.where({'model': 'bahdanau'})
        fixed = [part.where({'model': model}).where(forward) for model in FIXED]
        fixed = [v.where({'model.hidden_size': WIDTH if WIDTH in v.values('model.hidden_size') else
                          v.values('model.hidden_size')[0]}) for v in fixed if len(v)]
        best = max(fixed, key=lambda v: [interval(v.column(name)).mean for name in ('long', 'short')])
        gap, short = difference(ours, best, 'long'), difference(best, ours, 'short')
        found += [decide(gap, 30, f'On the longest sources of {task} attention is {gap.mean:.1f} points of exact match '
                                  f'above the best fixed vector, {best.values("model")[0]}.', 'points of exact match'),
                  decide(short, -5, f'On the shortest of {task} the fixed vector is at {short.mean:+.1f} points to '
                                    'it.')]
        widths = sorted(part.where({'model': 'gru'}).where(forward).values('model.hidden_size'))
        if len(widths) > 1:
            narrow, wide = (part.where({'model': 'gru', 'model.hidden_size': w}).where(forward)
                            for w in (widths[0], widths[-1]))
            gain = difference(wide, narrow, 'held')
            found.append(decide(gain, 3, f'From {widths[0]} to {widths[-1]} units it holds {gain.mean:.1f} tokens '
                                         'more.'))
    return all_of(found)


def forward(row: Row) -> bool:
    """Whether the encoder reads from left to right."""
    return not row.get('model.reverse_source')


def figures(table: Table) -> dict[str, Any]:
    """Exact match over length for each task, over length for each width, and errors over the place in the source."""
    main = table.where(lambda row: forward(row) and (row['model'] != 'gru' or row['model.hidden_size'] == WIDTH))
    tasks = table.values('experiment')
    figure, axes = charts.panels(1, len(tasks), width=5.0)
    for axis, task in zip(axes[0], tasks):
        charts.lines(main.where({'experiment': task}), 'length', 'exact_match_at', axis=axis, ylim=(-3, 103),
                     title=task, xlabel='tokens of the source', ylabel='exact match, %')
    found = {'exact match by length of the source': figure}
    widths = table.where({'model': 'gru', 'experiment': 'reverse'}).where(forward)
    if len(widths.values('model.hidden_size')) > 1:
        found['what width gives a fixed vector'] = charts.lines(
            widths, 'length', 'exact_match_at', 'model.hidden_size', ylim=(-3, 103), xlabel='tokens of the source',
            ylabel='exact match, %', title='gru, by its width')
    figure, axes = charts.panels(1, len(tasks), width=5.0)
    for axis, task in zip(axes[0], tasks):
        part = Table.of(row | {'reader': row['model'] + ('' if forward(row) else ', from the end')}
                        for row in table.where({'experiment': task}).rows
                        if row['model'] != 'gru' or row['model.hidden_size'] == WIDTH)
        charts.lines(part, 'place', 'error_at', 'reader', axis=axis, ylim=(-3, 103), ylabel='words wrong, %',
                     xlabel='place in the source: 0 beginning, 1 end', title=f'{task}, longest sources')
    return found | {'errors by place in the source': figure}
