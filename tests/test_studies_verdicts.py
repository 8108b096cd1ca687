"""Each study's verdict on made-up results: it comes out each way, by what the numbers say and by nothing else."""

import itertools
import types

import numpy as np
import pytest

from seqjax import catalogue
from seqjax.studies.table import Table
from seqjax.studies.timing import Time
from seqjax.tasks.corpora import Reverse

NOISE = (-1.0, 0.0, 1.0)


def table(lines, spread, ours):
    """Rows of three seeds: the numbers of each line, moved by the seed's share of `spread`.

    Lines whose settings agree with `ours` move one way, the others the other way, so that a difference is no surer than
    what it is made of.
    """
    rows = []
    for (settings, numbers), (seed, noise) in itertools.product(lines, enumerate(NOISE)):
        sign = 1 if ours.items() <= settings.items() else -1
        rows.append({**settings, 'training.seed': seed, **{
            name: value + sign * noise * spread for name, value in numbers.items()}})
    return Table.of(rows)


def bottleneck(short=100.0, long=5.0, attention=98.0, held=(10.0, 30.0), spread=0.5):
    """Fixed vectors of which the gru is the best, narrow and wide ones, and Bahdanau's attention."""
    lines = [({'experiment': 'reverse', 'model': model, 'model.hidden_size': 128},
              {'short': short, 'long': long - less, 'held': sum(held) / 2})
             for model, less in (('rnn', 3), ('lstm', 1), ('gru', 0))]
    lines += [({'experiment': 'reverse', 'model': 'gru', 'model.hidden_size': width},
               {'short': short, 'long': long, 'held': tokens}) for width, tokens in zip((32, 256), held)]
    lines += [({'experiment': 'reverse', 'model': 'bahdanau', 'model.hidden_size': 64},
               {'short': 100.0, 'long': attention, 'held': 59.0}),
              # Reads backwards: another question, and no fixed vector of the comparison.
              ({'experiment': 'reverse', 'model': 'gru', 'model.hidden_size': 128, 'model.reverse_source': True},
               {'short': 100.0, 'long': 99.0, 'held': 60.0})]
    return table(lines, spread, {'model': 'bahdanau'})


def scores(content=20.0, location=40.0, tau=0.7, plain=95.0, permuted=5.0, spread=0.02):
    """Each score asked from each state, and Bahdanau's attention, which the verdict does not read."""
    lines = [({'model': 'luong', 'model.score': score, 'model.state': state},
              {'aer': location if score == 'location' else content, 'tau_left_out': tau, 'plain': plain,
               'permuted': permuted})
             for score in ('dot', 'general', 'concat', 'location') for state in ('current', 'previous')]
    lines.append(({'model': 'bahdanau'}, {'aer': 99.0, 'tau_left_out': 0.0, 'plain': 0.0, 'permuted': 99.0}))
    return table(lines, spread, {'model.score': 'location'})


def parallelism(exponent=1.8, quick=1.0, long=200.0, generation=300.0, spread=0.01, sizes=(1,)):
    """A gru of exponent 1, and a transformer."""
    lines = []
    for rows in sizes:
        for model, slope, short, longest, written in (('gru', 1.0, 2.0, 100.0, 150.0),
                                                      ('transformer', exponent, quick, long, generation)):
            where = {'model': model, 'training.batch_size': rows}
            lines += [(where | {'phase': 'training step'}, {'slope_long': slope, 'short': short, 'long': longest}),
                      (where | {'phase': 'generation'}, {'slope_long': slope, 'short': short, 'long': written})]
            lines += [(where | {'phase': 'training step', 'length': length}, {'milliseconds_at': time * short})
                      for length, time in ((16, 1.0), (64, 4.0 ** slope))]
    return table(lines, spread, {'model': 'transformer'})


def decoding(errors=(8.0, 0.2), match=(80.0, 82.0, 82.1), spread=0.01):
    """Greedy search, a beam of 5 and one of 30, over digits and over French."""
    return table([({'task.target': target, 'beam': beam, 'penalty': 0.0},
                   {'search_errors': (*errors, 0.0)[i], 'exact_match': match[i]})
                  for target in ('digits', 'fr') for i, beam in enumerate((1, 5, 30))], spread, {'beam': 5})


