"""BPE-dropout (Provilkov et al. 2020): words cut into other pieces each time, so that training sees more of each.

The dropout of `tokenizers` takes no seed, and a batch has to be a function of the seed.
"""

from collections.abc import Sequence

import numpy as np

BLOCK = 8192  # words that are cut side by side


class Cutter:
    """Cuts words by the merges of a byte pair vocabulary, of which each step skips some (the paper's algorithm 1).

    A word begins as its symbols. At each step every neighbouring pair that has a merge is passed over with the
    probability of dropout; of those that are left the merge that was learned first is made, at its leftmost place. A
    word is done when none is left. Without dropout that is byte pair encoding itself (Sennrich et al. 2016).
    """

    def __init__(self, ids: dict[str, int], merges: Sequence[tuple[str, str]]):
        """Args:
          ids: the id of each piece. merges: pairs of pieces, in the order in which they were learned.
        """
        self._ids = ids
        # A pair of ids as one number, sorted, and beside each its rank, which is its place in `merges`.
        pairs = np.array([ids[left] << 32 | ids[right] for left, right in merges], np.int64)
        order = np.argsort(pairs)
        self._pairs = np.append(pairs[order], np.iinfo(np.int64).max)
        self._ranks = np.append(order, len(merges))  # behind all: the rank of pairs that have no merge
        self._merged = np.array([ids[left + right] for left, right in merges], np.int64)

    def cut(self, words: Sequence[str], dropout: float, rng: np.random.Generator) -> list[np.ndarray]:
        """The ids of each word's pieces, by one draw for each."""
        symbols = [np.array([self._ids[symbol] for symbol in word], np.int64) for word in words]
        by_length = np.argsort([len(word) for word in words], kind='stable')
        pieces: list[np.ndarray] = [np.zeros(0, np.int64)] * len(words)
        for start in range(0, len(words), BLOCK):
            block = by_length[start:start + BLOCK]
            for word, cut in zip(block, self._cut([symbols[i] for i in block], dropout, rng)):
                pieces[word] = cut
        return pieces

    def _cut(self, symbols: list[np.ndarray], dropout: float, rng: np.random.Generator) -> list[np.ndarray]:
        width = max(map(len, symbols))
        ids_WL = np.stack([np.pad(word, (0, width - len(word)), constant_values=-1) for word in symbols])
        ranks_WL = np.pad(self._rank(ids_WL[:, :-1], ids_WL[:, 1:]), ((0, 0), (0, 1)), constant_values=self._none)
        done: list[np.ndarray] = [ids_WL[0]] * len(symbols)
        left_W, place_L = np.arange(len(symbols)), np.arange(width)
        while len(left_W):
            passed_WL = rng.random(ranks_WL.shape) < dropout
            open_WL = np.where(passed_WL, self._none, ranks_WL)
            best_W = open_WL.argmin(axis=1)
            going_W = open_WL.min(axis=1) < self._none
            for w in np.flatnonzero(~going_W):
                done[left_W[w]] = ids_WL[w][ids_WL[w] >= 0]
            left_W, ids_WL, ranks_WL, best_W = (x[going_W] for x in (left_W, ids_WL, ranks_WL, best_W))
            rows_W = np.arange(len(left_W))
            merged_W = self._merged[ranks_WL[rows_W, best_W]]
            # What is behind the pair moves up by one.
            moved_WL = np.minimum(place_L + (place_L > best_W[:, None]), width - 1)
            ids_WL = np.where(place_L == width - 1, -1, np.take_along_axis(ids_WL, moved_WL, axis=1))
            ranks_WL = np.where(place_L == width - 1, self._none, np.take_along_axis(ranks_WL, moved_WL, axis=1))
            ids_WL[rows_W, best_W] = merged_W
            for left_at in (best_W - 1, best_W):
                real = (left_at >= 0) & (left_at < width - 1)
                rows, at = rows_W[real], left_at[real]
                ranks_WL[rows, at] = self._rank(ids_WL[rows, at], ids_WL[rows, at + 1])
        return done

    @property
    def _none(self) -> int:
        """The rank of a pair that has no merge."""
        return len(self._merged)

    def _rank(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Ranks of pairs of ids, of which -1 is none."""
        pairs = left << 32 | right
        at = np.searchsorted(self._pairs, pairs)
        return np.where((self._pairs[at] == pairs) & (left >= 0) & (right >= 0), self._ranks[at], self._none)
