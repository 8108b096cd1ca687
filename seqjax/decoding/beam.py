"""Beam search over any carry."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seqjax.decoding.greedy import Step
from seqjax.decoding.options import BOS, EOS, PAD
from seqjax.decoding.ranking import extensions
from seqjax.decoding.walk import Walk

NO_BATCH = -1
# (model, parent_BK) -> model: in what the model carries, the hypothesis at each place goes on from that at place
# `parent_BK`.
Follow = Callable[[Any, jax.Array], Any]


def length_penalty(length: jax.Array | float, alpha: float) -> jax.Array | float:
    """((5 + length) / 6)^alpha, which divides a log probability (Wu et al. 2016, equation 14, no coverage)."""
    return ((5.0 + length) / 6.0) ** alpha


def batch_axes(of_batch: Callable[[int], Any]) -> Any:
    """The batch axis of every leaf: where its shape differs between two batch sizes, or NO_BATCH where it does not.

    Args:
      of_batch: batch size -> pytree of shapes (`jax.eval_shape`).

    Raises:
      ValueError: a leaf has two such axes, or one that is not the batch but, say, the batch times the heads.
    """
    few, more = 2, 3

    def axis(path, small, large):
        differ = [i for i, (m, n) in enumerate(zip(small.shape, large.shape, strict=True)) if m != n]
        if len(differ) > 1 or (differ and (small.shape[differ[0]], large.shape[differ[0]]) != (few, more)):
            raise ValueError(f'leaf {jax.tree_util.keystr(path)} has no axis that is the batch alone: its shape is '
                             f'{small.shape} for {few} rows and {large.shape} for {more}')
        return differ[0] if differ else NO_BATCH

    return jax.tree_util.tree_map_with_path(axis, of_batch(few), of_batch(more))


def repeat(tree: Any, axes: Any, times: int) -> Any:
    """Every row `times` times in a row, along each leaf's batch axis."""
    return jax.tree.map(
        lambda leaf, axis: leaf if axis == NO_BATCH or times == 1 else jnp.repeat(leaf, times, axis), tree, axes)


def reorder(tree: Any, axes: Any, parent_BK: jax.Array) -> Any:
    """Place k of row b's K places in each leaf gets what its place `parent_BK[b, k]` held.

    The row is a batch dimension of the gather, not part of a flat index, so that a batch that is split over devices is
    reordered where it lies.
    """
    B, K = parent_BK.shape

    def take(leaf, axis):
        if axis == NO_BATCH:
            return leaf
        rows = leaf.reshape(*leaf.shape[:axis], B, K, *leaf.shape[axis + 1:])
        places = jax.vmap(lambda row, parent_K: jnp.take(row, parent_K, axis, mode='clip'), (axis, 0), axis)
        return places(rows, parent_BK).reshape(leaf.shape)

    return jax.tree.map(take, tree, axes)


def taken(tree: Any, axes: Any, row_C: jax.Array) -> Any:
    """These rows of each leaf, along its batch axis."""
    return jax.tree.map(lambda leaf, axis: leaf if axis == NO_BATCH else jnp.take(leaf, row_C, axis, mode='clip'),
                        tree, axes)


class Beams(NamedTuple):
    """Hypotheses under way. K alive and K finished a row, the best of each first; -inf: an empty place."""

    alive_BKT: jax.Array
    alive_log_probs_BK: jax.Array
    finished_BKT: jax.Array
    finished_scores_BK: jax.Array
    finished_log_probs_BK: jax.Array


