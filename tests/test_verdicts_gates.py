"""The verdicts of gates, depth and whispers on made-up results: each comes out each way, by what the numbers say."""

import pytest
from test_studies_verdicts import table

from seqjax import catalogue
from seqjax.studies.table import Table


def gates(low=-30.0, high=15.0, kept=-0.5, burst=2.0, lstm=95.0, spread=0.1):
    """A plain network and LSTMs of three forget biases, over gains; and what the verdict does not read."""
    def lines(settings, over, far):
        return [(settings | {'when': 'start', 'gain': gain}, {'over': x}) for gain, x in over.items()] + [
            (settings, {'far': far})]

    plain = {'model': 'rnn', 'optimizer.clip_norm': 1.0}
    usual = {'model': 'lstm', 'optimizer.clip_norm': 1.0}
    found = lines(plain, {0.5: low, 1.0: -4.0, 4.0: high, 8.0: 30.0}, 40.0)
    for bias in (0.0, 1.0, 3.0):
        found += lines(usual | {'model.forget_bias': bias}, {1.0: kept, 8.0: burst}, lstm)
    for other in ({'model.cut': 'cell'}, {'optimizer.clip_norm': None}, {'model.recurrent_gain': 4.0}):
        found += lines(usual | other, {1.0: -99.0, 8.0: 99.0}, 0.0)
        found += lines(plain | other, {0.5: 0.0, 4.0: 0.0}, 100.0)
    return table(found, spread, {'model': 'lstm'})


def depth(deep=100.0, alone=15.0, after=20.0, bare=60.0, spread=0.5):
    """Stacks of 1 and 24 layers; a long warm-up mends what the short one spoils and is not read."""
    kinds = [(True, {'model.norm': 'before'}, deep), (True, {'model.norm': 'after'}, after),
             (True, {'model.normalisation': 'none'}, bare), (False, {'model.norm': 'before'}, alone),
             (False, {'model.norm': 'after'}, alone - 3), (False, {'model.normalisation': 'none'}, alone - 3)]
    found = [({'model.residual': residual, 'model.num_layers': layers, 'optimizer.warmup_steps': 15} | norm,
              {'recall': value if layers == 24 else 99.0}) for residual, norm, value in kinds for layers in (1, 24)]
    found.append(({'model.residual': True, 'model.norm': 'after', 'model.num_layers': 24,
                   'optimizer.warmup_steps': 150}, {'recall': 100.0}))
    return table(found, spread, {'model.norm': 'before', 'model.residual': True, 'model.num_layers': 24})


def whispers(asked=100.0, told=40.0, weighed=90.0, mean=70.0, several=95.0, one=30.0, spread=0.5):
    """A chain, the mean and attention; two layers and one."""
    found = [({'task.kind': 'recall', 'model': 'gru'}, {'hard': told}),
             ({'task.kind': 'recall', 'model': 'gru', 'model.context': 'mean'}, {'hard': 50.0}),
             ({'task.kind': 'recall', 'model': 'bahdanau'}, {'hard': asked}),
             ({'task.kind': 'witnesses', 'model': 'gru'}, {'hard': 99.0}),
             ({'task.kind': 'witnesses', 'model': 'gru', 'model.context': 'mean'}, {'hard': mean}),
             ({'task.kind': 'witnesses', 'model': 'bahdanau'}, {'hard': weighed}),
             ({'task.kind': 'hops', 'model.num_layers': 2}, {'hard': several}),
             ({'task.kind': 'hops', 'model.num_layers': 1}, {'hard': one})]
    return table(found, spread, {'model': 'bahdanau'})


MADE = {'gates': gates, 'depth': depth, 'whispers': whispers}
CASES = [
    ('gates', {}, 'supported'),
    ('gates', dict(low=-1.0), 'not supported'),
    ('gates', dict(high=-5.0), 'not supported'),
    ('gates', dict(kept=-13.0), 'not supported'),
    ('gates', dict(burst=10.0), 'not supported'),
    ('gates', dict(lstm=45.0), 'not supported'),
    ('gates', dict(kept=-3.0, spread=1.0), 'undecided'),
    ('depth', {}, 'supported'),
    ('depth', dict(alone=95.0), 'not supported'),
    ('depth', dict(deep=60.0, bare=10.0), 'not supported'),
    ('depth', dict(after=99.0), 'not supported'),
    ('depth', dict(bare=99.0), 'not supported'),
    ('depth', dict(bare=90.0, spread=5.0), 'undecided'),
    ('whispers', {}, 'supported'),
    ('whispers', dict(told=99.0), 'not supported'),
    ('whispers', dict(mean=89.0), 'not supported'),
    ('whispers', dict(one=94.0), 'not supported'),
    ('whispers', dict(told=80.0, spread=5.0), 'undecided'),
]


@pytest.mark.parametrize(('name', 'numbers', 'answer'), CASES, ids=lambda value: str(value))
def test_verdicts_come_out_each_way(name, numbers, answer):
    found = catalogue.load('study', name)('full').verdict(MADE[name](**numbers))
    assert found.answer == answer, found.sentence
    assert found.low <= found.effect <= found.high


@pytest.mark.parametrize('name', list(MADE))
def test_one_seed_decides_nothing(name):
    one = MADE[name]().where({'training.seed': 0})
    assert catalogue.load('study', name)('full').verdict(one).answer == 'undecided'


def test_effects_are_those_of_the_numbers():
    effect = {name: catalogue.load('study', name)('full').verdict(made()).effect for name, made in MADE.items()}
    assert effect == pytest.approx({'gates': 30.0, 'depth': 85.0, 'whispers': 60.0}, rel=0.01)


def test_one_forget_bias_that_forgets_is_enough_and_is_named():
    made = gates()
    forgets = Table.of({**row, 'over': -13.0} if row.get('model.forget_bias') == 0 and row.get('gain') == 1 else row
                       for row in made.rows)
    found = catalogue.load('study', 'gates')('full').verdict(forgets)
    assert found.answer == 'not supported'
    assert 'forget bias 0 an LSTM\'s is 10^-13.0 times; kept would be a thousandth or more. (not supported)' in (
        found.sentence)
    assert found.sentence.count('(not supported)') == 1


def test_the_floors_of_witnesses_are_in_order():
    """More voices help a poll, weights help more, and a chain loses nearly everything."""
    import types

    from experiments.studies import whispers as module
    from seqjax.tasks.puzzles import Puzzle
    rows = {row['floor']: row for row in module.trivial(types.SimpleNamespace(
        composed=types.SimpleNamespace(task=Puzzle())))}
    random, poll, best, last = (rows[name]['hard'] for name in rows)
    assert last == pytest.approx(random, abs=0.5)
    assert random + 30 < poll < best - 5 < 100
