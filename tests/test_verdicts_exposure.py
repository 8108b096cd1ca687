"""The verdicts of exposure and scaling on made-up results: each way, by what the numbers say and by nothing else."""

import types

import numpy as np
import pytest

from experiments.studies import exposure as exposing
from experiments.studies import scaling as scale
from seqjax import catalogue
from seqjax.studies.table import Table

SEED = 'training.seed'


def exposure(gap=(6.0, 3.0), growth=4.0, lost=(10.0, 6.0), steps=(100.0, 130.0), spread=0.2):
    """Two models taught with true words and with some of their own, and with own words alone, which nothing reads."""
    rows = []
    for seed, noise in enumerate((-1.0, 0.0, 1.0)):
        for model in ('gru', 'transformer'):
            for i, (way, sign) in enumerate((('none', 1), ('linear', -1))):
                moved = sign * noise * spread
                rows.append({'model': model, 'task.sampling': way, SEED: seed, 'gap': gap[i] + moved,
                             'gap_beginning': 1.0, 'gap_end': 1.0 + growth + moved, 'lost': lost[i] + moved,
                             'steps_to_loss': steps[i] + 10 * moved})
            rows.append({'model': model, 'task.sampling': 'constant', SEED: seed, 'gap': 99.0, 'gap_beginning': 0.0,
                         'gap_end': 0.0, 'lost': 99.0, 'steps_to_loss': 1.0})
    return Table.of(rows)


