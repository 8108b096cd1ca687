"""Weights that make the best translation of each sentence a good one: minimum error rate training (Och 2003).

The n best derivations of each sentence are re-ranked. Along a line w + x d every derivation's score is linear in x, so
the best one changes at the corners of the upper envelope of those lines; the corpus score is constant between corners
and is computed for every interval there is (Och 2003, section 4). The score is BLEU over ids, whose n-gram precisions
above the first have one hit added, so that few sentences do not give 0.
"""

import collections
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

ORDER = 4


def statistics(hypothesis: Sequence[int], reference: Sequence[int]) -> np.ndarray:
    """What BLEU counts (Papineni et al. 2002): hits and n-grams for n = 1 .. 4, and both lengths."""
    counts = []
    for n in range(1, ORDER + 1):
        ours, theirs = (collections.Counter(tuple(x[i:i + n]) for i in range(len(x) - n + 1))
                        for x in (hypothesis, reference))
        counts += [sum(min(count, theirs[gram]) for gram, count in ours.items()), sum(ours.values())]
    return np.array([*counts, len(hypothesis), len(reference)], np.int64)


def bleu(totals: np.ndarray) -> np.ndarray:
    """BLEU of summed statistics, over the last axis, 0 to 1."""
    totals = np.asarray(totals, np.float64)
    hits, grams = totals[..., 0:2 * ORDER:2].copy(), totals[..., 1:2 * ORDER:2].copy()
    hits[..., 1:] += 1
    grams[..., 1:] += 1
    with np.errstate(divide='ignore', invalid='ignore'):
        precision = np.log(np.where(hits > 0, hits / np.maximum(grams, 1), 0)).mean(-1)
        brevity = np.minimum(0, 1 - totals[..., -1] / totals[..., -2])
    return np.where(totals[..., -2] > 0, np.exp(precision + brevity), 0.0)


def envelope(slope_D: np.ndarray, offset_D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper envelope of lines offset + x slope: the lines on it from left to right, and where each begins.

    The first begins at -inf.
    """
    order = np.lexsort((offset_D, slope_D))
    lines: list[int] = []
    begins: list[float] = []
    for d in order.tolist():
        begin = -math.inf
        while lines:
            last = lines[-1]
            if slope_D[last] == slope_D[d]:  # parallel and not above the new one
                lines.pop()
                begins.pop()
                continue
            begin = (offset_D[last] - offset_D[d]) / (slope_D[d] - slope_D[last])
            if begin > begins[-1]:
                break
            lines.pop()
            begins.pop()
            begin = -math.inf
        lines.append(d)
        begins.append(begin if len(lines) > 1 else -math.inf)
    return np.array(lines), np.array(begins)


def search_line(features: Sequence[np.ndarray], stats: Sequence[np.ndarray], weights: np.ndarray,
                direction: np.ndarray) -> tuple[float, float]:
    """The step x along `direction` with the best BLEU of the best derivations, and that BLEU.

    Of equal intervals the one that holds 0 is taken, else the first; x is its middle, or one beyond its end where
    it has one end only.

    Args:
      features: (derivations, F) of each sentence. stats: (derivations, 10) of each sentence.
    """
    total = np.zeros(2 * ORDER + 2)
    corners: list[tuple[float, np.ndarray]] = []
    for feature_DF, stat_DK in zip(features, stats):
        lines, begins = envelope(feature_DF @ direction, feature_DF @ weights)
        total = total + stat_DK[lines[0]]
        corners += [(begin, stat_DK[line] - stat_DK[before])
                    for begin, line, before in zip(begins[1:], lines[1:], lines[:-1])]
    corners.sort(key=lambda corner: corner[0])
    at = np.array([-np.inf, *(begin for begin, _ in corners), np.inf])
    totals = np.cumsum([total, *(change for _, change in corners)], axis=0)
    scores = np.where(at[1:] - at[:-1] > 1e-9, bleu(totals), -1.0)
    best = scores.max()
    here = int(np.searchsorted(at, 0.0, side='right')) - 1
    if scores[here] >= best - 1e-12:
        return 0.0, float(best)
    k = int(scores.argmax())
    left, right = at[k], at[k + 1]
    ends = left if np.isfinite(left) else right - 2, right if np.isfinite(right) else left + 2
    return float(sum(ends) / 2), float(best)


def optimise(features: Sequence[np.ndarray], stats: Sequence[np.ndarray], weights: np.ndarray, active: np.ndarray,
             rng: np.random.Generator, directions: int = 8) -> tuple[np.ndarray, float]:
    """Line searches along each active weight and some random directions, until none of them gains (Powell)."""
    best = -1.0
    for _ in range(20):
        axes = [np.eye(len(weights))[k] for k in np.flatnonzero(active)]
        axes += [np.where(active, rng.normal(size=len(weights)), 0) for _ in range(directions)]
        found = [(search_line(features, stats, weights, axis), axis) for axis in axes]
        (x, score), axis = max(found, key=lambda pair: pair[0][1])
        if score <= best + 1e-9 or x == 0.0:
            return weights, max(score, best)
        weights, best = weights + x * axis, score
        weights = weights / np.abs(weights).sum()  # the scale changes no ranking, and would drift
    return weights, best


def tune(decode: Callable[[np.ndarray], Sequence[Sequence[Any]]], references: Sequence[Sequence[int]],
         weights: np.ndarray, active: np.ndarray, rounds: int, seed: int = 0) -> tuple[np.ndarray, list[float]]:
    """Tuned weights: decode, re-rank by new weights, decode with these, and so on; the best by decoding are taken.

    Args:
      decode: weights -> the n best derivations (`words`, `features`) of each sentence.
      active: which weights may change.
      rounds: at most so many; fewer where the decoder finds nothing new.

    Returns:
      The weights, and BLEU (0 to 1, as above) of what was decoded in each round: the first are those of `weights`.
    """
    rng = np.random.default_rng(seed)
    pools: list[dict[tuple, np.ndarray]] = [{} for _ in references]
    history: list[float] = []
    best_weights, best = weights, -1.0
    for round_ in range(rounds + 1):
        found = decode(weights)
        firsts = sum(statistics(derivations[0].words, reference)
                     for derivations, reference in zip(found, references))
        history.append(float(bleu(firsts)))
        if history[-1] > best:
            best_weights, best = weights, history[-1]
        new = 0
        for pool, derivations in zip(pools, found):
            for derivation in derivations:
                key = (derivation.words, tuple(derivation.features.round(6)))
                new += key not in pool
                pool.setdefault(key, derivation.features)
        if round_ == rounds or not new:
            break
        features = [np.stack(list(pool.values())) for pool in pools]
        stats = [np.stack([statistics(words, reference) for words, _ in pool]) for pool, reference in zip(
            pools, references)]
        weights, _ = optimise(features, stats, weights, active, rng)
    return best_weights, history
