"""The best of all sequences there are, for short ones over few words: what a search is measured against."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.decoding.beam import batch_axes, length_penalty, repeat
from seqjax.decoding.options import BOS, EOS, PAD
from seqjax.decoding.search import Hypotheses
from seqjax.errors import UserError

MOST = 100_000  # prefixes of one source


def exhaustive(model: Any, params: Any, source_BS: jax.Array, max_length: int, vocabulary_size: int,
               alphas: tuple[float, ...] = (0.0,)) -> Hypotheses:
    """The finished hypothesis of at most `max_length` tokens, EOS counted, with the greatest score, of each row.

    All V'^(max_length - 1) prefixes without EOS are decoded, V' being the words that a decoder may choose, and each of
    their own prefixes is ended. Ties go to the shortest, then to the lower ids. Jittable with `model` and the sizes
    static; a source at a time, so that memory grows with the prefixes and not with the rows.

    Args:
      model, params, source_BS: as in `search`. alphas: exponents of the length penalty; one search serves them all.

    Returns:
      For each row the best hypothesis under each of `alphas` (where `search` has its K hypotheses): `scores` is its
      log probability over that length penalty.

    Raises:
      UserError: more sequences than can be tried.
    """
    words = [token for token in range(vocabulary_size) if token not in (PAD, BOS, EOS)]
    count = len(words) ** (max_length - 1)
    if count > MOST:
        raise UserError(f'{len(words)} words in up to {max_length - 1} places are {count:,} sequences, more than '
                        f'{MOST:,}: search them with a beam, or take a smaller vocabulary or --decoding.max_length')
    prefix_PT = np.array(list(itertools.product(words, repeat=max_length - 1)), np.int32).reshape(count, -1)
    # The hypothesis that ends after t words is the same for all prefixes that begin so: the first stands for them.
    first_PT = np.stack([np.arange(count) % len(words) ** (max_length - 1 - t) == 0 for t in range(max_length)], 1)
    input_PT = jnp.asarray(np.pad(prefix_PT, ((0, 0), (1, 0)), constant_values=BOS))
    penalty_AT = jnp.stack([length_penalty(jnp.arange(1.0, max_length + 1), alpha) for alpha in alphas])
    at_T = jnp.arange(max_length)

    def encode(source_BS):
        return model.apply({'params': params}, source_BS, method='encode')

    axes = batch_axes(lambda rows: jax.eval_shape(encode, jax.ShapeDtypeStruct((rows, *source_BS.shape[1:]),
                                                                               source_BS.dtype)))

    def best(source_S):
        memory = repeat(encode(source_S[None]), axes, count)
        logits_PTV, _ = model.apply({'params': params}, input_PT, memory, method='decode')
        log_probs_PTV = jax.nn.log_softmax(logits_PTV.astype(jnp.float32), axis=-1)
        chosen_PT = jnp.take_along_axis(log_probs_PTV[:, :-1], jnp.asarray(prefix_PT)[:, :, None], axis=-1)[:, :, 0]
        so_far_PT = jnp.pad(jnp.cumsum(chosen_PT, axis=1), ((0, 0), (1, 0)))
        log_prob_TP = jnp.where(first_PT, so_far_PT + log_probs_PTV[:, :, EOS], -jnp.inf).T
        place_A = (log_prob_TP / penalty_AT[:, :, None]).reshape(len(alphas), -1).argmax(1)
        t_A, p_A = place_A // count, place_A % count
        words_AT = jnp.pad(jnp.asarray(prefix_PT), ((0, 0), (0, 1)))[p_A]
        tokens_AT = jnp.where(at_T < t_A[:, None], words_AT, jnp.where(at_T == t_A[:, None], EOS, PAD))
        log_probs_A = log_prob_TP[t_A, p_A]
        return tokens_AT, log_probs_A / penalty_AT[jnp.arange(len(alphas)), t_A], log_probs_A

    return Hypotheses(*jax.lax.map(best, source_BS))


def search_errors(found: np.ndarray, best: np.ndarray, tolerance: float = 1e-4) -> np.ndarray:
    """Where a search missed the best hypothesis: its score falls short of the exact one by more than `tolerance`.

    Scores, not tokens, are compared: of two that tie, either is right.
    """
    return np.asarray(found) < np.asarray(best) - tolerance
