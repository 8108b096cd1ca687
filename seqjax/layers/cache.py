"""The key/value cache of a stack of self-attention: one sequence a row, or the hypotheses of a beam side by side.

Hypotheses that share a row are a tree. What was written stays where it is, whichever hypotheses go on from it: each
knows its path, the place at which it stood at each step, and sees what lies on that and nothing else. To go on from
another hypothesis is to take over its path, a few integers, in place of the keys and values of all layers.

What a step reads is what its rows have room for, written or not. So on a CPU, where it was measured, a layer's keys and
values lie in pieces, and those that nothing has reached yet are not read.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.layers.products import on_cpu

# 'keys' (B, H, K, M), as their product with queries reads them, and 'values' (B, H, M, K) for each layer, in pieces;
# 'position' (B,); with several places 'path' (B, P, L), and 'position' (), for then all rows walk in step.
Cache = dict[str, Any]
MOST, FEWEST = 3, 8  # pieces, each of which is compiled by itself; and steps of one


class Piece(NamedTuple):
    """Keys and values of consecutive slots."""

    keys_BHKM: jax.Array
    values_BHMK: jax.Array
    reached: jax.Array | None = None  # (), whether anything has been written to them; None: always


class Slots(NamedTuple):
    """Where the tokens of one call go in the cache, and what they see there; M slots are L steps of P places."""

    where_BT: jax.Array  # the step of each token, from 0; B may be 1
    slot: jax.Array  # the slot that it is written to (B, T); or (), that of the first, where those of rows are alike
    when_M: jax.Array  # the step that each slot is for
    seen_BTM: jax.Array  # which slots each token sees; B may be 1


def lengths(room: int, places: int) -> list[int]:
    """The steps of each piece of a cache; one piece for one sequence a row, which reads little beside all else."""
    if places == 1 or not on_cpu():  # on other devices a condition in each layer was not measured
        return [room]
    steps = max(FEWEST, -(-room // MOST))
    steps += -steps % FEWEST
    return [min(steps, room - begin) for begin in range(0, room, steps)]


def empty(layers: int, rows: int, heads: int, size: int, length: int, dtype: Any, places: int = 1) -> Cache:
    """A cache in which every row has room for `length` tokens at each of its places.

    On a CPU it is float32 whatever the dtype, for there bfloat16 is multiplied and not written: every step would make
    all of a layer's keys and values float32, and bfloat16 again.
    """
    pieces, dtype = [steps * places for steps in lengths(length, places)], 'float32' if on_cpu() else dtype
    cache = {'keys': (tuple(jnp.zeros((rows, heads, size, slots), dtype) for slots in pieces),) * layers,
             'values': (tuple(jnp.zeros((rows, heads, slots, size), dtype) for slots in pieces),) * layers}
    if places == 1:
        return cache | {'position': jnp.zeros(rows, jnp.int32)}
    return cache | {'position': jnp.int32(0), 'path': jnp.zeros((rows, places, length), jnp.int32)}


def slot_count(cache: Cache) -> int:
    """How many slots a row has, in all pieces."""
    return sum(values.shape[2] for values in cache['values'][0])


def steps(cache: Cache | None, tokens_BT: jax.Array) -> int:
    """How many steps there is room for: those of the cache, or without one as many as there are tokens."""
    if cache is None:
        return tokens_BT.shape[1]
    return cache['path'].shape[2] if 'path' in cache else slot_count(cache)


def slots(cache: Cache, tokens: int) -> Slots:
    """Those of the next `tokens` tokens a row: of one sequence, or one for each place; or one for all places, where all
    have been the same hypothesis so far.
    """
    step, count = cache['position'], slot_count(cache)
    if 'path' not in cache:
        where_BT, when_M = step[:, None] + jnp.arange(tokens), jnp.arange(count)
        return Slots(where_BT, where_BT, when_M, when_M <= where_BT[:, :, None])
    B, P, L = cache['path'].shape
    if tokens not in (1, P):
        raise ValueError(f'a cache of {P} places takes a token for each, or one for all, not {tokens}')
    on_path_BTLP = own(cache, tokens)[:, :tokens, :, None] == jnp.arange(P)
    seen_BTLP = on_path_BTLP & (jnp.arange(L)[:, None] <= step)
    return Slots(jnp.broadcast_to(step, (B, tokens)), step * P, jnp.arange(count) // P,
                 seen_BTLP.reshape(B, tokens, count))


def pieces(cache: Cache, n: int) -> list[Piece]:
    """Those of layer n."""
    return [Piece(*both) for both in zip(cache['keys'][n], cache['values'][n])]


def write(layer: Sequence[Piece], k_BHTK: jax.Array, v_BHTK: jax.Array, slot: jax.Array) -> list[Piece]:
    """A layer's pieces with the keys and values of T tokens at their `Slots.slot`.

    Of slots of each row, what lies past the end is dropped; where they are alike, all have to be there, in one piece.
    """
    new, begin = [], 0
    for piece in layer:
        size = piece.values_BHMK.shape[2]
        here = (begin <= slot) & (slot < begin + size)
        put = functools.partial(_put, k_BHTK, v_BHTK, jnp.where(here, slot - begin, size))
        held = piece.keys_BHKM, piece.values_BHMK
        held = put(*held) if len(layer) == 1 else jax.lax.cond(here.any(), put, lambda *held: held, *held)
        new.append(Piece(*held, slot.max() >= begin if begin else None))
        begin += size
    return new


def _put(k_BHTK, v_BHTK, slot, keys_BHKM, values_BHMK):
    k_BHTK, v_BHTK = k_BHTK.astype(keys_BHKM.dtype), v_BHTK.astype(values_BHMK.dtype)
    if slot.ndim == 0:
        return (jax.lax.dynamic_update_slice_in_dim(keys_BHKM, k_BHTK.swapaxes(2, 3), slot, axis=3),
                jax.lax.dynamic_update_slice_in_dim(values_BHMK, v_BHTK, slot, axis=2))
    row_B1 = jnp.arange(len(slot))[:, None]
    return (keys_BHKM.at[row_B1, :, :, slot].set(k_BHTK.swapaxes(1, 2), mode='drop'),
            values_BHMK.at[row_B1, :, slot].set(v_BHTK.swapaxes(1, 2), mode='drop'))


def own(cache: Cache, tokens: int) -> jax.Array:
    """Each hypothesis' path (B, P, L) with the place at which it stands now: its own, or the first with one token."""
    P, L = cache['path'].shape[1:]
    place_P = jnp.arange(P) if tokens == P else jnp.zeros(P, jnp.int32)
    return jnp.where(jnp.arange(L) == cache['position'], place_P[:, None], cache['path'])


