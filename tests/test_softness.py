"""Entropy and slope of a softmax against jax's derivative and by hand; what scaling does to both."""

import jax
import numpy as np
import pytest
from transformer_checks import SOURCE, TARGET, compiled

from seqjax.data.batches import Batch
from seqjax.studies import softness

BATCH = Batch(SOURCE, TARGET, np.ones(4, np.float32), np.arange(4, dtype=np.int32))


def test_entropy_by_hand():
    np.testing.assert_allclose(softness.entropy([[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.5, 0.25]]),
                               [0, np.log(2), 1.5 * np.log(2)])


def test_slope_is_the_norm_of_the_derivative():
    scores = np.random.default_rng(0).normal(0, 2, (5, 7)).astype(np.float32)
    expected = [np.linalg.norm(jax.jacobian(jax.nn.softmax)(row)) for row in scores]
    np.testing.assert_allclose(softness.slope(jax.nn.softmax(scores)), expected, rtol=1e-5)
    assert softness.slope([0.0, 1.0, 0.0]) == 0


def test_softness_is_of_real_words():
    """A row's entropy as a share of log S, S its own length; equal weights are 1 in both."""
    run = compiled(num_layers=1)
    flat = {**run.params, 'encoder': jax.tree_util.tree_map_with_path(
        lambda path, x: x * (path[-1].key != 'query_key_value'), run.params['encoder'])}
    found = softness.softness(run.model, flat, BATCH)
    assert (found['entropy'], found['slope']) == (pytest.approx(1), pytest.approx(1))
    assert found['gradient'] == 0  # by W_q where W_k is zero, and the other way round
    assert softness.softness(run.model, run.params, BATCH)['entropy'] < 0.95


def test_the_gradient_is_that_of_queries_and_keys():
    """Against central differences of the loss."""
    run = compiled(num_layers=1)
    tokens = np.pad(TARGET[:, :-1], ((0, 0), (1, 0)), constant_values=1)
    kernel = np.asarray(run.params['encoder']['self_attention']['query_key_value'])

    @jax.jit
    def nll(kernel):
        encoder = {**run.params['encoder'], 'self_attention': {
            **run.params['encoder']['self_attention'], 'query_key_value': kernel}}
        logits = run.model.apply({'params': {**run.params, 'encoder': encoder}}, SOURCE, tokens)
        return -(jax.nn.log_softmax(logits) * jax.nn.one_hot(TARGET, 13)).sum(-1).mean()

    squares = 0.0
    for place in np.ndindex(kernel.shape):
        if place[2] < 2:  # not of the values
            step = np.zeros_like(kernel)
            step[place] = 1e-2
            squares += ((nll(kernel + step) - nll(kernel - step)) / 2e-2) ** 2
    assert softness.softness(run.model, run.params, BATCH)['gradient'] == pytest.approx(np.sqrt(squares), rel=0.02)
