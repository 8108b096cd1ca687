"""Transformer blocks (Vaswani et al. 2017, section 3.1), written to be scanned over layers."""

import jax
from flax import linen as nn

from seqjax.layers.attention import CrossAttention, SelfAttention, projection_init
from seqjax.layers.dropout import Dropout
from seqjax.layers.normalisation import normaliser
from seqjax.layers.positions import Relative
from seqjax.layers.products import Dense
from seqjax.layers.unpadding import Unpadding


class FeedForward(nn.Module):
    """max(0, x W1 + b1) W2 + b2, equation 2, with dropout on the hidden units where asked for."""

    hidden_size: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """Maps (B, T, D) to (B, T, D)."""
        h_BTF = Dense(self.hidden_size, dtype=self.dtype, kernel_init=projection_init(), name='expand')(x_BTD)
        return Dense(x_BTD.shape[-1], dtype=self.dtype, kernel_init=projection_init(), name='contract')(
            jax.nn.relu(h_BTF))


class Residual(nn.Module):
    """A sub-layer's surroundings: LayerNorm(x + Dropout(f(x))), or x + Dropout(f(LayerNorm(x))).

    The normalisation may be another, or none, and the connection around f may be missing.
    """

    norm: str
    dropout: float
    dtype: str = 'float32'
    normalisation: str = 'layer'
    residual: bool = True

    @nn.compact
    def __call__(self, x_BTD: jax.Array, f, real_BT: jax.Array | None = None) -> jax.Array:
        """Applies `f` to (B, T, D) between normalisation, dropout and the residual connection.

        `real_BT` is where batch normalisation looks for statistics; None is everywhere.
        """
        norm = normaliser(self.normalisation, x_BTD.shape[-1], self.dtype, name='norm')
        y_BTD = Dropout(self.dropout)(f(norm(x_BTD, real_BT) if self.norm == 'before' else x_BTD))
        if self.residual:
            y_BTD = x_BTD + y_BTD
        return y_BTD if self.norm == 'before' else norm(y_BTD, real_BT)


class Layer(nn.Module):
    """What a layer of an encoder and one of a decoder share: their options and, by name, their parts."""

    num_heads: int
    feedforward_size: int
    norm: str
    dropout: float
    attention_dropout: float = 0.0
    dtype: str = 'float32'
    normalisation: str = 'layer'
    residual: bool = True
    scale: bool = True

    def attention(self, kind: type[nn.Module], name: str) -> nn.Module:
        """An attention of that kind, with this layer's options."""
        return kind(self.num_heads, self.attention_dropout, self.dtype, self.scale, name=name)

    def position_wise(self) -> nn.Module:
        """The feed-forward sub-layer, at each position by itself."""
        return FeedForward(self.feedforward_size, self.dtype, name='feedforward')

    def around(self, name: str) -> nn.Module:
        """What surrounds the sub-layer of that name."""
        return Residual(self.norm, self.dropout, self.dtype, self.normalisation, self.residual, name=f'{name}_residual')


class EncoderLayer(Layer):
    """Self-attention and feed-forward, each a residual sub-layer. A scan's body: the carry is x_BSD."""

    @nn.compact
    def __call__(self, x_BSD: jax.Array, mask_BTS: jax.Array,
                 relative: Relative = Relative(), by: Unpadding | None = None) -> tuple[jax.Array, None]:
        """Maps (B, S, D) to (B, S, D), or tokens without padding, (N, D), where `by` says where they are."""
        attention, feedforward = self.attention(SelfAttention, 'self_attention'), self.position_wise()
        real_BS = mask_BTS.any(axis=1)
        x_BSD = self.around('self_attention')(x_BSD, lambda x: attention(x, mask_BTS, relative=relative, by=by)[0],
                                              real_BS)
        x_BSD = self.around('feedforward')(x_BSD, feedforward, real_BS)
        self.sow('intermediates', 'hidden', x_BSD)
        return x_BSD, None


class DecoderLayer(Layer):
    """Causal self-attention, attention on the source, feed-forward. A scan's body: the carry is x_BTD.

    With `cross` False the source is the beginning of the same sequence, as in decoder-only translation: self-attention
    reads its keys and values beside the target's own, and there is no other attention.
    """

    cross: bool = True

    @nn.compact
    def __call__(self, x_BTD: jax.Array, memory_kv, mask_BTL: jax.Array, memory_mask_BS,
                 relative: Relative = Relative(), real_BT: jax.Array | None = None, by: Unpadding | None = None,
                 cache=None) -> tuple:
        """Maps (B, T, D) to (B, T, D), or with `by` (N, D) to (N, D).

        Args:
          memory_kv: this layer's keys and values of the source, each (B, H, S, K); None where `x_BTD` is the source.
          mask_BTL: True where a position may look at another (or at a cache slot); without `cross`, on the source's
            positions first.
          memory_mask_BS: True on real source tokens; without `cross`, None.
          relative: the positions, where self-attention knows them.
          real_BT: True on tokens that batch normalisation counts; None where it counts all.
          by: where the tokens are, if `x_BTD` is without padding.
          cache: None, or (pieces, slot): this layer's of `layers/cache.py`, and the tokens' `Slots.slot` in them.

        Returns:
          The layer's output, and what is to be kept: the cache's pieces, updated; keys and values of `x_BTD`, each
          (B, H, S, K), where it is the source; else None.
        """
        kept = None
        attention, feedforward = self.attention(SelfAttention, 'self_attention'), self.position_wise()

        def attend(x):
            nonlocal kept
            y, kept = attention(x, mask_BTL, cache, relative, None if self.cross else memory_kv, by)
            return y

        x_BTD = self.around('self_attention')(x_BTD, attend, real_BT)
        if self.cross:
            cross = self.attention(CrossAttention, 'cross_attention')
            x_BTD = self.around('cross_attention')(x_BTD, lambda x: cross(x, *memory_kv, memory_mask_BS, by), real_BT)
        x_BTD = self.around('feedforward')(x_BTD, feedforward, real_BT)
        self.sow('intermediates', 'hidden', x_BTD)
        return x_BTD, kept if cache is not None or memory_kv is None else None
