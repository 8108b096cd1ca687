"""Recipes: rungs no larger and no longer trained than published ones, and what is said of them."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.studies import recipes
from seqjax.compose import compose
from seqjax.prepared import parameter_count
from seqjax.studies import trials
from seqjax.studies.table import Table


def row(model, score, seed, reading=recipes.LIKE_FOR_LIKE, without='none', **settings):
    """A row whose resampled test sets differ by what a random generator says, for all models alike."""
    return {'model': model, **settings, 'without': without, 'weights': reading[0], 'search': reading[1],
            'training.seed': seed, 'bleu_lowercase': score,
            'resampled': (score + np.random.default_rng(0).normal(size=1000)).tolist()}


def results(best=42.0, seeds=(0, 1, 2), **scores):
    """Every rung two above its mark, but for those that `scores` says, and a long run."""
    found = []
    for seed in seeds:
        noise = 0.1 * (seed - 1)
        for model, rung in recipes.RUNGS.items():
            found.append(row(model, scores.get(model, rung.bleu + rung.margin + 2) + noise, seed))
        found.append(row('transformer', best + noise, seed, recipes.ALL, **recipes.LONG))
        found.append(row('transformer', 41.0 + noise, seed, recipes.ALL))
        found.append(row('transformer', 39.0 + noise, seed, recipes.ALL, **recipes.SMALL))
        found.append(row('transformer', 38.0 + noise, seed, recipes.ALL, without='BPE', **recipes.SMALL))
    return Table.of(found)


@pytest.mark.parametrize(('changed', 'answer'), [
    ({}, 'supported'), ({'lstm': 14.0}, 'not supported'), ({'transformer': 38.0}, 'not supported'),
    ({'best': 41.0}, 'not supported'), ({'seeds': (0,)}, 'undecided')], ids=str)
def test_each_rung_has_its_mark(changed, answer):
    found = recipes.verdict_on_text(results(**changed))
    assert found.answer == answer, found.sentence


def test_the_sentence_says_how_sure_the_order_is_and_what_ingredients_give():
    sentence = recipes.verdict_on_text(results()).sentence
    low, high = 16.76 + np.percentile(np.random.default_rng(0).normal(size=1000), [2.5, 97.5])
    assert f'LSTM like for like: 16.76 BLEU ({low:.1f} to {high:.1f} over resampled test sets), +3.00 over' in sentence
    assert 'GRU over LSTM: +6.85 BLEU (+6.85 to +6.85, p = 0.001).' in sentence
    assert 'BPE: +1.00 BLEU' in sentence
    assert 'Smoothing' not in sentence, 'no run without it'
    part = recipes.verdict_on_text(results().where(lambda row: row['model'] != 'gru'))
    assert part.answer == 'undecided'
    assert 'GRU like for like: not run.' in part.sentence
    assert 'GRU with additive attention over LSTM' in part.sentence


def test_rungs_are_no_larger_and_no_longer_than_published(tmp_path):
    """What differs from them is an ingredient, or the length of the long run; the plain command repeats a rung."""
    sizes, lacking = set(), []
    for job in trials.jobs(dataclasses.replace(recipes.recipes('full', str(tmp_path)), seeds=1)):
        name, experiment = job.trial.model, job.recipe.experiment.sized(
            source_size=8000, target_size=8000, source_length=80, target_length=80, length_ratio=1.0)
        shapes = jax.eval_shape(experiment.model.init, jax.random.key(0), *[np.ones((1, 2), np.int32)] * 2)
        size = parameter_count(shapes['params'])
        assert size <= 6e6 or name == 'transformer'
        assert size < recipes.RUNGS[name].parameters
        assert experiment.training.batch_size == 128
        long = experiment.training.epochs == recipes.LONG['training.epochs']
        small = experiment.training.epochs == recipes.SMALL['training.epochs']
        assert experiment.training.epochs <= 10 or long
        sizes.add((name, size))
        lacking.append(recipes.lacking(experiment))
        if not lacking[-1] and not long and not small:
            plain = compose('multi30k', name, [f'--task.path={tmp_path}', '--training.keep=6'])
            assert plain.experiment == job.recipe.experiment
    assert len(sizes) == 5, 'a run without an ingredient has as many parameters'
    assert lacking == ['', '', '', '', '', 'BPE', 'warm-up', 'smoothing', '']
