"""Matrix products whose backward pass stands written out, so that XLA's CPU compiler keeps it fast.

With weights: left to itself, the compiler fuses what comes before a weight's gradient into a copy of the transposed
slopes, element by element across memory, and for a table (V, D) it turns the largest array of all, the slopes of the
logits. Here the slopes are made once, and the narrow side is turned.

Between the rows of a batch, as attention has them: a product that reads its first factor transposed goes to another
library than the others, which takes three times as long over matrices as small as these. Here the factor is turned
ahead of it.

In bfloat16: processors that multiply it fast (AMX) do so for products of rows by columns as they lie in memory, added
up in float32. Any other is made in float32, slower than if all were. Here every factor is turned to lie so. Other
devices have none of these troubles, and get plain products.

The numbers are the same (docs/performance.md says what it gave).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype


def product(x: jax.Array, y: jax.Array, dtype: str | None = None) -> jax.Array:
    """x @ y, (..., M, K) and (..., K, N), or (K, N), of one dtype; the result in that, or in `dtype`, where asked for.

    It is added up in float32, whatever the dtype.
    """
    if on_cpu():
        return jnp.matmul(x, y, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32)).astype(dtype or x.dtype)
    return jnp.matmul(x, y, preferred_element_type=dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(x: jax.Array, kernel_KN: jax.Array, dtype: str | None = None) -> jax.Array:
    """x @ kernel, (..., K) to (..., N), both of one dtype; the result in that, or added up and kept in `dtype`."""
    return product(x, kernel_KN, dtype)


def _matmul_forward(x, kernel_KN, dtype):
    return product(x, kernel_KN, dtype), (x, kernel_KN)


def _matmul_backward(dtype, kept, slope):
    x, kernel_KN = kept
    slope = jax.lax.optimization_barrier(slope.astype(x.dtype))
    K, N = kernel_KN.shape
    if K > N and has_to_lie(x):  # the narrow side is turned
        to_kernel_KN = product(transposed(_flat(slope)), _flat(x)).T
    else:
        to_kernel_KN = product(transposed(_flat(x)), _flat(slope))
    return product(slope, transposed(kernel_KN)), to_kernel_KN


@jax.custom_vjp
def logits(x: jax.Array, table_VD: jax.Array, bias_V: jax.Array | None = None) -> jax.Array:
    """x @ table^T + bias in float32, (..., D) to (..., V): scores of every piece of a vocabulary.

    `x` and the table are of one dtype, the bias is float32.
    """
    scores = product(x, transposed(table_VD), 'float32')
    return scores if bias_V is None else scores + bias_V


def _logits_backward(kept, slope):
    x, table_VD, bias_V = kept
    slope = jax.lax.optimization_barrier(slope.astype(x.dtype))
    to_bias_V = None if bias_V is None else _over_rows(_flat(slope), 'float32')
    # The narrow side is turned ahead of the product, and what it is made of is not made again for that. Without the
    # barrier around it the product would be turned round again, and its large factor with it.
    turned_DN = turned(jax.lax.optimization_barrier(_flat(x)))
    return product(slope, table_VD), jax.lax.optimization_barrier(product(turned_DN, _flat(slope))).T, to_bias_V


@jax.custom_vjp
def similarities(x: jax.Array, y: jax.Array) -> jax.Array:
    """x y^T in float32, (..., T, K) and (..., S, K) to (..., T, S): each vector with each. Both of one dtype."""
    return product(x, transposed(y), 'float32')


def _similarities_backward(kept, slope):
    x, y = kept
    slope = slope.astype(x.dtype)
    return product(slope, y), product(turned(slope), x)


@jax.custom_vjp
def mixtures(weights: jax.Array, x: jax.Array) -> jax.Array:
    """weights @ x, (..., T, S) and (..., S, K) to (..., T, K): weighted sums of vectors. All of one dtype."""
    return product(weights, x)


def _mixtures_backward(kept, slope):
    weights, x = kept
    return product(slope, transposed(x)), product(turned(weights), slope)


@jax.custom_vjp
def shifted(x: jax.Array, bias_N: jax.Array) -> jax.Array:
    """x + bias, (..., N), both of one dtype."""
    return x + bias_N


def _shifted_backward(kept, slope):
    return slope, _over_rows(_flat(slope))


def _over_rows(rows: jax.Array, dtype: str | None = None) -> jax.Array:
    """The sum over rows, in their dtype or in `dtype`."""
    if has_to_lie(rows):  # it would be made in float32, of a copy of all of them
        return product(jnp.ones((2, len(rows)), rows.dtype), rows, dtype)[0]  # two, for one alone is no product to XLA
    return rows.sum(axis=0, dtype=dtype)


def on_cpu() -> bool:
    """Whether programs are compiled for the CPU."""
    return jax.default_backend() == 'cpu'


def has_to_lie(x: jax.Array) -> bool:
    """Whether products of `x` are fast only as rows by columns in memory: of fewer bits than float32, on a CPU."""
    return on_cpu() and x.dtype.itemsize < 4


def turned(x: jax.Array) -> jax.Array:
    """x^T over the last two axes, written anew on a CPU, where the product that reads it wants rows in memory."""
    if not on_cpu():
        return x.swapaxes(-1, -2)
    if not has_to_lie(x):
        return jax.lax.optimization_barrier(x.swapaxes(-1, -2))
    if x.ndim == 2 and len(x) > 2048:  # 512 rows at a time, of which caches hold what is read together
        return jnp.concatenate([turned(x[i:i + 512]) for i in range(0, len(x), 512)], axis=1)
    # Through one axis, after which XLA takes the order of the others to be the usual one.
    y = x.swapaxes(-1, -2)
    return jax.lax.optimization_barrier(y.reshape(-1)).reshape(y.shape)


def transposed(x: jax.Array) -> jax.Array:
    """x^T over the last two axes: read across, or turned where it has to lie so."""
    return turned(x) if has_to_lie(x) else x.swapaxes(-1, -2)


def _flat(x):
    return x.reshape(-1, x.shape[-1])


def _keeping(function):
    """The forward pass of a product that keeps its factors."""
    return lambda *factors: (function(*factors), factors)


matmul.defvjp(_matmul_forward, _matmul_backward)
logits.defvjp(_keeping(logits), _logits_backward)
similarities.defvjp(_keeping(similarities), _similarities_backward)
mixtures.defvjp(_keeping(mixtures), _mixtures_backward)
shifted.defvjp(lambda x, bias_N: (shifted(x, bias_N), None), _shifted_backward)


class Dense(nn.Module):
    """x @ kernel + bias, with these products: flax's `nn.Dense` in parameters, their draws and numbers."""

    features: int
    use_bias: bool = True
    dtype: str | None = None
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., K) to (..., features)."""
        kernel_KN = self.param('kernel', self.kernel_init, (x.shape[-1], self.features))
        bias_N = self.param('bias', nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel_KN, bias_N = promote_dtype(x, kernel_KN, bias_N, dtype=self.dtype)
        y = matmul(x, kernel_KN)
        return y if bias_N is None else shifted(y, bias_N)
