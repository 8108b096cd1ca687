"""Scheduled sampling (Bengio et al. 2015): in training, some of the words that the decoder reads are its own.

The words are chosen first, without a gradient; the loss and its gradient are then those of one usual pass that reads
them. A choice of words has no gradient anyway, so this is the gradient of the paper; and where no word is the model's
own, it is teacher forcing, number for number. What differs: with dropout the words come from passes with masks of their
own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from seqjax.data.vocabulary import PAD
from seqjax.decoding.greedy import next_log_probs
from seqjax.options import option

SCHEDULES = ('constant', 'linear', 'exponential', 'inverse_sigmoid')

# (logits_BV, the position at which the word will be read) -> words (B,), drawn or the likeliest.
Draw = Callable[[jax.Array, Any], jax.Array]


@dataclasses.dataclass(frozen=True)
class ScheduledSampling:
    """The options of scheduled sampling: how the share of true words falls, and where the other words come from.

    Every word that the decoder reads after BOS is the true one with probability e_i in update i, counted from 1
    (Bengio et al. 2015, section 2.4), and the model's own otherwise, each word for itself (section 2.3):
      constant: e_i = 1 - c.
      linear: e_i = max(e, 1 - c i); the paper's k, where the line begins, is 1.
      exponential: e_i = k^i.
      inverse_sigmoid: e_i = k / (k + exp(i / k)).

    One word at a time ('stepwise') the model goes on from what it has read so far, own words included, as in the paper
    and, where every word is its own, as in decoding; as there it chooses neither PAD nor BOS. Its own EOS does not end
    a sentence: the model reads on, and is asked for the true next word.

    For a decoder that sees all positions at once that loses what it is for: in 'two_pass' (Mihaylova and Martins 2019)
    a first pass reads the true words alone, and what it says next at each place are the model's own words of the
    second, from which it is learned. The paper also tries gradients through mixtures of embeddings; here words are
    words, and no gradient goes through the first pass.
    """

    sampling: Literal['none', 'constant', 'linear', 'exponential', 'inverse_sigmoid'] = option(
        'none', "how the share of true words that the decoder reads in training falls in favour of the model's own")
    sampling_share: float = option(0.25, 'c, the share of own words', at_least=0.0, at_most=1.0,
                                   when={'sampling': ('constant',)})
    sampling_slope: float = option(0.001, 'c, the share of true words lost an update', above=0.0,
                                   when={'sampling': ('linear',)})
    sampling_floor: float = option(0.0, 'e, the least share of true words', at_least=0.0, at_most=1.0,
                                   when={'sampling': ('linear',)})
    sampling_base: float = option(0.999, 'k, which the share of true words is multiplied by in every update', above=0.0,
                                  below=1.0, when={'sampling': ('exponential',)})
    sampling_scale: float = option(100.0, 'k, updates: half of the words are true after k log k of them', at_least=1.0,
                                   when={'sampling': ('inverse_sigmoid',)})
    sampling_word: Literal['sample', 'argmax'] = option(
        'sample', "the model's own word: drawn from its distribution, or the likeliest", when={'sampling': SCHEDULES})
    sampling_passes: Literal['auto', 'stepwise', 'two_pass'] = option(
        'auto', 'own words one at a time, or all of a first pass over the true ones; auto: as the model is made',
        when={'sampling': SCHEDULES})

    def forcing(self, step: Any) -> jax.Array:
        """e_i, the probability of reading the true word in update `step`, counted from 1; float32."""
        i = jnp.asarray(step, jnp.float32)
        if self.sampling == 'linear':
            return jnp.maximum(self.sampling_floor, 1.0 - self.sampling_slope * i)
        if self.sampling == 'exponential':
            return self.sampling_base ** i
        if self.sampling == 'inverse_sigmoid':
            return self.sampling_scale / (self.sampling_scale + jnp.exp(i / self.sampling_scale))
        return jnp.asarray(1.0 - self.sampling_share if self.sampling == 'constant' else 1.0, jnp.float32)

    def revision(self, model: Any, params: Any, batch: Any, rng: jax.Array, step: Any) -> tuple[Callable, dict]:
        """What puts the model's own words in place of true ones, and how many stayed.

        Args:
          model: by the decoder contract.
          params: its parameters; no gradient reaches them from here.
          batch: source, target (B, T) and weight.
          rng: the key of this update, micro-batch and replica.
          step: number of the update, from 1.

        Returns:
          (memory, tokens_BT) -> tokens_BT, and the report {'teacher_forcing': (true words read, words read)}, BOS and
          padding not counted. Column t depends on nothing but the row's true words and the key, however wide the
          padding is.
        """
        choice, drawing, dropout = jax.random.split(rng, 3)
        T = batch.target.shape[1]
        columns = jnp.arange(1, T)  # column 0 is BOS
        keys = jax.vmap(jax.random.fold_in, (None, 0))(choice, columns)
        rows = batch.target.shape[:1]
        own_BT = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - self.forcing(step), rows), out_axes=1)(keys)
        # Input t + 1 is target t: of a sentence's n words with EOS n - 1 are read.
        read_BT = (batch.target[:, 1:] != PAD) & (batch.weight[:, None] != 0)
        own_BT &= read_BT
        weight_BT = jnp.where(read_BT, batch.weight[:, None], 0.0).astype(jnp.float32)

        def draw(logits_BV: jax.Array, column: Any) -> jax.Array:
            log_probs_BV = next_log_probs(logits_BV)
            if self.sampling_word == 'argmax':
                return log_probs_BV.argmax(axis=-1).astype(jnp.int32)
            return jax.random.categorical(jax.random.fold_in(drawing, column), log_probs_BV).astype(jnp.int32)

        two_pass = model.parallel_decoder if self.sampling_passes == 'auto' else self.sampling_passes == 'two_pass'

        def revise(memory: Any, tokens_BT: jax.Array) -> jax.Array:
            ours = jax.lax.stop_gradient((params, memory))
            return (from_first_pass if two_pass else one_by_one)(model, *ours, tokens_BT, own_BT, draw, dropout)

        return revise, {'teacher_forcing': ((weight_BT * ~own_BT).sum(), weight_BT.sum())}


def one_by_one(model: Any, params: Any, memory: Any, tokens_BT: jax.Array, own_BT: jax.Array, draw: Draw,
               dropout: jax.Array | None) -> jax.Array:
    """`tokens_BT` with the model's own words where `own_BT` (B, T - 1) says so of columns 1 to T - 1.

    Each is chosen after the model has read all columns before it, own words included; dropout differs in each step,
    and there is none where its key is none.
    """
    T, variables = tokens_BT.shape[1], {'params': params}

    def step(state: tuple, now: tuple) -> tuple:
        carry, token_B = state
        column, true_B, own_B = now
        rngs = None if dropout is None else {'dropout': jax.random.fold_in(dropout, column)}
        logits_BTV, carry = model.apply(variables, token_B[:, None], memory, carry, method='decode', rngs=rngs)
        token_B = jnp.where(own_B, draw(logits_BTV[:, -1], column), true_B)
        return (carry, token_B), token_B

    carry = model.apply(variables, memory, T, method='start')
    _, read_TB = jax.lax.scan(step, (carry, tokens_BT[:, 0]), (jnp.arange(1, T), tokens_BT[:, 1:].T, own_BT.T))
    return jnp.concatenate([tokens_BT[:, :1], read_TB.T], axis=1)


def from_first_pass(model: Any, params: Any, memory: Any, tokens_BT: jax.Array, own_BT: jax.Array, draw: Draw,
                    dropout: jax.Array) -> jax.Array:
    """The same from one pass over `tokens_BT`: each own word follows true words only."""
    logits_BTV, _ = model.apply({'params': params}, tokens_BT, memory, method='decode', rngs={'dropout': dropout})
    columns = jnp.arange(1, tokens_BT.shape[1])
    drawn_BT = jax.vmap(draw, in_axes=(1, 0), out_axes=1)(logits_BTV[:, :-1], columns)
    return jnp.concatenate([tokens_BT[:, :1], jnp.where(own_BT, drawn_BT, tokens_BT[:, 1:])], axis=1)
