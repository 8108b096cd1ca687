"""Convolutions, gates and weight normalisation against formulas, and the blocks' reach."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_convolution as reference
import numpy_recurrence as np_
import pytest

from seqjax.layers.convolution import Convolution, DecoderBlock, EncoderBlock, convolve, gated, scaled_gradient
from seqjax.training.flops import count

B, T, D, E = 3, 7, 4, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, T, D)).astype(np.float32)


@pytest.mark.parametrize('size', [1, 3, 4])
def test_convolution_is_the_sum_over_its_window(size):
    kernel = RNG.normal(size=(size, D, E)).astype(np.float32)
    expected = np.zeros((B, T - size + 1, E))
    for t in range(T - size + 1):
        for k in range(size):
            expected[:, t] += X[:, t + k].astype(float) @ kernel[k]
    out = convolve(X, kernel)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(out, jax.lax.conv_general_dilated(
        X, kernel, (1,), 'VALID', dimension_numbers=('NWC', 'WIO', 'NWC')), rtol=1e-5, atol=1e-5)
    assert count(convolve, jnp.asarray(X), jnp.asarray(kernel)) == 2 * B * (T - size + 1) * size * D * E


def test_gates():
    a, b = RNG.normal(size=(2, B, T, D))
    np.testing.assert_allclose(gated(jnp.concatenate([a, b], axis=-1)), a * np_.sigmoid(b), rtol=1e-5)


def test_the_gradient_alone_is_scaled():
    f = jax.value_and_grad(lambda x, factor: (scaled_gradient(x, factor) ** 2).sum())
    value, gradient = f(X, 0.25)
    np.testing.assert_allclose(value, (X ** 2).sum(), rtol=1e-6)
    np.testing.assert_allclose(gradient, 0.25 * 2 * X, rtol=1e-5)


@pytest.mark.parametrize(('gain', 'dropout'), [(4.0, 0.0), (1.0, 0.0), (4.0, 0.3), (1.0, 0.3)])
def test_weights_start_at_the_variance_of_the_paper(gain, dropout):
    x = jnp.zeros((1, 5, 80))
    p = jax.jit(Convolution(160, 3, gain, dropout).init)(jax.random.key(0), x)['params']
    assert np.std(p['kernel']) == pytest.approx((gain * (1 - dropout) / (3 * 80)) ** 0.5, rel=0.02)
    assert not np.asarray(p['bias']).any()
    np.testing.assert_allclose(p['scale'], np.linalg.norm(p['kernel'].reshape(-1, 160), axis=0), rtol=1e-5)


def test_gain_four_keeps_the_scale_through_the_gate():
    """Without, a sixteenth of the variance would be left after two layers, as the paper's appendix A says."""
    x = jax.random.normal(jax.random.key(0), (4, 50, 100))
    deviation = {}
    for gain in (1.0, 4.0):
        layer = Convolution(200, 1, gain)
        deviation[gain] = float(jnp.std(gated(layer.apply(layer.init(jax.random.key(1), x), x))))
    assert 0.9 < deviation[4.0] < 1.4, 'E[sigmoid(b)^2], b of variance 4, is 0.34: sqrt(4 * 0.34) = 1.17'
    assert 0.45 < deviation[1.0] < 0.6


def test_weight_normalisation():
    layer, plain = Convolution(E, 3), Convolution(E, 3, normalise=False)
    params = layer.init(jax.random.key(0), X)['params']
    assert set(params) == {'kernel', 'bias', 'scale'}
    assert set(plain.init(jax.random.key(0), X)['params']) == {'kernel', 'bias'}
    start = layer.apply({'params': params}, X)
    np.testing.assert_allclose(start, plain.apply({'params': {k: params[k] for k in ('kernel', 'bias')}}, X),
                               rtol=1e-5, atol=1e-6)
    # The length of a direction means nothing, the scale is the length; so no gradient runs along a direction.
    longer = {**params, 'kernel': params['kernel'] * 3, 'scale': params['scale'] * 2}
    np.testing.assert_allclose(layer.apply({'params': longer}, X), 2 * start, rtol=1e-4, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda p: (layer.apply({'params': p}, X) ** 3).sum()))(params)
    along_E = (gradient['kernel'] * params['kernel']).sum(axis=(0, 1))
    assert np.abs(along_E).max() < 1e-3 < np.abs(gradient['kernel']).max()
    random = {'kernel': params['kernel'], 'bias': RNG.normal(size=E), 'scale': RNG.normal(size=E)}
    W = reference.weights(np_.float64(random))
    np.testing.assert_allclose(np.linalg.norm(W.reshape(-1, E), axis=0), np.abs(random['scale']), rtol=1e-5)
    np.testing.assert_allclose(layer.apply({'params': random}, X)[1, 2],
                               X[1, 2:5].reshape(-1) @ W.reshape(-1, E) + random['bias'], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('size', [3, 5])
def test_an_encoder_block_sees_half_a_window_to_each_side_and_no_padding(size):
    block, mask = EncoderBlock(size, 0.0, True), np.ones((1, T), bool)
    params = jax.jit(block.init)(jax.random.key(0), X[:1], mask)

    @jax.jit
    def outputs(x, mask):
        return block.apply(params, x, mask)[0][0].sum(-1)

    reach = np.abs(np.asarray(jax.jit(jax.jacrev(outputs))(X[:1], mask)))[:, 0].sum(-1) > 0
    places = np.arange(T)
    np.testing.assert_array_equal(reach, np.abs(places[:, None] - places) <= size // 2)
    mask = places[None] < 5
    garbage = np.where(mask[:, :, None], X[:1], 7.0)
    np.testing.assert_array_equal(outputs(garbage, mask)[:5], outputs(X[:1], mask)[:5])
    np.testing.assert_allclose(outputs(X[:1], mask)[:5], outputs(X[:1, :5], mask[:, :5]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('size', [3, 5])
def test_a_decoder_block_sees_its_window_of_the_past(size):
    block = DecoderBlock(size, 0.0, True)
    memory = {'keys': RNG.normal(size=(1, 5, E)), 'values': RNG.normal(size=(1, 5, E)), 'mask': np.ones((1, 5), bool)}
    before, g = np.zeros((1, size - 1, D), np.float32), np.zeros((1, T, E), np.float32)
    params = jax.jit(block.init)(jax.random.key(0), X[:1], before, g, memory)

    def outputs(x):
        return block.apply(params, x, before, g, memory)[0][0].sum(-1)

    reach = np.abs(np.asarray(jax.jit(jax.jacrev(outputs))(X[:1])))
    back = np.arange(T)[:, None] - np.arange(T)
    np.testing.assert_array_equal(reach[:, 0].sum(-1) > 0, (back >= 0) & (back < size))
