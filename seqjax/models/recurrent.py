"""Encoder-decoders without attention (Cho et al. 2014; Sutskever et al. 2014): the source as one vector."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqjax.layers.cells import Cell
from seqjax.layers.dropout import Dropout
from seqjax.layers.products import Dense, logits
from seqjax.layers.recurrence import Bridge, Stack, maxout, pool
from seqjax.layers.unpadding import Unpadding, unpad
from seqjax.models.stacks import Stacked
from seqjax.options import option

__all__ = ['GRU', 'LSTM', 'RNN']
PAD = 0


class Recurrent(Stacked):
    """A recurrent encoder that reads the source into its state, and a recurrent decoder that goes on from there.

    With context 'last', a one-way encoder and feed 'once', the decoder starts in the encoder's final state, layer by
    layer: equation 1 of Sutskever et al. 2014. Otherwise each decoder layer starts in tanh(V c), where c is the
    encoder's last state (both directions), or the mean or maximum of its top outputs. Feed 'every' is the decoder of
    Cho et al. 2014: c joins the input of every step (equation 2), and the readout is the maxout of O_h h + O_y y + O_c
    c (their appendix A.1.2), as wide as an embedding. It adds c to all gates alike, where the appendix has it inside
    the reset gate.

    Weights start as `layers/recurrence.py` says, embeddings as normal(1/sqrt(width)), so that they may be tied.
    """

    num_layers: int = option(2, 'layers of the encoder, and of the decoder', at_least=1)
    hidden_size: int = option(512, 'units a layer and direction', at_least=1)
    embedding_size: int | None = option(None, 'width of the embeddings; none: hidden_size', at_least=1)
    dropout: float = option(0.2, 'probability of dropping a unit, between layers only', at_least=0.0, below=1.0)
    dtype: Literal['float32', 'bfloat16'] = option('float32', 'compute dtype; parameters and states stay float32')
    bidirectional: bool = option(False, 'encode in both directions')
    reverse_source: bool = option(False, 'read the source from its end (Sutskever et al. 2014, section 3.3)',
                                  when={'bidirectional': (False,)})
    context: Literal['last', 'mean', 'max'] = option('last', 'what the decoder gets: the last state, or outputs pooled')
    feed: Literal['once', 'every'] = option('once', 'context as initial state only, or also at every step')
    tie_embeddings: bool = option(False, 'target embedding as output matrix')
    recurrent_gain: float = option(1.0, 'factor of the initial recurrent matrices, which are orthogonal', above=0)

    @property
    def cell(self) -> Cell:
        """The cell of both stacks."""
        raise NotImplementedError

    def setup(self) -> None:
        """Declares the parameters."""
        H, E = self.hidden_size, self.embedding_size or self.hidden_size
        self.continues = self.context == 'last' and not self.bidirectional and self.feed == 'once'
        every, init = self.feed == 'every', nn.initializers.normal(E ** -0.5)
        self.source_embedding = self.param('source_embedding', init, (self.source_size, E))
        self.target_embedding = self.param('target_embedding', init, (self.target_size, E))
        cell = self.stacked(self.cell)
        fields = dict(cell=cell, input_size=E, num_layers=self.num_layers, dropout=self.dropout, dtype=self.dtype,
                      residual=self.residual)
        self.encoder = Stack(bidirectional=self.bidirectional, reverse=self.reverse_source, **fields)
        self.decoder = Stack(**fields)
        self.drop = Dropout(self.dropout)
        if not self.continues:
            self.bridge = [Bridge(cell.at(n), self.dtype) for n in range(self.num_layers)]
        if every:
            self.context_input = Dense(cell.width, use_bias=False, dtype=self.dtype)
            self.readout_hidden = Dense(2 * E, dtype=self.dtype)
            self.readout_embedding = Dense(2 * E, use_bias=False, dtype=self.dtype)
            self.readout_context = Dense(2 * E, use_bias=False, dtype=self.dtype)
        elif self.tie_embeddings and E != H:
            self.readout_hidden = Dense(E, dtype=self.dtype)
        if not self.tie_embeddings:
            width = E if every else H
            self.output_embedding = self.param('output_embedding', nn.initializers.normal(width ** -0.5),
                                               (self.target_size, width))
        self.output_bias = self.param('output_bias', nn.initializers.zeros, (self.target_size,))

    def embed(self, table_VE, tokens_BT):
        """Embeddings in the compute dtype, with dropout."""
        return self.drop(table_VE[tokens_BT].astype(self.dtype))

    def encode(self, source_BS: jax.Array, by: Unpadding | None = None) -> Any:
        """The decoder's first state, {'states': a carry for each layer}, or what it is made of, {'context': (B, C)}.

        With batch normalisation also the source's 'mask' (B, S).
        """
        mask_BS = source_BS != PAD
        # Right to left within each row's length is the scan reversed: padding comes first then, and changes no state.
        outputs_BSH, carries = self.encoder(self.embed(self.source_embedding, unpad(source_BS, by)), mask_BS, by=by)
        memory = {'mask': mask_BS} if self.normalisation == 'batch' else {}
        if self.continues:
            return memory | {'states': tuple(self.decoder.cell.handed(carry) for carry in carries)}
        if self.context != 'last':
            return memory | {'context': pool(outputs_BSH, mask_BS, self.context)}
        top = carries[-1] if self.bidirectional else (carries[-1],)
        return memory | {'context': jnp.concatenate([carry[-1] for carry in top], axis=-1).astype(self.dtype)}

    def start(self, memory: Any, max_length: int) -> Any:
        """A carry for each decoder layer; it takes the same room whatever `max_length` is."""
        if self.continues:
            return memory['states']
        return tuple(bridge(memory['context']) for bridge in self.bridge)

    def decode(self, tokens_BT: jax.Array, memory: Any, carry: Any = None,
               by: Unpadding | None = None) -> tuple[jax.Array, Any]:
        """Logits (B, T, V) and each layer's state after the last token."""
        carry = self.start(memory, tokens_BT.shape[1]) if carry is None else carry
        embedded_BTE = self.embed(self.target_embedding, unpad(tokens_BT, by))
        added_BG = self.context_input(memory['context']) if self.feed == 'every' else None
        hidden_BTH, carry = self.decoder(embedded_BTE, None, carry, added_BG, self.counted(tokens_BT, memory), by)
        return self.readout(hidden_BTH, embedded_BTE, memory, by), carry

    def readout(self, hidden_BTH, embedded_BTE, memory, by):
        """Logits in float32, (B, T, V), or (N, V) of tokens whose embeddings are without padding too."""
        x_BTD = self.drop(unpad(hidden_BTH, by))
        if self.feed == 'every':
            context_BC = self.readout_context(memory['context'])
            shape = (*hidden_BTH.shape[:2], context_BC.shape[-1])
            context_BTC = unpad(jnp.broadcast_to(context_BC[:, None], shape), by)
            x_BTD = self.readout_hidden(x_BTD) + self.readout_embedding(embedded_BTE) + context_BTC
            x_BTD = maxout(x_BTD)
        elif self.tie_embeddings and x_BTD.shape[-1] != self.target_embedding.shape[-1]:
            x_BTD = self.readout_hidden(x_BTD)
        output_VD = self.target_embedding if self.tie_embeddings else self.output_embedding
        return logits(x_BTD, output_VD.astype(self.dtype), self.output_bias)


