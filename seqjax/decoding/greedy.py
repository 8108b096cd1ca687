"""Left-to-right decoding of one hypothesis a row: the likeliest token at every step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from seqjax.decoding.options import BOS, EOS, PAD
from seqjax.decoding.walk import Walk

# (tokens_B, model) -> (logits_BV, model): one call of the model's `decode` on one token a row; `model` is what it
# carries.
Step = Callable[[jax.Array, Any], tuple[jax.Array, Any]]


def possible(values: jax.Array, token: jax.Array) -> jax.Array:
    """The values of these tokens, with -inf where a decoder never goes: PAD and BOS."""
    return jnp.where((token == PAD) | (token == BOS), -jnp.inf, values)


def next_log_probs(logits_BV: jax.Array) -> jax.Array:
    """The model's log probabilities in float32, with -inf where a decoder never goes: PAD and BOS.

    The two are forbidden, not renormalised away, so that sums of these are log probabilities under the model.
    """
    log_probs_BV = jax.nn.log_softmax(logits_BV.astype(jnp.float32), axis=-1)
    return possible(log_probs_BV, jnp.arange(logits_BV.shape[-1]))


def rollout(step: Step, choose: Callable, model: Any, done_B: jax.Array, walk: Walk, max_length: int,
            own: Any = None) -> tuple[jax.Array, jax.Array]:
    """Extends one hypothesis a row, token by token, until every row has ended or is `max_length` long.

    Args:
      step: one call of the model.
      choose: (sums_BV, logits_BV, position, own) -> tokens_B, where sums_BV are the log probabilities of the hypotheses
        extended by each token.
      model: what the model carries before the first token.
      done_B: rows that have nothing to decode; they come back as all PAD with log probability 0.
      walk: the loop over tokens.
      max_length: tokens, EOS counted. A hypothesis that reaches it without EOS is returned as it is.
      own: what `choose` has to know of each row, a pytree whose leaves lead with rows.

    Returns:
      tokens_BT int32, PAD after EOS, and log_probs_B float32 under the model.
    """

    def extend(position, done_B, rows, model):
        last_B, log_probs_B, tokens_BT, own = rows
        logits_BV, model = step(last_B, model)
        sums_BV = log_probs_B[:, None] + next_log_probs(logits_BV)
        token_B = jnp.where(done_B, PAD, choose(sums_BV, logits_BV, position, own))
        sum_B = jnp.take_along_axis(sums_BV, token_B[:, None], axis=1)[:, 0]
        tokens_BT = tokens_BT.at[:, position].set(token_B)
        return done_B | (token_B == EOS), (token_B, jnp.where(done_B, log_probs_B, sum_B), tokens_BT, own), model

    B = done_B.shape[0]
    start = (jnp.full(B, BOS, jnp.int32), jnp.zeros(B, jnp.float32), jnp.full((B, max_length), PAD, jnp.int32), own)
    _, log_probs_B, tokens_BT, _ = walk(extend, start, model, done_B)
    return tokens_BT, log_probs_B


def likeliest(sums_BV: jax.Array, logits_BV: jax.Array, position: jax.Array, own: None) -> jax.Array:
    """The token of the greatest sum, the lower id in a tie.

    It compares sums, not the step's own log probabilities, because rounding makes ties among sums and a beam of one,
    which compares sums, has to break the same ties.
    """
    return sums_BV.argmax(axis=-1).astype(jnp.int32)


def greedy(step: Step, model: Any, done_B: jax.Array, walk: Walk, max_length: int) -> tuple[jax.Array, jax.Array]:
    """The hypotheses that take the likeliest token at every step, as `rollout` returns them."""
    return rollout(step, likeliest, model, done_B, walk, max_length)