def beam(first: Step, step: Step, model: Any, follow: Follow, done_B: jax.Array, walk: Walk, max_length: int,
         beam_size: int, alpha: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best hypotheses that a beam of `beam_size` finds.

    A hypothesis scores log p / length_penalty, EOS counted in its length. At each step the 2K best extensions of a
    row's alive hypotheses are candidates: those that end in EOS finish if they are among the first K, and the first K
    others stay alive. A row is done when K hypotheses have finished and the best that is alive, if it ended now, would
    score no more than the best of them. So a beam of one, of which the second best is alive when the best has finished,
    is greedy decoding. What its batch mates do meanwhile, or later, changes nothing in a row.

    Args:
      first: the call of the model for the first token, on B rows: until then the hypotheses of a row are one. From it
        on the model carries K of each.
      step: every later call, on B * K rows, the K of a sentence next to each other.
      model: what the model carries before the first token.
      follow: moves hypotheses within it.
      done_B: rows that have nothing to decode.
      walk: the loop over tokens.
      max_length: tokens, EOS counted.
      beam_size: K.
      alpha: exponent of the length penalty.

    Returns:
      tokens_BKT int32, scores_BK and log_probs_BK float32. The finished hypotheses come first, sorted by score. Where
      they are fewer than K at `max_length`, the best unfinished ones follow, sorted by score among themselves, whatever
      they score: half a sentence never goes before a whole one. A place that nothing fills (there were fewer sequences
      than K) is all PAD and scores -inf.
    """
    B, K, T = done_B.shape[0], beam_size, max_length

    def extend(position, done_B, beams, model):
        logits, model = step(beams.alive_BKT[:, :, position - 1].reshape(-1), model)
        return go_on(position, done_B, beams, model, logits.reshape(-1, K, logits.shape[-1]))

    def go_on(position, done_B, beams, model, logits_BAV):
        """One token more, where A hypotheses a row are alive: one before the first token, then K."""
        log_probs_BC, parent_BC, token_BC = extensions(beams.alive_log_probs_BK, logits_BAV, 2 * K)
        tokens_BCT = jnp.take_along_axis(beams.alive_BKT, parent_BC[:, :, None], axis=1)
        tokens_BCT = tokens_BCT.at[:, :, position].set(token_BC)
        ends_BC = token_BC == EOS

        # A done row keeps what it has, or its result would depend on how long its batch mates take.
        finishes_BK = ends_BC[:, :K] & ~done_B[:, None]
        scores_BK = jnp.where(finishes_BK, log_probs_BC[:, :K] / length_penalty(position + 1, alpha), -jnp.inf)
        finished_scores_BK, best_BK = lax.top_k(jnp.concatenate([beams.finished_scores_BK, scores_BK], axis=1), K)
        finished_log_probs_BK = jnp.take_along_axis(
            jnp.concatenate([beams.finished_log_probs_BK, log_probs_BC[:, :K]], axis=1), best_BK, axis=1)
        finished_BKT = jnp.take_along_axis(
            jnp.concatenate([beams.finished_BKT, tokens_BCT[:, :K]], axis=1), best_BK[:, :, None], axis=1)

        # At most K of the 2K end, one a parent, so K remain; a stable sort keeps the best first.
        alive_BK = jnp.argsort(ends_BC, axis=1, stable=True)[:, :K]
        alive_log_probs_BK = jnp.take_along_axis(log_probs_BC, alive_BK, axis=1)
        alive_BKT = jnp.take_along_axis(tokens_BCT, alive_BK[:, :, None], axis=1)
        if logits_BAV.shape[1] > 1:
            model = follow(model, jnp.take_along_axis(parent_BC, alive_BK, axis=1))

        # Where one hypothesis has nearly all of the probability, K poor short ones finish before it.
        best_B = alive_log_probs_BK[:, 0] / length_penalty(position + 1, alpha)
        full_B = (finished_scores_BK > -jnp.inf).all(axis=1) & (best_B <= finished_scores_BK[:, 0])
        done_B = done_B | full_B | (alive_log_probs_BK == -jnp.inf).all(axis=1)
        return done_B, Beams(alive_BKT, alive_log_probs_BK, finished_BKT, finished_scores_BK,
                             finished_log_probs_BK), model

    nothing_BK = jnp.full((B, K), -jnp.inf, jnp.float32)
    beams = Beams(alive_BKT=jnp.full((B, 1, T), PAD, jnp.int32), alive_log_probs_BK=jnp.zeros((B, 1), jnp.float32),
                  finished_BKT=jnp.full((B, K, T), PAD, jnp.int32), finished_scores_BK=nothing_BK,
                  finished_log_probs_BK=nothing_BK)
    logits_BV, model = first(jnp.full(B, BOS, jnp.int32), model)
    done_B, beams, model = go_on(0, done_B, beams, model, logits_BV[:, None])
    beams = walk(extend, beams, model, done_B, begin=1)

    # The finished, then the alive, then places that stayed empty among the finished: PAD and -inf.
    alive_scores_BK = beams.alive_log_probs_BK / length_penalty(T, alpha)
    scores_BC = jnp.concatenate([beams.finished_scores_BK, alive_scores_BK], axis=1)
    log_probs_BC = jnp.concatenate([beams.finished_log_probs_BK, beams.alive_log_probs_BK], axis=1)
    tokens_BCT = jnp.concatenate([beams.finished_BKT, beams.alive_BKT], axis=1)
    best_BK = jnp.argsort(scores_BC == -jnp.inf, axis=1, stable=True)[:, :K]
    return (jnp.take_along_axis(tokens_BCT, best_BK[:, :, None], axis=1),
            jnp.take_along_axis(scores_BC, best_BK, axis=1), jnp.take_along_axis(log_probs_BC, best_BK, axis=1))
