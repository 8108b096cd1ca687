"""Dropout: its rate, its scale, and that only a key turns it on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.layers.dropout import Dropout

X = jnp.full((200, 100), 3.0)


def drop(rate, key, x=X):
    rngs = None if key is None else {'dropout': jax.random.key(key)}
    return np.asarray(Dropout(rate).apply({}, x, rngs=rngs))


def test_without_a_key_nothing_changes():
    assert Dropout(0.5).apply({}, X) is X
    np.testing.assert_array_equal(drop(0.0, key=0), X)


@pytest.mark.parametrize('rate', [0.1, 0.5, 0.9])
def test_drops_at_its_rate_and_keeps_the_mean(rate):
    y = drop(rate, key=0)
    dropped = y == 0
    sigma = (rate * (1 - rate) / y.size) ** 0.5
    assert abs(dropped.mean() - rate) < 5 * sigma
    np.testing.assert_allclose(y[~dropped], 3.0 / (1 - rate), rtol=1e-6)
    # Rows and columns are dropped alike: no unit, and no token, is dropped or kept as a whole.
    assert abs(dropped.mean(axis=0) - rate).max() < 6 * (rate * (1 - rate) / 200) ** 0.5
    assert abs(dropped.mean(axis=1) - rate).max() < 6 * (rate * (1 - rate) / 100) ** 0.5


def test_the_key_decides_which():
    np.testing.assert_array_equal(drop(0.5, key=0), drop(0.5, key=0))
    agree = ((drop(0.5, key=0) == 0) == (drop(0.5, key=1) == 0)).mean()
    assert abs(agree - 0.5) < 0.02


def test_gradient_goes_where_values_go():
    gradient = jax.grad(lambda x: Dropout(0.5).apply({}, x, rngs={'dropout': jax.random.key(0)}).sum())(X)
    np.testing.assert_array_equal(gradient, drop(0.5, key=0) / 3.0)


def test_dtype_is_kept():
    y = Dropout(0.3).apply({}, X.astype(jnp.bfloat16), rngs={'dropout': jax.random.key(0)})
    assert y.dtype == jnp.bfloat16


def test_a_rate_next_to_one_still_runs():
    y = drop(0.999999, key=0)
    assert np.isfinite(y).all()
    assert (y == 0).mean() > 0.99
