"""What a model says of given targets, word by word, and what it would say if its memory of the source were another."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.data.vocabulary import BOS, PAD, Ragged

Change = Callable[[Any, Any], Any]  # (memory, batch) -> memory


class Forced(NamedTuple):
    """Of one pair, at each target token, EOS included, given the reference before it; arrays (T,)."""

    right: np.ndarray  # bool, whether the token is the likeliest one
    log_prob: np.ndarray  # float32, of the token


def forced_logits(model: Any, params: Any, batch: Any, change: Change | None = None) -> jax.Array:
    """Teacher-forced logits (B, T, V).

    Args:
      change: what is done to the memory before the decoder reads it. The carry that the decoder starts from is that of
        the memory as it was, so that only what is read while decoding differs.
    """
    variables = {'params': params}
    tokens_BT = jnp.pad(batch.target[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)
    memory = model.apply(variables, batch.source, method='encode')
    if change is None:
        return model.apply(variables, tokens_BT, memory, method='decode')[0]
    carry = model.apply(variables, memory, tokens_BT.shape[1], method='start')
    return model.apply(variables, tokens_BT, change(memory, batch), carry, method='decode')[0]


# Of (model, params, batch), compiled: a model is its own configuration, and equal ones share the program.
logits_of = jax.jit(forced_logits, static_argnums=0)
captured = jax.jit(lambda model, params, batch: model.capture(params, batch), static_argnums=0)


def forced(evaluator: Any, params: Any, source: Ragged, target: Ragged, decoding: Any,
           change: Change | None = None) -> list[Forced]:
    """Every pair's tokens, in the order of the pairs.

    A pair is decoded exactly by greedy search where all of its tokens are right, for its prefix is then the
    reference's at every step.
    """
    def tell(params, batch):
        log_probs_BTV = jax.nn.log_softmax(forced_logits(evaluator.model, params, batch, change), axis=-1)
        log_probs_BT = jnp.take_along_axis(log_probs_BTV, batch.target[:, :, None], axis=-1)[:, :, 0]
        # PAD and BOS are never decoded, so they compete for nothing.
        likeliest_BT = log_probs_BTV.at[:, :, jnp.array([PAD, BOS])].set(-jnp.inf).argmax(-1)
        return likeliest_BT == batch.target, log_probs_BT

    run = evaluator.placement.rows(tell)
    found: list = [None] * source.count()
    for rows, batch in evaluator.batches(source, target, decoding):
        for row, right_T, log_probs_T in zip(rows, *run(params, batch)):
            if row >= 0:
                length = target.lengths[row]
                found[row] = Forced(right_T[:length], log_probs_T[:length])
    return found