def scaling(gru=0.2, bahdanau=0.5, transformer=0.9, spread=0.01, compute=(0.1, 0.2, 0.4), data=0.3):
    """Losses by laws of these exponents, moved by a share; the law of data is the same for all."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(3):
        for model, exponent, cost in zip(scale.FAMILIES, (gru, bahdanau, transformer), compute):
            for width in (8, 16, 24, 48):
                where = {'model': model, 'model.hidden_size': width, SEED: seed}
                size = 10.0 * width ** 2
                full = where | {'task.train_size': 20000}
                rows.append(full | {'non_embedding': size, 'flops': size * 1e6, 'milliseconds': 1.0,
                                    'loss': 50 * size ** -exponent * np.exp(spread * rng.normal())})
                # All on one line: whichever width is the cheapest, the frontier is the law.
                rows += [full | {'compute': x, 'loss_at': 100 * x ** -cost * np.exp(spread * rng.normal())}
                         for x in size * 1e5 * np.array([1, 2, 4, 8])]
            at_all = next(row['loss'] for row in rows if row['model'] == model and row[SEED] == seed
                          and row['model.hidden_size'] == scale.WIDTH and 'loss' in row)
            rows += [{'model': model, 'model.hidden_size': scale.WIDTH, SEED: seed, 'task.train_size': size,
                      'non_embedding': 10.0 * scale.WIDTH ** 2, 'loss': at_all * (20000 / size) ** data}
                     for size in (250, 1000)]
    return Table.of(rows)


MADE = {'exposure': exposure, 'scaling': scaling}
CASES = [
    ('exposure', {}, 'supported'),
    ('exposure', dict(gap=(6.0, 6.0)), 'not supported'),
    ('exposure', dict(gap=(0.5, -3.0)), 'not supported'),
    ('exposure', dict(growth=0.0), 'not supported'),
    ('exposure', dict(lost=(10.0, 10.0)), 'not supported'),
    ('exposure', dict(steps=(130.0, 100.0)), 'not supported'),
    ('exposure', dict(gap=(4.0, 3.0), spread=0.5), 'undecided'),
    ('scaling', {}, 'supported'),
    ('scaling', dict(bahdanau=1.2), 'not supported'),
    ('scaling', dict(gru=1.2), 'not supported'),
    ('scaling', dict(compute=(0.1, 0.6, 0.4)), 'not supported'),
    ('scaling', dict(bahdanau=0.9, spread=0.05), 'undecided'),
]


@pytest.mark.parametrize(('name', 'numbers', 'answer'), CASES, ids=lambda value: str(value))
def test_verdicts_come_out_each_way(name, numbers, answer):
    found = catalogue.load('study', name)('full').verdict(MADE[name](**numbers))
    assert found.answer == answer, found.sentence
    assert found.low <= found.effect <= found.high


@pytest.mark.parametrize('name', list(MADE))
def test_one_seed_decides_nothing(name):
    one = MADE[name]().where({SEED: 0})
    assert catalogue.load('study', name)('full').verdict(one).answer == 'undecided'


def test_effects_are_those_of_the_numbers():
    effect = {name: catalogue.load('study', name)('full').verdict(made()).effect for name, made in MADE.items()}
    assert effect == pytest.approx({'exposure': 3.0, 'scaling': 0.7}, rel=0.05)


def test_the_sentence_tells_every_law():
    """Parameters, those with a floor, and data, whose exponent is one for all."""
    sentence = catalogue.load('study', 'scaling')('full').verdict(scaling(spread=1e-6)).sentence
    assert 'Exponents of parameters: gru 0.20 [0.20, 0.20], losses off the law by 0 %; bahdanau 0.50' in sentence
    assert 'With a floor: gru 0.20' in sentence
    assert sentence.endswith('Of data: gru 0.30 [0.30, 0.30]; bahdanau 0.30 [0.30, 0.30]; transformer 0.30 [0.30, '
                             '0.30].')


@pytest.mark.parametrize('name', list(MADE))
def test_figures_are_drawn_of_full_results(name):
    """Of columns that the verdict does not read, too; `scaling` has data on one axis only in full."""
    table = MADE[name]()
    if name == 'exposure':
        table = Table.of([*table.rows, *({**row, 'place': 0.5, 'gap_at': 1.0} for row in table.rows), *(
            {**row, 'reads': reads, 'distance': 1, 'lost_at': 1.0} for row in table.rows for reads in ('true', 'own'))])
    found = catalogue.load('study', name)('full').figures(table)
    assert [len(figure.axes) for figure in found.values()] == {'exposure': [2, 4], 'scaling': [3, 1, 2]}[name]


def test_the_cheapest_is_the_least_of_the_widths():
    rows = [{SEED: 0, 'model.hidden_size': width, 'compute': x, 'loss_at': y} for width, curve in (
        (8, {1.0: 8.0, 2.0: 4.0, 4.0: 4.0, 8.0: 4.0}), (16, {4.0: 8.0, 8.0: 2.0, 16.0: 1.0, 32.0: 1.0}))
        for x, y in curve.items()]
    found = scale.cheapest(Table.of(rows), 5)
    assert found.column('compute') == pytest.approx([2, 4, 8, 16, 32])
    assert found.column('loss') == pytest.approx([4, 4, 2, 1, 1])


def test_steps_to_a_loss_lie_between_records():
    assert exposing.reached([10, 20, 30], [3.0, 2.0, 0.5], 1.0) == pytest.approx(20 + 10 * 2 / 3)
    assert exposing.reached([10, 20], [0.9, 0.5], 1.0) == 10
    assert exposing.reached([10, 20], [3.0, 2.0], 1.0) == 20, 'never: at least so many'


def test_exposure_measures_what_was_read(monkeypatch):
    """A decoder that is right after true words, never after its own, and wrong for two words after a wrong one."""
    def right_after(evaluator, params, source, target, decoding, readings):
        found = []
        for own, wrong in readings:
            rows = []
            for i, length in enumerate(target.lengths):
                right = np.full(length, not own)
                if wrong is not None:
                    right[:wrong[0][i] + 1] = True
                    right[wrong[0][i] + 1:wrong[0][i] + 3] = False
                rows.append(right)
            found.append(rows)
        return found

    monkeypatch.setattr(exposing, 'right_after', right_after)
    target = types.SimpleNamespace(lengths=np.array([12] * 20), count=lambda: 20, row=lambda i: np.arange(4, 16))
    subject = types.SimpleNamespace(
        records=[{'step': step, 'split': 'valid', 'nll': nll} for step, nll in ((10, 3.0), (20, 0.5))],
        data=types.SimpleNamespace(ids={'test': (None, target)}), evaluator=None, params=None,
        codec=types.SimpleNamespace(target=types.SimpleNamespace(size=20)),
        composed=types.SimpleNamespace(decoding=None),
        summary={'parameters': 7, 'test': {'exact_match': 0.0, 'bleu': 0.0, 'nll': 1.0}})
    overall, *rows = exposing.measure(subject)
    assert {name: overall[name] for name in ('forced', 'free', 'gap', 'gap_beginning', 'gap_end')} == {
        'forced': 100, 'free': 0, 'gap': 100, 'gap_beginning': 100, 'gap_end': 100}
    assert overall['lost'] == pytest.approx(200 / 3)
    assert overall['recovered'] == pytest.approx(100 / 3)
    assert overall['steps_to_loss'] == pytest.approx(20 - 10 * (exposing.LEVEL - 0.5) / 2.5)
    by_distance = {(row['reads'], row['distance']): row['lost_at'] for row in rows if 'reads' in row}
    assert [by_distance['true', d] for d in (1, 2, 3, 4)] == [100, 100, 0, 0]
    assert [by_distance['own', d] for d in (1, 2, 3, 4)] == [100, 100, 100, 100]
