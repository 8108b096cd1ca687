"""Ancestral sampling, with temperature, top-k and top-p."""

from typing import Any

import jax
import jax.numpy as jnp

from seqjax.decoding import ranking
from seqjax.decoding.greedy import Step, rollout
from seqjax.decoding.options import BOS, PAD
from seqjax.decoding.walk import Walk


def filter_logits(logits_BV: jax.Array, top_k: int | None = None, top_p: float | None = None) -> jax.Array:
    """The logits with -inf outside the likeliest tokens; those tied with the last one kept are kept too.

    Args:
      logits_BV: logits over the last axis.
      top_k: keep the k greatest (Fan et al. 2018, section 5.4). None, or at least V: all.
      top_p: keep the greatest while their mass, after top-k, stays within p, and always the first, as OpenAI's GPT-2
        does. (Holtzman et al. 2020, equation 2, would keep one more, the token that crosses p.) None or 1: all.
    """
    V = logits_BV.shape[-1]
    if top_k is not None and top_k < V:
        least_B1 = ranking.top_k(logits_BV, top_k)[0][..., -1:]
        logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
    if top_p is not None and top_p < 1:
        sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
        mass_BV = jnp.cumsum(jax.nn.softmax(sorted_BV.astype(jnp.float32), axis=-1), axis=-1)
        kept_B1 = jnp.maximum((mass_BV <= top_p).sum(axis=-1, keepdims=True), 1)
        least_B1 = jnp.take_along_axis(sorted_BV, kept_B1 - 1, axis=-1)
        logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
    return logits_BV


def sample(step: Step, model: Any, done_B: jax.Array, walk: Walk, max_length: int, rng: jax.Array, row_B: jax.Array,
           temperature: float = 1.0, top_k: int | None = None,
           top_p: float | None = None) -> tuple[jax.Array, jax.Array]:
    """One sample a row, as `rollout` returns them.

    The token at position t of row r is drawn with the key fold_in(fold_in(rng, r), t), so that a sample depends on the
    row's id and on nothing else in its batch. The log probability is the model's own: neither tempered nor filtered.
    """
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(rng, row_B)

    def draw(sums_BV, logits_BV, position, keys_B):
        logits_BV = logits_BV.astype(jnp.float32).at[:, jnp.array([PAD, BOS])].set(-jnp.inf)
        logits_BV = filter_logits(logits_BV / temperature, top_k, top_p)
        now_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, position)
        return jax.vmap(jax.random.categorical)(now_B, logits_BV).astype(jnp.int32)

    return rollout(step, draw, model, done_B, walk, max_length, keys_B)
