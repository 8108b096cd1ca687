"""Matrix products with weights whose backward pass stands written out, so that XLA's CPU compiler keeps it fast.

Left to itself, the compiler fuses what comes before a weight's gradient into a copy of the transposed slopes, element
by element across memory, and for a table (V, D) it turns the largest array of all, the slopes of the logits. Here the
slopes are made once, the narrow side is turned, and the numbers are the same (docs/performance.md says what it gave).
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


def _logits_forward(x, table_VD):
    return logits(x, table_VD), (x, table_VD)


def _logits_backward(kept, slope):
    x, table_VD = kept
    slope = jax.lax.optimization_barrier(slope.astype(x.dtype))
    # Without the second barrier the product would be turned round again, and its large factor with it.
    return slope @ table_VD, jax.lax.optimization_barrier(_flat(x).T @ _flat(slope)).T


def _flat(x):
    return x.reshape(-1, x.shape[-1])


matmul.defvjp(_matmul_forward, _matmul_backward)
logits.defvjp(_logits_forward, _logits_backward)

# `nn.Dense` with `matmul` for its product; it has one contraction, of the last axis with the first.
Dense = functools.partial(nn.Dense, dot_general=lambda x, kernel, dimensions, **kwargs: matmul(x, kernel))
