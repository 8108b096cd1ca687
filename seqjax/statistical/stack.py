"""The stack decoder: the best order, segmentation and translation of a sentence under a log-linear model.

(Koehn, Och and Marcu 2003, section 2.) A hypothesis has translated some words of the source, its coverage, into a
prefix of the target. Stack k holds hypotheses that cover k words; each is extended by a phrase for words that are not
covered yet. Hypotheses that no extension can tell apart (coverage, last order - 1 words, end of the last source phrase)
are recombined; of each stack the best `size` stay, by their score and an estimate of what the rest will cost. Without
`size` nothing is thrown away, and the best one is the best of all.

Extensions of a whole stack are scored at once, in numpy. H hypotheses, O options, U uses of distinct word sequences.
"""

import dataclasses
import heapq
import itertools
from typing import NamedTuple

import numpy as np

from seqjax.statistical.ngram import BOS, EOS, NGrams
from seqjax.statistical.phrases import FLOOR, NO_WORD, SCORES, PhraseTable

UNK = 3
FEATURES = (*SCORES, 'phrases', 'words', 'distortion', 'language_model')


class Options(NamedTuple):
    """What the spans of one sentence may become: O options, each a span of the source with a target phrase."""

    start_O: np.ndarray
    end_O: np.ndarray  # after the last word
    target_ON: np.ndarray  # NO_WORD after the last word
    length_O: np.ndarray
    scores_OF: np.ndarray  # the phrase table's


class Derivation(NamedTuple):
    """A finished translation and the sums of its features, in the order of FEATURES."""

    words: tuple[int, ...]
    score: float
    features: np.ndarray
    phrases: tuple[tuple[int, int], ...]  # spans of the source, in the order of the target


class Stack(NamedTuple):
    """Hypotheses that cover equally many words, and all ways that lead to each."""

    score_H: np.ndarray
    coverage_H: np.ndarray  # place in the list of coverages
    end_H: np.ndarray  # of the last source phrase
    context_HC: np.ndarray  # last words, for the language model
    arcs: tuple[np.ndarray, ...]  # (hypothesis, stack before, hypothesis there, option, score), best way first


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A system: its tables, and the weights of FEATURES.

    Args:
      language_model: None: the feature is 0.
      distortion_limit: most words to jump over, forwards or back; None: any number.
    """

    table: PhraseTable
    ranges: dict[bytes, tuple[int, int]]  # of the table
    language_model: NGrams | None
    weights: np.ndarray
    distortion_limit: int | None

    @property
    def memory(self) -> int:
        """Words that the language model looks back."""
        return self.language_model.order - 1 if self.language_model else 0

    def options(self, source: np.ndarray) -> Options:
        """The phrase table's options for each span; a word that has none alone may become UNK, at the lowest scores."""
        S, N = len(source), self.table.source_PN.shape[1]
        source = np.ascontiguousarray(source, np.int32)
        spans = [(start, end) for start in range(S) for end in range(start + 1, min(start + N, S) + 1)]
        found = [(span, self.ranges.get(source[slice(*span)].tobytes())) for span in spans]
        unknown = [span for span, rows in found if rows is None and span[1] - span[0] == 1]
        found = [(span, rows) for span, rows in found if rows]
        places = [np.arange(*rows) for _, rows in found]
        row_O = np.concatenate([*places, np.zeros(0, int)]).astype(int)
        span_O2 = np.repeat(np.array([span for span, _ in found], int).reshape(-1, 2), list(map(len, places)), axis=0)
        target_ON, scores_OF = self.table.target_PN[row_O], self.table.scores_PF[row_O].astype(np.float64)
        if unknown:
            nothing = np.full((len(unknown), N), NO_WORD, np.int32)
            nothing[:, 0] = UNK
            span_O2 = np.concatenate([span_O2, np.array(unknown)])
            target_ON = np.concatenate([target_ON, nothing])
            scores_OF = np.concatenate([scores_OF, np.full((len(unknown), len(SCORES)), FLOOR)])
        return Options(span_O2[:, 0], span_O2[:, 1], target_ON, (target_ON != NO_WORD).sum(1), scores_OF)

    def decode(self, source: np.ndarray, size: int | None, nbest: int = 1) -> list[Derivation]:
        """The best derivations of a sentence (word ids, no EOS), best first, no two with the same words."""
        return Search(self, np.asarray(source), size).best(nbest)