def written(cache: Cache, layers: Sequence[Sequence[Piece]], tokens: int) -> Cache:
    """The cache after `tokens` tokens a row, with each layer's pieces as self-attention has updated them."""
    keys, values = (tuple(tuple(piece[i] for piece in layer) for layer in layers) for i in (0, 1))
    if 'path' not in cache:
        return {'keys': keys, 'values': values, 'position': cache['position'] + tokens}
    return {'keys': keys, 'values': values, 'position': cache['position'] + 1, 'path': own(cache, tokens)}


def widened(cache: Cache, wider: Cache) -> Cache:
    """What `cache` holds, with the room of `wider`, whose pieces may be others."""
    def cut(layer, wide, axis):
        sizes = [piece.shape[axis] for piece in wide]
        rest = list(wide[0].shape)
        rest[axis] = sum(sizes) - sum(piece.shape[axis] for piece in layer)
        joined = jnp.concatenate([*layer, jnp.zeros(rest, wide[0].dtype)], axis)
        return tuple(jnp.split(joined, np.cumsum(sizes)[:-1], axis))

    new = {name: tuple(cut(layer, wide, axis) for layer, wide in zip(cache[name], wider[name]))
           for name, axis in (('keys', 3), ('values', 2))}
    if 'path' in cache:
        new['path'] = jax.lax.dynamic_update_slice(wider['path'], cache['path'], (0, 0, 0))
    return cache | new


def follow(cache: Cache, parent_BP: jax.Array) -> Cache:
    """The hypothesis at each place goes on from that at place `parent_BP`."""
    return cache | {'path': jnp.take_along_axis(cache['path'], parent_BP[:, :, None], axis=1)}
