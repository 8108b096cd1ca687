"""Searches of a statistical system, in the shape in which tasks take the search that a model brings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqjax.statistical.system import from_arrays

EOS, UNK = 2, 3
SAMPLE = 50  # short sentences that are searched exhaustively


class PhraseSearch:
    """The stack decoder (`stack.py`). Scores are those of the log-linear model."""

    def __init__(self, tables: dict[str, np.ndarray], decoding: Any, distortion_limit: int | None,
                 max_length: int):
        self.decoder = from_arrays(tables, distortion_limit)
        self.decoding, self.max_length = decoding, max_length

    def __call__(self, source: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """The best translations of a sentence (ids, ending in EOS) as (ids, score), best first, `nbest` at most."""
        found = self.decoder.decode(source[source != EOS], self.decoding.beam_size, self.decoding.nbest)
        return [(ended(derivation.words, self.max_length), derivation.score) for derivation in found]

    def diagnose(self, sources: Sequence[np.ndarray]) -> dict[str, float]:
        """How often a better translation was missed: the first short sentences again, with nothing thrown away.

        Returns:
          'search_errors', percent of them; 'searched_exhaustively', their number. Nothing where there are none.
        """
        short = [words for words in (source[source != EOS] for source in sources)
                 if 0 < len(words) <= self.decoding.search_errors][:SAMPLE]
        if not short:
            return {}
        missed = 0
        for words in short:
            kept, exact = (self.decoder.decode(words, size)[0].score for size in (self.decoding.beam_size, None))
            missed += exact > kept + 1e-9
        return {'search_errors': 100.0 * missed / len(short), 'searched_exhaustively': float(len(short))}


class WordSearch:
    """Word by word: argmax_e t(e | f) of each source word in turn, whatever it stands beside. The floor."""

    def __init__(self, words_VW: np.ndarray, max_length: int):
        self.best_V, self.score_V = words_VW.argmax(1), np.log(words_VW.max(1))
        self.max_length = max_length

    def __call__(self, source: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """The translation of a sentence as in `PhraseSearch`."""
        words = source[source != EOS]
        return [(ended(np.where(words == UNK, UNK, self.best_V[words]), self.max_length),
                 float(self.score_V[words].sum()))]

    def diagnose(self, sources: Sequence[np.ndarray]) -> dict[str, float]:
        """Nothing: this search makes no errors."""
        return {}


def ended(words: Sequence[int], max_length: int) -> np.ndarray:
    """Ids with EOS; cut where there is no room for it."""
    return np.array([*words, EOS][:max_length], np.int32)
