"""Decoder-only translation: the source is the beginning of the sequence that one causal stack goes on with."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqjax.errors import UserError
from seqjax.layers import cache
from seqjax.layers.dropout import Dropout
from seqjax.layers.normalisation import normaliser
from seqjax.layers.transformer import DecoderLayer
from seqjax.layers.unpadding import Unpadding
from seqjax.models.contract import shift_right, shown
from seqjax.models.transformer import Transformer
from seqjax.options import option

__all__ = ['DecoderOnly']


class DecoderOnly(Transformer):
    """One causal stack that reads the source, then BOS, then the target (Liu et al. 2018, section 4.2.3).

    Source and target are one sequence, as in a language model, with BOS for the separator; the loss is on the target
    alone. Attention on the source is self-attention, and no parameter is there for it. With `prefix_mask='prefix'` the
    source's tokens see each other both ways (Dong et al. 2019, section 2.3, the sequence-to-sequence mask; Raffel et
    al. 2020, section 3.2.1, the prefix language model); the target stays causal in both.

    What the stack makes of the source depends on the source alone, so its keys and values in every layer are the
    memory, and the cache holds the target's. The target's positions continue after each row's own source: padding
    shifts nothing. Learned positions are one table for both. T5's buckets tell left from right where the source is
    seen both ways, and are all for the past where it is not. The layers are the Transformer's without attention on
    another sequence; source and target have embeddings of their own unless `tie` is 'all'.
    """

    num_layers: int = option(6, 'layers of the one stack', at_least=1)
    prefix_mask: Literal['causal', 'prefix'] = option(
        'causal', 'what a source token sees: those before it, or the whole source')

    def check(self) -> None:
        """Refuses batch statistics, besides what the Transformer refuses."""
        super().check()
        if self.normalisation == 'batch':
            raise UserError('--model.normalisation=batch takes one batch of tokens, and source and target pass through '
                            'the stack one after the other; choose layer, rms or none')

    def setup(self):
        """Parameters and layers."""
        self.tables()
        self.joint_positions = None
        if self.positions == 'learned':
            self.joint_positions = self.table('position_embedding', self.source_length + self.target_length)
        self.decoder_relative = self.relative(self.prefix_mask == 'prefix' or not self.causal)
        self.decoder = self.stack(DecoderLayer, in_axes=(0,) + 5 * (nn.broadcast,))(**self.decoder_fields())
        self.embedding_dropout = Dropout(self.dropout)
        if self.norm == 'before':
            self.decoder_norm = normaliser(self.normalisation, self.hidden_size, self.dtype)

    def decoder_fields(self):
        """There is no attention on another sequence."""
        return self.layer_fields() | {'cross': False}

    def encode(self, source_BS: jax.Array, by: Unpadding | None = None) -> Any:
        """The source's mask (B, S) and its keys and values in every layer (N, B, H, S, K)."""
        mask_BS, S = self.real(source_BS), source_BS.shape[1]
        where_1S = jnp.arange(S)[None]
        visible_SS = jnp.ones((S, S), bool) if self.prefix_mask == 'prefix' else jnp.tri(S, dtype=bool)
        x_BSD = self.embed(self.source_embedding, source_BS, where_1S, S, self.joint_positions, by)
        _, (keys, values) = self.decoder(x_BSD, None, mask_BS[:, None] & visible_SS, None,
                                         self.decoder_relative(where_1S, where_1S), None, by)
        return {'mask': mask_BS, 'keys': keys, 'values': values}

    def decode(self, tokens_BT: jax.Array, memory: Any, carry: Any = None,
               by: Unpadding | None = None) -> tuple[jax.Array, Any]:
        """Logits (B, T, V) and the cache after `tokens_BT`; without a carry, one causal pass from the beginning."""
        mask_BS, (B, T) = memory['mask'], tokens_BT.shape
        S = mask_BS.shape[1]
        begin_B1 = mask_BS.sum(axis=1, keepdims=True)  # the first position that is the target's
        at = self.slots(tokens_BT, carry)
        mask_BTS = jnp.broadcast_to(mask_BS[:, None], (B, T, S))
        mask_BTM = jnp.broadcast_to(at.seen_BTM, (B, T, len(at.when_M)))
        where_BL = jnp.concatenate([jnp.broadcast_to(jnp.arange(S), (B, S)), begin_B1 + at.when_M], axis=1)
        where_BT = begin_B1 + at.where_BT
        x_BTD = self.embed(self.target_embedding, tokens_BT, where_BT, S + cache.steps(carry, tokens_BT),
                           self.joint_positions, by)
        x_BTD, carry = self.through(x_BTD, at, memory, jnp.concatenate([mask_BTS, mask_BTM], axis=2), None, carry,
                                    self.decoder_relative(where_BT, where_BL), by=by)
        return self.logits(x_BTD), carry

    def capture(self, params: Any, batch: Any) -> dict[str, jax.Array]:
        """As the contract has it, apart for the stack's two passes: 'source/...' and 'target/...'.

        The target's weights on the source are '.../cross_attention', those on its own past '.../self_attention': a row
        of the two together sums to 1.
        """
        def look(*args, method):
            return self.apply({'params': params}, *args, method=method, mutable=['intermediates'])

        memory, source = look(batch.source, method='encode')
        _, target = look(shift_right(batch.target), memory, method='decode')
        return {f'{side}/{name}': value for side, sown in (('source', source), ('target', target))
                for name, value in shown(sown).items()}
