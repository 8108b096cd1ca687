"""The Transformer (Vaswani et al. 2017, "Attention is all you need")."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqjax.errors import UserError
from seqjax.layers import cache, products
from seqjax.layers.attention import MemoryProjection
from seqjax.layers.dropout import Dropout
from seqjax.layers.normalisation import normaliser
from seqjax.layers.positions import Positions, RelativePositions, sinusoids
from seqjax.layers.transformer import DecoderLayer, EncoderLayer
from seqjax.layers.unpadding import Unpadding, unpad
from seqjax.models.contract import Translator, counted
from seqjax.options import option

__all__ = ['Transformer']
PAD = 0
# The layers of a stack no deeper than this stand side by side in the program, which saves what a loop copies in and
# out. Deeper ones are a loop, or compiling would take longer with every layer, and so are those with `remat`, or what
# is recomputed would be merged with what was computed.
UNROLLED = 6


class Transformer(Translator):
    """Encoder-decoder of multi-head attention: no recurrence, no convolution (Vaswani et al. 2017).

    Equation 1 is `layers/attention.py`, equation 2 and the sub-layers `layers/transformer.py`, the positions of section
    3.5 `layers/positions.py`, with what later papers put in their place: rotary, ALiBi and T5 positions are read by the
    self-attention of every layer, and by no attention on the source. Embeddings are multiplied by sqrt(hidden_size) and
    may be tied to the output (section 3.4); dropout is where section 5.4 has it: on each sub-layer's output and on the
    sum of embeddings and positions.
    """

    num_layers: int = option(3, 'layers of the encoder, and of the decoder', at_least=1)
    hidden_size: int = option(256, 'width of the model, d_model', at_least=1)
    num_heads: int = option(8, 'attention heads; they divide hidden_size', at_least=1)
    feedforward_size: int = option(1024, 'width of the feed-forward layers, d_ff', at_least=1)
    dropout: float = option(0.1, 'probability of dropping a unit', at_least=0.0, below=1.0)
    attention_dropout: float = option(0.0, 'probability of dropping an attention weight (not in the paper)',
                                      at_least=0.0, below=1.0)
    normalisation: Literal['layer', 'rms', 'batch', 'none'] = option(
        'layer', 'normalisation: Ba 2016, Zhang and Sennrich 2019, Ioffe and Szegedy 2015, or none')
    norm: Literal['before', 'after'] = option('before', 'normalise before each sub-layer, or after as in the paper',
                                              when={'normalisation': ('layer', 'rms', 'batch')})
    residual: bool = option(True, 'a residual connection around each sub-layer')
    scale_scores: bool = option(True, 'divide scores by sqrt(d_k); false is an ablation')
    causal: bool = option(True, 'a target token sees those before it alone; false is an ablation, in which the '
                          'teacher-forced decoder sees what it has to predict')
    padding_mask: bool = option(True, 'nobody sees padding; false is an ablation, in which it passes for words')
    positions: Positions = option('sinusoidal', 'position encoding; learned ones end at the longest sentence that '
                                  'the task admits')
    tie: Literal['none', 'target', 'all'] = option(
        'target', 'share embeddings: target input and output, or these and the source (needs a joint vocabulary)')
    dtype: Literal['float32', 'bfloat16'] = option('float32', 'compute dtype; parameters stay float32')
    remat: bool = option(False, 'recompute activations in the backward pass: less memory, more time')

    @property
    def parallel_decoder(self) -> bool:
        """All target positions attend at once. (A decoder that sees the future says nothing of its own in one pass.)"""
        return self.causal

    def check(self) -> None:
        """Refuses heads that do not divide the width or cannot be turned, vocabularies that cannot be tied, and masks
        that are off where something else needs them."""
        for name in ('causal', 'padding_mask'):
            if self.normalisation == 'batch' and not getattr(self, name):
                raise UserError(f'--model.{name}=false does not go with --model.normalisation=batch, whose statistics '
                                'are of real words and of a model that generates; choose layer, rms or none')
        if self.hidden_size % self.num_heads:
            raise UserError(f'--model.num_heads={self.num_heads} does not divide --model.hidden_size='
                            f'{self.hidden_size}; choose a divisor')
        if self.positions == 'rotary' and self.hidden_size // self.num_heads % 2:
            raise UserError(f'--model.positions=rotary turns pairs of units, and a head of --model.hidden_size='
                            f'{self.hidden_size} over --model.num_heads={self.num_heads} has '
                            f'{self.hidden_size // self.num_heads}; make it even')
        if self.tie == 'all' and self.source_size != self.target_size:  # None, both, until the data are read
            raise UserError('--model.tie=all needs one vocabulary for both sides (source has '
                            f'{self.source_size} pieces, target {self.target_size}); set --task.joint_vocabulary or '
                            '--model.tie=target')

    def table(self, name, size):
        """The parameter of that name, (size, D)."""
        return self.param(name, nn.initializers.normal(self.hidden_size ** -0.5), (size, self.hidden_size))

    def tables(self):
        """The embeddings of source, target and output, some of them the same."""
        self.target_embedding = self.table('target_embedding', self.target_size)
        self.source_embedding = (self.target_embedding if self.tie == 'all'
                                 else self.table('source_embedding', self.source_size))
        self.output_embedding = (self.table('output_embedding', self.target_size) if self.tie == 'none'
                                 else self.target_embedding)
        if self.positions == 'learned' and None in (self.source_length, self.target_length):
            raise UserError('--model.positions=learned needs source_length and target_length, the longest sentences; '
                            'a task that states neither takes another encoding')

    def relative(self, bidirectional):
        """The relative positions of one stack."""
        return RelativePositions(self.positions, self.num_heads, self.hidden_size // self.num_heads, bidirectional)

    def setup(self):
        """Parameters and layers."""
        self.tables()
        learned = self.positions == 'learned'
        self.source_positions = self.table('source_position_embedding', self.source_length) if learned else None
        self.target_positions = self.table('target_position_embedding', self.target_length) if learned else None
        self.encoder_relative, self.decoder_relative = self.relative(True), self.relative(not self.causal)
        self.encoder = self.stack(EncoderLayer, in_axes=(nn.broadcast,) * 3)(**self.layer_fields())
        self.decoder = self.stack(DecoderLayer, in_axes=(0,) + 5 * (nn.broadcast,))(**self.decoder_fields())
        self.memory = MemoryProjection(self.num_layers, self.num_heads, self.dtype)
        self.embedding_dropout = Dropout(self.dropout)
        if self.norm == 'before':
            self.encoder_norm, self.decoder_norm = (normaliser(self.normalisation, self.hidden_size, self.dtype)
                                                    for _ in range(2))

    def layer_fields(self):
        """What every layer is told."""
        return dict(num_heads=self.num_heads, feedforward_size=self.feedforward_size, norm=self.norm,
                    dropout=self.dropout, attention_dropout=self.attention_dropout, dtype=self.dtype,
                    normalisation=self.normalisation, residual=self.residual, scale=self.scale_scores)

    def decoder_fields(self):
        """What every layer of the decoder is told."""
        return self.layer_fields()

    def stack(self, layer, in_axes):
        """`layer`, scanned over num_layers: one compiled body however deep the stack is, or shallow stacks laid out."""
        body = nn.remat(layer, prevent_cse=False) if self.remat else layer
        laid_out = self.num_layers <= UNROLLED and not self.remat and not self.is_initializing()
        return nn.scan(body, variable_axes={'params': 0, 'intermediates': 0, 'statistics': 0}, length=self.num_layers,
                       split_rngs={'params': True, 'dropout': True}, in_axes=in_axes, unroll=laid_out,
                       check_constancy_invariants=False)  # which would trace each layer twice

    def embed(self, table_VD, tokens_BT, where_BT, length, learned_LD, by=None):
        """sqrt(D) times the embedding plus the position's encoding, for positions below `length`; with `by` (N, D).

        Raises:
          UserError: learned positions end below `length`.
        """
        if by is not None:
            where_BT = unpad(jnp.broadcast_to(where_BT, tokens_BT.shape), by)
        x_BTD = table_VD[unpad(tokens_BT, by)] * self.hidden_size ** 0.5
        if self.positions in ('sinusoidal', 'learned'):
            if learned_LD is not None and length > learned_LD.shape[0]:  # a gather would clip, and say nothing
                raise UserError(f'a sequence of {length} tokens is longer than the {learned_LD.shape[0]} positions '
                                'that --model.positions=learned has; shorten it, or train with another encoding')
            table_LD = jnp.asarray(sinusoids(length, self.hidden_size)) if learned_LD is None else learned_LD
            x_BTD = x_BTD + table_LD[where_BT]
        return self.embedding_dropout(x_BTD.astype(self.dtype))

    def real(self, tokens_BS: jax.Array) -> jax.Array:
        """Where tokens are seen: True on words, and without the padding mask on padding too."""
        return tokens_BS != PAD if self.padding_mask else jnp.ones(tokens_BS.shape, bool)

    def slots(self, tokens_BT: jax.Array, carry: Any) -> cache.Slots:
        """Where the target's tokens stand and what they see of it, in a cache or all at once.

        Without the causal mask they see all, where the target is given; while it is generated nothing comes after.
        """
        if carry is not None:
            return cache.slots(carry, tokens_BT.shape[1])
        when_T = jnp.arange(tokens_BT.shape[1])
        seen = when_T <= when_T[None, :, None] if self.causal else jnp.broadcast_to(
            self.real(tokens_BT)[:, None], (*tokens_BT.shape, len(when_T)))
        return cache.Slots(when_T[None], when_T[None], when_T, seen)

    @property
    def branches(self) -> bool:
        """Hypotheses share the cache of their row."""
        return True

    @property
    def unpads(self) -> bool:
        """Everything but attention. (Batch statistics are taken over rows, and who sees padding needs it.)"""
        return self.padding_mask and self.causal and self.normalisation != 'batch'

    def target_limit(self) -> int | None:
        """The number of learned positions."""
        return self.target_length if self.positions == 'learned' else None

    def encode(self, source_BS: jax.Array, by: Unpadding | None = None) -> Any:
        """The source's mask (B, S) and, for every decoder layer, its projected keys and values (N, B, H, S, K)."""
        mask_BS, S = self.real(source_BS), source_BS.shape[1]
        where_1S = jnp.arange(S)[None]
        x_BSD = self.embed(self.source_embedding, source_BS, where_1S, S, self.source_positions, by)
        x_BSD, _ = self.encoder(x_BSD, mask_BS[:, None, :], self.encoder_relative(where_1S, where_1S), by)
        if self.norm == 'before':
            x_BSD = self.encoder_norm(x_BSD, mask_BS)
        keys, values = self.memory(x_BSD, by)
        return {'mask': mask_BS, 'keys': keys, 'values': values}

    def start(self, memory: Any, max_length: int, places: int = 1) -> Any:
        """An empty cache with room for `max_length` tokens of `places` hypotheses a row."""
        return cache.empty(self.num_layers, memory['mask'].shape[0], self.num_heads, self.hidden_size // self.num_heads,
                           max_length, self.dtype, places)

    def widened(self, carry: Any, wider: Any) -> Any:
        """A cache with the room of `wider`."""
        return cache.widened(carry, wider)

    def follow(self, carry: Any, parent_BP: jax.Array) -> Any:
        """The hypothesis at each place goes on from that at place `parent_BP`."""
        return cache.follow(carry, parent_BP)

    def decode(self, tokens_BT: jax.Array, memory: Any, carry: Any = None,
               by: Unpadding | None = None) -> tuple[jax.Array, Any]:
        """Logits (B, T, V) and the cache after `tokens_BT`; without a carry, one causal pass from the beginning."""
        at = self.slots(tokens_BT, carry)
        x_BTD = self.embed(self.target_embedding, tokens_BT, at.where_BT, cache.steps(carry, tokens_BT),
                           self.target_positions, by)
        real_BT = counted(tokens_BT, memory['mask'])
        x_BTD, carry = self.through(x_BTD, at, memory, at.seen_BTM, memory['mask'], carry,
                                    self.decoder_relative(at.where_BT, at.when_M[None]), real_BT, by)
        return self.logits(x_BTD, real_BT), carry

    def through(self, x_BTD, at, memory, mask_BTL, memory_mask_BS, carry, relative, real_BT=None, by=None):
        """The decoder's layers one after the other: its top states (B, T, D), and the carry after them.

        With a carry they stand side by side however deep the stack is, since a scan would copy each layer's part of
        parameters, memory and cache at every token.
        """
        if carry is None:
            return self.decoder(x_BTD, (memory['keys'], memory['values']), mask_BTL, memory_mask_BS, relative,
                                real_BT, by)[0], None
        stacked, layer = self.variables['params']['decoder'], DecoderLayer(**self.decoder_fields(), parent=None)
        kept = []
        for n in range(self.num_layers):
            params = stacked[str(n)] if '0' in stacked else layer_of(stacked, n)
            x_BTD, updated = layer.apply(
                {'params': params}, x_BTD, source_of(memory, n), mask_BTL, memory_mask_BS, relative,
                real_BT, None, (cache.pieces(carry, n), at.slot),
                rngs={'dropout': self.make_rng('dropout')} if self.has_rng('dropout') else None)
            kept.append(updated)
        return x_BTD, cache.written(carry, kept, x_BTD.shape[1])

    def unstacked(self, params: Any, memory: Any) -> tuple[Any, Any]:
        """The decoder's layers apart: {'0': parameters, ...}, and keys and values of the source one by one, the keys
        turned as their product with queries reads them.
        """
        layers = {str(n): layer_of(params['decoder'], n) for n in range(self.num_layers)}
        apart = tuple((products.turned(keys_BHSK), values_BHSK)
                      for keys_BHSK, values_BHSK in zip(memory['keys'], memory['values']))
        return {**params, 'decoder': layers}, {'mask': memory['mask'], 'layers': apart}

    def logits(self, x_BTD, real_BT=None):
        """Logits (B, T, V) of the decoder's top states, in float32."""
        if self.norm == 'before':
            x_BTD = self.decoder_norm(x_BTD, real_BT)
        return products.logits(x_BTD, self.output_embedding.astype(self.dtype))

    def partition_rules(self):
        """Widths are split: heads and feed-forward units over 'tensor', the model's width over 'fsdp'."""
        return (('query_key_value$', ('fsdp', None, 'tensor')), ('key_value$', ('fsdp', None, None, 'tensor')),
                ('query$|expand/kernel$', ('fsdp', 'tensor')), ('output$|contract/kernel$', ('tensor', 'fsdp')),
                ('embedding$', ('tensor', 'fsdp')), ('relative_bias$', (None, 'tensor')))


def layer_of(stacked: Any, n: int) -> Any:
    """What is layer `n`'s in a tree whose leaves hold all layers along their first axis."""
    return jax.tree.map(lambda leaf: leaf[n], stacked)


def source_of(memory: Any, n: int) -> tuple[jax.Array, jax.Array]:
    """The source's keys and values for layer `n`, each (B, H, S, K), of a memory that may be `unstacked`."""
    if 'layers' not in memory:
        return memory['keys'][n], memory['values'][n]
    keys_BHKS, values_BHSK = memory['layers'][n]
    return keys_BHKS.swapaxes(2, 3), values_BHSK
