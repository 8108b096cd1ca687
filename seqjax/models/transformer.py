"""The Transformer (Vaswani et al. 2017, "Attention is all you need")."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqjax.errors import UserError
from seqjax.layers.attention import MemoryProjection
from seqjax.layers.dropout import Dropout
from seqjax.layers.positions import sinusoids
from seqjax.layers.transformer import DecoderLayer, EncoderLayer, LayerNorm
from seqjax.models.contract import Translator
from seqjax.options import option

__all__ = ['Transformer']
PAD = 0


class Transformer(Translator):
    """Encoder-decoder of multi-head attention: no recurrence, no convolution (Vaswani et al. 2017).

    Equation 1 is `layers/attention.py`, equation 2 and the sub-layers `layers/transformer.py`, the positions of section
    3.5 `layers/positions.py`. Embeddings are multiplied by sqrt(hidden_size) and may be tied to the output (section
    3.4); dropout is where section 5.4 has it: on each sub-layer's output and on the sum of embeddings and positions.
    """

    num_layers: int = option(3, 'layers of the encoder, and of the decoder', at_least=1)
    hidden_size: int = option(256, 'width of the model, d_model', at_least=1)
    num_heads: int = option(8, 'attention heads; they divide hidden_size', at_least=1)
    feedforward_size: int = option(1024, 'width of the feed-forward layers, d_ff', at_least=1)
    dropout: float = option(0.1, 'probability of dropping a unit', at_least=0.0, below=1.0)
    attention_dropout: float = option(0.0, 'probability of dropping an attention weight (not in the paper)',
                                      at_least=0.0, below=1.0)
    norm: Literal['before', 'after'] = option('before', 'LayerNorm before each sub-layer, or after as in the paper')
    positions: Literal['sinusoidal', 'none'] = option('sinusoidal', 'position encoding')
    tie: Literal['none', 'target', 'all'] = option(
        'target', 'share embeddings: target input and output, or these and the source (needs a joint vocabulary)')
    dtype: Literal['float32', 'bfloat16'] = option('float32', 'compute dtype; parameters stay float32')
    remat: bool = option(False, 'recompute activations in the backward pass: less memory, more time')

    @property
    def parallel_decoder(self) -> bool:
        """All target positions attend at once."""
        return True

    def check(self) -> None:
        """Refuses heads that do not divide the width, and vocabularies that cannot be tied."""
        if self.hidden_size % self.num_heads:
            raise UserError(f'--model.num_heads={self.num_heads} does not divide --model.hidden_size='
                            f'{self.hidden_size}; choose a divisor')
        if self.tie == 'all' and self.source_size != self.target_size:  # None, both, until the data are read
            raise UserError('--model.tie=all needs one vocabulary for both sides (source has '
                            f'{self.source_size} pieces, target {self.target_size}); set --task.joint_vocabulary or '
                            '--model.tie=target')

    def setup(self):
        """Parameters and layers."""
        def table(name, size):
            return self.param(name, nn.initializers.normal(self.hidden_size ** -0.5), (size, self.hidden_size))

        self.target_embedding = table('target_embedding', self.target_size)
        self.source_embedding = (self.target_embedding if self.tie == 'all'
                                 else table('source_embedding', self.source_size))
        if self.tie == 'none':
            self.output_embedding = table('output_embedding', self.target_size)
        else:
            self.output_embedding = self.target_embedding
        fields = dict(num_heads=self.num_heads, feedforward_size=self.feedforward_size, norm=self.norm,
                      dropout=self.dropout, attention_dropout=self.attention_dropout, dtype=self.dtype)
        self.encoder = self.stack(EncoderLayer, in_axes=nn.broadcast)(**fields)
        self.decoder = self.stack(DecoderLayer, in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast))(**fields)
        self.memory = MemoryProjection(self.num_layers, self.num_heads, self.dtype)
        self.embedding_dropout = Dropout(self.dropout)
        if self.norm == 'before':
            self.encoder_norm, self.decoder_norm = LayerNorm(self.dtype), LayerNorm(self.dtype)

    def stack(self, layer, in_axes):
        """`layer`, scanned over num_layers: one compiled body however deep the stack is."""
        body = nn.remat(layer, prevent_cse=False) if self.remat else layer
        return nn.scan(body, variable_axes={'params': 0, 'intermediates': 0}, length=self.num_layers,
                       split_rngs={'params': True, 'dropout': True}, in_axes=in_axes)

    def embed(self, table_VD, tokens_BT, position_B1, length):
        """sqrt(D) times the embedding plus the position's encoding, for positions below `length`."""
        x_BTD = table_VD[tokens_BT] * self.hidden_size ** 0.5
        if self.positions == 'sinusoidal':
            table_LD = jnp.asarray(sinusoids(length, self.hidden_size))
            x_BTD = x_BTD + table_LD[position_B1 + jnp.arange(tokens_BT.shape[1])]
        return self.embedding_dropout(x_BTD.astype(self.dtype))

    def encode(self, source_BS: jax.Array) -> Any:
        """The source's mask (B, S) and, for every decoder layer, its projected keys and values (N, B, S, H, K)."""
        mask_BS = source_BS != PAD
        x_BSD = self.embed(self.source_embedding, source_BS, jnp.zeros((1, 1), jnp.int32), source_BS.shape[1])
        x_BSD, _ = self.encoder(x_BSD, mask_BS[:, None, :])
        if self.norm == 'before':
            x_BSD = self.encoder_norm(x_BSD)
        keys, values = self.memory(x_BSD)
        return {'mask': mask_BS, 'keys': keys, 'values': values}

    def start(self, memory: Any, max_length: int) -> Any:
        """An empty key/value cache (N, B, L, H, K) with room for `max_length` tokens, and each row's position (B,)."""
        B = memory['mask'].shape[0]
        shape = (self.num_layers, B, max_length, self.num_heads, self.hidden_size // self.num_heads)
        return {'keys': jnp.zeros(shape, self.dtype), 'values': jnp.zeros(shape, self.dtype),
                'position': jnp.zeros((B,), jnp.int32)}

    def decode(self, tokens_BT: jax.Array, memory: Any, carry: Any = None) -> tuple[jax.Array, Any]:
        """Logits (B, T, V) and the cache after `tokens_BT`; without a carry, one causal pass from the beginning."""
        T = tokens_BT.shape[1]
        if carry is None:
            position_B, cache, length = None, None, T
            position_B1 = jnp.zeros((1, 1), jnp.int32)
        else:
            position_B, cache, length = carry['position'], (carry['keys'], carry['values']), carry['keys'].shape[2]
            position_B1 = position_B[:, None]
        mask_BTL = jnp.arange(length) <= (position_B1 + jnp.arange(T))[:, :, None]
        x_BTD = self.embed(self.target_embedding, tokens_BT, position_B1, length)
        (x_BTD, cache, _), _ = self.decoder((x_BTD, cache, jnp.zeros((), jnp.int32)),
                                            (memory['keys'], memory['values']), mask_BTL, memory['mask'], position_B)
        if self.norm == 'before':
            x_BTD = self.decoder_norm(x_BTD)
        logits_BTV = jnp.einsum('BTD,VD->BTV', x_BTD, self.output_embedding.astype(self.dtype),
                                preferred_element_type=jnp.float32)
        if carry is not None:
            carry = {'keys': cache[0], 'values': cache[1], 'position': position_B + T}
        return logits_BTV, carry

    def partition_rules(self):
        """Widths are split: heads and feed-forward units over 'tensor', the model's width over 'fsdp'."""
        return (('query_key_value$', ('fsdp', None, 'tensor')), ('key_value$', ('fsdp', None, None, 'tensor')),
                ('query$|expand/kernel$', ('fsdp', 'tensor')), ('output$|contract/kernel$', ('tensor', 'fsdp')),
                ('embedding$', ('tensor', 'fsdp')))
