"""Attention between recurrent networks (Bahdanau et al. 2015)."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqjax.layers.alignment import additive_scores, attend
from seqjax.layers.cells import Cell
from seqjax.layers.dropout import Dropout
from seqjax.layers.products import Dense, logits
from seqjax.layers.recurrence import Bridge, Stack, maxout
from seqjax.layers.steps import multiply, over_time
from seqjax.layers.unpadding import Unpadding, pad, unpad
from seqjax.models.stacks import Stacked
from seqjax.options import option

__all__ = ['Bahdanau']
PAD = 0


class Bahdanau(Stacked):
    """Joint alignment and translation (Bahdanau et al. 2015).

    A bidirectional encoder; e_ij = v^T tanh(W_a s_{i-1} + U_a h_j) from the state *before* step i (A.1.2), a =
    softmax(e) and c_i = sum_j a_ij h_j (equations 5 and 6), s_i = f(s_{i-1}, y_{i-1}, c_i) (equation 4 and A.2.2), and
    s_0 = tanh(W_s h_1) of the backward h_1.

    The readout is the maxout of U_o s_i + V_o y_{i-1} + C_o c_i (A.2.2), as wide as an embedding. It reads s_i, the
    state that step i has just made, as equation 4 does, g(y_{i-1}, s_i, c_i); the appendix prints s_{i-1}, which
    leaves the gates of step i no say in word i. 'linear' takes the three side by side into the output matrix.

    More layers stack plainly: only the first reads the attention, and is read by it. Weights start as
    `layers/recurrence.py` says, v as normal(1/sqrt(width)) in place of the appendix's zeros.
    """

    cell: Literal['gru', 'lstm'] = option('gru', 'recurrent cell')
    num_layers: int = option(1, 'layers of the encoder, and of the decoder', at_least=1)
    hidden_size: int = option(512, 'units a layer and direction', at_least=1)
    embedding_size: int | None = option(None, 'width of the embeddings; none: hidden_size', at_least=1)
    attention_size: int | None = option(None, 'width of the alignment model; none: hidden_size', at_least=1)
    dropout: float = option(0.2, 'probability of dropping a unit, on no recurrent connection', at_least=0.0, below=1.0)
    readout: Literal['maxout', 'linear'] = option('maxout', 'what stands before the softmax')
    forget_bias: float = option(1.0, 'initial bias of the forget gate', when={'cell': ('lstm',)})
    reset: Literal['before', 'after'] = option('before', 'reset gate before the recurrent product, or after',
                                               when={'cell': ('gru',)})
    dtype: Literal['float32', 'bfloat16'] = option('float32', 'compute dtype; parameters and states stay float32')

    def setup(self) -> None:
        """Declares the parameters."""
        H, E = self.hidden_size, self.embedding_size or self.hidden_size
        A = self.attention_size or H
        cell = self.stacked(Cell(self.cell, H, self.forget_bias, self.reset))
        init, glorot = nn.initializers.normal(E ** -0.5), nn.initializers.glorot_uniform()
        self.source_embedding = self.param('source_embedding', init, (self.source_size, E))
        self.target_embedding = self.param('target_embedding', init, (self.target_size, E))
        fields = dict(cell=cell, num_layers=self.num_layers, dropout=self.dropout, dtype=self.dtype,
                      residual=self.residual)
        self.encoder = Stack(input_size=E, bidirectional=True, **fields)
        self.decoder = Stack(input_size=E, **fields)
        self.bridge = [Bridge(cell.at(n), self.dtype) for n in range(self.num_layers)]
        self.alignment_keys = Dense(A, dtype=self.dtype)
        self.query_kernel = self.param('query_kernel', glorot, (H, A))
        self.alignment_v = self.param('alignment_v', nn.initializers.normal(A ** -0.5), (A,))
        self.context_kernel = self.param('context_kernel', glorot, (2 * H, cell.width))
        self.drop = Dropout(self.dropout)
        if self.readout == 'maxout':
            self.readout_layer = Dense(2 * E, dtype=self.dtype)
        width = E if self.readout == 'maxout' else 3 * H + E
        self.output_embedding = self.param('output_embedding', nn.initializers.normal(width ** -0.5),
                                           (self.target_size, width))
        self.output_bias = self.param('output_bias', nn.initializers.zeros, (self.target_size,))

    def embed(self, table_VE, tokens_BT):
        """Embeddings in the compute dtype, with dropout."""
        return self.drop(table_VE[tokens_BT].astype(self.dtype))

    def encode(self, source_BS: jax.Array, by: Unpadding | None = None) -> Any:
        """The annotations h (B, S, 2H), U_a h (B, S, A), and the source's mask (B, S)."""
        mask_BS = source_BS != PAD
        values_BSD, _ = self.encoder(self.embed(self.source_embedding, unpad(source_BS, by)), mask_BS, by=by)
        return {'values': values_BSD, 'keys': self.alignment_keys(values_BSD), 'mask': mask_BS}

    def start(self, memory: Any, max_length: int) -> Any:
        """s_0 of each layer, from the backward state at the first source token, which has read all of the source."""
        first_BH = memory['values'][:, 0, self.hidden_size:]
        return tuple(bridge(first_BH) for bridge in self.bridge)

    def decode(self, tokens_BT: jax.Array, memory: Any, carry: Any = None,
               by: Unpadding | None = None) -> tuple[jax.Array, Any]:
        """Logits (B, T, V) and each layer's state after the last token."""
        carry = self.start(memory, tokens_BT.shape[1]) if carry is None else carry
        embedded_BTE = self.embed(self.target_embedding, unpad(tokens_BT, by))
        real_BT = self.counted(tokens_BT, memory)
        hidden_BTH, context_BTD, carry = self.attend_over_time(embedded_BTE, memory, carry, real_BT, by)
        x_BTD = jnp.concatenate([self.drop(unpad(hidden_BTH, by)), embedded_BTE, self.drop(unpad(context_BTD, by))],
                                axis=-1)
        if self.readout == 'maxout':
            x_BTD = self.readout_layer(x_BTD)
            x_BTD = self.drop(maxout(x_BTD))
        return logits(x_BTD, self.output_embedding.astype(self.dtype), self.output_bias), carry

    def attend_over_time(self, embedded_BTE, memory, carry, real_BT, by):
        """The scan over target tokens: top states (B, T, H), contexts (B, T, 2H), and the carry."""
        first = self.decoder.layer[0]
        projected_BTG = pad(first.project(embedded_BTE, real_BT), by)
        weights, looking = first.weights(), first.looking
        kernels = first.kernels(weights) | {'query': self.query_kernel.astype(self.dtype), 'values': memory['values'],
                                            'context': self.context_kernel.astype(self.dtype)}

        def step(carry, now, kernels):
            projected_BG, real_B = now
            query_B1A = multiply(carry[-1], kernels['query'])[:, None]
            scores_B1S = additive_scores(query_B1A, memory['keys'], self.alignment_v)
            context_B1D, weights_B1S = attend(scores_B1S, kernels['values'], memory['mask'])
            context_BD = context_B1D[:, 0].astype(self.dtype)
            projected_BG = projected_BG + multiply(context_BD, kernels['context'])
            carry, seen = first.cell.step(carry, projected_BG, weights | kernels, real_B)
            hidden_BH = carry[-1].astype(self.dtype)
            return carry, (hidden_BH, context_BD, weights_B1S[:, 0] if looking else None, first.wanted(seen))

        after, (hidden_BTH, context_BTD, weights_BTS, seen) = over_time(step, carry[0], (projected_BTG, real_BT),
                                                                        kernels)
        if looking:
            self.sow('intermediates', 'decoder/cross_attention', weights_BTS[None, :, None])
        first.show(seen)
        hidden_BTH, above = self.decoder.above(hidden_BTH, carries=carry[1:], real_BT=real_BT)
        return hidden_BTH, context_BTD, (after, *above)
