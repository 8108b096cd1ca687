"""Whether attention weights say what a decoder goes by: their links, their rank correlation with influence, and what
becomes of the output when they are given to other words (Jain and Wallace 2019, "Attention is not explanation").

A weight a_tj belongs to target token t and source token j. All of it is for models with one head, as
`layers/alignment.py` has it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.data.batches import Batches, Shape
from seqjax.data.vocabulary import PAD, Ragged
from seqjax.tasks.forced import forced_logits

Links = set[tuple[int, int]]


class Influence(NamedTuple):
    """Of one pair, (T, S) without padding and with EOS on either side: the weights, and what each source token does."""

    weight: np.ndarray
    gradient: np.ndarray  # |embedding . gradient of log p(token t) by the embedding of token j|
    left_out: np.ndarray  # total variation distance of p(. at t) with and without token j; NaN for the source's EOS


def batch_of(source: Ragged, target: Ragged, multiple: int = 1) -> Any:
    """All pairs as one batch, whose lengths are of the multiple: batches of equal shape share a program."""
    shape = Shape(*(-(-int(side.lengths.max()) // multiple) * multiple for side in (source, target)))
    return Batches(source, target, source.count(), [shape], seed=None).batch(0)


def weights_of(model: Any, params: Any, batch: Any) -> jax.Array:
    """The weights (B, T, S) of the last layer, teacher-forced."""
    return looks(model, params, batch)[-1].mean(axis=1)


def looks(model: Any, params: Any, batch: Any) -> jax.Array:
    """The weights of every layer and head on the source (N, B, H, T, S), teacher-forced; in a decoder-only model they
    are part of self-attention, and what a row lacks to 1 goes to the target's past.

    Layers may stand in one array or in one each.
    """
    found = [value for name, value in model.capture(params, batch).items() if name.endswith('cross_attention')]
    return jnp.concatenate([value.reshape(-1, *value.shape[-4:]) for value in found])


def influences(model: Any, params: Any, source: Ragged, target: Ragged) -> list[Influence]:
    """Of each pair, teacher-forced, in one batch.

    Args:
      model: sized; its source embeddings are the parameter 'source_embedding' alone.
    """
    batch = batch_of(source, target)
    weights_BTS, gradient_BTS, left_out_BTS = jax.jit(lambda params, batch: (
        weights_of(model, params, batch), gradient_times_input(model, params, batch), leave_one_out(
            model, params, batch)))(params, batch)
    found = [None] * source.count()
    for b, row in enumerate(batch.row):
        T, S = target.lengths[row], source.lengths[row]
        left_out_TS = np.array(left_out_BTS[b, :T, :S], np.float64)
        left_out_TS[:, -1] = np.nan
        found[row] = Influence(np.asarray(weights_BTS[b, :T, :S], np.float64),
                               np.asarray(gradient_BTS[b, :T, :S], np.float64), left_out_TS)
    return found


def gradient_times_input(model: Any, params: Any, batch: Any) -> jax.Array:
    """|e_j . d log p(y_t) / d e_j| (B, T, S), e_j the embedding of source token j: how log p changes, to first order,
    as the word fades to nothing."""
    S = batch.source.shape[1]
    # Every place gets a word of its own, so that the gradient by a word's embedding is that by one place.
    alone = model.clone(source_size=S + 1)

    def of_row(source_S, target_T):
        own_S = jnp.where(source_S == PAD, PAD, jnp.arange(1, S + 1))
        table_WE = params['source_embedding'][jnp.concatenate([jnp.array([PAD]), source_S])]

        def log_probs(table_WE):
            row = batch._replace(source=own_S[None], target=target_T[None])
            logits_TV = forced_logits(alone, {**params, 'source_embedding': table_WE}, row)[0]
            return jnp.take_along_axis(jax.nn.log_softmax(logits_TV), target_T[:, None], axis=-1)[:, 0]

        return jnp.abs(jnp.einsum('TWE,WE->TW', jax.jacrev(log_probs)(table_WE), table_WE)[:, 1:])

    return jax.lax.map(lambda row: of_row(*row), (jnp.asarray(batch.source), jnp.asarray(batch.target)))


def leave_one_out(model: Any, params: Any, batch: Any) -> jax.Array:
    """Half the sum of |p(y at t) - p(y at t | source without token j)| over all words y: (B, T, S), within 0..1."""
    S = batch.source.shape[1]
    probs_BTV = jax.nn.softmax(forced_logits(model, params, batch))
    place_S = jnp.arange(S)

    def without(j):
        taken_S = jnp.where(place_S < j, place_S, place_S + 1)
        shorter_BS = jnp.pad(jnp.asarray(batch.source), ((0, 0), (0, 1)), constant_values=PAD)[:, taken_S]
        other_BTV = jax.nn.softmax(forced_logits(model, params, batch._replace(source=shorter_BS)))
        return jnp.abs(probs_BTV - other_BTV).sum(-1) / 2

    return jnp.moveaxis(jax.lax.map(without, place_S), 0, -1)


def permuted(memory: Any, batch: Any) -> Any:
    """The memory with each row's values dealt out anew among its real tokens, the keys left where they were.

    So a decoder that gave the weight a_j to token j gives it to another: the weights are permuted, the same way at
    every step of a row. The permutation depends on the row's number alone.
    """
    mask_BS = jnp.asarray(batch.source) != PAD
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.asarray(batch.row))
    noise_BS = jax.vmap(lambda key: jax.random.uniform(key, mask_BS.shape[1:]))(keys_B)
    order_BS = jnp.argsort(jnp.where(mask_BS, noise_BS, jnp.inf), axis=1)  # real tokens first, shuffled
    return memory | {'values': jnp.take_along_axis(memory['values'], order_BS[:, :, None], axis=1)}


def evened(memory: Any, batch: Any) -> Any:
    """The memory in which every token has the mean of the values: whatever the weights, it is as if all were equal."""
    mask_BS1 = (jnp.asarray(batch.source) != PAD)[:, :, None]
    values_BSD = memory['values']
    mean_B1D = (values_BSD * mask_BS1).sum(1, keepdims=True) / jnp.maximum(mask_BS1.sum(1, keepdims=True), 1)
    return memory | {'values': jnp.broadcast_to(mean_B1D, values_BSD.shape).astype(values_BSD.dtype)}


def rank_correlation(a: Sequence[np.ndarray], b: Sequence[np.ndarray], least: int = 3) -> float:
    """The mean of Kendall's tau between rows of `a` and of `b`, over all rows of all pairs.

    Entries that are NaN in either are left out; so are rows of fewer than `least` entries, and those without two
    different values, whose ranks are undefined.
    """
    from scipy.stats import kendalltau  # half a second, of each study that imports this file
    taus = []
    for ours, theirs in zip(a, b, strict=True):
        for x, y in zip(ours, theirs, strict=True):
            there = np.isfinite(x) & np.isfinite(y)
            if there.sum() >= least:
                taus.append(kendalltau(x[there], y[there]).statistic)
    return float(np.nanmean(taus)) if np.isfinite(taus).any() else float('nan')


def strongest_links(weights_TS: np.ndarray) -> Links:
    """(source, target) positions: each target word with the source token that has its greatest weight.

    The last column and row are EOS: a word that attends to EOS most is linked with nothing.
    """
    T, S = weights_TS.shape
    return {(int(j), t) for t, j in enumerate(weights_TS[:T - 1].argmax(axis=1)) if j < S - 1}


def links_above(weights_TS: np.ndarray, threshold: float) -> Links:
    """(source, target) positions of words whose weight is at least `threshold`; EOS, last on both sides, left out."""
    t, j = np.nonzero(weights_TS[:-1, :-1] >= threshold)
    return set(zip(map(int, j), map(int, t)))
