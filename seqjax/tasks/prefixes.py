"""Whether tokens are right when the decoder reads something else than the reference: its own words, or a wrong one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from seqjax.data.vocabulary import BOS, UNK, Ragged
from seqjax.decoding.greedy import next_log_probs
from seqjax.tasks.scheduled_sampling import one_by_one

NOWHERE = -1


class Reading(NamedTuple):
    """What a decoder reads in place of the reference.

    Args:
      own: its own likeliest word at each place. With `wrong`, the reference's up to there and its own after.
      wrong: of each pair the place whose token is read wrongly (`NOWHERE`: none is), and the token that is read
        there; see `mistakes`. Tokens up to that place, itself included, are judged as without.
    """

    own: bool = False
    wrong: tuple[Sequence[int], Sequence[int]] | None = None


def right_after(evaluator: Any, params: Any, source: Ragged, target: Ragged, decoding: Any,
                readings: Sequence[Reading]) -> list[list[np.ndarray]]:
    """For each reading and pair, whether each target token, EOS included, is the likeliest at its place: bool (T,).

    What is said is held against the reference place by place. A decoder that reads its own words does not stop at its
    EOS, for the place after it is asked for too. All readings are one program, compiled once.
    """
    def tell(params, batch, own, places, words):
        model, T = evaluator.model, batch.target.shape[1]
        at_B1, word_B1 = places[batch.row][:, None], words[batch.row][:, None]
        tokens_BT = jnp.pad(batch.target[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)
        columns_T = jnp.arange(T)  # column t reads target t - 1
        tokens_BT = jnp.where((at_B1 != NOWHERE) & (columns_T == at_B1 + 1), word_B1, tokens_BT)
        memory = model.apply({'params': params}, batch.source, method='encode')
        own_BT = own & (columns_T[1:] > jnp.where(at_B1 == NOWHERE, 0, at_B1 + 1))
        tokens_BT = one_by_one(model, params, memory, tokens_BT, own_BT, lambda logits_BV, _: next_log_probs(
            logits_BV).argmax(-1).astype(jnp.int32), None)
        logits_BTV = model.apply({'params': params}, tokens_BT, memory, method='decode')[0]
        return next_log_probs(logits_BTV).argmax(-1) == batch.target

    run = evaluator.placement.rows(tell)
    nowhere = np.full((2, source.count()), NOWHERE, np.int32)
    found: list[list] = [[None] * source.count() for _ in readings]
    for rows, batch in evaluator.batches(source, target, decoding):
        for reading, rights in zip(readings, found):
            places, words = nowhere if reading.wrong is None else np.asarray(reading.wrong, np.int32)
            for row, right_T in zip(rows, run(params, batch, np.bool_(reading.own), places, words)):
                if row >= 0:
                    rights[row] = right_T[:target.lengths[row]]
    return found


def mistakes(target: Ragged, words: int, seed: int = 0, share: float = 1 / 3) -> tuple[np.ndarray, np.ndarray]:
    """A place in each sentence, `share` of the way along it, and another word for it: any of the vocabulary's but the
    true one, all as likely. Sentences of one word have no place.

    Args:
      words: size of the vocabulary.
    """
    rng = np.random.default_rng(seed)
    lengths = np.asarray(target.lengths) - 1  # without EOS
    places = np.where(lengths > 1, (lengths * share).astype(int), NOWHERE)
    true = np.array([target.row(i)[place] if place != NOWHERE else UNK for i, place in enumerate(places)])
    other = rng.integers(UNK + 1, words - (true > UNK))  # an unknown word is none of these
    return places, other + ((other >= true) & (true > UNK))


def by_distance(rights: Sequence[np.ndarray], places: Sequence[int], farthest: int) -> list[float]:
    """The share of right tokens at each distance 1 to `farthest` after a place; NaN where no sentence is as long.

    Args:
      places: a place in each sentence, or `NOWHERE`.
    """
    found = []
    for distance in range(1, farthest + 1):
        there = [right[place + distance] for right, place in zip(rights, places)
                 if place != NOWHERE and place + distance < len(right)]
        found.append(float(np.mean(there)) if there else float('nan'))
    return found
