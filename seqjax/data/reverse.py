"""The reverse task: repeat a list of integers backwards. JoeyNMT (Kreutzer et al. 2019) ships it as its smoke test."""

import numpy as np

from seqjax.data.parallel import Splits


def splits(train_size: int = 50_000, valid_size: int = 1_000, test_size: int = 1_000, highest: int = 49,
           train_length: int = 25, test_length: int = 30, seed: int = 0, skew: float = 0.0) -> Splits:
    """Pairs such as ('4 17 32', '32 17 4').

    Lengths are uniform in 1..train_length for training and in 1..test_length for the other two, whose longest rows thus
    ask for more than was ever seen; integers are uniform in 0..highest, or n is as frequent as (n + 1)^-skew: with a
    skew of 1 as words are in languages (Zipf 1949). Rows are drawn independently, as JoeyNMT's are:
    the shortest recur across splits. Each split has a generator of its own, so that one's size does not change another.
    """
    sizes = {'train': (train_size, train_length), 'valid': (valid_size, test_length), 'test': (test_size, test_length)}
    return {name: _pairs(size, length, highest, skew, np.random.default_rng((seed, i)))
            for i, (name, (size, length)) in enumerate(sizes.items())}


def _pairs(size: int, longest: int, highest: int, skew: float, rng: np.random.Generator
           ) -> tuple[list[str], list[str]]:
    lengths = rng.integers(1, longest, size, endpoint=True)
    if skew:
        often = np.arange(1, highest + 2, dtype=np.float64) ** -skew
        drawn = rng.choice(highest + 1, lengths.sum(), p=often / often.sum())
    else:
        drawn = rng.integers(0, highest, lengths.sum(), endpoint=True)
    rows = np.split(drawn.astype(str), np.cumsum(lengths)[:-1])
    return [' '.join(row) for row in rows], [' '.join(row[::-1]) for row in rows]
