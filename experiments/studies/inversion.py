"""The blue car, la voiture bleue: whether attention finds word order that is turned around."""

from typing import Any

from seqjax.studies import attended, charts
from seqjax.studies.axes import cross, lasting
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row, Table

__all__ = ['inversion']

ATTENTIVE = ('bahdanau', 'luong', 'transformer')
ENOUGH = 75  # percent of the crossings


def inversion(form: Form = 'full') -> Study:
    """Attention looks across where two languages order their words differently: blue car, voiture bleue.

    Bahdanau et al. 2015, section 5.2.1: where adjectives and nouns change places, as in [European Economic Area] and
    [zone économique européenne], its weights jump over words and come back. Here on sentences of a grammar whose links
    are known (`seqjax/data/colours.py`): colours change places with their nouns, sizes do not. Two links that cross
    count as found where both are drawn: each target word to the source word with its greatest weight, in the head (or
    mean over a layer) that aligns the validation sentences best; of the statistical system, as its phrases are
    extracted. A diagonal never crosses. Koehn and Knowles 2017, section 3.5, warn that attention may translate well and
    look elsewhere, so that translations are scored beside it, those of sentences with a crossing apart.

    python launch.py --study=inversion [--quick | --smoke]
    Cost: 12 runs of 500 steps (the statistical system's ten passes), five minutes with one worker on one of two cores.
    """
    steps, rows, width = {'full': (500, 300, 64), 'quick': (200, 200, 64), 'smoke': (3, 8, 8)}[form]
    gradient = {**lasting(steps), 'model.hidden_size': width, 'model.num_layers': 1, 'optimizer.schedule': 'linear',
                'optimizer.warmup_steps': min(50, steps // 2)}
    models = [{'model': 'smt', 'model.tuning_sentences': 30, 'model.tuning_rounds': 1}, *cross([gradient], [
        {'model': 'bahdanau'}, {'model': 'luong', 'model.cell': 'gru', 'model.bidirectional': True},
        {'model': 'transformer', 'model.num_layers': 2, 'model.num_heads': 4, 'model.feedforward_size': 4 * width}])]
    size = {'task.train_size': 4000 if form == 'full' else 1500, 'task.buckets': 1}
    if form == 'smoke':
        models = [models[2] | {'model.input_feeding': False}]
        size |= {'task.train_size': 60}
    return Study(
        claim='Attention finds word order that is turned around: at least three in four of the crossing links of "blue '
              'car" and "voiture bleue", of which a diagonal has none.',
        source='Bahdanau et al. 2015, section 5.2.1 and figure 3; with doubts, Koehn and Knowles 2017, section 3.5',
        expect='All translate every sentence. Luong and the statistical system cross where the words do; Bahdanau, who '
               'asks with the state before the word, may look beside it.',
        base={'experiment': 'colours', 'task.metric': 'loss', 'task.valid_size': min(200, rows),
              'task.test_size': rows} | size,
        axes=models, measure=lambda subject: measure(subject, rows), verdict=verdict, figures=figures,
        seeds={'full': 3, 'quick': 2, 'smoke': 1}[form], floors=lambda subject: trivial(subject, rows),
        shown=(('model',), ('crossings_found', 'crossings_right', 'aer', 'aer_mean', 'exact_match', 'exact_crossing',
                            'parameters')))


def measure(subject: Subject, count: int) -> list[Row]:
    """One row: links and translations."""
    gold = attended.known(subject, 'test', count)
    crossing = [right for right, pair in zip(subject.right, gold) if attended.crossings(pair.sure)]
    return [{**attended.judged(attended.links(subject, count), gold),
             'aer_mean': attended.alignment(subject, count)['aer'],
             'exact_match': subject.summary['test']['exact_match'],
             'exact_crossing': sum(crossing) / len(crossing) if crossing else float('nan'),
             'parameters': subject.summary['parameters']}]


def trivial(subject: Subject, count: int) -> list[Row]:
    """Floors of translation, and the diagonal."""
    diagonal = attended.judged(attended.along_the_diagonal(subject, count), attended.known(subject, 'test', count))
    return [{'floor': 'diagonal alignment', **diagonal}, *subject.floors()]


def verdict(table: Table) -> Verdict:
    """The crossings that each model's attention finds, with what the statistical system finds in words."""
    counted = table.where({'model': 'smt'}).interval('crossings_found').mean
    found = []
    for model in ATTENTIVE:
        part = table.where({'model': model})
        if len(part):
            share, exact = part.interval('crossings_found'), part.interval('exact_crossing').mean
            found.append(decide(share, ENOUGH, f"{model.capitalize()} finds {share.mean:.1f} % of the crossings (the "
                                f'statistical system {counted:.1f} %) and translates {exact:.1f} % of their sentences.',
                                '% of the crossings'))
    return all_of(found)


def figures(table: Table) -> dict[str, Any]:
    """Crossings found, error rates of alignment, and translations, a bar for each model."""
    figure, axes = charts.panels(1, 3, width=3.4, height=0.9 + 0.35 * len(table.values('model')))
    for axis, (column, label) in zip(axes[0], (
            ('crossings_found', 'crossings found, %'), ('aer', 'alignment error rate, %'),
            ('exact_crossing', 'exact match with a crossing, %'))):
        charts.bars(table, 'model', column, axis=axis, ylabel=label)
    return {'crossings found, alignment, and translations': figure}
