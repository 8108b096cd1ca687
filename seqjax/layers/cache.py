"""The key/value cache of a stack of self-attention: one sequence a row, or the hypotheses of a beam side by side.

Hypotheses that share a row are a tree. What was written stays where it is, whichever hypotheses go on from it: each
knows its path, the place at which it stood at each step, and sees what lies on that and nothing else. To go on from
another hypothesis is to take over its path, a few integers, in place of the keys and values of all layers.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqjax.layers.products import on_cpu

# 'keys' (B, H, K, M), as their product with queries reads them, and 'values' (B, H, M, K) for each layer; 'position'
# (B,); with several places 'path' (B, P, L), and 'position' (), for then all rows walk in step.
Cache = dict[str, Any]


class Slots(NamedTuple):
    """Where the tokens of one call go in the cache, and what they see there; M slots are L steps of P places."""

    where_BT: jax.Array  # the step of each token, from 0; B may be 1
    slot: jax.Array  # the slot that it is written to (B, T); or (), that of the first, where those of rows are alike
    when_M: jax.Array  # the step that each slot is for
    seen_BTM: jax.Array  # which slots each token sees; B may be 1


def empty(layers: int, rows: int, heads: int, size: int, length: int, dtype: Any, places: int = 1) -> Cache:
    """A cache in which every row has room for `length` tokens at each of its places.

    On a CPU it is float32 whatever the dtype, for there bfloat16 is multiplied and not written: every step would make
    all of a layer's keys and values float32, and bfloat16 again.
    """
    slots, dtype = length * places, 'float32' if on_cpu() else dtype
    cache = {'keys': (jnp.zeros((rows, heads, size, slots), dtype),) * layers,
             'values': (jnp.zeros((rows, heads, slots, size), dtype),) * layers}
    if places == 1:
        return cache | {'position': jnp.zeros(rows, jnp.int32)}
    return cache | {'position': jnp.int32(0), 'path': jnp.zeros((rows, places, length), jnp.int32)}


def steps(cache: Cache | None, tokens_BT: jax.Array) -> int:
    """How many steps there is room for: those of the cache, or without one as many as there are tokens."""
    if cache is None:
        return tokens_BT.shape[1]
    return cache['path'].shape[2] if 'path' in cache else cache['values'][0].shape[2]


def slots(cache: Cache, tokens: int) -> Slots:
    """Those of the next `tokens` tokens a row: of one sequence, or one for each place."""
    step, count = cache['position'], cache['values'][0].shape[2]
    if 'path' not in cache:
        where_BT, when_M = step[:, None] + jnp.arange(tokens), jnp.arange(count)
        return Slots(where_BT, where_BT, when_M, when_M <= where_BT[:, :, None])
    B, P, L = cache['path'].shape
    if tokens != P:
        raise ValueError(f'a cache of {P} places takes a token for each, not {tokens}')
    on_path_BPLP = own(cache)[..., None] == jnp.arange(P)
    seen_BPLP = on_path_BPLP & (jnp.arange(L)[:, None] <= step)
    return Slots(jnp.broadcast_to(step, (B, P)), step * P, jnp.arange(count) // P, seen_BPLP.reshape(B, P, count))


def write(keys_BHKM: jax.Array, values_BHMK: jax.Array, k_BHTK: jax.Array, v_BHTK: jax.Array,
          slot: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A layer's keys and values with those of T tokens at their `Slots.slot`.

    Of slots of each row, what lies past the end is dropped; where they are alike, all have to be there.
    """
    k_BHTK, v_BHTK = k_BHTK.astype(keys_BHKM.dtype), v_BHTK.astype(values_BHMK.dtype)
    if slot.ndim == 0:
        return (jax.lax.dynamic_update_slice_in_dim(keys_BHKM, k_BHTK.swapaxes(2, 3), slot, axis=3),
                jax.lax.dynamic_update_slice_in_dim(values_BHMK, v_BHTK, slot, axis=2))
    row_B1 = jnp.arange(len(slot))[:, None]
    return (keys_BHKM.at[row_B1, :, :, slot].set(k_BHTK.swapaxes(1, 2), mode='drop'),
            values_BHMK.at[row_B1, :, slot].set(v_BHTK.swapaxes(1, 2), mode='drop'))


def own(cache: Cache) -> jax.Array:
    """Each hypothesis' path (B, P, L) with the place at which it stands now."""
    P, L = cache['path'].shape[1:]
    return jnp.where(jnp.arange(L) == cache['position'], jnp.arange(P)[:, None], cache['path'])


def written(cache: Cache, layers: Sequence[tuple[jax.Array, jax.Array]], tokens: int) -> Cache:
    """The cache after `tokens` tokens a row, with each layer's keys and values as self-attention has updated them."""
    keys, values = zip(*layers)
    if 'path' not in cache:
        return {'keys': keys, 'values': values, 'position': cache['position'] + tokens}
    return {'keys': keys, 'values': values, 'position': cache['position'] + 1, 'path': own(cache)}


def follow(cache: Cache, parent_BP: jax.Array) -> Cache:
    """The hypothesis at each place goes on from that at place `parent_BP`."""
    return cache | {'path': jnp.take_along_axis(cache['path'], parent_BP[:, :, None], axis=1)}
