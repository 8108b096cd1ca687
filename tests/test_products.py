"""Products with weights and between rows: values and gradients are those of the plain product, in either dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from seqjax.layers import products

RNG = np.random.default_rng(0)
X, KERNEL, TABLE = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 3, 4), (4, 5), (6, 4)))


@pytest.mark.parametrize(('function', 'weight', 'value'), [
    (products.matmul, KERNEL, X.astype(float) @ KERNEL), (products.logits, TABLE, X.astype(float) @ TABLE.T)])
def test_values_and_gradients(function, weight, value):
    np.testing.assert_allclose(function(X, weight), value, rtol=1e-5, atol=1e-6)
    slope = RNG.normal(size=value.shape).astype(np.float32)
    to_x, to_weight = jax.vjp(function, jnp.asarray(X), jnp.asarray(weight))[1](jnp.asarray(slope))
    flat, rows = slope.reshape(-1, slope.shape[-1]).astype(float), X.reshape(-1, 4)
    turned = weight.T if function is products.matmul else weight
    np.testing.assert_allclose(to_x, slope.astype(float) @ turned, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_weight, rows.T @ flat if function is products.matmul else flat.T @ rows,
                               rtol=1e-5, atol=1e-6)
    check_grads(function, (jnp.asarray(X), jnp.asarray(weight)), order=1, modes=['rev'], rtol=1e-2)


def test_each_with_each_and_weighted_sums():
    x, y, weights = (RNG.normal(size=shape) for shape in ((2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 4, 6)))

    def turned(a):
        return np.swapaxes(a, -1, -2)

    for function, a, b, value, gradients in (
            (products.similarities, x, y, x @ turned(y), lambda slope: (slope @ y, turned(slope) @ x)),
            (products.mixtures, weights, y, weights @ y, lambda slope: (slope @ turned(y), turned(weights) @ slope))):
        out, pull = jax.vjp(function, jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
        np.testing.assert_allclose(out, value, rtol=1e-5, atol=1e-6)
        slope = RNG.normal(size=value.shape)
        for ours, theirs in zip(pull(jnp.asarray(slope, jnp.float32)), gradients(slope), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_bfloat16_between_rows():
    x, y = jnp.ones((2, 3, 4), jnp.bfloat16), jnp.ones((2, 5, 4), jnp.bfloat16)
    scores, pull = jax.vjp(products.similarities, x, y)
    assert scores.dtype == 'float32'
    assert {slope.dtype.name for slope in pull(jnp.ones_like(scores))} == {'bfloat16'}
    mixed, pull = jax.vjp(products.mixtures, scores.astype('bfloat16'), y)
    assert mixed.dtype == 'bfloat16'
    assert {slope.dtype.name for slope in pull(jnp.ones_like(mixed))} == {'bfloat16'}


@pytest.mark.parametrize('dtype', [None, 'float32'])
def test_bfloat16_keeps_the_dtypes(dtype):
    x, kernel = jnp.asarray(X, jnp.bfloat16), jnp.asarray(KERNEL, jnp.bfloat16)
    out, pull = jax.vjp(lambda x, kernel: products.matmul(x, kernel, dtype), x, kernel)
    assert out.dtype == (dtype or 'bfloat16')
    assert {slope.dtype.name for slope in pull(jnp.ones_like(out))} == {'bfloat16'}
    assert products.logits(x, jnp.asarray(TABLE, jnp.bfloat16)).dtype == 'float32'


def test_dense_is_flax_dense():
    ours, theirs = products.Dense(5, name='dense'), nn.Dense(5, name='dense')
    params = theirs.init(jax.random.key(0), X)
    assert jax.tree.structure(params) == jax.tree.structure(ours.init(jax.random.key(0), X))
    np.testing.assert_array_equal(ours.apply(params, X), theirs.apply(params, X))
