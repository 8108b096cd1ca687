"""What many heads are worth at equal width, and what dividing by sqrt(d_k) does to the softmax."""

import math
from typing import Any

from seqjax.studies import charts
from seqjax.studies.attended import first
from seqjax.studies.axes import chain, grid, lasting
from seqjax.studies.evidence import batch_of
from seqjax.studies.softness import softness
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row, Table, difference, log_ratio

__all__ = ['heads']

SOME = 4  # the number of heads that one, and very many, are set against: chosen before anything was run
SCALE, HEADS = 'model.scale_scores', 'model.num_heads'


def heads(form: Form = 'full') -> Study:
    """Dividing scores by sqrt(d_k) keeps the softmax soft and its gradient alive; several heads beat one.

    Vaswani et al. 2017, section 3.2.1 with footnote 4, and table 3, rows A. At equal width d_k falls as heads grow
    more; so 1 to 16 heads are trained with the scaling, and some without it. Before training, models of one head and
    of growing width are looked at as well. The encoder's self-attention: entropy of the weights, the slope of the
    softmax, and the gradient that reaches the query and key projections. Without the scaling scores are sqrt(d_k) times
    as large and so, while the softmax is not flat, is the gradient by what made them: the two need not agree.

    python launch.py --study=heads [--quick | --smoke]
    Cost: 24 runs of 400 steps, nine minutes with --workers=2 on two cores.
    """
    width, steps, rows, widths = {'full': (64, 400, 500, (16, 64, 256)), 'quick': (32, 200, 200, (16, 64)),
                                  'smoke': (8, 3, 10, ())}[form]
    numbers = {'full': (1, 2, SOME, 8, 16), 'quick': (1, SOME), 'smoke': (1,)}[form]
    small = form == 'smoke'
    return Study(
        claim='Divided by sqrt(d_k), scores keep the softmax soft and its gradient alive as d_k grows, before training '
              'and after it, and the model is better for it; several heads beat one of the same total width.',
        source='Vaswani et al. 2017, section 3.2.1 and table 3, rows A',
        expect='Entropy is higher with the scaling (weights are more distinct without it) and the slope of the softmax '
               'greater; the gradient by the projections may be greater without. Heads matter little at this size.',
        base={'experiment': 'numerals', 'model': 'transformer', 'model.hidden_size': width,
              'model.num_layers': 2 if not small else 1, 'model.feedforward_size': 2 * width,
              'task.highest': 99_999 if not small else 9999,
              'task.train_size': 10_000 if not small else 60, 'task.buckets': 1,
              'task.max_length': 20 if not small else 12,
              'task.valid_size': 100 if not small else 10, 'task.test_size': rows, 'task.metric': 'loss',
              'training.batch_size': 64 if not small else 16, **lasting(steps), 'optimizer.learning_rate': 3e-3,
              'optimizer.schedule': 'linear', 'optimizer.warmup_steps': min(50, steps // 2)},
        axes=chain(grid({HEADS: numbers, SCALE: (True,)}),
                   grid({HEADS: numbers[::2] if form == 'full' else numbers[:1], SCALE: (False,)})[small:]),
        measure=lambda subject: measure(subject, widths), verdict=verdict, figures=figures,
        seeds={'full': 3, 'quick': 2, 'smoke': 1}[form], floors=Subject.floors,
        published=[{'published': f'{count} heads, base (Vaswani et al. 2017, table 3, A), WMT en-de, dev',
                    HEADS: count, 'bleu': bleu} for count, bleu in (
                        (1, 24.9), (4, 25.5), (8, 25.8), (16, 25.8), (32, 25.4))],
        shown=((HEADS, SCALE), ('d_k', 'exact_match', 'nll', 'entropy_before', 'entropy', 'slope_before', 'slope',
                                'gradient_before', 'gradient', 'bleu')))


def measure(subject: Subject, widths: tuple[int, ...]) -> list[Row]:
    """Scores, and softness after training and before; of one head, also of wider models that nobody trained."""
    model, test = subject.model, subject.summary['test']
    batch = batch_of(*first(subject.data.ids['test'], 64))
    before = softness(model, subject.fresh, batch)
    rows: list[Row] = [{'d_k': model.hidden_size // model.num_heads, 'exact_match': test['exact_match'],
                        'bleu': test['bleu'], 'nll': test['nll'], **softness(model, subject.params, batch),
                        **{f'{name}_before': value for name, value in before.items()}}]
    if model.num_heads == 1:
        for width in widths:
            wide = model.clone(hidden_size=width, feedforward_size=2 * width)
            rows.append({'width': width, **{f'{name}_of': value for name, value in softness(
                wide, subject.untrained(wide), batch).items()}})
    return rows


def verdict(table: Table) -> Verdict:
    """Softness with and without the scaling, of the widest before training and of one head after; and heads."""
    on, off = (table.where({HEADS: 1, SCALE: scale}) for scale in (True, False))
    widths = sorted(table.values('width')) or [None]
    wide_on, wide_off = (part.where({'width': widths[-1]}) for part in (on, off))
    entropy, slope = difference(wide_on, wide_off, 'entropy_of'), log_ratio(wide_on, wide_off, 'slope_of', math.log(2))
    shrunk = log_ratio(off.where({'width': widths[0]}), wide_off, 'slope_of', math.log(2))
    gradient = log_ratio(wide_on, wide_off, 'gradient_of', math.log(2))
    after, better = difference(on, off, 'entropy'), difference(off, on, 'nll')
    found = [
        decide(entropy, 0.1, f'Before training, at d_k = {widths[-1]}, scaling raises the entropy by '
                             f'{entropy.mean:.2f} of the greatest there can be.', 'of the greatest entropy'),
        decide(slope, 1, f'The slope of the softmax is {2 ** slope.mean:.1f} times that without scaling.'),
        decide(shrunk, 1, f'Without, it falls {2 ** shrunk.mean:.1f} times from d_k = {widths[0]} on.'),
        decide(gradient, 0, f'The gradient by queries and keys is {2 ** gradient.mean:.2f} times that without.'),
        decide(after, 0.0, f'After training one head of full width has {after.mean:+.2f} of entropy to that without.'),
        decide(better, 0.0, f'Without scaling its test loss is {better.mean:+.4f} nats higher.')]
    several = table.where({HEADS: SOME, SCALE: True})
    if len(several):
        gain = difference(on, several, 'nll')
        found.append(decide(gain, 0.0, f'One head has {gain.mean:+.4f} nats on {SOME} heads.'))
    return all_of(found)


def figures(table: Table) -> dict[str, Any]:
    """Quality over heads; entropy, slope and gradient over d_k, before training and after it."""
    named = Table.of({**row, 'scores': 'scaled' if row[SCALE] else 'as they are'} for row in table.rows)
    figure, axes = charts.panels(1, 2, width=4.4)
    for axis, (column, name) in zip(axes[0], (('exact_match', 'exact match, %'), ('nll', 'test loss, nats a word'))):
        charts.lines(named, HEADS, column, 'scores', axis=axis, logx=True, ylabel=name, xlabel='heads')
    found = {'quality by number of heads at equal width': figure}
    kinds = (('entropy', 'entropy, share'), ('slope', 'slope of the softmax, share'), ('gradient', 'gradient'))
    figure, axes = charts.panels(2, 3, width=4.0)
    for line, when in zip(axes, ('before', 'after')):
        for axis, (column, name) in zip(line, kinds):
            charts.lines(named, 'd_k', column + ('_before' if when == 'before' else ''), 'scores', axis=axis, logx=True,
                         logy=column == 'gradient', xlabel='d_k, at equal width', ylabel=name,
                         title=f'{when} training')
    found['how soft attention is, by d_k'] = figure
    if table.values('width'):
        figure, axes = charts.panels(1, 3, width=4.0)
        for axis, (column, name) in zip(axes[0], kinds):
            charts.lines(named, 'width', f'{column}_of', 'scores', axis=axis, logx=True, logy=column == 'gradient',
                         xlabel='d_k, one head', ylabel=name, title='before training')
        found['how soft one head is, as it grows wider'] = figure
    return found
