"""Interpolated Kneser-Ney n-gram language models (Kneser and Ney 1995; Chen and Goodman 1999, section 3).

    p_k(w | h) = max(c_k(h w) - D, 0) / c_k(h .) + gamma_k(h) p_{k-1}(w | h')        (Chen and Goodman, equation 24)

where c_n counts n-grams, c_k for k < n counts the different words before one ("continuations"), gamma_k(h) is what was
discounted over c_k(h .), and h' is h without its first word. A context that was never seen leaves all to h'. The last
distribution of the chain is even, over all ids that can be predicted. Plain: one D for an order, n_1 / (n_1 + 2 n_2);
modified: three, for counts of 1, 2, and 3 or more (their equation 26).
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

BOS, EOS = 1, 2
SPECIALS = 2  # PAD and BOS are never predicted
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of the hash; odd
Smoothing = Literal['kneser-ney', 'modified-kneser-ney']


@dataclasses.dataclass(frozen=True)
class NGrams:
    """A language model as arrays.

    The place k - 2 of each tuple is that of order k. N-grams and contexts are known by 64-bit hashes, sorted.
    """

    unigrams: np.ndarray  # (V,) probabilities, float64
    grams: tuple[np.ndarray, ...]  # uint64 hashes of h w
    alphas: tuple[np.ndarray, ...]  # discounted relative frequency of h w
    contexts: tuple[np.ndarray, ...]  # uint64 hashes of h
    gammas: tuple[np.ndarray, ...]  # what h leaves to h'

    @property
    def order(self) -> int:
        """n."""
        return len(self.grams) + 1

    def log_probs(self, context_QC: np.ndarray, word_Q: np.ndarray) -> np.ndarray:
        """log p(word | the order - 1 words before it), (Q,) float64; BOS stands before a sentence's first word."""
        p_Q = self.unigrams[word_Q]
        for k in range(2, self.order + 1):
            h_QC = context_QC[:, self.order - k:]
            hash_Q = hashed(h_QC)
            gamma_Q = found(self.contexts[k - 2], self.gammas[k - 2], hash_Q, 1.0)
            alpha_Q = found(self.grams[k - 2], self.alphas[k - 2], extended(hash_Q, word_Q), 0.0)
            p_Q = alpha_Q + gamma_Q * p_Q
        return np.log(p_Q)

    def sentence(self, words: np.ndarray) -> np.ndarray:
        """log p of each word of a sentence and of its EOS, (len + 1,)."""
        padded = np.concatenate([np.full(self.order - 1, BOS), words, [EOS]]).astype(np.int64)
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.order)
        return self.log_probs(windows[:, :-1], windows[:, -1])

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays by name, from which `from_arrays` makes the model again."""
        named = {'unigrams': self.unigrams}
        for name in ('grams', 'alphas', 'contexts', 'gammas'):
            named |= {f'{name}_{k}': array for k, array in enumerate(getattr(self, name), 2)}
        return named

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> 'NGrams':
        """The inverse of `to_arrays`."""
        orders = sorted(int(name.partition('_')[2]) for name in arrays if name.startswith('grams_'))
        return cls(arrays['unigrams'], *(tuple(arrays[f'{name}_{k}'] for k in orders)
                                         for name in ('grams', 'alphas', 'contexts', 'gammas')))


def learn(sentences: Iterable[np.ndarray], vocabulary: int, order: int, smoothing: Smoothing = 'modified-kneser-ney',
          discount: float | None = None, floor: bool = True) -> NGrams:
    """Counts the n-grams of sentences (ids, no BOS, no EOS).

    Args:
      vocabulary: number of ids, the special ones included.
      discount: D of every order, instead of one from the counts.
      floor: mix the unigrams with the even distribution, so that no word has probability 0.
    """
    pad = np.full(order - 1, BOS, np.int64)
    rows = [np.concatenate([pad, sentence, [EOS]]) for sentence in sentences]
    grams, counts = np.unique(np.concatenate([np.lib.stride_tricks.sliding_window_view(row, order) for row in rows]),
                              axis=0, return_counts=True)
    made: list[Any] = []
    for k in range(order, 0, -1):
        if k < order:  # the kinds of (k + 1)-grams that end so
            grams, counts = np.unique(grams[:, 1:], axis=0, return_counts=True)
        discount_G = discounts(counts, smoothing) if discount is None else np.full(len(counts), discount)
        alpha_G = np.maximum(counts - discount_G, 0)
        left_G = counts - alpha_G
        if k > 1:
            hash_G = hashed(grams[:, :-1])
            contexts, of_G = np.unique(hash_G, return_inverse=True)
            total_C = np.bincount(of_G, counts)
            gram_G = extended(hash_G, grams[:, -1])
            order_G = np.argsort(gram_G)
            made.append((gram_G[order_G], (alpha_G / total_C[of_G])[order_G], contexts,
                         np.bincount(of_G, left_G) / total_C))
    unigrams = np.zeros(vocabulary)
    if floor:
        unigrams[SPECIALS:] = left_G.sum() / counts.sum() / (vocabulary - SPECIALS)
        unigrams[grams[:, 0]] += alpha_G / counts.sum()
    else:
        unigrams[grams[:, 0]] = counts / counts.sum()
    unigrams[:SPECIALS] = 1e-99  # so that its logarithm is a number
    columns = zip(*made[::-1]) if made else ((), (), (), ())
    return NGrams(unigrams, *map(tuple, columns))


def discounts(counts: np.ndarray, smoothing: Smoothing) -> np.ndarray:
    """D for each of an order's n-grams. 0.5 where the counts of counts say nothing, as in a text of few words."""
    n1, n2, n3, n4 = (int((counts == c).sum()) for c in (1, 2, 3, 4))
    if smoothing == 'modified-kneser-ney' and min(n1, n2, n3, n4) > 0:
        y = n1 / (n1 + 2 * n2)
        three = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (three > 0).all():
            return three[np.minimum(counts, 3) - 1]
    return np.full(len(counts), n1 / (n1 + 2 * n2) if n1 and n2 else 0.5)


def hashed(words_QC: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each row."""
    hash_Q = np.full(words_QC.shape[:-1], 7, np.uint64)
    for column in range(words_QC.shape[-1]):
        hash_Q = extended(hash_Q, words_QC[..., column])
    return hash_Q


def extended(hash_Q: np.ndarray, word_Q: np.ndarray) -> np.ndarray:
    """The hash of a row with one more word."""
    mixed = (hash_Q + np.asarray(word_Q).astype(np.uint64) + np.uint64(1)) * MULTIPLIER
    return mixed ^ (mixed >> np.uint64(29))


def found(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, otherwise: float) -> np.ndarray:
    """The value of each wanted key among sorted keys."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], otherwise)
