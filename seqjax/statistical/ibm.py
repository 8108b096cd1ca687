"""IBM Models 1 and 2 (Brown et al. 1993): which source word each target word came from, by expectation maximisation.

A target of m words e_1 .. e_m comes from a source of l words f_1 .. f_l and NULL:

    p(e | f) = p(m | l) prod_i sum_j a(j | i, l) t(e_i | f_j)

where a is 1 / (l + 1) in Model 1 (their equations 5 and 6) and learned in Model 2 (equation 20). Two choices are ours.
Their p(m | l), a constant epsilon, is the relative frequency of the lengths here, so that p is a distribution over
sentences, and a(j | i, l) does not look at m, so that it is one from left to right: `step_log_probs`.

A row of ids ends in EOS, then PAD. EOS of a sentence that is conditioned on stands for NULL, at position l; EOS of one
that is predicted is no word: p(m | l) accounts for it.

Shapes: V vocabulary that is conditioned on, W predicted; S and T positions of the two; L longest sentence with EOS.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PAD, EOS = 0, 2
Tables = dict[str, Any]  # 'words' (V, W): t(e | f); 'positions' (L, L, L): a(j | i, l) by l, i, j; 'lengths' (L, L)


class Evidence(NamedTuple):
    """What a batch says in one direction, a row each: where to count, and how much."""

    given_BS: jax.Array  # ids that are conditioned on
    predicted_BT: jax.Array  # ids that are predicted
    posterior_BTS: jax.Array  # p(a_i = j | e, f), 0 where either side has no word
    weight_B: jax.Array


def uniform(V: int, W: int, L: int) -> Tables:
    """Tables that know nothing: every word, position and length is as likely as any other (numpy, float32)."""
    l, _, j = np.meshgrid(*[np.arange(L)] * 3, indexing='ij')
    return {'words': np.full((V, W), 1 / W, np.float32),
            'positions': np.where(j <= l, 1 / (l + 1), 0).astype(np.float32),
            'lengths': np.full((L, L), 1 / L, np.float32)}


def count_words(ids_BT: Any) -> Any:
    """The number of words of each row, EOS not counted: (B,)."""
    return ((ids_BT != PAD) & (ids_BT != EOS)).sum(axis=-1)


def expect(tables: Tables, given_BS: jax.Array, predicted_BT: jax.Array, weight_B: jax.Array) -> tuple[Evidence, Any]:
    """The E-step on a batch: p(a_i = j | e, f) = a t / sum_j a t, and -log p(e | f) of each row, (B,)."""
    T, S = predicted_BT.shape[1], given_BS.shape[1]
    l_B, m_B = count_words(given_BS), count_words(predicted_BT)
    there_BT, there_BS = jnp.arange(T) < m_B[:, None], jnp.arange(S) <= l_B[:, None]
    there_BS &= (weight_B > 0)[:, None]  # a row of filler has no NULL either
    i_T, j_S = (jnp.minimum(jnp.arange(n), tables['positions'].shape[0] - 1) for n in (T, S))  # shapes are rounded up
    joint_BTS = tables['words'][given_BS[:, None, :], predicted_BT[:, :, None]] * \
        tables['positions'][l_B[:, None, None], i_T[:, None], j_S]
    joint_BTS = jnp.where(there_BT[:, :, None] & there_BS[:, None, :], joint_BTS, 0.0)
    likelihood_BT = jnp.maximum(joint_BTS.sum(-1), jnp.finfo(jnp.float32).tiny)
    length_B = jnp.maximum(tables['lengths'][l_B, m_B], jnp.finfo(jnp.float32).tiny)
    nll_B = -(jnp.where(there_BT, jnp.log(likelihood_BT), 0.0).sum(-1) + jnp.log(length_B))
    posterior_BTS = joint_BTS / likelihood_BT[:, :, None] * weight_B[:, None, None]
    return Evidence(given_BS, predicted_BT, posterior_BTS, weight_B), nll_B * weight_B


def collect(counts: Tables, evidence: Evidence) -> Tables:
    """Counts with those of a batch added: c(e | f), c(j | i, l) and c(m | l) (equations 13 and 28)."""
    given_BS, predicted_BT, posterior_BTS, weight_B = evidence
    l_B, m_B = count_words(given_BS), count_words(predicted_BT)
    T, S = posterior_BTS.shape[1:]
    i_T1, j_S = jnp.arange(T)[:, None], jnp.arange(S)
    return {'words': counts['words'].at[given_BS[:, None, :], predicted_BT[:, :, None]].add(posterior_BTS),
            'positions': counts['positions'].at[l_B[:, None, None], i_T1, j_S].add(posterior_BTS),
            'lengths': counts['lengths'].at[l_B, m_B].add(weight_B)}


def maximise(tables: Tables, counts: Tables, model2: Any) -> Tables:
    """The M-step: counts divided by their totals; a condition that never came keeps its distribution.

    Args:
      model2: whether positions are learned (Model 2), a bool scalar.
    """
    def normalised(name):
        total = counts[name].sum(-1, keepdims=True)
        return jnp.where(total > 0, counts[name] / jnp.where(total > 0, total, 1), tables[name])

    return {'words': normalised('words'), 'lengths': normalised('lengths'),
            'positions': jnp.where(model2, normalised('positions'), tables['positions'])}


def step_log_probs(words_BSW: jax.Array, positions_BTS: jax.Array, length_BL: jax.Array, position_BT: jax.Array,
                   smoothing: float) -> jax.Array:
    """log p(e_i | f) of every id at the given positions, EOS included: (B, T, W). The rows sum to 1.

    EOS comes at position i with the probability that a sentence which is at least i long is no longer, p(m = i | l) /
    p(m >= i | l); every other id with (1 - that) sum_j a(j | i, l) t(e | f_j). `smoothing` of p(m | l) and of t is
    spread evenly, for no sentence of another text is impossible.

    Args:
      words_BSW: t(. | f_j), 0 where there is no word. positions_BTS: a(j | i, l). length_BL: p(m | l).
      position_BT: i, from 0. Beyond the last length L - 1 it is taken for that.
    """
    W, L = words_BSW.shape[-1], length_BL.shape[-1]
    length_BL = (1 - smoothing) * length_BL + smoothing / L
    at_least_BL = jnp.cumsum(length_BL[:, ::-1], axis=1)[:, ::-1]
    place_BT = jnp.minimum(position_BT, L - 1)
    end_BT = jnp.take_along_axis(length_BL / at_least_BL, place_BT, axis=1)
    end_BT1 = jnp.clip(end_BT, 1e-6, 1 - 1e-6)[:, :, None]
    share_BTS = positions_BTS / jnp.maximum(positions_BTS.sum(-1, keepdims=True), jnp.finfo(jnp.float32).tiny)
    word_BTW = jnp.einsum('BTS,BSW->BTW', share_BTS, words_BSW).at[:, :, EOS].set(0.0)
    total_BT1 = word_BTW.sum(-1, keepdims=True)  # 1, where training has come so far; 0 in a row of filler
    even_BT1 = jnp.where(total_BT1 > 0, smoothing, 1.0)
    word_BTW = (1 - even_BT1) * word_BTW / jnp.maximum(total_BT1, jnp.finfo(jnp.float32).tiny) + even_BT1 / (W - 1)
    log_BTW = jnp.log(word_BTW) + jnp.log1p(-end_BT1)
    return log_BTW.at[:, :, EOS].set(jnp.log(end_BT1)[:, :, 0])


def best_alignment(tables: Tables, given: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The likeliest position j of each predicted word (m,), on the host; l stands for NULL. Ties go to the diagonal.

    Args:
      tables: as numpy. given, predicted: word ids, no EOS.
    """
    l, m = len(given), len(predicted)
    joint_TS = tables['words'][np.append(given, EOS)[None, :], np.asarray(predicted)[:, None]] * \
        tables['positions'][l, :m, :l + 1]
    # Model 1 does not tell two equal words of a sentence apart; the difference is below any probability's.
    away_TS = np.abs(np.arange(l + 1) / max(l, 1) - np.arange(m)[:, None] / max(m, 1))
    away_TS[:, l] = 2
    return np.where(joint_TS >= joint_TS.max(1, keepdims=True) * (1 - 1e-6), -away_TS, -np.inf).argmax(1)
