"""Scores and contexts against the formulas, position by position, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_recurrence import softmax

from seqjax.layers.alignment import (
    additive_scores,
    attend,
    dot_scores,
    gaussian,
    location_scores,
    predicted_centre,
    reachable,
    window,
)

B, T, S, H, A = 2, 3, 5, 4, 6
MASK = np.array([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]], bool)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_additive():
    query, keys, v = normal(B, T, A), normal(B, S, A, seed=1), normal(A, seed=2)
    scores = additive_scores(query, keys, v)
    assert scores.dtype == jnp.float32
    for b, t, s in np.ndindex(B, T, S):
        expected = np.float64(v) @ np.tanh(np.float64(query[b, t]) + keys[b, s])
        np.testing.assert_allclose(scores[b, t, s], expected, rtol=1e-5, atol=1e-6)


def test_additive_gradient_survives_its_recomputation():
    query, keys, v = normal(B, T, A), normal(B, S, A, seed=1), normal(A, seed=2)
    gradient = jax.grad(lambda q: additive_scores(q, keys, v)[0, 1, 2])(query)
    expected = np.zeros((B, T, A))
    expected[0, 1] = v * (1 - np.tanh(np.float64(query[0, 1]) + keys[0, 2]) ** 2)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_concat_is_additive_with_the_halves_of_one_matrix():
    h_t, h_s, W, v = normal(B, T, H), normal(B, S, H, seed=1), normal(2 * H, A, seed=2), normal(A, seed=3)
    scores = additive_scores(h_t @ W[:H], h_s @ W[H:], v)
    for b, t, s in np.ndindex(B, T, S):
        expected = v @ np.tanh(np.concatenate([h_t[b, t], h_s[b, s]]).astype(np.float64) @ W)
        np.testing.assert_allclose(scores[b, t, s], expected, rtol=1e-4, atol=1e-5)


def test_dot_and_general():
    query, values, W = normal(B, T, H), normal(B, S, H, seed=1), normal(H, H, seed=2)
    dot, general = dot_scores(query, values), dot_scores(query, values @ W.T)
    for b, t, s in np.ndindex(B, T, S):
        q = query[b, t].astype(np.float64)
        np.testing.assert_allclose(dot[b, t, s], q @ values[b, s], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(general[b, t, s], q @ W @ values[b, s], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('length', [3, 5, 7])
def test_location_reads_the_state_alone(length):
    query, W = normal(B, T, H), normal(H, 5, seed=1)
    scores = np.asarray(location_scores(query, W, length))
    assert scores.shape == (B, T, length)
    known = min(length, 5)
    np.testing.assert_allclose(scores[:, :, :known], query.astype(np.float64) @ W[:, :known], rtol=1e-5, atol=1e-6)
    mask = np.asarray(reachable(jnp.ones((B, length), bool), 5))
    np.testing.assert_array_equal(mask, np.tile(np.arange(length) < 5, (B, 1)))


def test_attend_is_a_mean_over_real_positions():
    scores, values = normal(B, T, S), normal(B, S, H, seed=1)
    values[0, 4] = 1e6  # padding, which must not be seen
    context, weights = attend(scores, values, MASK)
    expected = softmax(scores[0, :, :4].astype(np.float64))
    np.testing.assert_allclose(weights[0, :, :4], expected, rtol=1e-5)
    np.testing.assert_allclose(context[0], expected @ values[0, :4], rtol=1e-4, atol=1e-6)
    assert (np.asarray(weights)[0, :, 4] == 0).all()
    assert (np.asarray(weights)[1] == 0).all()
    assert (np.asarray(context)[1] == 0).all()


def test_attend_to_nothing_has_a_finite_gradient():
    gradient = jax.grad(lambda s: attend(s, normal(B, S, H), MASK)[0].sum())(normal(B, T, S))
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[1] == 0).all()
    assert np.abs(gradient[0, :, :4]).min() > 0


def test_windows_and_gaussians():
    """By hand, p_t = 2.5, D = 2 and sigma = 1: positions 1 to 4 of 5, and exp(-(s - 2.5)^2 / 2)."""
    centre = jnp.array([[2.5, 9.0]])
    np.testing.assert_array_equal(window(centre, 2, 5)[0], [[True, True, True, True, False], [False] * 5])
    np.testing.assert_array_equal(window(jnp.array([[3.0]]), 1, 5)[0, 0], [False, True, True, True, False])
    for p_t, D, exponents in ((2.5, 2, [-1.125, -0.125, -0.125, -1.125, -3.125]), (1.0, 4, [0, -0.125, -0.5])):
        found = gaussian(jnp.array([[p_t]]), D, len(exponents))[0, 0]
        np.testing.assert_allclose(found, np.exp(exponents), rtol=1e-6)


def test_predicted_centre():
    state, W, v = normal(B, T, H), normal(H, A, seed=1), normal(A, seed=2)
    centre = predicted_centre(state, W, v, jnp.array([4, 0]))
    expected = 4 / (1 + np.exp(-(np.tanh(np.float64(state) @ W) @ v)))
    np.testing.assert_allclose(centre[0], expected[0], rtol=1e-5)
    np.testing.assert_array_equal(centre[1], 0)


def test_attend_within_a_window():
    scores, values = normal(B, T, S), normal(B, S, H, seed=1)
    inside = np.zeros((B, T, S), bool)
    inside[:, 0, 1:3] = inside[:, 1, 3:] = True  # the third target position has nothing to look at
    factor = np.abs(normal(B, T, S, seed=2))
    context, weights = attend(scores, values, MASK, inside, factor)
    expected = np.zeros((T, S))
    expected[0, 1:3] = softmax(np.float64(scores[0, 0, 1:3])) * factor[0, 0, 1:3]
    expected[1, 3] = factor[0, 1, 3]  # the fifth is padding
    np.testing.assert_allclose(weights[0], expected, rtol=1e-5)
    np.testing.assert_allclose(context[0], expected @ values[0], rtol=1e-4, atol=1e-6)
    assert (np.asarray(weights)[1] == 0).all()
