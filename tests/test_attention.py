"""Attention against equation 1 in numpy, against torch (fixtures/make_torch_transformer.py), and its masks."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import numpy_transformer as reference
import pytest

from seqjax.layers import attention
from seqjax.layers.attention import CrossAttention, MemoryProjection, SelfAttention, heads_apart
from seqjax.layers.unpadding import unpad, unpadding

masked_softmax, dot_product_attention = jax.jit(attention.masked_softmax), jax.jit(attention.dot_product_attention)
TORCH = np.load(pathlib.Path(__file__).parent / 'fixtures' / 'torch_transformer.npz')
B, T, S, D, H = 3, 4, 5, 8, 2
LENGTHS = np.array([5, 3, 1])
MASK = np.arange(S) < LENGTHS[:, None]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def randomised(module, *args, seed=1):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)['params']
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), jnp.float32), shapes)


def apply(module, params, *args):
    """Outputs, and the weights that the module shows."""
    out, sown = jax.jit(lambda p: module.apply({'params': p}, *args, mutable=['intermediates']))(params)
    (weights,), = sown['intermediates'].values()
    return out, weights


def test_softmax_is_a_distribution_over_what_is_unmasked():
    scores, mask = normal(6, 9) * 30, np.random.default_rng(1).random((6, 9)) < 0.6
    weights = masked_softmax(scores, mask)
    for row in range(6):
        expected = reference.softmax(scores[row, mask[row]].astype(np.float64))
        np.testing.assert_allclose(weights[row, mask[row]], expected, rtol=1e-4, atol=1e-7)
    assert (np.asarray(weights)[~mask] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)


def test_softmax_with_nothing_to_look_at_is_zero_and_so_is_its_gradient():
    mask = jnp.array([[False] * 4, [True] * 4])
    gradient = jax.jit(jax.grad(lambda x: (masked_softmax(x, mask) ** 2).sum()))(normal(2, 4))
    assert (masked_softmax(normal(2, 4), mask)[0] == 0).all()
    assert (gradient[0] == 0).all()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[1]).max() > 1e-3


def test_softmax_in_half_precision_is_computed_in_float32():
    scores = jnp.asarray(normal(3, 300), jnp.bfloat16)
    weights = masked_softmax(scores, jnp.ones(300, bool))
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)


def test_scores_are_scaled_by_the_root_of_the_key_width():
    """By hand: d_k = 4, q.k1 = 2 ln 3, q.k2 = 0, so the weights are 3/4 and 1/4."""
    q = jnp.ones((1, 1, 1, 4))
    k = jnp.stack([jnp.full(4, np.log(3) / 2), jnp.zeros(4)])[None, None]
    v = jnp.array([1.0, 5.0])[None, None, :, None]
    context, weights = dot_product_attention(q, k, v, jnp.ones((1, 1, 2), bool))
    np.testing.assert_allclose(weights.ravel(), [0.75, 0.25], rtol=1e-6)
    np.testing.assert_allclose(context.ravel(), [0.75 * 1 + 0.25 * 5], rtol=1e-6)


def test_dot_product_attention_is_equation_1_for_each_row_and_head():
    q, k, v = normal(B, H, T, 3), normal(B, H, S, 3, seed=1), normal(B, H, S, 3, seed=2)
    context, weights = dot_product_attention(q, k, v, MASK[:, None])
    for b, length in enumerate(LENGTHS):
        for h in range(H):
            expected, shares = reference.attention(*(x[b, h, :n].astype(np.float64) for x, n in (
                (q, T), (k, length), (v, length))))
            np.testing.assert_allclose(context[b, h], expected, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(weights[b, h, :, :length], shares, rtol=1e-4, atol=1e-6)


def test_self_attention_equals_numpy_head_by_head():
    layer, x = SelfAttention(H), normal(B, S, D)
    params = randomised(layer, x, MASK[:, None])
    (out, kept), weights = apply(layer, params, x, MASK[:, None])
    for ours, kernel in zip(kept, np.moveaxis(np.asarray(params['query_key_value']), 1, 0)[1:], strict=True):
        np.testing.assert_allclose(ours, (x @ kernel).reshape(B, S, H, -1).swapaxes(1, 2), rtol=1e-5, atol=1e-5)
    for b, length in enumerate(LENGTHS):
        expected, shares = reference.self_attention(reference.float64(params), x[b, :length].astype(np.float64), H)
        np.testing.assert_allclose(out[b, :length], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(weights[b, :, :length, :length], shares, rtol=1e-4, atol=1e-6)


def test_self_attention_equals_torch():
    params = {'query_key_value': np.moveaxis(TORCH['attention/in_proj_weight'].reshape(3, D, D), 2, 0),
              'output': TORCH['attention/out_proj.weight'].T}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    (out, _), weights = apply(SelfAttention(H), params, jnp.asarray(TORCH['source'], jnp.float32), MASK[:, None])
    np.testing.assert_allclose(out, TORCH['attention/outputs'], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights, TORCH['attention/weights'], rtol=1e-4, atol=1e-6)


def test_cross_attention_on_projected_memory_equals_numpy():
    memory, x = normal(B, S, D, seed=3), normal(B, T, D, seed=4)
    project = MemoryProjection(num_layers=3, num_heads=H)
    projection = randomised(project, memory)
    keys, values = jax.jit(project.apply)({'params': projection}, memory)
    assert keys.shape == values.shape == (3, B, H, S, D // H)
    keys, values = np.asarray(keys), np.asarray(values)
    layer = CrossAttention(H)
    params = randomised(layer, x, keys[0], values[0], MASK)
    for n in range(3):
        out, weights = apply(layer, params, x, keys[n], values[n], MASK)
        p = reference.float64(params)
        W_K, W_V = (np.asarray(projection['key_value'], np.float64)[:, n, i] for i in (0, 1))
        for b, length in enumerate(LENGTHS):
            expected, shares = reference.multi_head(x[b].astype(np.float64), memory[b, :length].astype(np.float64),
                                                    p['query'], W_K, W_V, p['output'], H)
            np.testing.assert_allclose(out[b], expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(weights[b, :, :, :length], shares, rtol=1e-4, atol=1e-6)


def test_weights_sum_to_one_are_zero_on_padding_and_finite_when_all_is_padding():
    layer, x = SelfAttention(H), normal(B + 1, S, D) * 20
    mask = np.concatenate([MASK, np.zeros((1, S), bool)])
    (out, _), weights = apply(layer, randomised(layer, x, mask[:, None]), x, mask[:, None])
    np.testing.assert_allclose(weights[:B].sum(axis=-1), 1, atol=1e-6)
    assert (np.asarray(weights).swapaxes(1, 3)[~mask] == 0).all()
    assert np.isfinite(out).all()
    assert (np.asarray(weights)[B] == 0).all()
    assert (np.asarray(out)[B] == 0).all()


def test_self_attention_is_permutation_equivariant():
    layer, x, order = SelfAttention(H), normal(2, S, D), np.array([3, 0, 4, 1, 2])
    everything = np.ones((1, 1, S), bool)
    params = randomised(layer, x, everything)
    out = apply(layer, params, x, everything)[0][0]
    np.testing.assert_allclose(apply(layer, params, x[:, order], everything)[0][0], out[:, order], rtol=1e-4, atol=1e-5)
    assert np.abs(out[:, order] - out).max() > 0.1, 'equal rows prove nothing'


def test_dropped_weights_are_neither_shown_nor_renormalised():
    """With V = 1 a context element is the sum of the kept weights over 1 - rate: 1 on average, and never only 1."""
    x, rate = np.zeros((1, 200, D), np.float32), 0.25
    layer = CrossAttention(H, dropout=rate)
    params = {'query': np.zeros((D, D), np.float32), 'output': np.eye(D, dtype=np.float32)}
    keys, mask = np.ones((1, H, S, D // H), np.float32), np.ones((1, S), bool)

    @jax.jit
    def both(key):
        shown = layer.apply({'params': params}, x, keys, keys, mask, rngs={'dropout': key}, mutable=['intermediates'])
        return *shown, layer.apply({'params': params}, x, keys, keys, mask)

    out, sown, without_key = both(jax.random.key(0))
    np.testing.assert_allclose(sown['intermediates']['cross_attention'][0], 1 / S, rtol=1e-6)
    kept = np.asarray(out)[0, :, ::D // H] * (1 - rate) * S  # how many of S weights were kept, for each head and query
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-4)
    assert abs(kept.mean() - S * (1 - rate)) < 5 * (S * rate * (1 - rate) / kept.size) ** 0.5
    assert (kept[:, 0] != kept[:, 1]).any()
    np.testing.assert_allclose(without_key, 1, rtol=1e-5)


@pytest.mark.parametrize(('module', 'args', 'fans'), [
    (SelfAttention(H), (normal(1, 2, 64), np.ones((1, 1, 2), bool)), {'query_key_value': 128, 'output': 128}),
    (MemoryProjection(3, H), (normal(1, 2, 64),), {'key_value': 128})])
def test_projections_start_glorot_uniform_each_by_itself(module, args, fans):
    """Glorot and Bengio 2010, equation 16, for each D x D matrix of a fused kernel."""
    params = jax.jit(module.init)(jax.random.key(0), *args)['params']
    assert set(params) == set(fans)
    for name, fan in fans.items():
        bound = (6 / fan) ** 0.5
        assert 0.98 * bound < np.abs(params[name]).max() <= bound
        assert np.std(params[name]) == pytest.approx(bound / 3 ** 0.5, rel=0.05)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('padded', [True, False])
def test_heads_apart_and_its_gradient_are_a_reshape_and_a_transpose(dtype, padded):
    real_BT = np.arange(5) < np.array([5, 3])[:, None]
    by = None if padded else unpadding(jnp.asarray(real_BT), 9)
    x_BTD = normal(2, 5, 3 * 4).astype(jnp.dtype(dtype)) * real_BT[:, :, None].astype(jnp.dtype(dtype))
    x = unpad(jnp.asarray(x_BTD), by)
    parts, pull = jax.vjp(lambda x: heads_apart(x, by, 2, 3), x)
    expected = np.asarray(x_BTD).reshape(2, 5, 3, 2, 2).transpose(2, 0, 3, 1, 4)
    np.testing.assert_array_equal(jnp.stack(parts), expected)
    slope = normal(3, 2, 2, 5, 2).astype(jnp.dtype(dtype))
    back = np.asarray(slope).transpose(1, 3, 0, 2, 4).reshape(2, 5, 12)
    np.testing.assert_array_equal(pull(tuple(jnp.asarray(slope)))[0], unpad(jnp.asarray(back), by))
