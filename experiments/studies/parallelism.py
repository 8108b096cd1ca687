"""What it costs to read word by word: time over the length of the sequence."""

import math
from typing import Any

from seqjax.studies import charts
from seqjax.studies.axes import Settings, cross
from seqjax.studies.passes import forwarding, generating, random_batch, stepping
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Interval, Row, Table, interval
from seqjax.studies.timing import alternating, crossing, slope

__all__ = ['parallelism']

PHASES = {'training step': stepping, 'forward pass': forwarding, 'generation': generating}
SHORT = 32
MODELS: dict[str, Settings] = {
    'gru': {'model.num_layers': 1, 'model.bidirectional': False, 'model.embedding_size': 64},
    'bahdanau': {'model.num_layers': 1, 'model.embedding_size': 64},
    'transformer': {'model.num_layers': 1, 'model.num_heads': 2, 'model.feedforward_size': 256}}


def parallelism(form: Form = 'full') -> Study:
    """Attention reads a sequence at once: quicker than recurrence on short ones, slower on long ones.

    Vaswani et al. 2017, section 4 and table 1: n^2 d work in O(1) sequential steps against n d^2 in O(n). One layer of
    width 64, one sequence and sixteen at a time, 16 to 4,096 words (1,024 for sixteen); times are medians of repeats
    after compiling, the three phases in turn. A seed is a repetition of everything.

    python launch.py --study=parallelism [--quick | --smoke]
    Cost: eleven minutes on two idle cores. Where attention is slower depends on the machine; on an accelerator the same
    command says it of that.
    """
    lengths = {'full': {1: 4096, 16: 1024}, 'quick': {1: 512}, 'smoke': {2: 16}}[form]
    models = tuple(MODELS) if form == 'full' else ('gru', 'transformer')
    axes = cross([{'model': model} | MODELS[model] for model in models],
                 [{'training.batch_size': rows, 'decoding.batch_size': rows} for rows in lengths])
    return Study(
        claim='Attention trains quicker than recurrence on short sequences and slower on long ones, since its work '
              'grows with the square of the length; written word by word, it is no quicker.',
        source='Vaswani et al. 2017, section 4 and table 1',
        expect='Slopes of 1 for recurrence and towards 2 for attention; lines that cross later the fewer sequences '
               'there are, as recurrence then leaves the machine idle; generation slower by a constant factor.',
        base={'experiment': 'reverse', 'task.highest': 9, 'task.train_size': 100, 'task.valid_size': 10,
              'task.test_size': 10, 'task.buckets': 1, 'model.hidden_size': 64 if form != 'smoke' else 8,
              'model.dropout': 0.0, 'training.mesh': 'data=1'},
        axes=axes, measure=lambda subject: measure(subject, lengths[subject.composed.training.batch_size]),
        verdict=verdict, figures=figures, seeds=3 if form == 'full' else 2 if form == 'quick' else 1, trains=False,
        workers=1, shown=(('model', 'training.batch_size', 'phase'), ('slope', 'slope_long', 'short', 'long')))


def measure(subject: Subject, longest: int) -> list[Row]:
    """Seconds of each phase at each length; the exponent over all lengths, and over those from a quarter of the longest
    on ('slope_long'); milliseconds at the shortest that is compared and at the longest."""
    lengths = [2**k for k in range(4, longest.bit_length())]
    rows: list[Row] = []
    for length in lengths:
        batch = random_batch(subject.model, subject.composed.training.batch_size, length, length)
        times = alternating({phase: call(subject, batch) for phase, call in PHASES.items()}, repeats=7, budget=12)
        rows += [{'phase': phase, 'length': length, 'milliseconds_at': 1000 * time.median, 'low': 1000 * time.low,
                  'high': 1000 * time.high, 'repeats': time.repeats} for phase, time in times.items()]
    found: list[Row] = []
    for phase in PHASES:
        at = {row['length']: row['milliseconds_at'] for row in rows if row['phase'] == phase}
        tail = [length for length in lengths if length >= longest // 4]
        found.append({'phase': phase, 'slope': slope(lengths, list(at.values())),
                      'slope_long': slope(tail, [at[length] for length in tail]),
                      'short': at[min(SHORT, longest)], 'long': at[longest]})
    return found + rows


def ratio(part: Table, column: str, over: str = 'transformer', under: str = 'gru') -> Interval:
    """How many times the one model's column is the other's: log2, since times spread by factors; a value a seed."""
    a, b = (part.where({'model': model}).per_seed(column) for model in (over, under))
    return interval([math.log2(a[seed] / b[seed]) for seed in a if seed in b])


def crossings(part: Table, ours: str = 'transformer', theirs: str = 'gru') -> list[float]:
    """The length from which on `ours` is the slower, for each seed; infinity where it never is."""
    found = []
    for seed in part.values('training.seed'):
        sides = [charts.series(part.where({'training.seed': seed, 'model': model}), 'length', 'milliseconds_at')
                 for model in (ours, theirs)]
        both = sorted(set(sides[0]) & set(sides[1]))
        if both:
            found.append(crossing(both, *([side[length].mean for length in both] for side in sides)))
    return found


def verdict(table: Table) -> Verdict:
    """Slopes of long sequences, times of short ones, and generation, for each number of sequences."""
    found = []
    for rows in table.values('training.batch_size'):
        part = table.where({'training.batch_size': rows})
        training, generation = (part.where({'phase': phase}) for phase in ('training step', 'generation'))
        steeper = interval([a - b for a, b in zip(*(training.where({'model': model}).per_seed('slope_long').values()
                                                    for model in ('transformer', 'gru')))])
        quicker = ratio(training, 'short', 'gru', 'transformer')
        longest = ratio(training, 'long')
        slower = ratio(generation, 'long')
        where = interval([math.log2(x) for x in crossings(training) if 0 < x < math.inf])
        place = f'the lines cross at {2 ** where.mean:.0f} words' if where.count else 'the lines do not cross'
        found += [decide(steeper, 0.5, f"With {rows} at a time, attention's exponent is {steeper.mean:+.2f} to that of "
                                       f'recurrence, and {place}.', 'in the exponent of the length'),
                  decide(quicker, 0, f'At {SHORT} words it trains {2 ** quicker.mean:.2f} times as quickly.'),
                  decide(longest, 0, f'On the longest sequences a step takes {2 ** longest.mean:.2f} times as long.'),
                  decide(slower, 0, f'Generating these takes {2 ** slower.mean:.2f} times as long.')]
    return all_of(found)


def figures(table: Table) -> dict[str, Any]:
    """Time over length, both logarithmic, for each phase and number of sequences."""
    sizes = table.values('training.batch_size')
    figure, axes = charts.panels(len(sizes), len(PHASES), width=3.9)
    for line, rows in zip(axes, sizes):
        for axis, phase in zip(line, PHASES):
            part = table.where({'training.batch_size': rows, 'phase': phase})
            charts.lines(part, 'length', 'milliseconds_at', axis=axis, logx=True, logy=True, xlabel='words',
                         ylabel='milliseconds', title=f'{phase}, {rows} at a time')
    return {'time by length of the sequence': figure}
