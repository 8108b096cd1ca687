"""Numbers in words as parallel text: real word order, elisions and agreement, without limit and without a download."""

import copy
import itertools
from collections.abc import Iterable

import numpy as np

from seqjax.data.parallel import Splits
from seqjax.errors import UserError, did_you_mean

DIGITS = 'digits'  # the language of the digits themselves: 42 is '4 2'
COMMON = 100  # numbers below it go to training first: words such as 'zero' occur in no other number


def words(numbers: Iterable[int], language: str) -> list[str]:
    """Each number in the words of `language`: a code of num2words ('en', 'fr', 'pt_BR'), or 'digits'.

    Raises UserError where num2words has not the language, or no word for a number as large.
    """
    numbers = list(map(int, numbers))
    if language == DIGITS:
        return [' '.join(str(n)) for n in numbers]
    import num2words  # builds a converter for each of its languages

    known = num2words.CONVERTER_CLASSES
    if language not in known:
        raise UserError(f'num2words has no language {language!r}{did_you_mean(language, [*known, DIGITS])}')
    spell = _speller(known[language], max(map(abs, numbers), default=1))
    texts = []
    for n in numbers:
        try:
            texts.append(spell(n))
        except (OverflowError, NotImplementedError, TypeError, ValueError, LookupError) as error:
            raise UserError(f'num2words cannot say {n} in {language!r} ({error}); lower the highest number') from error
    return texts


def _speller(converter, highest: int):
    """`to_cardinal` of a num2words converter that knows no name of a number above `highest`.

    For each part of a number it tries its names from the greatest, which in English is 10**600, down. That of 1 it
    looks up for 0 too.
    """
    if hasattr(converter, 'cards'):
        converter = copy.copy(converter)
        converter.cards = {number: name for number, name in converter.cards.items() if number <= max(highest, 1)}
    return converter.to_cardinal


def pairs(numbers: Iterable[int], source: str = 'en', target: str = 'fr') -> tuple[list[str], list[str]]:
    """The same numbers in the words of two languages."""
    numbers = list(numbers)
    return words(numbers, source), words(numbers, target)


def splits(source: str, target: str, highest: int, train_size: int, valid_size: int, test_size: int,
           seed: int = 0, left_out: tuple[int, int] | None = None) -> Splits:
    """Train, valid and test pairs of distinct numbers in 0..highest; no number is in two splits.

    Those from the first to the last of `left_out` are in none: a domain of their own, to be tested on.

    Every count of digits gets the same share of the numbers, as far as there are as many: drawn uniformly, nine in ten
    would have the most digits. Numbers below 100 go to training first, which must meet each word. Deterministic in
    `seed`. Raises UserError for an unknown language, and where there are too few numbers.
    """
    total, (first, last) = train_size + valid_size + test_size, left_out or (0, -1)
    if left_out and not 0 <= first <= last <= highest:
        raise UserError(f'numbers {first} to {last} cannot be left out of those up to {highest}; give the first and '
                        'the last of them')
    there = highest - (last - first)
    if total > there:
        raise UserError(f'{total} pairs (train {train_size}, valid {valid_size}, test {test_size}) cannot be made of '
                        f'the {there} numbers up to {highest}; raise the highest number or lower the sizes')
    if highest >= 2**63:
        raise UserError(f'the highest number {highest} is out of range; the largest is {2**63 - 1}')
    words([highest], source), words([highest], target)
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(_draw(highest, total, rng, (first, last)))
    # A stable sort brings the common numbers to the front and leaves the others in random order.
    numbers = numbers[np.argsort(numbers >= COMMON, kind='stable')]
    train, valid, test = np.split(numbers, [train_size, train_size + valid_size])
    return {name: pairs(part, source, target)
            for name, part in (('train', rng.permutation(train)), ('valid', valid), ('test', test))}


def _draw(highest: int, total: int, rng: np.random.Generator, left_out: tuple[int, int] = (0, -1)) -> np.ndarray:
    """`total` distinct numbers in 0..highest but those from `left_out`, spread evenly over the counts of digits."""
    edges = [0, *(10**d for d in range(1, len(str(highest)))), highest + 1]
    spans = []
    for low, high in itertools.pairwise(edges):
        at = min(max(left_out[0], low), high)
        gap = max(0, min(left_out[1] + 1, high) - at)
        spans.append((high - low - gap, low, at, gap))
    drawn = []
    # What small spans lack, large ones give.
    for i, (size, low, at, gap) in enumerate(sorted(spans, key=lambda span: span[0])):
        share = min(size, -(-total // (len(spans) - i)))
        numbers = low + rng.choice(size, share, replace=False)
        drawn.append(numbers + gap * (numbers >= at))
        total -= share
    return np.concatenate(drawn)
