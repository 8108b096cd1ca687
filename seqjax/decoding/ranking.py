"""The greatest of long rows, found without sorting them."""

import jax
import jax.numpy as jnp
from jax import lax

BLOCK = 64


def top_k(x_BN: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k`, whole: where only a part of what it finds is read further down, XLA would sort all of a row for it.

    Each of the two is held by itself. One barrier around both becomes the only user of what finds them, and XLA's
    pass over programs for several devices aborts at one that is no element of a pair (jaxlib 0.10.2).
    """
    values_BC, places_BC = lax.top_k(x_BN, count)
    return lax.optimization_barrier(values_BC), lax.optimization_barrier(places_BC)


def best(x_BN: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k` of long rows: the values and places (B, count) of the greatest, the first of equal ones first.

    They lie in the `count` blocks whose greatest are greatest, so that a row is read once and little of it sorted.
    """
    B, N = x_BN.shape
    blocks = -(-N // BLOCK)
    if blocks <= 2 * count:
        return top_k(x_BN, count)
    x_BMW = jnp.pad(x_BN, ((0, 0), (0, blocks * BLOCK - N)), constant_values=-jnp.inf).reshape(B, blocks, BLOCK)
    block_BC = jnp.sort(top_k(x_BMW.max(axis=2), count)[1], axis=1)
    few_BCW = jnp.take_along_axis(x_BMW, block_BC[:, :, None], axis=1)
    values_BC, place_BC = top_k(few_BCW.reshape(B, count * BLOCK), count)
    return values_BC, jnp.take_along_axis(block_BC, place_BC // BLOCK, axis=1) * BLOCK + place_BC % BLOCK
