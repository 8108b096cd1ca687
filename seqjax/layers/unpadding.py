"""Batches without their padding: (B, T, ...) and (N, ...), with places for the real tokens of all rows.

What looks at each token by itself (embeddings, projections, feed-forward layers, normalisation, dropout, logits, the
loss) need not be done for padding; attention and recurrence want rows, and pad what they read (Zeng et al. 2022,
"Boosting distributed training performance of the unpadded BERT model"). Which tokens are real is known when a batch is
there; how many places there are, when the program is compiled.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Unpadding(NamedTuple):
    """Which position of a batch is at which place. Real tokens fill the places row by row; others stay empty."""

    position_N: jax.Array  # b * T + t of the token at each place; B * T where the place is empty
    place_BT: jax.Array  # the place of each token; N at padding


class Sides(NamedTuple):
    """Where the tokens of source and target are."""

    source: Unpadding
    target: Unpadding


def unpadding(real_BT: jax.Array, places: int) -> Unpadding:
    """Places for the tokens where `real_BT` is True; there must be no more than `places` of them, or some are lost."""
    real = real_BT.reshape(-1)
    position_N, = jnp.nonzero(real, size=places, fill_value=real.size)
    place_BT = jnp.where(real, jnp.cumsum(real) - 1, places).reshape(real_BT.shape)
    # Made once: XLA would work them out anew wherever they are read.
    return Unpadding(*jax.lax.optimization_barrier((position_N, place_BT)))


def unpad(x_BT: jax.Array, by: Unpadding | None) -> jax.Array:
    """(B, T, ...) to (N, ...): what is at each place, 0 at empty ones. Without `by`, `x_BT` as it is."""
    return x_BT if by is None else _unpad(x_BT, by)


def pad(x_N: jax.Array, by: Unpadding | None) -> jax.Array:
    """(N, ...) to (B, T, ...): every token at its position, 0 at padding. Without `by`, `x_N` as it is."""
    return x_N if by is None else _pad(x_N, by)


# Each is the transpose of the other. Differentiated by jax they would be scatters, which XLA writes one by one.
@jax.custom_vjp
def _unpad(x_BT, by):
    return jnp.take(x_BT.reshape(-1, *x_BT.shape[2:]), by.position_N, axis=0, mode='fill', fill_value=0)


@jax.custom_vjp
def _pad(x_N, by):
    return jnp.take(x_N, by.place_BT, axis=0, mode='fill', fill_value=0)


_unpad.defvjp(lambda x, by: (_unpad(x, by), by), lambda by, slope: (_pad(slope, by), None))
_pad.defvjp(lambda x, by: (_pad(x, by), by), lambda by, slope: (_unpad(slope, by), None))