class Search:
    """One sentence's search. `best` reads it off."""

    def __init__(self, decoder: Decoder, source: np.ndarray, size: int | None):
        self.decoder, self.S, self.size = decoder, len(source), size
        self.options = decoder.options(source)
        self.weight = dict(zip(FEATURES, decoder.weights))
        self.prepare()
        self.stacks: list[Stack] = []
        self.run()

    def prepare(self) -> None:
        """What does not depend on the hypothesis: each option's own score, and what each span will cost at least."""
        o, decoder, C = self.options, self.decoder, self.decoder.memory
        spans = sorted(set(zip(o.start_O.tolist(), o.end_O.tolist())))
        self.spans = spans
        place = {span: k for k, span in enumerate(spans)}
        self.span_O = np.array([place[span] for span in zip(o.start_O.tolist(), o.end_O.tolist())], int)
        own_O = o.scores_OF @ decoder.weights[:len(SCORES)] + self.weight['phrases'] + self.weight['words'] * o.length_O
        inside_O, estimate_O = np.zeros(len(own_O)), np.zeros(len(own_O))
        if decoder.language_model:
            for position in range(o.target_ON.shape[1]):
                there_O = o.length_O > position
                window = np.full((there_O.sum(), C), BOS, np.int64)
                seen = min(C, position)
                if seen:
                    window[:, C - seen:] = o.target_ON[there_O, position - seen:position]
                logs = decoder.language_model.log_probs(window, o.target_ON[there_O, position])
                if position >= C:
                    inside_O[there_O] += logs
                else:  # without its context: a guess. BOS in place of it would be a wrong one.
                    logs = partial(decoder.language_model, window[:, C - seen:], o.target_ON[there_O, position])
                estimate_O[there_O] += logs
        self.own_O = own_O + self.weight['language_model'] * inside_O
        guess_O = own_O + self.weight['language_model'] * estimate_O
        best = {span: -np.inf for span in spans}
        for k, span in enumerate(spans):
            best[span] = guess_O[self.span_O == k].max()
        self.cost = np.full((self.S + 1, self.S + 1), -np.inf)
        for width in range(1, self.S + 1):
            for start in range(self.S + 1 - width):
                end = start + width
                self.cost[start, end] = max([best.get((start, end), -np.inf)] + [
                    self.cost[start, middle] + self.cost[middle, end] for middle in range(start + 1, end)])
        # Words of options, distinct: for the language model's words that look out of the option.
        self.prefixes = [np.unique(o.target_ON[:, :p + 1], axis=0, return_inverse=True) for p in range(min(
            C, o.target_ON.shape[1]))]
        self.coverages, self.place, self.rests = [0], {0: 0}, [self.cost[0, self.S]]
        self.moves: dict[int, tuple] = {}

    def move(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """From coverage k by each span: whether it is free and leaves no gap too far; where to; what the rest costs."""
        if k not in self.moves:
            coverage, limit = self.coverages[k], self.decoder.distortion_limit
            gap = next(w for w in range(self.S) if not coverage >> w & 1)
            free, to, rest = [], [], []
            for start, end in self.spans:
                words = (1 << end) - (1 << start)
                ok = not coverage & words and (limit is None or start == gap or end - gap <= limit)
                free.append(ok)
                new = coverage | words if ok else 0
                if new not in self.place:
                    self.place[new] = len(self.coverages)
                    self.coverages.append(new)
                    self.rests.append(self.rest(new))
                to.append(self.place[new])
                rest.append(self.rests[to[-1]])
            self.moves[k] = np.array(free), np.array(to), np.array(rest)
        return self.moves[k]

    def rest(self, coverage: int) -> float:
        """The cost of what is not covered: of each run of free words."""
        total, start = 0.0, None
        for w in range(self.S + 1):
            free = w < self.S and not coverage >> w & 1
            if free and start is None:
                start = w
            elif not free and start is not None:
                total += self.cost[start, w]
                start = None
        return total

    def run(self) -> None:
        """Fills the stacks, from no word covered to all."""
        o, C = self.options, self.decoder.memory
        width_O = o.end_O - o.start_O
        pending: list[list[tuple]] = [[] for _ in range(self.S + 1)]
        for n in range(self.S + 1):
            if n == 0:
                stack = Stack(np.zeros(1), np.zeros(1, int), np.zeros(1, int), np.full((1, C), BOS, np.int64), ())
            else:
                stack = self.recombine(pending[n])
            self.stacks.append(stack)
            pending[n] = []
            if n == self.S or not len(stack.score_H):
                continue
            for block in np.array_split(np.arange(len(stack.score_H)), max(1, len(stack.score_H) // 500)):
                self.extend(n, stack, block, width_O, pending)

    def extend(self, n: int, stack: Stack, block: np.ndarray, width_O: np.ndarray, pending: list) -> None:
        """Extends the hypotheses `block` of stack n by every option."""
        o, limit = self.options, self.decoder.distortion_limit
        kinds, kind_H = np.unique(stack.coverage_H[block], return_inverse=True)
        free_KX, to_KX, rest_KX = (np.stack(parts) for parts in zip(*map(self.move, kinds.tolist())))
        jump_HO = np.abs(o.start_O - stack.end_H[block, None])
        allowed_HO = free_KX[kind_H][:, self.span_O]
        if limit is not None:
            allowed_HO &= jump_HO <= limit
        h_A, o_A = np.nonzero(allowed_HO)
        context_HC = stack.context_HC[block]
        score_A = (stack.score_H[block][h_A] + self.own_O[o_A] - self.weight['distortion'] * jump_HO[h_A, o_A]
                   + self.weight['language_model'] * self.entering(context_HC)[h_A, o_A])
        total_A = score_A + rest_KX[kind_H[h_A], self.span_O[o_A]]
        for width in np.unique(width_O[o_A]).tolist():
            chosen = np.flatnonzero(width_O[o_A] == width)
            if self.size is not None and len(chosen) > 8 * self.size:
                # Most of these will not stay; sorting all of them to recombine them is what takes the time.
                chosen = chosen[np.argpartition(-total_A[chosen], 8 * self.size)[:8 * self.size]]
                chosen.sort()
            h, option = h_A[chosen], o_A[chosen]
            full = n + width == self.S
            score = score_A[chosen]
            context = followed(context_HC[h], o.target_ON[option], o.length_O[option])
            if full and self.decoder.language_model:
                score = score + self.weight['language_model'] * self.decoder.language_model.log_probs(
                    context, np.full(len(context), EOS))
            total = score if full else total_A[chosen]
            pending[n + width].append((total, score, to_KX[kind_H[h], self.span_O[option]], o.end_O[option], context,
                                       np.full(len(h), n), block[h], option))

    def entering(self, context_HC: np.ndarray) -> np.ndarray:
        """log p of the words of each option that look back beyond it, after each context: (H, O)."""
        total = np.zeros((len(context_HC), len(self.options.length_O)))
        for p, (prefix_UP, of_O) in enumerate(self.prefixes):
            before, of_H = np.unique(context_HC[:, p:], axis=0, return_inverse=True)
            there_U = prefix_UP[:, -1] != NO_WORD
            grid = np.zeros((len(before), len(prefix_UP)))
            left, right = np.repeat(before, there_U.sum(), axis=0), np.tile(prefix_UP[there_U], (len(before), 1))
            window = np.concatenate([left, right[:, :-1]], axis=1)
            grid[:, there_U] = self.decoder.language_model.log_probs(window, right[:, -1]).reshape(len(before), -1)
            total += grid[of_H.reshape(-1)][:, of_O.reshape(-1)]
        return total

    def recombine(self, pending: list[tuple]) -> Stack:
        """The best hypothesis of each kind, the best `size` of these; the others' ways to them are kept too."""
        C = self.decoder.memory
        if not pending:
            empty = np.zeros(0, int)
            return Stack(np.zeros(0), empty, empty, np.zeros((0, C), int), (empty,) * 5)
        total, score, coverage, end, context, *way = (np.concatenate(parts) for parts in zip(*pending))
        keys = np.column_stack([coverage, end, context])
        order = np.lexsort((-score, *keys.T[::-1]))
        first = np.r_[True, (keys[order][1:] != keys[order][:-1]).any(1)]
        kind = np.cumsum(first) - 1  # of each candidate, in `order`
        best = order[first]
        kept = np.argsort(-total[best], kind='stable')[:self.size]
        place = np.full(len(best), -1)
        place[kept] = np.arange(len(kept))
        arcs = order[place[kind] >= 0]
        to = place[kind[place[kind] >= 0]]
        by = np.argsort(to, kind='stable')
        arcs, to = arcs[by], to[by]
        winners = best[kept]
        return Stack(score[winners], coverage[winners], end[winners], context[winners],
                     (to, *(part[arcs] for part in way), score[arcs]))

    def best(self, nbest: int) -> list[Derivation]:
        """The n best derivations of what was kept, no two with the same words: by their whole scores, lazily."""
        final = self.stacks[-1]
        starts = [np.searchsorted(stack.arcs[0], np.arange(len(stack.score_H) + 1)) if stack.arcs else None
                  for stack in self.stacks]
        # A way back: what it costs in all, if its beginning is the best there is; its options, last first.
        tie = itertools.count()
        heap = [(-score, next(tie), self.S, h, 0.0, ()) for h, score in enumerate(final.score_H)]
        heapq.heapify(heap)
        found, seen, tried = [], set(), 0
        while heap and len(found) < nbest and tried < 20 * nbest + 100:
            cost, _, n, h, after, taken = heapq.heappop(heap)
            if n == 0:
                tried += 1
                words = tuple(int(w) for option in taken for w in
                              self.options.target_ON[option, :self.options.length_O[option]])
                if words not in seen:
                    seen.add(words)
                    found.append(self.derivation(words, -cost, taken))
                continue
            stack = self.stacks[n]
            _, before, hypothesis, option, score = stack.arcs
            for a in range(starts[n][h], starts[n][h + 1]):
                # after: what comes later than this arc's end.
                own = score[a] - self.stacks[before[a]].score_H[hypothesis[a]]
                heapq.heappush(heap, (-(score[a] + after), next(tie), int(before[a]), int(hypothesis[a]), after + own,
                                      (int(option[a]), *taken)))
        return found

    def derivation(self, words: tuple[int, ...], score: float, taken: tuple[int, ...]) -> Derivation:
        """A finished translation with its features."""
        o, model = self.options, self.decoder.language_model
        spans = tuple((int(o.start_O[k]), int(o.end_O[k])) for k in taken)
        ends = [0, *(end for _, end in spans)]
        jumps = sum(abs(start - end) for (start, _), end in zip(spans, ends))
        logs = model.sentence(np.array(words, int)).sum() if model else 0.0
        features = np.concatenate([o.scores_OF[list(taken)].sum(0), [len(taken), len(words), -jumps, logs]])
        return Derivation(words, float(score), features, spans)


def followed(context_AC: np.ndarray, target_AN: np.ndarray, length_A: np.ndarray) -> np.ndarray:
    """The last words after an option: (A, C)."""
    C = context_AC.shape[1]
    both = np.concatenate([context_AC, target_AN.astype(np.int64)], axis=1)
    return np.take_along_axis(both, length_A[:, None] + np.arange(C), axis=1)


def partial(model: NGrams, context_QP: np.ndarray, word_Q: np.ndarray) -> np.ndarray:
    """log p by the highest order that a context shorter than the model's allows: a guess where it is not known yet."""
    k = context_QP.shape[1]
    lower = dataclasses.replace(model, grams=model.grams[:k], alphas=model.alphas[:k], contexts=model.contexts[:k],
                                gammas=model.gammas[:k])
    return lower.log_probs(context_QP, word_Q)
