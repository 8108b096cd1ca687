"""Attention from the current decoder state, with input feeding (Luong et al. 2015)."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqjax.errors import UserError
from seqjax.layers.alignment import additive_scores, attend, dot_scores, location_scores, reachable
from seqjax.layers.dropout import Dropout
from seqjax.layers.recurrence import Bridge, Cell, Stack, multiply, over_time
from seqjax.models.contract import Translator
from seqjax.options import option

__all__ = ['Luong']
PAD = 0


class Luong(Translator):
    """Global attention (Luong et al. 2015).

    A stacked encoder and decoder. The decoder's top state h_t, of *this* step, is scored against the source (equation
    8: dot h_t^T h_s, general h_t^T W_a h_s, concat v^T tanh(W_a [h_t; h_s]); equation 9: location W_a h_t). That gives
    the context c_t and the attentional vector h~_t = tanh(W_c [c_t; h_t]) (equation 5), from which the word is
    predicted (equation 6). With input feeding h~_{t-1} joins the input of step t (section 3.3). Without it nothing of
    the attention goes back into the decoder, and all target positions attend at once, outside the scan.

    A one-way encoder hands its final states to the decoder, layer by layer; of a bidirectional one tanh(V [forward;
    backward]) is handed on, and for 'dot' its outputs are projected to the decoder's width. Weights start as
    `layers/recurrence.py` says, v of 'concat' as normal(1/sqrt(width)).
    """

    cell: Literal['lstm', 'gru'] = option('lstm', 'recurrent cell')
    num_layers: int = option(2, 'layers of the encoder, and of the decoder', at_least=1)
    hidden_size: int = option(512, 'units a layer and direction', at_least=1)
    embedding_size: int | None = option(None, 'width of the embeddings; none: hidden_size', at_least=1)
    dropout: float = option(0.2, 'probability of dropping a unit, on no recurrent connection', at_least=0.0, below=1.0)
    score: Literal['dot', 'general', 'concat', 'location'] = option('general', 'score of a state against the source')
    input_feeding: bool = option(True, 'the last attentional vector joins the next input')
    bidirectional: bool = option(False, 'encode in both directions (not in the paper)')
    reverse_source: bool = option(False, 'read the source from its end (section 4.1)', when={'bidirectional': (False,)})
    forget_bias: float = option(1.0, 'initial bias of the forget gate', when={'cell': ('lstm',)})
    reset: Literal['before', 'after'] = option('before', 'reset gate before or after the recurrent product',
                                               when={'cell': ('gru',)})
    dtype: Literal['float32', 'bfloat16'] = option('float32', 'compute dtype; parameters and states stay float32')

    def setup(self) -> None:
        """Declares the parameters."""
        H, E = self.hidden_size, self.embedding_size or self.hidden_size
        cell = Cell(self.cell, H, self.forget_bias, self.reset)
        init, glorot = nn.initializers.normal(E ** -0.5), nn.initializers.glorot_uniform()
        self.source_embedding = self.param('source_embedding', init, (self.source_size, E))
        self.target_embedding = self.param('target_embedding', init, (self.target_size, E))
        fields = dict(cell=cell, input_size=E, num_layers=self.num_layers, dropout=self.dropout, dtype=self.dtype)
        self.encoder = Stack(bidirectional=self.bidirectional, reverse=self.reverse_source, **fields)
        self.decoder = Stack(**fields)
        if self.bidirectional:
            self.bridge = [Bridge(cell, self.dtype) for _ in range(self.num_layers)]
            if self.score == 'dot':
                self.values = nn.Dense(H, use_bias=False, dtype=self.dtype)
        wide = 2 * H if self.bidirectional and self.score != 'dot' else H
        if self.score in ('general', 'concat'):
            self.alignment_keys = nn.Dense(H, use_bias=False, dtype=self.dtype)
        if self.score == 'concat':
            self.query_kernel = self.param('query_kernel', glorot, (H, H))
            self.alignment_v = self.param('alignment_v', nn.initializers.normal(H ** -0.5), (H,))
        if self.score == 'location':
            if self.source_length is None:
                raise UserError('--model.score=location needs the length of the longest source, which is not known; '
                                'choose dot, general or concat')
            self.location_kernel = self.param('location_kernel', glorot, (H, self.source_length))
        self.combine_kernel = self.param('combine_kernel', glorot, (wide + H, H))
        if self.input_feeding:
            self.feed_kernel = self.param('feed_kernel', glorot, (H, cell.width))
        self.drop = Dropout(self.dropout)
        self.output_embedding = self.param('output_embedding', nn.initializers.normal(H ** -0.5), (self.target_size, H))
        self.output_bias = self.param('output_bias', nn.initializers.zeros, (self.target_size,))

    def embed(self, table_VE, tokens_BT):
        """Embeddings in the compute dtype, with dropout."""
        return self.drop(table_VE[tokens_BT].astype(self.dtype))

    def encode(self, source_BS: jax.Array) -> Any:
        """Source states and keys (B, S, ...), the mask (B, S), and the decoder's first states.

        Reversed or not, everything here is in the order of the source.
        """
        mask_BS = source_BS != PAD
        values_BSD, states = self.encoder(self.embed(self.source_embedding, source_BS), mask_BS)
        if self.bidirectional:
            states = tuple(bridge(jnp.concatenate([*last, *first], axis=-1))
                           for bridge, (last, first) in zip(self.bridge, states))
            if self.score == 'dot':
                values_BSD = self.values(values_BSD)
        memory = {'values': values_BSD, 'mask': mask_BS, 'states': states}
        if self.score == 'location':
            return memory | {'mask': reachable(mask_BS, self.source_length)}
        return memory | {'keys': values_BSD if self.score == 'dot' else self.alignment_keys(values_BSD)}

    def start(self, memory: Any, max_length: int) -> Any:
        """Each layer's state, and with input feeding the attentional vector (B, H) of no step yet, zeros."""
        if not self.input_feeding:
            return {'states': memory['states']}
        return {'states': memory['states'], 'fed': jnp.zeros((memory['mask'].shape[0], self.hidden_size), jnp.float32)}

    def decode(self, tokens_BT: jax.Array, memory: Any, carry: Any = None) -> tuple[jax.Array, Any]:
        """Logits (B, T, V), and the carry after the last token."""
        carry = self.start(memory, tokens_BT.shape[1]) if carry is None else carry
        embedded_BTE = self.embed(self.target_embedding, tokens_BT)
        if self.input_feeding:
            attentional_BTH, weights_BTS, carry = self.feed_over_time(embedded_BTE, memory, carry)
        else:
            hidden_BTH, states = self.decoder(embedded_BTE, None, carry['states'])
            attentional_BTH, weights_BTS = self.look(hidden_BTH, memory)
            carry = {'states': states}
        if weights_BTS is not None:
            self.sow('intermediates', 'decoder/cross_attention', weights_BTS[None, :, None])
        logits_BTV = jnp.einsum('BTD,VD->BTV', self.drop(attentional_BTH), self.output_embedding.astype(self.dtype),
                                preferred_element_type=jnp.float32) + self.output_bias
        return logits_BTV, carry

    def look(self, hidden_BTH, memory):
        """The attentional vectors h~ (B, T, H) of states h, equations 5 to 9, and the weights (B, T, S)."""
        if self.score == 'location':
            scores_BTS = location_scores(hidden_BTH, self.location_kernel.astype(self.dtype), memory['mask'].shape[1])
        elif self.score == 'concat':
            query_BTA = multiply(hidden_BTH, self.query_kernel.astype(self.dtype))
            scores_BTS = additive_scores(query_BTA, memory['keys'], self.alignment_v)
        else:
            scores_BTS = dot_scores(hidden_BTH, memory['keys'])
        context_BTD, weights_BTS = attend(scores_BTS, memory['values'], memory['mask'])
        both_BTD = jnp.concatenate([context_BTD, hidden_BTH], axis=-1)
        attentional_BTH = jnp.tanh(multiply(both_BTD, self.combine_kernel.astype(self.dtype)))
        return attentional_BTH.astype(self.dtype), weights_BTS

    def feed_over_time(self, embedded_BTE, memory, carry):
        """The scan with input feeding: attentional vectors (B, T, H), weights where somebody looks, and the carry."""
        layers = self.decoder.layer
        looking, feed_HG = layers[0].looking, self.feed_kernel.astype(self.dtype)
        recurrent = [layer.weights() for layer in layers]
        # Keys cannot be asked for inside a scan: the masks between layers are drawn for all steps ahead of it.
        masks = self.decoder.masks(embedded_BTE.shape[:2])

        def step(carry, now):
            projected_BG, masks = now
            states, shown = [], []
            for n, layer in enumerate(layers):
                if n:
                    below_BH = states[-1][-1]
                    projected_BG = layer.project(below_BH if masks[n - 1] is None else below_BH * masks[n - 1])
                else:
                    projected_BG = projected_BG + multiply(carry['fed'], feed_HG)
                state, seen = layer.cell.step(carry['states'][n], projected_BG, recurrent[n])
                states.append(state)
                shown.append(seen)
            attentional_B1H, weights_B1S = self.look(states[-1][-1][:, None].astype(self.dtype), memory)
            carry = {'states': tuple(states), 'fed': attentional_B1H[:, 0].astype(jnp.float32)}
            return carry, (attentional_B1H[:, 0], (weights_B1S[:, 0], shown) if looking else None)

        carry, (attentional_BTH, shown) = over_time(step, carry, (layers[0].project(embedded_BTE), masks))
        if not looking:
            return attentional_BTH, None, carry
        for layer, seen in zip(layers, shown[1]):
            layer.show(seen)
        return attentional_BTH, shown[0], carry
