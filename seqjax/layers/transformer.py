"""Transformer blocks (Vaswani et al. 2017, section 3.1), written to be scanned over layers."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqjax.layers.attention import CrossAttention, SelfAttention, projection_init
from seqjax.layers.dropout import Dropout
from seqjax.layers.positions import Relative


class FeedForward(nn.Module):
    """max(0, x W1 + b1) W2 + b2, equation 2, with dropout on the hidden units where asked for."""

    hidden_size: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """Maps (B, T, D) to (B, T, D)."""
        h_BTF = nn.Dense(self.hidden_size, dtype=self.dtype, kernel_init=projection_init(), name='expand')(x_BTD)
        return nn.Dense(x_BTD.shape[-1], dtype=self.dtype, kernel_init=projection_init(), name='contract')(
            jax.nn.relu(h_BTF))


class Residual(nn.Module):
    """A sub-layer's surroundings: LayerNorm(x + Dropout(f(x))), or x + Dropout(f(LayerNorm(x)))."""

    norm: str
    dropout: float
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x_BTD: jax.Array, f) -> jax.Array:
        """Applies `f` to (B, T, D) between normalisation, dropout and the residual connection."""
        norm = LayerNorm(self.dtype, name='norm')
        if self.norm == 'before':
            return x_BTD + Dropout(self.dropout)(f(norm(x_BTD)))
        return norm(x_BTD + Dropout(self.dropout)(f(x_BTD)))


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016, equation 4): statistics in float32, result in the compute dtype."""

    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis, then scales and shifts it."""
        return nn.LayerNorm(epsilon=1e-6, dtype=jnp.float32)(x).astype(self.dtype)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each a residual sub-layer. A scan's body: the carry is x_BSD."""

    num_heads: int
    feedforward_size: int
    norm: str
    dropout: float
    attention_dropout: float = 0.0
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x_BSD: jax.Array, mask_BTS: jax.Array,
                 relative: Relative = Relative()) -> tuple[jax.Array, None]:
        """Maps (B, S, D) to (B, S, D)."""
        attention = SelfAttention(self.num_heads, self.attention_dropout, self.dtype, name='self_attention')
        feedforward = FeedForward(self.feedforward_size, self.dtype, name='feedforward')

        def residual(name):
            return Residual(self.norm, self.dropout, self.dtype, name=name)

        x_BSD = residual('self_attention_residual')(x_BSD, lambda x: attention(
            x, mask_BTS, relative=relative)[0])
        x_BSD = residual('feedforward_residual')(x_BSD, feedforward)
        self.sow('intermediates', 'hidden', x_BSD)
        return x_BSD, None


class DecoderLayer(nn.Module):
    """Causal self-attention, attention on the source, feed-forward. A scan's body: it carries (x_BTD, cache, layer).

    With `cross` False the source is the beginning of the same sequence, as in decoder-only translation: self-attention
    reads its keys and values beside the target's own, and there is no other attention.
    """

    num_heads: int
    feedforward_size: int
    norm: str
    dropout: float
    attention_dropout: float = 0.0
    dtype: str = 'float32'
    cross: bool = True

    @nn.compact
    def __call__(self, carry, memory_kv, mask_BTL: jax.Array, memory_mask_BS, position_B,
                 relative: Relative = Relative()) -> tuple:
        """One layer; the cache of all layers is the scan's carry, so that it is updated in place and never copied.

        Args:
          carry: (x_BTD, None or (keys_NBLHK, values_NBLHK), layer's index).
          memory_kv: this layer's keys and values of the source, each (B, S, H, K); None where `x_BTD` is the source.
          mask_BTL: True where a position may look at another (or at a cache slot); without `cross`, on the source's
            positions first.
          memory_mask_BS: True on real source tokens; without `cross`, None.
          position_B: where each row's next token goes in the cache; None without a cache.
          relative: the positions, where self-attention knows them.

        Returns:
          The carry, and where `x_BTD` is the source its keys and values, each (B, S, H, K); else None.
        """
        x_BTD, cache, layer = carry
        kept = None
        attention = SelfAttention(self.num_heads, self.attention_dropout, self.dtype, name='self_attention')
        feedforward = FeedForward(self.feedforward_size, self.dtype, name='feedforward')

        def residual(name):
            return Residual(self.norm, self.dropout, self.dtype, name=name)

        def attend(x):
            nonlocal kept
            y, kept = attention(x, mask_BTL, None if cache is None else (*cache, layer, position_B), relative,
                                None if self.cross else memory_kv)
            return y

        x_BTD = residual('self_attention_residual')(x_BTD, attend)
        if self.cross:
            cross = CrossAttention(self.num_heads, self.attention_dropout, self.dtype, name='cross_attention')
            x_BTD = residual('cross_attention_residual')(x_BTD, lambda x: cross(x, *memory_kv, memory_mask_BS))
        x_BTD = residual('feedforward_residual')(x_BTD, feedforward)
        self.sow('intermediates', 'hidden', x_BTD)
        cache = None if cache is None else kept
        return (x_BTD, cache, layer + 1), (kept if memory_kv is None else None)
