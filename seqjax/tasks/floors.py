"""What trivial methods reach, which know the source not at all or copy it: a number means what it is above these."""

import collections
import math
from collections.abc import Iterable, Sequence

import numpy as np

from seqjax.tasks.scores import bleu, exact_match

END = None  # of a sentence, where a model of words says that it is over


class NGrams:
    """A model of sentences that sees the last `order` - 1 words, and of the source nothing.

    P_n(w | h) = (c(h w) + t(h) P_{n-1}(w | h')) / (c(h) + t(h)), where t(h) counts the words seen after h, and P_0
    is uniform over the words of the text, the end and one unknown word (Witten and Bell 1991, interpolated).
    """

    def __init__(self, lines: Iterable[str], order: int = 2):
        self.order = order
        self._after: list[dict[tuple, collections.Counter]] = [
            collections.defaultdict(collections.Counter) for _ in range(order)]
        for line in lines:
            words = [*line.split(), END]
            for i, word in enumerate(words):
                for n in range(min(order, i + 1)):
                    self._after[n][tuple(words[i - n:i])][word] += 1
                for n in range(i + 1, order):  # before the sentence stands nothing but its beginning
                    self._after[n][('', *words[:i])][word] += 1
        self.words = [word for word in self._after[0][()] if word is not END]

    def _histories(self, before: Sequence[str]) -> list[tuple]:
        """What each order knows of the words before, the shortest first."""
        return [tuple(before[len(before) - n:]) if n <= len(before) else ('', *before) for n in range(self.order)]

    def probability(self, word: str | None, before: Sequence[str]) -> float:
        """P(word | before); `END` is a word too."""
        p = 1 / (len(self.words) + 2)
        for n, history in enumerate(self._histories(before)):
            after = self._after[n].get(history)
            if after:
                p = (after[word] + len(after) * p) / (after.total() + len(after))
        return p

    def perplexity(self, lines: Iterable[str]) -> float:
        """Of each word and end, in the geometric mean."""
        total, count = 0.0, 0
        for line in lines:
            words = [*line.split(), END]
            total -= sum(math.log(self.probability(word, words[:i])) for i, word in enumerate(words))
            count += len(words)
        return math.exp(total / count)

    def sample(self, rng: np.random.Generator, longest: int) -> str:
        """A sentence by the counts of the longest history that was seen, cut after `longest` words."""
        words: list[str] = []
        while len(words) < longest:
            after = next(self._after[n][history] for n, history in reversed(list(enumerate(self._histories(words))))
                         if self._after[n].get(history))
            choices = list(after)
            word = choices[rng.choice(len(choices), p=np.array([after[w] for w in choices]) / after.total())]
            if word is END:
                break
            words.append(word)
        return ' '.join(words)


def outputs(train: tuple[Sequence[str], Sequence[str]], sources: Sequence[str], seed: int = 0,
            order: int = 3) -> dict[str, list[str]]:
    """A line for each of `sources`, by each trivial method; any score of lines can be had of them.

    Args:
      train: sources and targets of the training split.
    """
    targets = train[1]
    longest = max(len(line.split()) for line in targets)
    word = collections.Counter(word for line in targets for word in line.split()).most_common(1)[0][0]
    common = collections.Counter(targets).most_common(1)[0][0]
    found = {
        'copy of the source': list(sources),
        'most frequent word': [' '.join([word] * max(1, len(line.split()))) for line in sources],
        'most frequent target': [common] * len(sources),
    }
    for name, n in (('unigram model', 1), (f'{order}-gram model', order)):
        model, rng = NGrams(targets, n), np.random.default_rng(seed)
        found[name] = [model.sample(rng, longest) for _ in sources]
    return found


def scored(train: tuple[Sequence[str], Sequence[str]], test: tuple[Sequence[str], Sequence[str]]) -> list[dict]:
    """The scores of each trivial method's lines: {'floor': its name, 'exact_match': in percent, 'bleu'}."""
    sources, references = test
    return [{'floor': name, 'exact_match': exact_match(lines, references).value, 'bleu': bleu(lines, references).value}
            for name, lines in outputs(train, sources).items()]
