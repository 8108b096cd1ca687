"""Scaled dot-product attention over several heads (Vaswani et al. 2017, section 3.2)."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqjax.layers.cache import Piece, write
from seqjax.layers.dropout import Dropout
from seqjax.layers.positions import Relative, rotate
from seqjax.layers.products import has_to_lie, matmul, mixtures, product, similarities
from seqjax.layers.unpadding import Unpadding, pad, unpad

LOWEST = jnp.finfo(jnp.float32).min  # finite, or a row that sees nothing would be NaN, and so would its gradient


def masked_softmax(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """Softmax in float32 over the last axis, where `mask` (broadcast) is True.

    Rows sum to 1 and are exactly 0 where the mask is False; a row with nothing to attend to is all zero, and finite.
    """
    weights = jax.nn.softmax(jnp.where(mask, scores.astype(jnp.float32), LOWEST), axis=-1)
    return jnp.where(mask, weights, 0.0)


def heads_apart(x: jax.Array, by: Unpadding | None, num_heads: int, parts: int = 1) -> tuple[jax.Array, ...]:
    """Parts that stand side by side, (B, T, P D) or (N, P D) without padding, each (B, H, T, K) and 0 at padding.

    So attention is a matrix product for each row and head.
    """
    return (_apart_by_copies if has_to_lie(x) else _apart)(x, by, num_heads, parts)


def _apart(x, by, num_heads, parts):
    x_BTD = pad(x, by)
    return tuple(x_BTD.reshape(*x_BTD.shape[:2], parts, num_heads, -1).transpose(2, 0, 3, 1, 4))


def _joined_by_copies(num_heads, parts, by, slopes):
    """The slopes of parts side by side, each made by itself: one loop over all asks at each element whose it is."""
    return jnp.concatenate(jax.lax.optimization_barrier([heads_joined(slope, by) for slope in slopes]), axis=-1), None


# In float32 the one loop is sooner done.
_apart_by_copies = jax.custom_vjp(_apart, nondiff_argnums=(2, 3))
_apart_by_copies.defvjp(lambda x, by, num_heads, parts: (_apart(x, by, num_heads, parts), by), _joined_by_copies)


def heads_joined(x_BHTK: jax.Array, by: Unpadding | None) -> jax.Array:
    """One part of `heads_apart` undone: (B, T, D), or (N, D)."""
    B, H, T, K = x_BHTK.shape
    return unpad(x_BHTK.swapaxes(1, 2).reshape(B, T, H * K), by)


def scores_of(products_BHTS: jax.Array, q_BHTK: jax.Array, bias_BHTS: jax.Array | None, scale: bool) -> jax.Array:
    """Products of queries and keys, scaled and with the bias, if any."""
    scores_BHTS = products_BHTS * q_BHTK.shape[-1] ** -0.5 if scale else products_BHTS
    return scores_BHTS if bias_BHTS is None else scores_BHTS + bias_BHTS


def dot_product_attention(q_BHTK: jax.Array, k_BHSK: jax.Array, v_BHSK: jax.Array, mask_BTS: jax.Array, drop=None,
                          bias_BHTS: jax.Array | None = None, scale: bool = True) -> tuple[jax.Array, jax.Array]:
    """softmax(Q K^T / sqrt(d_k)) V, equation 1.

    Args:
      mask_BTS: True where a query may look; broadcast over B and T.
      drop: a function applied to the weights (dropout), or None.
      bias_BHTS: added to the scaled scores (relative positions), or None.
      scale: whether scores are divided by sqrt(d_k).

    Returns:
      The context (B, H, T, K) in the dtype of `v_BHSK` and the weights (B, H, T, S) in float32, before dropout.
    """
    scores_BHTS = scores_of(similarities(q_BHTK, k_BHSK), q_BHTK, bias_BHTS, scale)
    weights_BHTS = masked_softmax(scores_BHTS, mask_BTS[:, None])
    used_BHTS = weights_BHTS if drop is None else drop(weights_BHTS)
    return mixtures(used_BHTS.astype(v_BHSK.dtype), v_BHSK), weights_BHTS


def attention_to_pieces(q_BHTK: jax.Array, pieces: Sequence[Piece], mask_BTM: jax.Array, drop=None,
                        bias_BHTM: jax.Array | None = None, scale: bool = True) -> jax.Array:
    """The context of `dot_product_attention`, (B, H, T, K), of keys and values in pieces, M slots in all.

    A piece that nothing has reached is not read. The sums of the others are put together as by Milakov and Gimelshein
    2018, "Online normalizer calculation for softmax", section 3.1.
    """
    def sums_of(begin, keys_BHKM, values_BHMK):
        span = slice(begin, begin + values_BHMK.shape[2])
        bias = None if bias_BHTM is None else bias_BHTM[..., span]
        scores_BHTM = scores_of(product(q_BHTK, keys_BHKM, 'float32'), q_BHTK, bias, scale)
        seen_B1TM = mask_BTM[:, None, :, span]
        scores_BHTM = jnp.where(seen_B1TM, scores_BHTM, LOWEST)
        top_BHT1 = scores_BHTM.max(axis=-1, keepdims=True)
        weights_BHTM = jnp.where(seen_B1TM, jnp.exp(scores_BHTM - top_BHT1), 0.0)
        used_BHTM = weights_BHTM if drop is None else drop(weights_BHTM)
        return (product(used_BHTM.astype(values_BHMK.dtype), values_BHMK, 'float32'),
                weights_BHTM.sum(axis=-1, keepdims=True), top_BHT1)

    def together(begin, sums, *piece):
        (mixture, total, top), (other_mixture, other_total, other_top) = sums, sums_of(begin, *piece)
        greatest = jnp.maximum(top, other_top)
        by, other_by = jnp.exp(top - greatest), jnp.exp(other_top - greatest)
        return mixture * by + other_mixture * other_by, total * by + other_total * other_by, greatest

    sums, begin = sums_of(0, *pieces[0][:2]), pieces[0].values_BHMK.shape[2]
    for piece in pieces[1:]:
        adding = functools.partial(together, begin)
        if piece.reached is None:
            sums = adding(sums, *piece[:2])
        else:
            sums = jax.lax.cond(piece.reached, adding, lambda sums, *_: sums, sums, *piece[:2])
        begin += piece.values_BHMK.shape[2]
    mixture_BHTK, total_BHT1, _ = sums
    return (mixture_BHTK / jnp.where(total_BHT1 == 0.0, 1.0, total_BHT1)).astype(pieces[0].values_BHMK.dtype)


def projection_init(batch_axis: int | tuple[int, ...] = ()) -> nn.initializers.Initializer:
    """Glorot uniform for a kernel whose last axis is its output; `batch_axis` holds kernels that stand side by side."""
    return nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform', in_axis=-2 if not batch_axis else 0, out_axis=-1,
                                            batch_axis=batch_axis)


class SelfAttention(nn.Module):
    """Multi-head self-attention, section 3.2.2: one fused projection to queries, keys and values, no biases."""

    num_heads: int
    dropout: float = 0.0
    dtype: str = 'float32'
    scale: bool = True

    @nn.compact
    def __call__(self, x_BTD: jax.Array, mask_BTS: jax.Array, cache=None, relative: Relative = Relative(),
                 prefix=None, by: Unpadding | None = None) -> tuple[jax.Array, tuple]:
        """Attends within `x_BTD`, or within a cache after writing `x_BTD` into it; and to a prefix, where there is one.

        Args:
          mask_BTS: True where a query may look; S is the prefix's length (if any) and T, or the cache's length.
          cache: None, or (pieces, slot): this layer's of `layers/cache.py`, and the tokens' `Slots.slot` in them.
          relative: the positions, where queries, keys or scores know them.
          prefix: None, or keys and values, each (B, H, S, K), of tokens that stand before all of these. The weights on
            them are shown as 'cross_attention'.
          by: where the tokens are, if `x_BTD` has none but those, (N, D); then the output has none other either.

        Returns:
          The output (B, T, D) and the cache's pieces, updated; without a cache, keys and values of `x_BTD`.

        With a cache weights are not shown.
        """
        width = x_BTD.shape[-1]
        kernel_D3D = self.param('query_key_value', projection_init(batch_axis=1), (width, 3, width))
        projected = matmul(x_BTD, kernel_D3D.reshape(width, 3 * width).astype(self.dtype))
        q_BHTK, k_BHTK, v_BHTK = heads_apart(projected, by, self.num_heads, 3)
        if relative.turn is not None:  # a cache holds turned keys: their positions do not change
            q_BHTK, k_BHTK = rotate(q_BHTK, relative.turn), rotate(k_BHTK, relative.turn)
        if cache is None:
            context_BHTK, kept = self.within(q_BHTK, k_BHTK, v_BHTK, mask_BTS, relative, prefix), (k_BHTK, v_BHTK)
        else:
            kept = write(cache[0], k_BHTK, v_BHTK, cache[1])
            dtype, pieces = kept[0].values_BHMK.dtype, kept
            if prefix is not None:
                pieces = [Piece(prefix[0].swapaxes(2, 3).astype(dtype), prefix[1].astype(dtype)), *kept]
            if self.has_rng('dropout'):  # what is dropped cannot be drawn under a condition
                pieces = [piece._replace(reached=None) for piece in pieces]
            context_BHTK = attention_to_pieces(q_BHTK.astype(dtype), pieces, mask_BTS, Dropout(self.dropout),
                                               relative.bias_BHTS, self.scale)
        out_DD = self.param('output', projection_init(), (width, width)).astype(self.dtype)
        return matmul(heads_joined(context_BHTK, by).astype(self.dtype), out_DD), kept

    def within(self, q_BHTK, k_BHTK, v_BHTK, mask_BTS, relative, prefix):
        """The context of tokens that see each other, and those of a prefix."""
        S = 0 if prefix is None else prefix[0].shape[2]
        if prefix is not None:
            k_BHTK, v_BHTK = (jnp.concatenate([old.astype(new.dtype), new], axis=2)
                              for old, new in zip(prefix, (k_BHTK, v_BHTK)))
        context_BHTK, weights_BHTS = dot_product_attention(q_BHTK, k_BHTK, v_BHTK, mask_BTS, Dropout(self.dropout),
                                                           relative.bias_BHTS, self.scale)
        if prefix is not None:
            self.sow('intermediates', 'cross_attention', weights_BHTS[..., :S])
        self.sow('intermediates', 'self_attention', weights_BHTS[..., S:])
        return context_BHTK


class CrossAttention(nn.Module):
    """Multi-head attention on keys and values that were projected once, when the source was encoded."""

    num_heads: int
    dropout: float = 0.0
    dtype: str = 'float32'
    scale: bool = True

    @nn.compact
    def __call__(self, x_BTD: jax.Array, k_BHSK: jax.Array, v_BHSK: jax.Array, mask_BS: jax.Array,
                 by: Unpadding | None = None) -> jax.Array:
        """Attends from `x_BTD` (B, T, D) to the source; returns (B, T, D). With `by` both are (N, D)."""
        width = x_BTD.shape[-1]
        query_DD = self.param('query', projection_init(), (width, width))
        q_BHTK, = heads_apart(matmul(x_BTD, query_DD.astype(self.dtype)), by, self.num_heads)
        context_BHTK, weights_BHTS = dot_product_attention(q_BHTK, k_BHSK, v_BHSK, mask_BS[:, None],
                                                           Dropout(self.dropout), scale=self.scale)
        self.sow('intermediates', 'cross_attention', weights_BHTS)
        out_DD = self.param('output', projection_init(), (width, width))
        return matmul(heads_joined(context_BHTK, by), out_DD.astype(self.dtype))


class MemoryProjection(nn.Module):
    """Keys and values of the source for the cross-attention of every decoder layer, in one matrix product."""

    num_layers: int
    num_heads: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, memory_BSD: jax.Array, by: Unpadding | None = None) -> tuple[jax.Array, jax.Array]:
        """Returns keys and values, each (N, B, H, S, K); with `by` of a memory without padding, and 0 at padding."""
        width = memory_BSD.shape[-1]
        kernel_DN2D = self.param('key_value', projection_init(batch_axis=(1, 2)), (width, self.num_layers, 2, width))
        projected = matmul(memory_BSD, kernel_DN2D.reshape(width, -1).astype(self.dtype))
        parts = heads_apart(projected, by, self.num_heads, 2 * self.num_layers)
        return jnp.stack(parts[::2]), jnp.stack(parts[1::2])