class RNN(Recurrent):
    """Encoder-decoder of tanh units (Elman 1990): the baseline that gates improve on."""

    @property
    def cell(self) -> Cell:
        """A plain tanh unit."""
        return Cell('rnn', self.hidden_size, gain=self.recurrent_gain)


class LSTM(Recurrent):
    """Encoder-decoder of LSTM units (Sutskever et al. 2014, "Sequence to sequence learning with neural networks")."""

    forget_bias: float = option(1.0, "initial bias of the forget gate (0 in the paper)")
    gate_activation: Literal['sigmoid', 'hard_sigmoid', 'relu'] = option('sigmoid', "what the gates' sums go through")
    without: Literal['none', 'input', 'forget', 'output'] = option(
        'none', 'a gate that is removed: always open (Greff et al. 2017); its parameters stay, unread')
    cut: Literal['none', 'cell', 'hidden'] = option(
        'none', 'a path from step to step that carries nothing: that of c, or that of h')

    @property
    def cell(self) -> Cell:
        """The LSTM of Zaremba et al. 2014."""
        return Cell('lstm', self.hidden_size, forget_bias=self.forget_bias, gain=self.recurrent_gain,
                    activation=self.gate_activation, without=self.without, cut=self.cut)


class GRU(Recurrent):
    """RNN encoder-decoder of gated units (Cho et al. 2014, where context is 'last' and feed 'every')."""

    reset: Literal['before', 'after'] = option('before', 'reset gate before the recurrent product, or after')
    gate_activation: Literal['sigmoid', 'hard_sigmoid', 'relu'] = option('sigmoid', "what the gates' sums go through")
    without: Literal['none', 'reset', 'update'] = option(
        'none', 'a gate that is removed: always 1, and 0 for the update gate; its parameters stay, unread')

    @property
    def cell(self) -> Cell:
        """The gated unit of Cho et al. 2014."""
        return Cell('gru', self.hidden_size, reset=self.reset, gain=self.recurrent_gain,
                    activation=self.gate_activation, without=self.without)
