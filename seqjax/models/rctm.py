"""Recurrent continuous translation models (Kalchbrenner and Blunsom 2013)."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from seqjax.errors import UserError
from seqjax.layers.cells import Cell
from seqjax.layers.dropout import Dropout
from seqjax.layers.ngrams import Fold, Unfold, depth, span
from seqjax.layers.products import Dense, logits
from seqjax.layers.recurrence import Stack
from seqjax.models.contract import Translator
from seqjax.options import option

__all__ = ['RCTM']
PAD = 0


class RCTM(Translator):
    """Convolutions read the source, a recurrent network writes the target (Kalchbrenner and Blunsom 2013).

    'sentence' is the paper's RCTM I: the convolutional sentence model folds the source into one vector, csm(e), and
    S csm(e) joins every step of a recurrent language model, h_i = f(R h_{i-1} + I y_i + S csm(e)), o = O h.

    'ngram' is its RCTM II: folding stops where a column stands for n words, E = cgm(e, n), or where a shorter source
    has no columns for the next kernel; a matrix T translates each column; the inverse model unfolds them into one
    column for each word of the target, F = icgm(T E, m); and S F_i joins step i.

    Where this departs from the paper: m is the source's length times the length ratio of the training split, rounded:
    a mean such as that of the paper's Poisson P(m|e), whose likelihood is no part of the loss or of scores here. The
    paper's P(f|m, e) reads the true m, which nobody knows who translates. EOS ends a sentence, and one that runs on
    reads the last column again. How k - n + 1 columns of the source become m - n + 1 of the target is ours: they are
    stretched by linear interpolation. f is tanh, as in the convolutions; the recurrent network has biases, and may have
    gates and more than one layer.
    """

    variant: Literal['sentence', 'ngram'] = option(
        'ngram', 'source as one vector (RCTM I), or as n-grams unfolded to the words of the target (RCTM II)')
    ngram: Literal[2, 4, 7] = option(4, 'words of an n-gram: those that one, two or three convolutions see',
                                     when={'variant': ('ngram',)})
    cell: Literal['rnn', 'gru', 'lstm'] = option('rnn', 'recurrent cell; rnn is the paper\'s')
    num_layers: int = option(1, 'layers of the recurrent network', at_least=1)
    hidden_size: int = option(512, 'units a layer', at_least=1)
    embedding_size: int | None = option(None, 'width of the embeddings and of the convolutions; none: hidden_size',
                                        at_least=1)
    dropout: float = option(0.2, 'probability of dropping a unit, on no recurrent connection', at_least=0.0, below=1.0)
    forget_bias: float = option(1.0, 'initial bias of the forget gate', when={'cell': ('lstm',)})
    dtype: Literal['float32', 'bfloat16'] = option('float32', 'compute dtype; parameters and states stay float32')

    def setup(self) -> None:
        """Declares the parameters."""
        H, E = self.hidden_size, self.embedding_size or self.hidden_size
        init = nn.initializers.normal(E ** -0.5)
        self.source_embedding = self.param('source_embedding', init, (self.source_size, E))
        self.target_embedding = self.param('target_embedding', init, (self.target_size, E))
        if self.variant == 'sentence':
            if self.source_length is None:
                raise UserError('--model.variant=sentence has as many convolutions as the longest source needs, and '
                                'source_length is not known; choose --model.variant=ngram')
            self.fold = Fold(depth(self.source_length), finish=True)
        else:
            widest = next(r for r in range(2, 5) if span(r) == self.ngram)
            self.fold, self.unfold = Fold(widest, finish=False), Unfold(widest)
            self.translation = Dense(E, use_bias=False, dtype=self.dtype)
        # [I S] [y; F] is I y + S F: the two matrices lie side by side in the first layer's input kernel.
        self.decoder = Stack(Cell(self.cell, H, self.forget_bias), 2 * E, self.num_layers, dropout=self.dropout,
                             dtype=self.dtype)
        self.drop = Dropout(self.dropout)
        self.output_embedding = self.param('output_embedding', nn.initializers.normal(H ** -0.5),
                                           (self.target_size, H))
        self.output_bias = self.param('output_bias', nn.initializers.zeros, (self.target_size,))

    def embed(self, table_VE, tokens_BT):
        """Embeddings in the compute dtype, with dropout."""
        return self.drop(table_VE[tokens_BT].astype(self.dtype))

    def encode(self, source_BS: jax.Array) -> Any:
        """What joins each step, (B, M, E), and of how many columns of it, (B,): one for RCTM I, m for RCTM II."""
        mask_BS = source_BS != PAD
        S, count_B = source_BS.shape[1], mask_BS.sum(axis=1, dtype=jnp.int32)
        columns_BSE = self.embed(self.source_embedding, source_BS) * mask_BS[:, :, None]
        if self.variant == 'sentence':
            if self.source_length < S:
                raise UserError(f'a source of {S} tokens is longer than the {self.source_length} that the model can '
                                'fold; shorten it, or train with a larger --task.max_length')
            columns_BSE, _ = self.fold(columns_BSE, count_B)
            return {'columns': columns_BSE, 'words': jnp.ones_like(count_B)}
        words_S = np.maximum(np.floor((self.length_ratio or 1.0) * np.arange(S + 1) + 0.5), 1).astype(np.int32)
        words_B = jnp.asarray(words_S)[count_B]
        grams_BSE, count_B = self.fold(columns_BSE, count_B)
        unfolded_BME = self.unfold(self.translation(grams_BSE), count_B, words_B, int(words_S[-1]))
        return {'columns': unfolded_BME, 'words': words_B}

    def start(self, memory: Any, max_length: int) -> Any:
        """States of zeros for each layer, and each row's position (B,)."""
        B = memory['words'].shape[0]
        return {'states': tuple(self.decoder.layer[0].cell.zeros(B) for _ in range(self.num_layers)),
                'position': jnp.zeros((B,), jnp.int32)}

    def decode(self, tokens_BT: jax.Array, memory: Any, carry: Any = None) -> tuple[jax.Array, Any]:
        """Logits (B, T, V), and the carry after the last token."""
        T = tokens_BT.shape[1]
        carry = self.start(memory, T) if carry is None else carry
        where_BT = jnp.minimum(carry['position'][:, None] + jnp.arange(T), memory['words'][:, None] - 1)
        joins_BTE = jnp.take_along_axis(memory['columns'], where_BT[:, :, None], axis=1)
        inputs_BTE = jnp.concatenate([self.embed(self.target_embedding, tokens_BT), self.drop(joins_BTE)], axis=-1)
        hidden_BTH, states = self.decoder(inputs_BTE, None, carry['states'])
        logits_BTV = logits(self.drop(hidden_BTH), self.output_embedding.astype(self.dtype), self.output_bias)
        return logits_BTV, {'states': states, 'position': carry['position'] + T}
