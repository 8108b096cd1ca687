"""Convolutional sequence to sequence learning (Gehring et al. 2017)."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqjax.errors import UserError
from seqjax.layers.convolution import HALF_VARIANCE, Convolution, DecoderBlock, EncoderBlock, scaled_gradient
from seqjax.layers.dropout import Dropout
from seqjax.models.contract import Translator
from seqjax.options import option

__all__ = ['ConvS2S']
PAD = 0


class ConvS2S(Translator):
    """Convolutions with gates, and attention in every decoder layer (Gehring et al. 2017).

    Words and their positions are embedded and added (section 3.1). Blocks of a convolution, a gated linear unit and a
    residual connection (3.2) see further layer by layer. Each decoder block attends: d = W_d h + b_d + g against the
    encoder's output z, on the values z + e (3.3, equations 1 and 2). Linear maps stand between embeddings and blocks:
    before the encoder and after it, before and after the decoder, and around each attention (3.2). Sums of two are
    scaled by sqrt(0.5), contexts by m sqrt(1/m), and gradients into the encoder by one over the number of attentions,
    but for those that reach its embeddings by the values (3.4; the authors' program divides by two once more). Dropout
    is on embeddings, on the input of each convolution and before the output matrix; the weights of all layers are
    normalised, but not the tables (4.2).

    All blocks of a side have one width, where the paper's larger systems widen with depth. Positions are learned, so
    there are as many as the longest sentence admitted has; a longer one is refused.
    """

    num_layers: int = option(4, 'blocks of the encoder, and of the decoder', at_least=1)
    hidden_size: int = option(512, 'width of the blocks', at_least=1)
    embedding_size: int | None = option(None, 'width of the embeddings; none: hidden_size', at_least=1)
    kernel_size: int = option(3, 'positions that a convolution sees, an odd number', at_least=3)
    dropout: float = option(0.2, 'probability of dropping a unit', at_least=0.0, below=1.0)
    weight_normalisation: bool = option(True, 'learn the length of each weight vector apart from its direction')
    dtype: Literal['float32', 'bfloat16'] = option('float32', 'compute dtype; parameters stay float32')

    def check(self) -> None:
        """Refuses windows without a middle."""
        if self.kernel_size % 2 == 0:
            raise UserError(f'--model.kernel_size={self.kernel_size} has no middle, which the encoder needs; choose '
                            f'{self.kernel_size - 1} or {self.kernel_size + 1}')

    def target_limit(self) -> int | None:
        """As many as there are positions."""
        return self.target_length

    @property
    def parallel_decoder(self) -> bool:
        """All target positions at once."""
        return True

    def setup(self) -> None:
        """Declares the parameters."""
        E = self.embedding_size or self.hidden_size
        if self.source_length is None or self.target_length is None:
            raise UserError('--model=convs2s learns a vector for each position and needs the longest source and target '
                            'to be known: source_length and target_length')

        def table(name, size):
            return self.param(name, nn.initializers.normal(0.1), (size, E))

        self.source_embedding = table('source_embedding', self.source_size)
        self.target_embedding = table('target_embedding', self.target_size)
        self.source_positions = table('source_positions', self.source_length)
        self.target_positions = table('target_positions', self.target_length)
        fields = dict(kernel_size=self.kernel_size, dropout=self.dropout, normalise=self.weight_normalisation,
                      dtype=self.dtype)
        self.encoder = self.stack(EncoderBlock, nn.broadcast)(**fields)
        self.decoder = self.stack(DecoderBlock, (0, nn.broadcast, nn.broadcast))(**fields)
        linear = dict(normalise=self.weight_normalisation, dtype=self.dtype)
        self.encoder_input = Convolution(self.hidden_size, dropout=self.dropout, **linear)
        self.encoder_output = Convolution(E, **linear)
        self.decoder_input = Convolution(self.hidden_size, dropout=self.dropout, **linear)
        self.decoder_output = Convolution(E, **linear)
        self.output = Convolution(self.target_size, dropout=self.dropout, **linear)
        self.drop = Dropout(self.dropout)

    def stack(self, block, in_axes):
        """`block`, scanned over num_layers: one compiled body however deep the stack is."""
        return nn.scan(block, variable_axes={'params': 0, 'intermediates': 0}, length=self.num_layers,
                       split_rngs={'params': True, 'dropout': True}, in_axes=in_axes, out_axes=0,
                       check_constancy_invariants=False)  # which would trace each block twice

    def embed(self, table_VE, positions_LE, tokens_BT, where_BT):
        """Words and positions (section 3.1), dropped."""
        return self.drop((table_VE[tokens_BT] + positions_LE[where_BT]).astype(self.dtype))

    def encode(self, source_BS: jax.Array) -> Any:
        """The keys z and the values z + e of every attention, (B, S, E), and the source's mask (B, S)."""
        S = source_BS.shape[1]
        if self.source_length < S:
            raise UserError(f'a source of {S} tokens is longer than the {self.source_length} positions that the model '
                            'has learned; shorten it, or train with a larger --task.max_length')
        mask_BS = source_BS != PAD
        embedded_BSE = self.embed(self.source_embedding, self.source_positions, source_BS, jnp.arange(S)[None])
        x_BSD, _ = self.encoder(self.encoder_input(embedded_BSE), mask_BS)
        z_BSE = scaled_gradient(self.encoder_output(x_BSD), 1 / self.num_layers)
        return {'keys': z_BSE, 'values': (z_BSE + embedded_BSE) * HALF_VARIANCE, 'mask': mask_BS}

    def start(self, memory: Any, max_length: int) -> Any:
        """Each layer's last kernel_size - 1 inputs (N, B, K, D), zeros, and each row's position (B,)."""
        self.refuse(max_length)
        B = memory['mask'].shape[0]
        return {'before': jnp.zeros((self.num_layers, B, self.kernel_size - 1, self.hidden_size), self.dtype),
                'position': jnp.zeros((B,), jnp.int32)}

    def refuse(self, length):
        """Raises UserError where `length` target tokens are more than there are positions."""
        if length > self.target_length:
            raise UserError(f'a target of {length} tokens is longer than the {self.target_length} positions that the '
                            'model has learned; lower --decoding.max_length, or train with a larger --task.max_length')

    def decode(self, tokens_BT: jax.Array, memory: Any, carry: Any = None) -> tuple[jax.Array, Any]:
        """Logits (B, T, V), and the carry after `tokens_BT`."""
        T = tokens_BT.shape[1]
        self.refuse(T)
        carry = self.start(memory, T) if carry is None else carry
        where_BT = carry['position'][:, None] + jnp.arange(T)
        embedded_BTE = self.embed(self.target_embedding, self.target_positions, tokens_BT, where_BT)
        x_BTD, before = self.decoder(self.decoder_input(embedded_BTE), carry['before'], embedded_BTE, memory)
        logits_BTV = self.output(self.drop(self.decoder_output(x_BTD))).astype(jnp.float32)
        return logits_BTV, {'before': before, 'position': carry['position'] + T}
