"""What a decoder sees that it should not: the words that it has to predict, and padding."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.data.vocabulary import EOS, PAD, UNK
from seqjax.decoding.greedy import next_log_probs
from seqjax.tasks.forced import captured, logits_of

FIRST = UNK + 1  # the first id of a word


def variation(a_BTV: jax.Array, b_BTV: jax.Array) -> jax.Array:
    """The total variation distance (B, T) of the distributions of two arrays of logits: 0 alike, 1 disjoint."""
    return jnp.abs(jax.nn.softmax(a_BTV) - jax.nn.softmax(b_BTV)).sum(-1) / 2


def future_change(model: Any, params: Any, batch: Any, seed: int = 0) -> float:
    """How far p(y_t) moves, in total variation, when y_t and the words behind it, which the teacher gives, are others.

    The mean over the rows, a t of its own drawn for each; the end stays where it is. 0 where no future is seen.
    """
    rng, T = np.random.default_rng(seed), batch.target.shape[1]
    length_B = (batch.target != PAD).sum(axis=1)
    t_B = rng.integers(0, np.maximum(length_B - 1, 1))
    later_BT = (np.arange(T) >= t_B[:, None]) & (np.arange(T) < length_B[:, None] - 1)
    words = model.target_size - FIRST
    other_BT = FIRST + (batch.target - FIRST + rng.integers(1, words, batch.target.shape)) % words
    changed = batch._replace(target=np.where(later_BT, other_BT, batch.target))
    moved_BT = np.asarray(variation(logits_of(model, params, batch), logits_of(model, params, changed)))
    return float(moved_BT[np.arange(len(t_B)), t_B][length_B > 1].mean())


def padded(model: Any, params: Any, batch: Any, columns: tuple[int, ...]) -> list[tuple[float, float]]:
    """What so many columns of padding behind every source change.

    Returns:
      For each number of columns: how far the distributions of the words move, in total variation, the mean over words;
      and the share of targets of which every word is the likeliest, teacher-forced.
    """
    there_BT = batch.target != PAD
    plain_BTV, found = logits_of(model, params, batch), []
    for count in columns:
        wider = batch._replace(source=np.pad(batch.source, ((0, 0), (0, count))))
        logits_BTV = logits_of(model, params, wider)
        right_BT = np.asarray(next_log_probs(logits_BTV).argmax(-1)) == batch.target
        found.append((float(np.asarray(variation(plain_BTV, logits_BTV))[there_BT].mean()),
                      float((right_BT | ~there_BT).all(axis=1).mean())))
    return found


def next_weight(model: Any, params: Any, batch: Any) -> float:
    """The share of the decoder's self-attention, over layers and heads, that falls on the token to be predicted."""
    shown = captured(model, params, batch)
    weights_NBHTT = np.asarray(next(value for name, value in shown.items() if name.startswith(('decoder/', 'target/'))
                                    and name.endswith('self_attention')))
    on_next_BNHT = np.moveaxis(np.diagonal(weights_NBHTT, offset=1, axis1=-2, axis2=-1), 1, 0)
    word_BT = ~np.isin(batch.target[:, :-1], (PAD, EOS))
    return float(np.moveaxis(on_next_BNHT, -1, 1)[word_BT].mean())
