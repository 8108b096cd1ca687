"""Phrases: pairs of word sequences that an alignment keeps together, and their four scores (Koehn et al. 2003)."""

import dataclasses
from collections.abc import Sequence, Set

import numpy as np

NO_WORD = -1  # fills a phrase that is shorter than the longest
FLOOR = -10.0  # log of a score that would be 0
SCORES = ('phrase_inverse', 'lexical_inverse', 'phrase', 'lexical')  # log p(f|e), lex(f|e), p(e|f), lex(e|f)


@dataclasses.dataclass(frozen=True)
class PhraseTable:
    """Phrase pairs P, sorted by source; those of a source stand together, the likeliest target first."""

    source_PN: np.ndarray  # int32, NO_WORD after the last word
    target_PN: np.ndarray
    scores_PF: np.ndarray  # float32, in the order of SCORES

    def ranges(self) -> dict[bytes, tuple[int, int]]:
        """Where the pairs of each source phrase are: {the words' bytes: (first, after the last)}."""
        if not len(self.source_PN):
            return {}
        starts = np.flatnonzero(np.r_[True, (self.source_PN[1:] != self.source_PN[:-1]).any(1)])
        lengths = (self.source_PN[starts] != NO_WORD).sum(1)
        return {self.source_PN[start, :length].tobytes(): (int(start), int(end))
                for start, end, length in zip(starts, np.r_[starts[1:], len(self.source_PN)], lengths)}


def extract(links: Set[tuple[int, int]], source_length: int, target_length: int,
            longest: int) -> list[tuple[int, int, int, int]]:
    """All phrase pairs of a sentence that are consistent with its links (Koehn et al. 2003, section 3).

    No word of either side is linked outside the pair, and at least one is linked inside. Target words without a link
    may stand at either end.

    Returns:
      (first source word, after the last, first target word, after the last) of each pair, at most `longest` words a
      side.
    """
    lowest_S, highest_S = [target_length] * source_length, [-1] * source_length  # target words linked to a source word
    lowest_T, highest_T = [source_length] * target_length, [-1] * target_length
    for j, i in links:
        lowest_S[j], highest_S[j] = min(lowest_S[j], i), max(highest_S[j], i)
        lowest_T[i], highest_T[i] = min(lowest_T[i], j), max(highest_T[i], j)
    pairs = []
    for start in range(source_length):
        low, high = target_length, -1
        for end in range(start + 1, min(start + longest, source_length) + 1):
            low, high = min(low, lowest_S[end - 1]), max(high, highest_S[end - 1])
            if high < 0 or high - low >= longest:
                continue
            if min(lowest_T[low:high + 1]) < start or max(highest_T[low:high + 1]) >= end:
                continue
            first = low
            while True:
                after = high + 1
                while after - first <= longest:
                    pairs.append((start, end, first, after))
                    if after == target_length or highest_T[after] >= 0:
                        break
                    after += 1
                first -= 1
                if first < 0 or highest_T[first] >= 0 or high + 1 - first > longest:
                    break
    return pairs


