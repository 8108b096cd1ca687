"""Products with weights and between rows: values and gradients are those of the plain product, in either dtype."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from seqjax.layers import products
from seqjax.layers.steps import multiply, over_time

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


def test_logits_with_biases():
    bias, slope = (RNG.normal(size=shape).astype(np.float32) for shape in ((6,), (2, 3, 6)))
    out, pull = jax.vjp(products.logits, *map(jnp.asarray, (X, TABLE, bias)))
    np.testing.assert_allclose(out, X.astype(float) @ TABLE.T + bias, rtol=1e-5, atol=1e-6)
    to_x, to_table, to_bias = pull(jnp.asarray(slope))
    wide = slope.astype(float)
    for ours, theirs in ((to_x, wide @ TABLE), (to_table, flat(wide).T @ flat(X)), (to_bias, flat(wide).sum(axis=0))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


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


def across(x):
    return np.swapaxes(x, -1, -2)


def flat(x):
    return x.reshape(-1, x.shape[-1])


# Name, the shapes of both factors, and in numpy the product and its two gradients.
PRODUCTS = {
    'matmul, wider': (products.matmul, (2, 9, 16), (16, 24), np.matmul,
                      lambda x, y, s: (s @ y.T, flat(x).T @ flat(s))),
    'matmul, narrower': (products.matmul, (2, 9, 24), (24, 16), np.matmul,
                         lambda x, y, s: (s @ y.T, flat(x).T @ flat(s))),
    'logits': (products.logits, (18, 16), (40, 16), lambda x, y: x @ y.T, lambda x, y, s: (s @ y, s.T @ x)),
    'logits with biases': (lambda x, y: products.logits(x, y[:, :-1], y[:, -1].astype(jnp.float32)), (18, 16), (40, 17),
                           lambda x, y: x @ y[:, :-1].T + y[:, -1],
                           lambda x, y, s: (s @ y[:, :-1], np.concatenate([s.T @ x, s.sum(axis=0)[:, None]], axis=1))),
    'similarities': (products.similarities, (2, 3, 9, 16), (2, 3, 10, 16), lambda x, y: x @ across(y),
                     lambda x, y, s: (s @ y, across(s) @ x)),
    'mixtures': (products.mixtures, (2, 3, 9, 10), (2, 3, 10, 16), np.matmul,
                 lambda x, y, s: (s @ across(y), across(x) @ s)),
    'shifted': (products.shifted, (2, 9, 16), (16,), np.add, lambda x, y, s: (s, flat(s).sum(axis=0)))}


@pytest.mark.parametrize('platform', ['cpu', 'gpu'])
@pytest.mark.parametrize('name', PRODUCTS)
def test_in_bfloat16_values_and_gradients_are_float64s_rounded_once(monkeypatch, name, platform):
    """Of factors that bfloat16 holds: what is added up in float32 is off by no more than the rounding of the result."""
    function, left, right, value, gradients = PRODUCTS[name]
    x, y = (jnp.asarray(RNG.normal(size=shape), jnp.bfloat16) for shape in (left, right))
    exact = value(np.asarray(x, float), np.asarray(y, float))
    slope = jnp.asarray(RNG.normal(size=exact.shape), jnp.bfloat16)
    monkeypatch.setattr(jax, 'default_backend', lambda: platform)
    out, pull = jax.vjp(jax.jit(lambda x, y: function(x, y)), x, y)
    assert out.dtype == ('float32' if name.startswith(('logits', 'similarities')) else 'bfloat16')
    wanted = exact, *gradients(*(np.asarray(a, float) for a in (x, y, slope)))
    for ours, theirs in zip((out, *pull(slope.astype(out.dtype))), wanted, strict=True):
        step = 2.0 ** -8 if ours.dtype == jnp.bfloat16 else 2.0 ** -20
        np.testing.assert_allclose(np.asarray(ours, float), theirs, rtol=step, atol=step / 2)


def multiplies_bfloat16() -> bool:
    """Whether this processor does (AMX, on Linux)."""
    try:
        return 'amx_bf16' in pathlib.Path('/proc/cpuinfo').read_text()
    except OSError:
        return False


@pytest.mark.skipif(not multiplies_bfloat16(), reason='a processor without AMX')
@pytest.mark.parametrize('name', [name for name in PRODUCTS if name not in ('shifted', 'logits with biases')])
def test_no_factor_in_bfloat16_is_made_float32_ahead_of_its_product(name):
    function, left, right, *_ = PRODUCTS[name]
    x, y = (jnp.ones(shape, jnp.bfloat16) for shape in (left, right))
    slope = jnp.ones(jax.eval_shape(function, x, y).shape, jax.eval_shape(function, x, y).dtype)
    text = jax.jit(lambda x, y, slope: jax.vjp(function, x, y)[1](slope)).lower(x, y, slope).compile().as_text()
    found = factors_of_products(text)
    assert len(found) == 2
    assert set(found) == {('bf16', 'bf16')}


def factors_of_products(text):
    """The types of both factors of each product in a compiled program."""
    kinds = dict(re.findall(r'%([\w.-]+) = (\w+)\[', text)) | dict(re.findall(r'%?([\w.-]+): (\w+)\[', text))
    return [tuple(kinds[name] for name in pair) for pair in re.findall(r' dot\(%([\w.-]+), %([\w.-]+)\)', text)]


@pytest.mark.skipif(not multiplies_bfloat16(), reason='a processor without AMX')
def test_steps_over_time_multiply_bfloat16_on_the_way_back_too():
    def total(kernel, start, inputs):
        def step(carry, now, kernels):
            return jnp.tanh(now + multiply(carry, kernels['recurrent'])), carry

        return over_time(step, start, inputs, {'recurrent': kernel})[0].sum()

    text = jax.jit(jax.grad(total)).lower(jnp.ones((16, 16), jnp.bfloat16), jnp.ones((9, 16)),
                                          jnp.ones((9, 4, 16))).compile().as_text()
    found = factors_of_products(text)
    assert len(found) == 3
    assert set(found) == {('bf16', 'bf16')}


@pytest.mark.parametrize('dtype', [None, 'float32'])
def test_bfloat16_keeps_the_dtypes(dtype):
    x, kernel = jnp.asarray(X, jnp.bfloat16), jnp.asarray(KERNEL, jnp.bfloat16)
    out, pull = jax.vjp(lambda x, kernel: products.matmul(x, kernel, dtype), x, kernel)
    assert out.dtype == (dtype or 'bfloat16')
    assert {slope.dtype.name for slope in pull(jnp.ones_like(out))} == {'bfloat16'}
    assert products.logits(x, jnp.asarray(TABLE, jnp.bfloat16)).dtype == 'float32'


@pytest.mark.parametrize('fields', [{}, dict(use_bias=False), dict(dtype='bfloat16')], ids=str)
def test_dense_is_flax_dense(fields):
    ours, theirs = products.Dense(5, **fields, name='dense'), nn.Dense(5, **fields, name='dense')
    params = theirs.init(jax.random.key(0), X)
    jax.tree.map(np.testing.assert_array_equal, params, ours.init(jax.random.key(0), X))
    params = jax.tree.map(lambda x: x + 0.25, params)  # a bias that is not 0
    np.testing.assert_array_equal(ours.apply(params, X), theirs.apply(params, X))
    gradients = [jax.grad(lambda params, model: jnp.square(model.apply(params, X)).sum().astype(jnp.float32))(
        params, model) for model in (ours, theirs)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.02 if 'dtype' in fields else 1e-6), *gradients)
