"""What tells attention the order: nothing, or six encodings, inside and beyond the lengths of training."""

import math
from typing import Any

from seqjax.studies import charts, order
from seqjax.studies.axes import grid, lasting
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Interval, Row, Table, difference, interval
from seqjax.tasks import floors
from seqjax.tasks import scores as metrics
from seqjax.tasks.by_position import bins_of, by_length

__all__ = ['positions']

ENCODINGS = ('none', 'sinusoidal', 'learned', 'rotary', 'alibi', 't5')
OFFSETS = (1, 7, 64)  # of the linear map
TABLE = (512, 64)  # positions and width of the sinusoid table that the map is tried on


def positions(form: Form = 'full') -> Study:
    """Without positions attention sees a bag of words; sinusoids give it the order, also beyond the training lengths.

    Vaswani et al. 2017, section 3.5. Four things that are said together and tested apart: the encoder's outputs follow
    a permutation of its inputs (exactly); a causal decoder, too, is a bag of words (of one layer, and of more);
    PE(pos + k) is one linear map of PE(pos), against a random table; sinusoids extrapolate. Lists of digits backwards,
    trained up to half of the lengths of the test, by an encoder with a decoder and by one causal stack, with each
    encoding. Learned positions of places beyond the training lengths are there and untrained.

    python launch.py --study=positions [--quick | --smoke]
    Cost: 36 runs of 700 steps, ten minutes on two cores with --workers=2, beside other work.
    """
    longest, steps, rows, layers = {'full': (8, 700, 400, 2), 'quick': (6, 250, 120, 2), 'smoke': (4, 3, 12, 1)}[form]
    small = form == 'smoke'
    models = {'transformer': layers, 'decoderonly': 2 * layers}
    names = {'full': ENCODINGS, 'quick': ENCODINGS[:2], 'smoke': ENCODINGS[:1]}[form]
    axes = [setting | {'model.num_layers': models[setting['model']]} for setting in grid(
        {'model': ('transformer',) if small else tuple(models), 'model.positions': names})]
    return Study(
        claim='Without positions attention sees a bag of words, in a causal decoder too; sinusoids tell it the order, '
              'also beyond the lengths of training, since a shift is one linear map of them.',
        source='Vaswani et al. 2017, section 3.5',
        expect='The encoder, and a decoder of one layer, are bags of words exactly; a causal decoder of two layers is '
               'not, since what a word sees depends on where it stands; the linear map is exact; no encoding '
               'that is added to embeddings goes far beyond the training lengths.',
        base={'experiment': 'reverse', 'task.highest': 9, 'task.train_length': longest,
              'task.test_length': 2 * longest - small, 'task.max_length': 2 * longest + 2 * (not small),
              'task.buckets': 1, 'task.train_size': 60 if small else 20_000,
              'task.valid_size': 10 if small else 100, 'task.test_size': rows, 'task.metric': 'loss',
              'model.hidden_size': 8 if small else 64, 'model.num_heads': 4 if not small else 2,
              'model.feedforward_size': 16 if small else 128, 'training.batch_size': 16 if small else 64,
              **lasting(steps),
              'optimizer.learning_rate': 3e-3, 'optimizer.schedule': 'linear',
              'optimizer.warmup_steps': min(100, steps // 2)},
        axes=axes, measure=measure, verdict=verdict, figures=figures,
        seeds={'full': 3, 'quick': 2, 'smoke': 1}[form], floors=trivial,
        published=[{'published': f'{name} positions (Vaswani et al. 2017, table 3, base and row E), WMT en-de, dev',
                    'bleu': bleu} for name, bleu in (('sinusoidal', 25.8), ('learned', 25.7))],
        shown=(('model', 'model.positions'), ('within', 'beyond', 'nll', 'source_order', 'prefix_order', 'bleu')))


def measure(subject: Subject) -> list[Row]:
    """Scores inside and beyond the training lengths, and what order is to the model; rows of each length; and, without
    positions, of decoders of one and more layers that nobody trained, with the linear map's errors by this seed."""
    task, seed = subject.composed.task, subject.composed.training.seed
    test, model, params = subject.summary['test'], subject.model, subject.params
    length = task.train_length
    rows: list[Row] = [{
        'within': test['exact_match_within'], 'beyond': test['exact_match_beyond'], 'bleu': test['bleu'],
        'nll': test['nll'], 'source_order': order.source_order(model, params, length, seed),
        'prefix_order': order.prefix_order(model, params, length, seed)}]
    lengths = subject.data.ids['test'][0].lengths - 1  # EOS
    rows += [{'length': int(row['to']), 'exact_match_at': row['mean']}
             for row in by_length(subject.right, lengths, bins_of(task.test_length, 1))]
    if subject.composed.model.positions == 'none':
        rows += [{'layers': layers, 'prefix_order_of': order.fresh_prefix_order(model, layers, length, seed)}
                 for layers in (1, 2)]
        rows += [{'offset': offset, **order.shift_errors(*TABLE, offset, seed)} for offset in OFFSETS]
    return rows


def trivial(subject: Subject) -> list[Row]:
    """What needs no model."""
    text, task = subject.data.text, subject.composed.task
    sources, references = text['test']
    groups = task.groups(sources)
    return [{'floor': name, 'bleu': metrics.bleu(lines, references).value, **{
        group: metrics.exact_match([lines[i] for i in rows], [references[i] for i in rows]).value
        for group, rows in groups.items()}} for name, lines in floors.outputs(text['train'], sources).items()]


def digits(table: Table, column: str) -> Interval:
    """To how many decimal places a column is zero, over seeds: -log10 of its mean."""
    return interval([-math.log10(max(value, 1e-12)) for value in table.per_seed(column).values()])


def verdict(table: Table) -> Verdict:
    """Quality that positions give; the bags of words, as places to which a change is zero; the map; lengths beyond."""
    both, told = (table.where({'model': 'transformer', 'model.positions': name}) for name in ('none', 'sinusoidal'))
    gain = difference(told, both, 'within')
    zero = digits(both, 'source_order')
    shallow, deep = (digits(table.where({'model': 'transformer', 'layers': layers}), 'prefix_order_of')
                     for layers in (1, 2))
    turned, random = digits(table, 'turned_error'), table.interval('random_error')
    beyond = Table.of({**row, 'within': row['beyond']} for row in told.rows if 'beyond' in row)
    kept = difference(beyond, told, 'within')
    found = [
        decide(gain, 30, f'Sinusoids gain the transformer {gain.mean:.1f} points of exact match.',
               'points of exact match'),
        decide(zero, 4, f'Without positions its encoder follows a permutation to 1e-{zero.mean:.1f}.'),
        decide(shallow, 4, f'A causal decoder of one layer is a bag of words to 1e-{shallow.mean:.1f}.'),
        decide(deep, 4, f'One of two layers is to 1e-{deep.mean:.1f} standard deviations of its logits.')]
    stack = [table.where({'model': 'decoderonly', 'model.positions': name}) for name in ('sinusoidal', 'none')]
    if all(map(len, stack)):
        price = difference(*stack, 'within')
        found.append(decide(price, 30, f'One causal stack does {price.mean:.1f} points worse without them.'))
    return all_of([*found,
                   decide(turned, 5, f'A shift turns the sinusoids, to 1e-{turned.mean:.1f}.'),
                   decide(random, 0.5, f'The best map of a random table misses by {random.mean:.2f} of its norm.'),
                   decide(kept, -10, f'Beyond the training lengths sinusoids lose {-kept.mean:.1f} points.')])


def figures(table: Table) -> dict[str, Any]:
    """Exact match over length for each encoding; what order is to each model; the linear map."""
    models = table.values('model')
    figure, axes = charts.panels(1, len(models), width=5.0)
    for axis, model in zip(axes[0], models):
        charts.lines(table.where({'model': model}), 'length', 'exact_match_at', 'model.positions', axis=axis,
                     ylim=(-3, 103), xlabel='length of the list; training ended halfway', ylabel='exact match, %',
                     title=model)
    found = {'exact match by length': figure}
    names = ['layers of a causal decoder, untrained', 'what is moved, after training']
    depth = Table.of({**row, 'decoder': f'{row["layers"]} layer' + 's' * (row['layers'] > 1)}
                     for row in table.where(lambda row: 'layers' in row).rows)
    figure, axes = charts.panels(1, 2, width=4.6, height=3.4)
    charts.bars(depth, 'decoder', 'prefix_order_of', 'model', axis=axes[0, 0], log=True, title=names[0],
                ylabel='change of the logits, std')
    moved = Table.of({**row, 'change': row[column], 'moved': name} for row in table.rows for column, name in (
        ('source_order', 'source'), ('prefix_order', 'target before')) if column in row)
    charts.bars(moved.where({'model': models[0]}), 'model.positions', 'change', 'moved', axis=axes[0, 1], log=True,
                title=names[1], ylabel='change, std')
    found['order lost: how far outputs are from following a permutation'] = figure
    kinds = {'turned_error': 'sinusoids, turned', 'fitted_error': 'sinusoids, fitted',
             'random_error': 'random, fitted'}
    maps = Table.of({**row, 'error': row[column], 'map': name} for row in table.rows
                    for column, name in kinds.items() if column in row)
    return found | {'a shift as a linear map: error of the prediction': charts.bars(
        maps, 'map', 'error', log=True, ylabel='error of PE(pos + k), share of its norm')}
