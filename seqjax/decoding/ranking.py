"""The best continuations among all that there are, found without sorting or rewriting them."""

import jax
import jax.numpy as jnp
from jax import lax

from seqjax.decoding.greedy import next_log_probs, possible

BLOCK = 64


def top_k(x_BN: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k`, whole: where only a part of what it finds is read further down, XLA would sort all of a row for it.

    Each of the two is held by itself. One barrier around both becomes the only user of what finds them, and XLA's
    pass over programs for several devices aborts at one that is no element of a pair (jaxlib 0.10.2).
    """
    values_BC, places_BC = lax.top_k(x_BN, count)
    return lax.optimization_barrier(values_BC), lax.optimization_barrier(places_BC)


def extensions(log_probs_BK: jax.Array, logits_BKV: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of all hypotheses of a row, each extended by each token, the `count` likeliest.

    What a hypothesis adds to its own logits is the same for all of them, so that the greatest of a block of logits is
    also its likeliest token, and the `count` likeliest extensions lie in the `count` likeliest blocks: the logits are
    read for their greatest and for their normaliser, and log probabilities are made of few.

    Args:
      log_probs_BK: of the hypotheses; -inf where there is none.
      logits_BKV: of the next token.

    Returns:
      Log probabilities (B, C) under the model, hypothesis and token of each, the likeliest first, of equal ones that of
      the lower hypothesis and then of the lower token first: the numbers that adding `next_log_probs` gives. Behind the
      possible ones may stand impossible ones, of any token, with -inf.
    """
    B, K, V = logits_BKV.shape
    M = -(-V // BLOCK)
    if 2 * count >= K * M:
        sums_BN = (log_probs_BK[:, :, None] + next_log_probs(logits_BKV)).reshape(B, K * V)
        sums_BN = jnp.pad(sums_BN, ((0, 0), (0, max(count - K * V, 0))), constant_values=-jnp.inf)
        log_probs_BC, place_BC = top_k(sums_BN, count)
        place_BC = jnp.minimum(place_BC, K * V - 1)
        return log_probs_BC, place_BC // V, place_BC % V
    logits_BKV = logits_BKV.astype(jnp.float32)
    if M * BLOCK > V:
        logits_BKV = jnp.pad(logits_BKV, ((0, 0), (0, 0), (0, M * BLOCK - V)), constant_values=-jnp.inf)
    # Held: XLA would make one maximum of two, and read the logits once more for it.
    greatest_BKM = lax.optimization_barrier(logits_BKV.reshape(B, K, M, BLOCK).max(axis=3))
    peak_BK = greatest_BKM.max(axis=2)
    normaliser_BK = jnp.log(jnp.exp(logits_BKV - peak_BK[:, :, None]).sum(axis=2))

    def summed(logits, before, peak, normaliser):
        """In the order of `next_log_probs`."""
        return before[:, :, None] + ((logits - peak[:, :, None]) - normaliser[:, :, None])

    terms = log_probs_BK, peak_BK, normaliser_BK

    first_BK = possible(logits_BKV[:, :, :BLOCK], jnp.arange(BLOCK)).max(axis=2)
    greatest_BKM = greatest_BKM.at[:, :, 0].set(first_BK)
    likeliest_BKM = summed(greatest_BKM, *terms)
    block_BC = jnp.sort(top_k(likeliest_BKM.reshape(B, K * M), count)[1], axis=1)
    few_BCW = jnp.take_along_axis(logits_BKV.reshape(B, K * M, BLOCK), block_BC[:, :, None], axis=1)
    token_BCW = (block_BC % M * BLOCK)[:, :, None] + jnp.arange(BLOCK)
    sums_BCW = summed(possible(few_BCW, token_BCW),
                      *(jnp.take_along_axis(x_BK, block_BC // M, axis=1) for x_BK in terms))
    log_probs_BC, place_BC = top_k(sums_BCW.reshape(B, count * BLOCK), count)
    token_BC = jnp.take_along_axis(token_BCW.reshape(B, count * BLOCK), place_BC, axis=1)
    parent_BC = jnp.take_along_axis(block_BC // M, place_BC // BLOCK, axis=1)
    return log_probs_BC, parent_BC, jnp.minimum(token_BC, V - 1)
