"""Matrix products whose backward pass stands written out, so that XLA's CPU compiler keeps it fast.

With weights: left to itself, the compiler fuses what comes before a weight's gradient into a copy of the transposed
slopes, element by element across memory, and for a table (V, D) it turns the largest array of all, the slopes of the
logits. Here the slopes are made once, and the narrow side is turned.

Between the rows of a batch, as attention has them: a product that reads its first factor transposed goes to another
library than the others, which takes three times as long over matrices as small as these. Here the factor is turned
ahead of it.

The numbers are the same (docs/performance.md says what it gave).
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(x: jax.Array, kernel_KN: jax.Array, dtype: str | None = None) -> jax.Array:
    """x @ kernel, (..., K) to (..., N), both of one dtype; the result in that, or added up and kept in `dtype`."""
    return jnp.matmul(x, kernel_KN, preferred_element_type=dtype)


def _matmul_forward(x, kernel_KN, dtype):
    return matmul(x, kernel_KN, dtype), (x, kernel_KN)


def _matmul_backward(dtype, kept, slope):
    x, kernel_KN = kept
    slope = jax.lax.optimization_barrier(slope.astype(x.dtype))
    return slope @ kernel_KN.T, _flat(x).T @ _flat(slope)


@jax.custom_vjp
def logits(x: jax.Array, table_VD: jax.Array) -> jax.Array:
    """x @ table^T in float32, (..., D) to (..., V): scores of every piece of a vocabulary. Both of one dtype."""
    return jnp.einsum('...D,VD->...V', x, table_VD, preferred_element_type=jnp.float32)


def _logits_backward(kept, slope):
    x, table_VD = kept
    slope = jax.lax.optimization_barrier(slope.astype(x.dtype))
    # The narrow side is turned ahead of the product, and what it is made of is not made again for that. Without the
    # barrier around it the product would be turned round again, and its large factor with it.
    turned = _turned(jax.lax.optimization_barrier(_flat(x)))
    return slope @ table_VD, jax.lax.optimization_barrier(turned @ _flat(slope)).T


@jax.custom_vjp
def similarities(x: jax.Array, y: jax.Array) -> jax.Array:
    """x y^T in float32, (..., T, K) and (..., S, K) to (..., T, S): each vector with each. Both of one dtype."""
    return jnp.einsum('...TK,...SK->...TS', x, y, preferred_element_type=jnp.float32)


def _similarities_backward(kept, slope):
    x, y = kept
    slope = slope.astype(x.dtype)
    return slope @ y, _turned(slope) @ x


@jax.custom_vjp
def mixtures(weights: jax.Array, x: jax.Array) -> jax.Array:
    """weights @ x, (..., T, S) and (..., S, K) to (..., T, K): weighted sums of vectors. All of one dtype."""
    return weights @ x


def _mixtures_backward(kept, slope):
    weights, x = kept
    return jnp.einsum('...TK,...SK->...TS', slope, x), _turned(weights) @ slope


def _keeping(function):
    """The forward pass of a product that keeps its factors."""
    return lambda *factors: (function(*factors), factors)


def _turned(x):
    return jax.lax.optimization_barrier(x.swapaxes(-1, -2))


def _flat(x):
    return x.reshape(-1, x.shape[-1])


matmul.defvjp(_matmul_forward, _matmul_backward)
logits.defvjp(_keeping(logits), _logits_backward)
similarities.defvjp(_keeping(similarities), _similarities_backward)
mixtures.defvjp(_keeping(mixtures), _mixtures_backward)

# `nn.Dense` with `matmul` for its product; it has one contraction, of the last axis with the first.
Dense = functools.partial(nn.Dense, dot_general=lambda x, kernel, dimensions, **kwargs: matmul(x, kernel))
