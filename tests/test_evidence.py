"""Influence of source words, permuted weights and links: by finite differences, by hand, word by word."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from seqjax.data.vocabulary import Ragged
from seqjax.models.bahdanau import Bahdanau
from seqjax.models.luong import Luong
from seqjax.studies import evidence
from seqjax.tasks.forced import forced_logits

SIZES = dict(source_size=11, target_size=9, source_length=6)
MODELS = [Luong(hidden_size=5, num_layers=1), Bahdanau(hidden_size=5)]
SOURCE = [[4, 5, 6, 7, 2], [9, 4, 9, 2], [8, 2]]
TARGET = [[4, 5, 2], [8, 7, 6, 5, 2], [3, 2]]
every = pytest.mark.parametrize('model', MODELS, ids=lambda model: type(model).__name__)


@functools.cache
def ready(model):
    model = model.clone(**SIZES)
    tokens = np.ones((1, 2), np.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens, tokens)['params']
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.7, x.shape), jnp.float32), shapes)
    return model, params, evidence.influences(model, params, Ragged.of(SOURCE), Ragged.of(TARGET)), jax.jit(
        lambda params, batch: jax.nn.log_softmax(forced_logits(model, params, batch)))


def alone(source, target):
    return evidence.batch_of(Ragged.of([source]), Ragged.of([target]))


@every
def test_gradient_times_input_is_what_fading_a_word_does(model):
    """Words that stand once in their source: the row of the table is faded, and log p told apart."""
    _, params, found, log_probs = ready(model)
    for i in (0, 2):
        batch = alone(SOURCE[i], TARGET[i])

        def at(word, size, batch=batch, target=TARGET[i]):
            table = params['source_embedding'].at[word].multiply(1 + size)
            found_TV = log_probs({**params, 'source_embedding': table}, batch)[0]
            return np.asarray(found_TV, np.float64)[np.arange(len(target)), target]

        for j, word in enumerate(SOURCE[i]):
            slope_T = (at(word, 0.01) - at(word, -0.01)) / 0.02
            np.testing.assert_allclose(found[i].gradient[:, j], np.abs(slope_T), rtol=0.02, atol=2e-4)
    assert found[0].gradient.max() > 0.05


@every
def test_a_word_that_stands_twice_has_an_influence_at_each_place(model):
    """The two together are what fading the word does; to first order they add up, signs and all."""
    gradient_TS = ready(model)[2][1].gradient
    assert (np.abs(gradient_TS[:, 0] - gradient_TS[:, 2]) > 1e-3).any()


@every
def test_leaving_out_is_the_distance_to_the_shorter_source(model):
    _, params, found, log_probs = ready(model)
    for source, target, one in zip(SOURCE, TARGET, found):
        whole_TV = np.exp(log_probs(params, alone(source, target)))[0]
        assert np.isnan(one.left_out[:, -1]).all()
        for j in range(len(source) - 1):
            part_TV = np.exp(log_probs(params, alone(source[:j] + source[j + 1:], target)))[0]
            expected_T = np.abs(whole_TV - part_TV).sum(1) / 2
            np.testing.assert_allclose(one.left_out[:, j], expected_T, rtol=1e-3, atol=1e-5)
            assert expected_T.max() > 1e-3


@every
def test_weights_are_those_that_capture_shows(model):
    sized, params, found, _ = ready(model)
    for source, target, one in zip(SOURCE, TARGET, found):
        shown = sized.capture(params, alone(source, target))
        np.testing.assert_allclose(one.weight, shown['decoder/cross_attention'][0, 0, 0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(one.weight.sum(1), 1.0, atol=1e-5)


def test_permuting_values_is_permuting_weights():
    batch = evidence.batch_of(Ragged.of([[4, 5, 6, 7, 8, 2], [9, 4, 9, 2]]), Ragged.of([[4, 2], [4, 2]]))
    rng = np.random.default_rng(0)
    memory = {'values': jnp.asarray(rng.normal(size=(2, 6, 3)), jnp.float32), 'keys': jnp.ones((2, 6, 3)),
              'mask': batch.source != 0}
    other = evidence.permuted(memory, batch)
    assert other['keys'] is memory['keys']
    for b, length in enumerate((6, 4)):
        before, after = np.asarray(memory['values'][b]), np.asarray(other['values'][b])
        order = [next(i for i in range(6) if np.array_equal(row, before[i])) for row in after]
        assert sorted(order[:length]) == list(range(length))
        assert order[length:] == list(range(length, 6))
        assert order != list(range(6))
        weights_S = np.where(np.arange(6) < length, rng.random(6), 0)
        permuted_S = np.zeros(6)
        permuted_S[order] = weights_S
        np.testing.assert_allclose(weights_S @ after, permuted_S @ before, rtol=1e-5)
    again = evidence.permuted(memory, batch._replace(row=batch.row[::-1]))
    assert not np.array_equal(again['values'], other['values'])


def test_evened_values_give_the_mean_whatever_the_weights():
    batch = evidence.batch_of(Ragged.of([[4, 5, 2], [9, 2]]), Ragged.of([[2], [2]]))
    values = jnp.arange(12.0).reshape(2, 3, 2)
    found = evidence.evened({'values': values, 'mask': 0}, batch)['values']
    np.testing.assert_allclose(found[0], [[2, 3]] * 3)
    np.testing.assert_allclose(found[1], [[7, 8]] * 3)


def test_rank_correlation_by_hand():
    a = [np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]), np.array([[0.9, 0.1]])]
    b = [np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), np.array([[5.0, 1.0]])]
    assert evidence.rank_correlation(a, b) == pytest.approx(0.0)  # one in order, one the other way, one too short
    assert evidence.rank_correlation(a, b, least=2) == pytest.approx(1 / 3)
    c = [np.array([[1.0, np.nan, 2.0, 3.0, 2.5]])]
    d = [np.array([[4.0, 0.0, 6.0, 5.0, np.nan]])]
    assert evidence.rank_correlation(c, d) == pytest.approx(stats.kendalltau([1, 2, 3], [4, 6, 5]).statistic)
    assert np.isnan(evidence.rank_correlation([np.ones((1, 3))], [np.ones((1, 3))]))


def test_links_leave_out_the_end_on_both_sides():
    weights = np.array([[0.7, 0.2, 0.1], [0.3, 0.1, 0.6], [0.1, 0.8, 0.1]])
    assert evidence.strongest_links(weights) == {(0, 0)}
    assert evidence.links_above(weights, 0.2) == {(0, 0), (1, 0), (0, 1)}
    assert evidence.links_above(weights, 0.5) == {(0, 0)}
