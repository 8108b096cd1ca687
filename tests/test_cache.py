"""The cache of self-attention, in pieces: what is written where, what is read, and what more room keeps."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.layers import cache
from seqjax.layers.attention import SelfAttention, attention_to_pieces
from seqjax.layers.cache import Piece

B, H, T, K = 3, 2, 5, 4
SIZES = [[6], [2, 4], [2, 2, 2]]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cut(keys_BHMK, values_BHMK, sizes, reached=None):
    """Pieces of these sizes; with `reached` all but the first say whether that slot is at or behind their first."""
    begins = np.cumsum([0, *sizes])
    return [Piece(jnp.asarray(keys_BHMK[:, :, i:j].swapaxes(2, 3)), jnp.asarray(values_BHMK[:, :, i:j]),
                  None if i == 0 or reached is None else jnp.asarray(reached >= i))
            for i, j in itertools.pairwise(begins)]


def attended(q_BHTK, k_BHMK, v_BHMK, mask_BTM, bias_BHTM, scale):
    """Equation 1 in float64; 0 for what sees nothing."""
    out = np.zeros(q_BHTK.shape)
    for b, h, t in np.ndindex(*q_BHTK.shape[:3]):
        seen = mask_BTM[b, t]
        if seen.any():
            scores = k_BHMK[b, h, seen].astype(np.float64) @ q_BHTK[b, h, t] * scale + bias_BHTM[0, h, t, seen]
            weights = np.exp(scores - scores.max())
            out[b, h, t] = weights @ v_BHMK[b, h, seen] / weights.sum()
    return out


@pytest.mark.parametrize('sizes', SIZES, ids=str)
@pytest.mark.parametrize('scale', [True, False])
def test_attention_to_pieces_is_softmax_over_all_of_them(sizes, scale):
    q, k, v, bias = (normal(*shape, seed=i) for i, shape in enumerate(
        ((B, H, T, K), (B, H, 6, K), (B, H, 6, K), (1, H, T, 6))))
    k[:, :, 4] *= 30  # a greatest score that comes late, and one that is far below it
    mask = np.random.default_rng(4).random((B, T, 6)) < 0.6
    mask[0, 0], mask[1, 1, :5], mask[1, 1, 5] = False, False, True
    found = jax.jit(functools.partial(attention_to_pieces, scale=scale))(q, cut(k, v, sizes), mask, None, bias)
    np.testing.assert_allclose(found, attended(q, k, v, mask, bias, K ** -0.5 if scale else 1.0), rtol=1e-4, atol=1e-5)
    assert (np.asarray(found)[0, :, 0] == 0).all()


@pytest.mark.parametrize('sizes', SIZES[1:], ids=str)
@pytest.mark.parametrize('last', range(6))
def test_pieces_that_nothing_has_reached_are_not_read(sizes, last):
    q, k, v = normal(B, H, T, K), normal(B, H, 6, K, seed=1), normal(B, H, 6, K, seed=2)
    mask = np.broadcast_to(np.arange(6) <= last, (B, T, 6))
    nothing = np.zeros((1, H, T, 6))
    expected = attended(q, k, v, mask, nothing, K ** -0.5)
    begin = max(begin for begin in np.cumsum([0, *sizes])[:-1] if begin <= last)
    behind = begin + sizes[list(np.cumsum([0, *sizes])).index(begin)]
    k[:, :, behind:], v[:, :, behind:] = np.nan, np.nan  # weights of 0 would not hide them
    found = jax.jit(attention_to_pieces)(q, cut(k, v, sizes, np.int32(last)), mask)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('sizes', SIZES, ids=str)
@pytest.mark.parametrize('alike', [False, True], ids=['slots of each row', 'slots alike'])
def test_tokens_are_written_where_the_slots_say(sizes, alike):
    width = H * K
    layer, x = SelfAttention(H), normal(B, 2, width)
    kernel, keys, values = normal(width, 3, width, seed=1), normal(B, H, 6, K, seed=2), normal(B, H, 6, K, seed=3)
    params = {'query_key_value': kernel, 'output': np.eye(width, dtype=np.float32)}
    # Of slots of each row those of the second lie in two pieces, and the last row's second behind the cache's end.
    position = jnp.array([2, 2, 2] if alike else [0, 1, 5])
    slots = position[:, None] + jnp.arange(2)
    mask = jnp.arange(6) <= slots[:, :, None]
    held = cut(keys, values, sizes), jnp.int32(2) if alike else slots
    out, kept = jax.jit(lambda p: layer.apply({'params': p}, x, mask, held))(params)
    for t in range(2):
        for b, begin in enumerate(position):
            if begin + t < 6:
                _, key, value = np.tensordot(x[b, t], kernel, 1).reshape(3, H, K)
                keys[b, :, begin + t], values[b, :, begin + t] = key, value
    query = np.tensordot(x, kernel[:, 0], 1).reshape(B, 2, H, K).swapaxes(1, 2)
    context = attended(query, keys, values, np.asarray(mask), np.zeros((1, H, 2, 6)), K ** -0.5)
    np.testing.assert_allclose(out, context.swapaxes(1, 2).reshape(B, 2, width), rtol=1e-4, atol=1e-5)
    new_keys = np.concatenate([piece.keys_BHKM for piece in kept], axis=3).swapaxes(2, 3)
    new_values = np.concatenate([piece.values_BHMK for piece in kept], axis=2)
    np.testing.assert_allclose(new_keys, keys, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(new_values, values, rtol=1e-4, atol=1e-5)
    last = 2 if alike else 6  # the greatest slot of all rows
    begins = np.cumsum([0, *sizes])[:-1]
    assert [piece.reached if piece.reached is None else bool(piece.reached) for piece in kept] == [
        None, *(last >= begins[1:])]


@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_weights_are_dropped_with_a_cache_as_without_and_not_renormalised(sizes):
    """With V = 1 a context element is the sum of the kept weights over 1 - rate: 1 on average, and never only 1."""
    layer, rate, x = SelfAttention(H, dropout=0.25), 0.25, np.zeros((200, 1, H * K), np.float32)
    params = {'query_key_value': np.zeros((H * K, 3, H * K), np.float32), 'output': np.eye(H * K, dtype=np.float32)}
    keys, values = np.zeros((200, H, 6, K), np.float32), np.ones((200, H, 6, K), np.float32)
    values[:, :, 5] = 0.0  # as the written token's are
    held = cut(keys, values, sizes), jnp.int32(5)
    run = jax.jit(lambda rngs: layer.apply({'params': params}, x, np.ones((1, 1, 6), bool), held, rngs=rngs)[0])
    np.testing.assert_allclose(run(None), 5 / 6, rtol=1e-5)
    dropped = np.asarray(run({'dropout': jax.random.key(0)})) * 6 * (1 - rate)
    np.testing.assert_allclose(dropped, dropped.round(), atol=1e-4)
    assert set(np.unique(dropped.round())) >= {2, 3, 4, 5}
    np.testing.assert_allclose(dropped.mean(), 5 * (1 - rate), atol=0.15)


@pytest.mark.parametrize('places', [1, 2])
def test_more_room_keeps_what_was_held_whatever_the_pieces(monkeypatch, places):
    monkeypatch.setattr(cache, 'FEWEST', 2)
    little, much = (cache.empty(2, B, H, K, room, 'float32', places) for room in (5, 12))
    sizes = [[values.shape[2] for values in made['values'][0]] for made in (little, much)]
    assert sizes == ([[5], [12]] if places == 1 else [[4, 4, 2], [8, 8, 8]])
    held = jax.tree.unflatten(jax.tree.structure(little), [
        jnp.asarray(normal(*leaf.shape, seed=i)).astype(leaf.dtype) for i, leaf in enumerate(jax.tree.leaves(little))])
    wider = jax.jit(cache.widened)(held, much)
    assert jax.eval_shape(lambda: wider) == jax.eval_shape(lambda: much)
    np.testing.assert_array_equal(wider['position'], held['position'])
    for name, axis in (('keys', 3), ('values', 2)):
        for before, after in zip(held[name], wider[name]):
            before, after = np.concatenate(before, axis), np.concatenate(after, axis)
            np.testing.assert_array_equal(np.split(after, [5 * places], axis)[0], before)
            assert not np.split(after, [5 * places], axis)[1].any()
    if places > 1:
        np.testing.assert_array_equal(wider['path'][:, :, :5], held['path'])


@pytest.mark.parametrize(('platform', 'room', 'places', 'expected'), [
    ('cpu', 8, 5, [8]), ('cpu', 16, 5, [8, 8]), ('cpu', 24, 5, [8, 8, 8]), ('cpu', 52, 5, [24, 24, 4]),
    ('cpu', 80, 2, [32, 32, 16]), ('cpu', 80, 1, [80]), ('gpu', 80, 5, [80])])
def test_a_cache_has_three_pieces_of_eight_steps_or_more(monkeypatch, platform, room, places, expected):
    monkeypatch.setattr(jax, 'default_backend', lambda: platform)
    assert cache.lengths(room, places) == expected
