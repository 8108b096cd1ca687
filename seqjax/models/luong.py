"""Attention from the current decoder state, with input feeding (Luong et al. 2015)."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqjax.errors import UserError
from seqjax.layers.alignment import (
    additive_scores,
    attend,
    dot_scores,
    gaussian,
    location_scores,
    predicted_centre,
    reachable,
    window,
)
from seqjax.layers.cells import Cell
from seqjax.layers.dropout import Dropout
from seqjax.layers.products import Dense, logits
from seqjax.layers.recurrence import Bridge, Stack
from seqjax.layers.steps import multiply, over_time
from seqjax.layers.unpadding import Unpadding, pad, unpad
from seqjax.models.stacks import Stacked
from seqjax.options import option

__all__ = ['Luong']
PAD = 0


class Luong(Stacked):
    """Global and local attention (Luong et al. 2015).

    A stacked encoder and decoder. The decoder's top state h_t, of *this* step, is scored against the source (section
    3.1: dot h_t^T h_s, general h_t^T W_a h_s, concat v^T tanh(W_a [h_t; h_s]); equation 8: location W_a h_t). A softmax
    over the source makes the weights (equation 7), these the context c_t, and that the attentional vector h~_t =
    tanh(W_c [c_t; h_t]) (equation 5), from which the word is predicted (equation 6). With input feeding h~_{t-1} joins
    the input of step t (section 3.3). Without it nothing of the attention goes back into the decoder, and all target
    positions attend at once, outside the scan. With state 'previous' all that is made of h_t in section 3 but equation
    5 is made of h_{t-1}, the top state before step t, as Bahdanau et al. 2015 have it (not in the paper, whose section
    3.1 sets the two apart).

    Local attention (section 3.2) looks at the source positions within D of p_t; positions count from 1, and the EOS is
    one. 'monotonic' is p_t = t: the softmax is over the window. 'predictive' is p_t = S sigmoid(v_p^T tanh(W_p h_t))
    of each row's own length S (equation 9): the softmax over the window is multiplied by exp(-(s - p_t)^2 / (2
    sigma^2)), sigma = D / 2 (equation 10), and not normalised again; p_t learns by that factor alone. The part of a
    window that lies outside of the source is ignored; of a monotonic one past the end nothing is left, and weights and
    context are 0 from step S + D + 1 on. 'location' keeps a row of W_a for each source position, not for each place in
    the window, so that a window wider than the source is global attention with every score. Scores are made of the
    whole source and masked: a window saves no time.

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
    state: Literal['current', 'previous'] = option('current', 'decoder state to score: of this step, or before it')
    attention: Literal['global', 'monotonic', 'predictive'] = option(
        'global', 'look at all of the source, or at a window about the target position, or about a predicted one')
    window: int = option(10, 'D: source positions to either side of the centre of a window', at_least=1,
                         when={'attention': ('monotonic', 'predictive')})
    input_feeding: bool = option(True, 'the last attentional vector joins the next input')
    bidirectional: bool = option(False, 'encode in both directions (not in the paper)')
    reverse_source: bool = option(False, 'read the source from its end (section 4.1)', when={'bidirectional': (False,)})
    forget_bias: float = option(1.0, 'initial bias of the forget gate', when={'cell': ('lstm',)})
    reset: Literal['before', 'after'] = option('before', 'reset gate before or after the recurrent product',
                                               when={'cell': ('gru',)})
    dtype: Literal['float32', 'bfloat16'] = option('float32', 'compute dtype; parameters and states stay float32')

    def check(self) -> None:
        """Refuses batch statistics of what input feeding makes known only step by step."""
        super().check()
        if self.normalisation == 'batch' and self.input_feeding:
            raise UserError('--model.normalisation=batch takes statistics over all steps of an input, which input '
                            'feeding makes one by one; set --model.input_feeding=false, or choose layer or rms')

    def setup(self) -> None:
        """Declares the parameters."""
        H, E = self.hidden_size, self.embedding_size or self.hidden_size
        cell = self.stacked(Cell(self.cell, H, self.forget_bias, self.reset))
        init, glorot = nn.initializers.normal(E ** -0.5), nn.initializers.glorot_uniform()
        self.source_embedding = self.param('source_embedding', init, (self.source_size, E))
        self.target_embedding = self.param('target_embedding', init, (self.target_size, E))
        fields = dict(cell=cell, input_size=E, num_layers=self.num_layers, dropout=self.dropout, dtype=self.dtype,
                      residual=self.residual)
        self.encoder = Stack(bidirectional=self.bidirectional, reverse=self.reverse_source, **fields)
        self.decoder = Stack(**fields)
        if self.bidirectional:
            self.bridge = [Bridge(cell.at(n), self.dtype) for n in range(self.num_layers)]
            if self.score == 'dot':
                self.values = Dense(H, use_bias=False, dtype=self.dtype)
        wide = 2 * H if self.bidirectional and self.score != 'dot' else H
        if self.score in ('general', 'concat'):
            self.alignment_keys = Dense(H, use_bias=False, dtype=self.dtype)
        if self.score == 'concat':
            self.query_kernel = self.param('query_kernel', glorot, (H, H))
            self.alignment_v = self.param('alignment_v', nn.initializers.normal(H ** -0.5), (H,))
        if self.score == 'location':
            if self.source_length is None:
                raise UserError('--model.score=location needs the length of the longest source, which is not known; '
                                'choose dot, general or concat')
            self.location_kernel = self.param('location_kernel', glorot, (H, self.source_length))
        if self.attention == 'predictive':
            self.centre_kernel = self.param('centre_kernel', glorot, (H, H))
            self.centre_v = self.param('centre_v', nn.initializers.normal(H ** -0.5), (H,))
        self.combine_kernel = self.param('combine_kernel', glorot, (wide + H, H))
        if self.input_feeding:
            self.feed_kernel = self.param('feed_kernel', glorot, (H, cell.width))
        self.drop = Dropout(self.dropout)
        self.output_embedding = self.param('output_embedding', nn.initializers.normal(H ** -0.5), (self.target_size, H))
        self.output_bias = self.param('output_bias', nn.initializers.zeros, (self.target_size,))

    def embed(self, table_VE, tokens_BT):
        """Embeddings in the compute dtype, with dropout."""
        return self.drop(table_VE[tokens_BT].astype(self.dtype))

    def encode(self, source_BS: jax.Array, by: Unpadding | None = None) -> Any:
        """Source states and keys (B, S, ...), the mask (B, S), and the decoder's first states.

        Reversed or not, everything here is in the order of the source.
        """
        mask_BS = source_BS != PAD
        values_BSD, states = self.encoder(self.embed(self.source_embedding, unpad(source_BS, by)), mask_BS, by=by)
        if self.bidirectional:
            now = self.decoder.cell.now
            states = tuple(bridge(jnp.concatenate([*now(last), *now(first)], axis=-1))
                           for bridge, (last, first) in zip(self.bridge, states))
            if self.score == 'dot':
                values_BSD = self.values(values_BSD)
        states = tuple(self.decoder.cell.handed(state) for state in states)
        memory = {'values': values_BSD, 'mask': mask_BS, 'states': states}
        if self.attention == 'predictive':
            memory['length'] = mask_BS.sum(axis=1)
        if self.score == 'location':
            return memory | {'mask': reachable(mask_BS, self.source_length)}
        return memory | {'keys': values_BSD if self.score == 'dot' else self.alignment_keys(values_BSD)}

    def start(self, memory: Any, max_length: int) -> Any:
        """Each layer's state, and before the first step: an attentional vector (B, H) of zeros, 0 steps taken (B,)."""
        B, carry = memory['mask'].shape[0], {'states': memory['states']}
        if self.input_feeding:
            carry['fed'] = jnp.zeros((B, self.hidden_size), jnp.float32)
        if self.attention == 'monotonic':
            carry['taken'] = jnp.zeros((B,), jnp.int32)
        return carry

    def decode(self, tokens_BT: jax.Array, memory: Any, carry: Any = None,
               by: Unpadding | None = None) -> tuple[jax.Array, Any]:
        """Logits (B, T, V), and the carry after the last token."""
        carry = self.start(memory, tokens_BT.shape[1]) if carry is None else carry
        embedded_BTE = self.embed(self.target_embedding, unpad(tokens_BT, by))
        if self.input_feeding:
            attentional_BTH, seen, carry = self.feed_over_time(embedded_BTE, memory, carry, by)
        else:
            hidden_BTH, states = self.decoder(embedded_BTE, None, carry['states'], None,
                                              self.counted(tokens_BT, memory), by)
            attentional_BTH, seen = self.look(hidden_BTH, memory, carry, self.looked())
            carry = self.after(carry, states, attentional_BTH)
        if seen is not None:
            self.sow('intermediates', 'decoder/cross_attention', seen['weights'][None, :, None])
            if 'centre' in seen:
                self.sow('intermediates', 'decoder/window', window_edges(seen['centre'], self.window))
        read_BTH = self.drop(unpad(attentional_BTH, by))
        return logits(read_BTH, self.output_embedding.astype(self.dtype), self.output_bias), carry

    def after(self, carry, states, attentional_BTH):
        """The carry after all of `attentional_BTH`."""
        new = {'states': states}
        if self.input_feeding:
            new['fed'] = attentional_BTH[:, -1].astype(jnp.float32)
        if self.attention == 'monotonic':
            new['taken'] = carry['taken'] + attentional_BTH.shape[1]
        return new

    def query(self, hidden_BTH, carry):
        """The states that are scored (B, T, H): h_t, or h_{t-1}."""
        if self.state == 'current':
            return hidden_BTH
        tops = [state[-1] for state in carry['states']]
        before_BH = sum(tops) if self.residual else tops[-1]  # what the stack put out before
        return jnp.concatenate([before_BH[:, None].astype(self.dtype), hidden_BTH[:, :-1]], axis=1)

    def centre(self, query_BTH, memory, carry, kernels):
        """p_t (B, T) in float32: t, or equation 9."""
        if self.attention == 'monotonic':
            return (carry['taken'][:, None] + jnp.arange(1, query_BTH.shape[1] + 1)).astype(jnp.float32)
        return predicted_centre(query_BTH, kernels['centre'], self.centre_v, memory['length'])

    def looked(self):
        """The kernels that `look` multiplies by, in the compute dtype."""
        kernels = {'combine': self.combine_kernel}
        if self.score == 'concat':
            kernels['query'] = self.query_kernel
        if self.score == 'location':
            kernels['location'] = self.location_kernel
        if self.attention == 'predictive':
            kernels['centre'] = self.centre_kernel
        return {name: kernel.astype(self.dtype) for name, kernel in kernels.items()}

    def remembered(self, memory):
        """What of the memory `look` multiplies by, as kernels."""
        keys = {'keys': memory['keys'].swapaxes(1, 2)} if self.score in ('dot', 'general') else {}
        return keys | {'values': memory['values']}

    def look(self, hidden_BTH, memory, carry, kernels):
        """The attentional vectors h~ (B, T, H) of states h, equations 5 to 10; the weights (B, T, S) and p_t (B, T)."""
        S, seen, local = memory['mask'].shape[1], {}, ()
        query_BTH = self.query(hidden_BTH, carry)
        if self.score == 'location':
            scores_BTS = location_scores(query_BTH, kernels['location'], S)
        elif self.score == 'concat':
            query_BTA = multiply(query_BTH, kernels['query'])
            scores_BTS = additive_scores(query_BTA, memory['keys'], self.alignment_v)
        else:
            scores_BTS = dot_scores(query_BTH, memory['keys'])
        if self.attention != 'global':
            seen['centre'] = self.centre(query_BTH, memory, carry, kernels)
            local = (window(seen['centre'], self.window, S),)
            if self.attention == 'predictive':
                local += (gaussian(seen['centre'], self.window, S),)
        context_BTD, seen['weights'] = attend(scores_BTS, memory['values'], memory['mask'], *local)
        both_BTD = jnp.concatenate([context_BTD, hidden_BTH], axis=-1)
        attentional_BTH = jnp.tanh(multiply(both_BTD, kernels['combine']))
        return attentional_BTH.astype(self.dtype), seen

    def feed_over_time(self, embedded_BTE, memory, carry, by):
        """The scan with input feeding: attentional vectors (B, T, H), what there is to see (None where nobody looks),
        and the carry."""
        layers = self.decoder.layer
        looking, recurrent = layers[0].looking, [layer.weights() for layer in layers]
        remembered = self.remembered(memory)
        kernels = self.looked() | remembered | {'feed': self.feed_kernel.astype(self.dtype)} | {
            f'{name}_{n}': kernel for n, layer in enumerate(layers)
            for name, kernel in layer.kernels(recurrent[n]).items()} | {
            f'input_{n}': layer.input_kernel.astype(self.dtype) for n, layer in enumerate(layers) if n}
        # Keys cannot be asked for inside a scan: the masks between layers are drawn for all steps ahead of it.
        projected_BTG = pad(layers[0].project(embedded_BTE), by)
        masks = self.decoder.masks(projected_BTG.shape[:2])

        def step(carry, now, kernels):
            projected_BG, masks = now
            states, shown, below_BH = [], [], None
            known = memory | {name: kernels[name] for name in remembered}
            for n, layer in enumerate(layers):
                if n:
                    projected_BG = layer.project(below_BH if masks[n - 1] is None else below_BH * masks[n - 1],
                                                 kernel=kernels[f'input_{n}'])
                else:
                    projected_BG = projected_BG + multiply(carry['fed'], kernels['feed'])
                weights = recurrent[n] | {name: kernels[f'{name}_{n}'] for name in layer.cell.kernels}
                state, seen = layer.cell.step(carry['states'][n], projected_BG, weights)
                states.append(state)
                shown.append(layer.wanted(seen))
                below_BH = state[-1] + below_BH if n and self.residual else state[-1]
            attentional_B1H, seen = self.look(below_BH[:, None].astype(self.dtype), known, carry, kernels)
            seen = jax.tree.map(lambda x: x[:, 0], seen)
            carry = self.after(carry, tuple(states), attentional_B1H)
            return carry, (attentional_B1H[:, 0], (seen, shown) if looking else None)

        carry, (attentional_BTH, shown) = over_time(step, carry, (projected_BTG, masks), kernels)
        if not looking:
            return attentional_BTH, None, carry
        for layer, seen in zip(layers, shown[1]):
            layer.show(seen)
        return attentional_BTH, shown[0], carry


def window_edges(centre_BT: jax.Array, half: int) -> jax.Array:
    """The left edge, the centre and the right edge of each window, in source positions from 1: (B, T, 3)."""
    return jnp.stack([centre_BT - half, centre_BT, centre_BT + half], axis=-1)
