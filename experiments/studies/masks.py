"""What masks are for: no mask against the future, none on padding, and a source that sees itself both ways."""

from typing import Any

from seqjax.studies import charts, leaks
from seqjax.studies.attended import first
from seqjax.studies.axes import lasting
from seqjax.studies.evidence import batch_of
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row, Table, difference
from seqjax.tasks.evaluation import Evaluator

__all__ = ['masks']

OFF = {'model.causal': False}
PADDED = {'model.padding_mask': False}


def masks(form: Form = 'full') -> Study:
    """Without the causal mask training's loss is a lie; without the padding mask the batch decides the translation.

    Vaswani et al. 2017, section 3.2.3: masked, "leftward information flow" is prevented, and with it the decoder can
    generate. Raffel et al. 2020, section 3.2.1: a causal stack that reads a source from left to right is needlessly
    limited, the prefix mask mends that. What leaks is measured as the change of p(y_t) by words that come later; the
    loss that training reports against that of the same parameters with the mask put back; padding by adding columns of
    it. Without the causal mask padding of the target stays masked. While generating nothing comes after.

    python launch.py --study=masks [--quick | --smoke]
    Cost: 15 runs of 400 steps, 14 minutes with one worker beside other work.
    """
    width, steps, rows, columns = {'full': (64, 400, 500, (0, 4, 16, 64)), 'quick': (32, 200, 200, (0, 16)),
                                   'smoke': (8, 3, 10, (0, 4))}[form]
    small = form == 'smoke'
    layers = 2 if form == 'full' else 1  # of encoder and decoder each
    encoder = {'model': 'transformer', 'model.num_layers': layers}
    stack = {'model': 'decoderonly', 'model.num_layers': 2 * layers if not small else 1}
    axes = [encoder, encoder | OFF, encoder | PADDED, *(stack | {'model.prefix_mask': mask} for mask in (
        'causal', 'prefix'))]
    return Study(
        claim='Without the causal mask the loss of training falls and the output is worthless; without the padding '
              'mask the output depends on the padding; a prefix that sees itself both ways serves a decoder-only '
              'model better than a causal one.',
        source='Vaswani et al. 2017, section 3.2.3; Raffel et al. 2020, section 3.2.1',
        expect='A loss near 0 and no number right; small changes by little padding, for models learn to look past it, '
               'and large ones by more than was seen in training; a small gain of the prefix mask, if any.',
        base={'experiment': 'numerals', 'model.hidden_size': width, 'model.num_heads': 4 if not small else 2,
              'model.feedforward_size': 2 * width, 'task.highest': 99_999 if not small else 9999,
              'task.train_size': 10_000 if not small else 60, 'task.buckets': 1,
              'task.max_length': 20 if not small else 12, 'task.valid_size': 100 if not small else 10,
              'task.test_size': rows, 'task.metric': 'loss', 'training.batch_size': 64 if not small else 16,
              **lasting(steps),
              'optimizer.learning_rate': 3e-3, 'optimizer.schedule': 'linear',
              'optimizer.warmup_steps': min(50, steps // 2)},
        axes=[stack | OFF] if small else axes, measure=lambda subject: measure(subject, columns), verdict=verdict,
        figures=figures, seeds={'full': 3, 'quick': 2, 'smoke': 1}[form], floors=Subject.floors,
        shown=(('model', 'model.causal', 'model.padding_mask', 'model.prefix_mask'),
               ('exact_match', 'nll', 'nll_masked', 'future_change', 'next_weight', 'padding_change', 'padding_cost',
                'bleu')))


def measure(subject: Subject, columns: tuple[int, ...]) -> list[Row]:
    """Scores, what is seen of the future, the loss with the causal mask in place, and what padding does; a row for each
    number of columns of it."""
    model, params, test = subject.model, subject.params, subject.summary['test']
    pairs = first(subject.data.ids['test'], 128)
    batch = batch_of(*pairs)
    masked = test['nll']
    if not model.causal:
        evaluator = Evaluator(subject.composed.task, model.clone(causal=True), subject.codec, subject.ready.placement)
        masked = evaluator.losses(params, *subject.data.ids['test'], subject.composed.decoding)['nll']
    found = leaks.padded(model, params, batch, columns)
    overall = {'exact_match': test['exact_match'], 'bleu': test['bleu'], 'nll': test['nll'], 'nll_masked': masked,
               'future_change': leaks.future_change(model, params, batch),
               'next_weight': 100 * leaks.next_weight(model, params, batch),
               'padding_change': found[-1][0], 'padding_cost': 100 * (found[0][1] - found[-1][1])}
    return [overall, *({'columns': count, 'change_at': change, 'right_at': 100 * right}
                       for count, (change, right) in zip(columns, found))]


def plain(row: Row) -> bool:
    """Whether the trial is the Transformer with all of its masks."""
    return row['model'] == 'transformer' and row.get('model.causal', True) and row.get('model.padding_mask', True)


def verdict(table: Table) -> Verdict:
    """The loss and its truth, the output, what padding changes and costs, and the two masks of a source."""
    whole, off, wide = table.where(plain), table.where(OFF), table.where(PADDED)
    lower = difference(whole, off, 'nll')
    lie = difference(Table.of({**row, 'nll': row['nll_masked']} for row in off.rows if 'nll_masked' in row), off, 'nll')
    lost = difference(whole, off, 'exact_match')
    change, cost = difference(wide, whole, 'padding_change'), wide.interval('padding_cost')
    stacks = [table.where({'model': 'decoderonly', 'model.prefix_mask': mask}) for mask in ('causal', 'prefix')]
    gain = difference(*stacks, 'nll')
    return all_of([
        decide(lost, 50, f'Without the causal mask {lost.mean:.1f} points of exact match are lost.',
               'points of exact match'),
        decide(lower, 0.0, f'Its loss, as training reports it, is {lower.mean:.4f} nats a word lower.'),
        decide(lie, 1.0, f'With the mask put back it is {lie.mean:.2f} nats higher than that.'),
        decide(change, 0.01, f'Without the padding mask, more padding moves {100 * change.mean:.1f} % of the '
                             'probability.'),
        decide(cost, 5, f'It costs {cost.mean:.1f} points of targets that are wholly right.'),
        decide(gain, 0.0, f'The prefix mask lowers the loss by {gain.mean:+.4f} nats a word.')])


def name_of(row: Row) -> str:
    """What a trial is called in figures."""
    if row['model'] == 'decoderonly':
        return f'one stack, {row.get("model.prefix_mask", "causal")} mask'
    return ('all masks' if plain(row) else 'no causal mask' if not row.get('model.causal', True) else
            'no padding mask')


def figures(table: Table) -> dict[str, Any]:
    """The loss and what is right, a bar for each mask; and what padding does."""
    named = Table.of({**row, 'system': name_of(row)} for row in table.rows)
    figure, axes = charts.panels(1, 2, width=4.8, height=3.0)
    kinds = Table.of({**row, 'loss': row[column], 'loss of': name} for row in named.rows for column, name in (
        ('nll', 'as reported'), ('nll_masked', 'with the causal mask')) if column in row)
    charts.bars(kinds, 'system', 'loss', 'loss of', axis=axes[0, 0], ylabel='test loss, nats a word')
    charts.bars(named, 'system', 'exact_match', axis=axes[0, 1], ylabel='exact match, generated, %')
    found = {'loss and output': figure}
    figure, axes = charts.panels(1, 2, width=4.8, height=3.0)
    for axis, column, name in zip(axes[0], ('change_at', 'right_at'), (
            'probability moved', 'targets wholly right, given the teacher, %')):
        charts.lines(named, 'columns', column, 'system', axis=axis, xlabel='columns of padding added', ylabel=name)
    return found | {'what padding changes': figure}
