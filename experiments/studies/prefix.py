"""One stack or two: decoder-only against encoder-decoder, and whether attention on its own prefix aligns."""

from typing import Any

import numpy as np

from seqjax.studies import attended, charts
from seqjax.studies.axes import cross, grid, lasting
from seqjax.studies.passes import random_batch, step_flops
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Interval, Row, Table, difference, log_ratio

__all__ = ['prefix']

TWO, SAME_SIZE, SAME_COST = 'encoder-decoder', 'decoder-only, equal parameters', 'decoder-only, equal compute'
WORSE = 10  # log points of the loss, about percent, that make a difference


def prefix(form: Form = 'full') -> Study:
    """An encoder-decoder gives more for its compute than one stack, and less so if that sees its prefix both ways.

    Raffel et al. 2020, section 3.2: an encoder-decoder of 2 + 2 layers costs what one stack of 2 layers does, and has
    twice its parameters, for each token passes only one of the two. So the Transformer is set against a decoder-only
    stack of as many parameters (4 layers, which cost twice as much) and one of as much compute (2 layers, half the
    parameters), each with a causal mask and with one that shows it the whole prefix. The loss is that of a target
    token, unsmoothed, on held-out numbers; differences are of its logarithm. Alignment is that of the head (or mean
    over a layer) which aligns validation best, over the columns of the source: of attention on the source in the one,
    of self-attention in the others.

    python launch.py --study=prefix [--quick | --smoke]
    Cost: 15 runs of 600 steps, eight minutes on two cores with --workers=2, beside other work.
    """
    steps, rows, width = {'full': (600, 600, 64), 'quick': (200, 200, 32), 'smoke': (3, 8, 8)}[form]
    # A layer of 14 D^2 weights, that is feed-forward layers of 5 D: so that 4 of them are 2 + 2 of the Transformer.
    one = cross([{'model': 'decoderonly', 'model.feedforward_size': 5 * width}],
                grid({'model.num_layers': (4, 2), 'model.prefix_mask': ('causal', 'prefix')}))
    two = [{'model': 'transformer', 'model.num_layers': 2, 'model.feedforward_size': 4 * width}]
    base = {'experiment': 'numerals', 'task.metric': 'loss', 'task.valid_size': min(200, rows), 'task.test_size': rows,
            **lasting(steps), 'model.hidden_size': width, 'model.num_heads': 4, 'model.dropout': 0.0,
            'optimizer.learning_rate': 3e-3,
            'optimizer.schedule': 'linear', 'optimizer.warmup_steps': min(100, steps // 2)}
    axes = two + one
    if form != 'full':
        base |= {'task.highest': 9999, 'task.train_size': 5000, 'task.buckets': 1, 'task.max_length': 20}
        axes = two + [one[0], one[3]] if form == 'quick' else [one[3]]
    if form == 'smoke':
        base |= {'task.highest': 999, 'task.train_size': 100}
    return Study(
        claim='At equal compute an encoder-decoder translates better than one causal stack, showing the stack its '
              'whole prefix narrows the gap, and self-attention on the prefix aligns as attention on a source does.',
        source='Raffel et al. 2020, sections 3.2.2 to 3.2.4 and table 2 (without the alignment)',
        expect='The encoder-decoder wins at equal compute and about ties at equal parameters; the prefix mask helps; '
               'some head of each aligns.',
        base=base, axes=axes, measure=lambda subject: measure(subject, rows), verdict=verdict, figures=figures,
        seeds={'full': 3, 'quick': 2, 'smoke': 1}[form], floors=lambda subject: trivial(subject, rows),
        shown=(('model', 'model.num_layers', 'model.prefix_mask'),
               ('nll', 'exact_match', 'bleu', 'aer_head', 'aer', 'on_source', 'parameters', 'megaflops')))


def system(row: Row) -> str:
    """Which of the three a row is of."""
    return TWO if row['model'] == 'transformer' else SAME_SIZE if row['model.num_layers'] == 4 else SAME_COST


def measure(subject: Subject, count: int) -> list[Row]:
    """One row: quality, alignment, what of the weights lies on the source, size and cost."""
    gold = attended.known(subject, 'test', count)
    looks = [w[:, :, :-1] for w in attended.looks(subject, 'test', count)]
    batch = random_batch(subject.model, subject.composed.training.batch_size, 16, 16)
    summary = subject.summary
    return [{**{name: summary['test'][name] for name in ('nll', 'exact_match', 'bleu')},
             'aer_head': attended.judged(attended.links(subject, count), gold)['aer'],
             'aer': attended.alignment(subject, count)['aer'],
             'on_source': 100 * float(np.mean([w.sum(-1).mean() for w in looks])),
             'parameters': summary['parameters'], 'megaflops': step_flops(subject, batch) / 1e6}]


def trivial(subject: Subject, count: int) -> list[Row]:
    """Floors of translation, and the diagonal."""
    diagonal = attended.diagonal(subject, count)['aer']
    return [{'floor': 'diagonal alignment', 'aer_head': diagonal, 'aer': diagonal}, *subject.floors()]


def dearer(ours: Table, theirs: Table) -> Interval:
    """By how many log points the loss of `theirs` is above that of `ours`, over seeds."""
    return log_ratio(theirs, ours, 'nll', 0.01)


def verdict(table: Table) -> Verdict:
    """What the stack loses at equal compute, what the mask gives it back, and how much worse it aligns."""
    named = {name: table.where(lambda row, name=name: system(row) == name) for name in (TWO, SAME_SIZE, SAME_COST)}
    causal, seeing = ({name: part.where({'model.prefix_mask': mask}) for name, part in named.items()}
                      for mask in ('causal', 'prefix'))
    gap = dearer(named[TWO], causal[SAME_COST])
    equal = dearer(named[TWO], causal[SAME_SIZE])
    both = Table.of([*causal[SAME_SIZE].rows, *causal[SAME_COST].rows])
    helped = dearer(Table.of([*seeing[SAME_SIZE].rows, *seeing[SAME_COST].rows]), both)
    aligned = difference(named[TWO], seeing[SAME_SIZE], 'aer_head')
    return all_of([
        decide(gap, WORSE, f'At equal compute the loss of one causal stack is {gap.mean:+.0f} log points from that of '
                           f'the encoder-decoder; at equal parameters {equal.mean:+.0f}.', 'log points of the loss'),
        decide(helped, WORSE, f'A causal mask costs {helped.mean:+.0f} log points against one that shows the prefix.'),
        decide(aligned, -5, f"The best head's alignment error rate on the prefix is "
                            f'{round(-aligned.mean, 1) + 0.0:+.1f} points from that of attention on a source.')])


def figures(table: Table) -> dict[str, Any]:
    """Loss, exact match and alignment, a bar for each system and mask."""
    shown = Table.of({**row, 'system': system(row) + (f', {row["model.prefix_mask"]}' if row.get('model.prefix_mask')
                                                      else '')} for row in table.rows)
    figure, axes = charts.panels(1, 3, width=3.6, height=0.9 + 0.35 * len(shown.values('system')), sharey=True)
    for axis, (column, label) in zip(axes[0], (
            ('nll', 'loss, nats a token'), ('exact_match', 'exact match, %'),
            ('aer_head', 'alignment error rate of the best head, %'))):
        charts.bars(shown, 'system', column, axis=axis, ylabel=label)
    return {'loss, quality and alignment of one stack and of two': figure}