def build(sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], links: Sequence[Set[tuple[int, int]]],
          longest: int, options: int) -> PhraseTable:
    """The phrase table of a corpus.

    p(e|f) and p(f|e) are relative frequencies. lex(e|f) = prod_i mean over links (i, j) of w(e_i | f_j), where w is the
    relative frequency of the links, those of a word without one counting for NULL; of several alignments of a pair
    within, the highest is taken (Koehn et al. 2003, sections 4.1 and 4.3).

    Args:
      longest: words of a phrase, either side.
      options: target phrases kept for a source phrase, by p(e|f).
    """
    forward, backward = lexical(sources, targets, links)
    rows: list[tuple] = []
    lexes: list[tuple[float, float]] = []
    for source, target, linked in zip(sources, targets, links):
        lex_T = np.concatenate([[0], np.cumsum(word_logs(target, source, [(i, j) for j, i in linked], forward))])
        lex_S = np.concatenate([[0], np.cumsum(word_logs(source, target, linked, backward))])
        lex_T, lex_S = lex_T.tolist(), lex_S.tolist()
        source, target = source.tolist(), target.tolist()
        for s, s_end, t, t_end in extract(linked, len(source), len(target), longest):
            rows.append((*source[s:s_end], *(NO_WORD,) * (longest - s_end + s),
                         *target[t:t_end], *(NO_WORD,) * (longest - t_end + t)))
            lexes.append((lex_T[t_end] - lex_T[t], lex_S[s_end] - lex_S[s]))
    both = np.array(rows, np.int32).reshape(-1, 2 * longest)
    pairs, of, count = np.unique(both, axis=0, return_inverse=True, return_counts=True)
    of = of.reshape(-1)
    lex = np.full((len(pairs), 2), -np.inf)
    np.maximum.at(lex, of, np.array(lexes).reshape(-1, 2))
    _, source_of = np.unique(pairs[:, :longest], axis=0, return_inverse=True)
    _, target_of = np.unique(pairs[:, longest:], axis=0, return_inverse=True)
    source_of, target_of = source_of.reshape(-1), target_of.reshape(-1)
    direct = np.log(count / np.bincount(source_of, count)[source_of])
    inverse = np.log(count / np.bincount(target_of, count)[target_of])
    scores = np.maximum(np.stack([inverse, lex[:, 1], direct, lex[:, 0]], axis=1), FLOOR).astype(np.float32)
    # Of equals, the likelier by its words, then the one whose ids come first (lexsort is stable).
    order = np.lexsort((-scores[:, 3], -scores[:, 2], source_of))
    starts = np.r_[0, np.cumsum(np.bincount(source_of))][:-1] if len(pairs) else np.zeros(0, int)
    rank = np.arange(len(order)) - starts[source_of[order]]
    kept = order[rank < options]
    return PhraseTable(pairs[kept, :longest], pairs[kept, longest:], scores[kept])


NULL = -2
WordTable = dict[tuple[int, int], float]  # (given, predicted) -> w(predicted | given); given may be NULL


def lexical(sources: Sequence[np.ndarray], targets: Sequence[np.ndarray],
            links: Sequence[Set[tuple[int, int]]]) -> tuple[WordTable, WordTable]:
    """w(e | f) and w(f | e): how often a word is linked to another, of all links of that one."""
    forward: WordTable = {}
    backward: WordTable = {}
    for source, target, linked in zip(sources, targets, links):
        f, e = source.tolist(), target.tolist()
        with_source, with_target = {j for j, _ in linked}, {i for _, i in linked}
        for pair in ([(f[j], e[i]) for j, i in linked] + [(NULL, e[i]) for i in range(len(e)) if i not in with_target]):
            forward[pair] = forward.get(pair, 0) + 1
        for pair in ([(e[i], f[j]) for j, i in linked] + [(NULL, f[j]) for j in range(len(f)) if j not in with_source]):
            backward[pair] = backward.get(pair, 0) + 1
    for table in (forward, backward):
        totals: dict[int, float] = {}
        for (given, _), count in table.items():
            totals[given] = totals.get(given, 0) + count
        for pair in table:
            table[pair] /= totals[pair[0]]
    return forward, backward


def word_logs(predicted: np.ndarray, given: np.ndarray, links: Sequence[tuple[int, int]] | Set[tuple[int, int]],
              table: WordTable) -> np.ndarray:
    """log of each predicted word's mean of w over its links (predicted position, given position), or w(. | NULL)."""
    of: list[list[float]] = [[] for _ in predicted]
    for i, j in links:
        of[i].append(table[int(given[j]), int(predicted[i])])
    return np.log([sum(ps) / len(ps) if ps else table[NULL, int(word)] for word, ps in zip(predicted, of)])
