"""Each study's verdict on made-up results: it comes out each way, by what the numbers say and by nothing else."""

import types

import numpy as np
import pytest
from made_results import MADE, SEED, parallelism, verdict

from seqjax import catalogue
from seqjax.studies.table import Table
from seqjax.studies.timing import Time
from seqjax.tasks.corpora import Reverse


def test_every_study_has_results_made_up():
    assert set(MADE) == {name for name in catalogue.studies()
                         if catalogue.load('study', name)('full').verdict is not None}
    for name, made in MADE.items():
        assert {answer for _, answer in made.cases} == {'supported', 'not supported', 'undecided'}, name


@pytest.mark.parametrize(('name', 'numbers', 'answer'), [
    (name, *case) for name, made in MADE.items() for case in made.cases], ids=str)
def test_verdicts_come_out_each_way(name, numbers, answer):
    found = verdict(name, MADE[name].results(**numbers))
    assert found.answer == answer, found.sentence
    assert found.low <= found.effect <= found.high


@pytest.mark.parametrize('name', MADE)
def test_one_seed_decides_nothing(name):
    assert verdict(name, MADE[name].results().where({SEED: 0})).answer == 'undecided'


@pytest.mark.parametrize('name', MADE)
def test_effects_are_those_of_the_numbers(name):
    assert verdict(name, MADE[name].results()).effect == pytest.approx(MADE[name].effect, rel=MADE[name].rel)


def test_one_size_of_batch_that_disagrees_is_enough():
    both = parallelism(sizes=(1, 16))
    slow = Table.of({**row, 'short': 9.0} if row['training.batch_size'] == 16 and row['model'] == 'transformer' else row
                    for row in both.rows)
    assert verdict('parallelism', both).answer == 'supported'
    assert verdict('parallelism', slow).answer == 'not supported'


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


def test_of_fixed_vectors_that_all_lose_long_sources_the_best_on_short_ones_is_compared():
    from experiments.studies.bottleneck import bottleneck

    lines = [{'experiment': 'numerals', 'model': model, 'model.hidden_size': 128, 'training.seed': seed,
              'short': short + seed, 'long': 0.0, 'held': 1.0}
             for model, short in (('rnn', 1.0), ('lstm', 98.0), ('gru', 50.0)) for seed in range(3)]
    lines += [{'experiment': 'numerals', 'model': 'bahdanau', 'model.hidden_size': 64, 'training.seed': seed,
               'short': 100.0, 'long': 99.0, 'held': 40.0} for seed in range(3)]
    answer = bottleneck().verdict(Table.of(lines))
    assert 'above the best fixed vector, lstm.' in answer.sentence
    assert 'On the shortest of numerals the fixed vector is at -1.0 points to it. (supported)' in answer.sentence
