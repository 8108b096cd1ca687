"""Sentences folded into n-grams by convolutions, and unfolded again (Kalchbrenner and Blunsom 2013).

Convolutions run over the columns of a sentence, each feature with weights of its own and none across features: a kernel
of width w is (w, D). Rows of a batch have lengths of their own, and what a row becomes depends on nothing else: columns
from a row's count on are 0.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


def narrow(x_BSD: jax.Array, kernel_WD: jax.Array) -> jax.Array:
    """sum_b K_b x_{a+b} in column a: S columns, of which only S - W + 1 saw no 0 from beyond the end."""
    width, S = kernel_WD.shape[0], x_BSD.shape[1]
    padded = jnp.pad(x_BSD, ((0, 0), (0, width - 1), (0, 0)))
    return sum(padded[:, b:b + S] * kernel_WD[b] for b in range(width))


def wide(x_BSD: jax.Array, kernel_WD: jax.Array) -> jax.Array:
    """sum_b K_b x_{a-b} in column a, the transpose of `narrow`: S + W - 1 columns."""
    width = kernel_WD.shape[0]
    return sum(jnp.pad(x_BSD * kernel_WD[b], ((0, 0), (b, width - 1 - b), (0, 0))) for b in range(width))


def stretch(x_BSD: jax.Array, count_B: jax.Array, new_B: jax.Array, longest: int) -> jax.Array:
    """Each row's `count_B` columns drawn out, or together, to `new_B` by linear interpolation: (B, longest, D).

    Column j of m' lies where the middle of its share lies among k' columns, at (j + 1/2) k' / m' - 1/2, and is the old
    column itself where m' = k'.
    """
    at_J, old_S = jnp.arange(longest), jnp.arange(x_BSD.shape[1])
    place_BJ = (at_J + 0.5) * count_B[:, None] / jnp.maximum(new_B, 1)[:, None] - 0.5
    place_BJ = jnp.clip(place_BJ, 0, jnp.maximum(count_B - 1, 0)[:, None])
    share_BJS = jnp.maximum(1 - jnp.abs(place_BJ[:, :, None] - old_S), 0) * (at_J < new_B[:, None])[:, :, None]
    return jnp.einsum('BJS,BSD->BJD', share_BJS.astype(x_BSD.dtype), x_BSD)


def depth(longest: int) -> int:
    """r = ceil(sqrt(2 N)), the widest kernel that sentences of up to N words need."""
    return max(math.isqrt(2 * longest - 1) + 1, 2)


def packed(first: int, last: int) -> dict[int, slice]:
    """{width: rows} of kernels of all widths from `first` to `last`, one after the other in an array."""
    ends = np.cumsum([0, *range(first, last + 1)])
    return {width: slice(int(a), int(b)) for width, a, b in zip(range(first, last + 1), ends, ends[1:])}


def drawn(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Weights of packed kernels of width 2 and more: normal of variance 1 / width, which keeps that of its input."""
    widths = np.repeat(np.arange(2, shape[0] + 2), np.arange(2, shape[0] + 2))[:shape[0]]
    return jax.random.normal(key, shape) / np.sqrt(widths)[:, None].astype(np.float32)


class Fold(nn.Module):
    """The convolutional sentence model (csm, cgm): kernels K_2, K_3, ... K_r take k columns to k - 1, k - 3, k - 6, ...

    E_1 is the sentence and E_w = tanh(K_w * E_{w-1}). A row folds as long as it has the columns for the
    next kernel. With `finish`, one that has j columns left, and j > 1, then becomes one by the top kernel L_j:
    tanh(L_j * E).
    """

    widest: int  # r
    finish: bool

    @nn.compact
    def __call__(self, x_BSD: jax.Array, count_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Columns (B, S, D), of which each row has `count_B`, to the columns that are left, and their counts (B,).

        They are (B, S, D), and with `finish` (B, 1, D).
        """
        where = packed(2, self.widest)
        main = self.param('main', drawn, (where[self.widest].stop, x_BSD.shape[-1])).astype(x_BSD.dtype)
        for width, rows in where.items():
            folds_B = count_B >= width
            left_BS = jnp.arange(x_BSD.shape[1]) <= (count_B - width)[:, None]
            folded_BSD = jnp.tanh(narrow(x_BSD, main[rows])) * left_BS[:, :, None]
            x_BSD = jnp.where(folds_B[:, None, None], folded_BSD, x_BSD)
            count_B = jnp.where(folds_B, count_B - width + 1, count_B)
        if not self.finish:
            return x_BSD, count_B
        one_BD = x_BSD[:, 0]
        if self.widest > 2:
            # After the widest kernel, r, no more than r - 1 columns are left: 1 + ... + r is more than any sentence.
            rows = where[self.widest - 1].stop
            top = self.param('top', drawn, (rows, x_BSD.shape[-1])).astype(x_BSD.dtype)
            last_BD = jnp.tanh(last_column(x_BSD, count_B, top, self.widest - 1))
            one_BD = jnp.where((count_B > 1)[:, None], last_BD, one_BD)
        return one_BD[:, None], jnp.minimum(count_B, 1)


def last_column(x_BSD: jax.Array, count_B: jax.Array, top_RD: jax.Array, most: int) -> jax.Array:
    """L_j * E of rows of j columns, 2 <= j <= most, with L_2, L_3, ... packed into `top_RD`; of others, anything."""
    first_B = count_B * (count_B - 1) // 2 - 1
    total_BD = jnp.zeros_like(x_BSD[:, 0])
    for b in range(min(most, x_BSD.shape[1])):
        weight_BD = top_RD[jnp.clip(first_B + b, 0, top_RD.shape[0] - 1)]
        total_BD += jnp.where((b < count_B)[:, None], weight_BD * x_BSD[:, b], 0)
    return total_BD


class Unfold(nn.Module):
    """The inverse of n-grams, icgm: kernels of width r, ..., 3, 2 take m - n + 1 columns to m, one for each word.

    F = tanh(K'_w (wide convolution) F) for each of them. The n-grams of the source are first stretched to
    m - n + 1 columns, or to one where m < n.
    """

    widest: int  # r

    @nn.compact
    def __call__(self, x_BSD: jax.Array, count_B: jax.Array, words_B: jax.Array, longest: int) -> jax.Array:
        """Columns (B, S, D), of which each row has `count_B`, to `words_B` columns for the words of (B, longest, D)."""
        r, where = self.widest, packed(2, self.widest)
        inverse = self.param('inverse', drawn, (where[r].stop, x_BSD.shape[-1])).astype(x_BSD.dtype)
        less = span(r) - 1
        x_BSD = stretch(x_BSD, count_B, jnp.maximum(words_B - less, 1), max(longest - less, 1))
        for width in range(r, 1, -1):
            x_BSD = jnp.tanh(wide(x_BSD, inverse[where[width]]))
        return x_BSD[:, :longest]


def span(widest: int) -> int:
    """The words under one column once K_2 to K_r have been applied: 2, 4, 7, 11, ...."""
    return 1 + widest * (widest - 1) // 2
