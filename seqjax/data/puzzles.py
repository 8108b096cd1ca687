"""Small questions whose answer is one word, each of which asks for one thing that memory and attention do.

recall: the first word of the source, behind it so many others.       'c a f b' -> 'c'
witnesses: speakers tell what they heard, each right as often as it is known to be.  'c0 a2 c1' -> 'c'
hops: a one-to-one map as links, in random order, and a word from which to follow them.  'ac cb ba a2' -> 'b'

Witness and level, link, and word and number of links are one word each.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from seqjax.data.parallel import Splits

Kind = Literal['recall', 'witnesses', 'hops']
LETTERS = 'abcdefghijklmnopqrstuvwxyz'


def splits(kind: Kind, sizes: dict[str, int], symbols: int = 8, length: int = 30, hops: int = 4,
           reliabilities: Sequence[float] = (0.7, 0.15, 0.05), seed: int = 0) -> Splits:
    """Questions and answers, drawn independently; each split has a generator of its own.

    Args:
      symbols: how many words there are, the first letters of the alphabet.
      length: the most words behind the first (0 to `length`), or the most witnesses (1 to `length`); each number as
        often.
      hops: the most links to follow, 1 to `hops`, each number as often.
      reliabilities: how often a speaker of each level is right; otherwise it says one of the other words.
    """
    make = {'recall': lambda rng: recall(rng, symbols, length),
            'witnesses': lambda rng: witnesses(rng, symbols, length, reliabilities),
            'hops': lambda rng: follow(rng, symbols, hops)}[kind]
    found: Splits = {}
    for number, (name, size) in enumerate(sizes.items()):
        rng = np.random.default_rng((seed, number))
        rows = [make(rng) for _ in range(size)]
        found[name] = [source for source, _ in rows], [target for _, target in rows]
    return found


def recall(rng: np.random.Generator, symbols: int, length: int) -> tuple[str, str]:
    """The first of 1 to `length` + 1 words."""
    words = [LETTERS[i] for i in rng.integers(symbols, size=rng.integers(length + 1) + 1)]
    return ' '.join(words), words[0]


def witnesses(rng: np.random.Generator, symbols: int, length: int, reliabilities: Sequence[float]) -> tuple[str, str]:
    """What 1 to `length` speakers say of a word, each with its level; levels are drawn evenly."""
    truth, count = int(rng.integers(symbols)), int(rng.integers(1, length + 1))
    levels = rng.integers(len(reliabilities), size=count)
    right = rng.random(count) < np.asarray(reliabilities)[levels]
    said = np.where(right, truth, (truth + rng.integers(1, symbols, size=count)) % symbols)
    return ' '.join(f'{LETTERS[word]}{level}' for word, level in zip(said, levels)), LETTERS[truth]


def follow(rng: np.random.Generator, symbols: int, hops: int) -> tuple[str, str]:
    """Where 1 to `hops` links lead; the map is one cycle through all words, so that no way ends early."""
    order, count = rng.permutation(symbols), int(rng.integers(1, hops + 1))
    at = int(rng.integers(symbols))
    links = [f'{LETTERS[order[i]]}{LETTERS[order[(i + 1) % symbols]]}' for i in rng.permutation(symbols)]
    return ' '.join([*links, f'{LETTERS[order[at]]}{count}']), LETTERS[order[(at + count) % symbols]]


def difficulty(source: str) -> int:
    """What makes a question hard: words behind the first, witnesses less one, or links to follow."""
    words = source.split()
    return int(words[-1][1:]) if words[0][1:].isalpha() else len(words) - 1


def vote(source: str, symbols: int, reliabilities: Sequence[float], weighted: bool) -> np.ndarray:
    """What witnesses amount to (symbols,), which sums to 1: the share of each word among the winners of a poll.

    Every voice counts as one, or `weighted` as log(r (K - 1) / (1 - r)): with K words, wrong ones all as likely, the
    sum of these is the log posterior but for a constant, so that the winner is the best guess there is.
    """
    score = np.zeros(symbols)
    for voice in source.split():
        word, level = voice[0], voice[1:]
        r = np.clip(reliabilities[int(level)], 1e-9, 1 - 1e-9)
        score[LETTERS.index(word)] += np.log(r * (symbols - 1) / (1 - r)) if weighted else 1.0
    winners = np.isclose(score, score.max(), rtol=0, atol=1e-9)
    return winners / winners.sum()


def retold(count: int, symbols: int, reliabilities: Sequence[float]) -> float:
    """How often the last of `count` speakers says the first word where each has heard the one before it alone.

    A speaker of reliability r keeps the word with probability r; as a channel of K words its second eigenvalue is
    (r K - 1) / (K - 1), and those of a chain multiply: 1/K + (1 - 1/K) mean((r K - 1) / (K - 1))^count.
    """
    keeps = np.mean([(r * symbols - 1) / (symbols - 1) for r in reliabilities])
    return float(1 / symbols + (1 - 1 / symbols) * keeps ** count)