MADE = {'bottleneck': bottleneck, 'scores': scores, 'parallelism': parallelism, 'decoding': decoding}
CASES = [
    ('bottleneck', {}, 'supported'),
    ('bottleneck', dict(long=80.0), 'not supported'),
    ('bottleneck', dict(short=80.0), 'not supported'),
    ('bottleneck', dict(held=(30.0, 30.0)), 'not supported'),
    ('bottleneck', dict(held=(30.0, 10.0)), 'not supported'),
    ('bottleneck', dict(long=68.0, spread=5.0), 'undecided'),
    ('scores', {}, 'supported'),
    ('scores', dict(location=21.0), 'not supported'),
    ('scores', dict(tau=0.2), 'not supported'),
    ('scores', dict(permuted=90.0), 'not supported'),
    ('scores', dict(tau=0.5, spread=0.1), 'undecided'),
    ('parallelism', {}, 'supported'),
    ('parallelism', dict(exponent=1.1), 'not supported'),
    ('parallelism', dict(quick=4.0), 'not supported'),
    ('parallelism', dict(long=50.0), 'not supported'),
    ('parallelism', dict(generation=50.0), 'not supported'),
    ('parallelism', dict(exponent=1.5, spread=0.2), 'undecided'),
    ('decoding', {}, 'supported'),
    ('decoding', dict(errors=(8.0, 7.0)), 'not supported'),
    ('decoding', dict(match=(80.0, 79.0, 79.0)), 'not supported'),
    ('decoding', dict(match=(80.0, 82.0, 85.0)), 'not supported'),
    ('decoding', dict(match=(80.0, 80.1, 80.1), spread=0.1), 'undecided'),
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
    assert effect == pytest.approx({'bottleneck': 93.0, 'scores': 20.0, 'parallelism': 0.8, 'decoding': 97.5}, rel=0.01)


def test_one_size_of_batch_that_disagrees_is_enough():
    both = parallelism(sizes=(1, 16))
    slow = Table.of({**row, 'short': 9.0} if row['training.batch_size'] == 16 and row['model'] == 'transformer' else row
                    for row in both.rows)
    verdict = catalogue.load('study', 'parallelism')('full').verdict
    assert verdict(both).answer == 'supported'
    assert verdict(slow).answer == 'not supported'


def test_measured_slopes_are_those_of_the_times(monkeypatch):
    """Times of a power law below 512 words and of another above."""
    from experiments.studies import parallelism as module

    def alternating(calls, repeats, budget):
        return {phase: Time(*[max(length, length**2 / 512) / 1000] * 3, repeats) for phase, length in calls.items()}

    monkeypatch.setattr(module, 'alternating', alternating)
    monkeypatch.setattr(module, 'random_batch', lambda model, rows, source, target: source)
    monkeypatch.setattr(module, 'PHASES', {'training step': lambda subject, length: length})
    subject = types.SimpleNamespace(model=None, composed=types.SimpleNamespace(training=types.SimpleNamespace(
        batch_size=1)))
    overall, *rows = module.measure(subject, 2048)
    assert [row['length'] for row in rows] == [16, 32, 64, 128, 256, 512, 1024, 2048]
    assert overall['slope_long'] == pytest.approx(2.0)
    assert 1 < overall['slope'] < 2
    assert overall['short'] == pytest.approx(32)
    assert overall['long'] == pytest.approx(2048**2 / 512)


def test_short_and_long_sources_are_told_apart():
    from experiments.studies import bottleneck as module
    span = module.spans(Reverse(test_length=60))
    assert span == (10, 51, 60)
    assert module.parts([100, 0, 0, 100], np.array([10, 11, 50, 51]), span) == {'short': 100, 'long': 100}
    assert module.parts([50], np.array([30]), span) == {}
    assert module.spans(Reverse(test_length=5)) == (1, 5, 5)
