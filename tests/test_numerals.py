import collections

import num2words
import numpy as np
import pytest

from seqjax.data import numerals
from seqjax.errors import UserError

KEPT = ['2 7 1', '6 9 6 6 2', '7 7 5']


def test_known_words():
    assert numerals.pairs([0, 42, 98000], 'en', 'fr') == (
        ['zero', 'forty-two', 'ninety-eight thousand'],
        ['zéro', 'quarante-deux', 'quatre-vingt-dix-huit mille'])
    assert numerals.words([42, 1207], 'digits') == ['4 2', '1 2 0 7']
    assert numerals.words([42], 'de') == ['zweiundvierzig']


@pytest.mark.parametrize('language', ['en', 'fr', 'de', 'pt_BR', 'ja', 'fr_BE', 'ru', 'es'])
def test_words_are_those_of_num2words(language):
    numbers = [*range(120), *np.random.default_rng(0).integers(0, 10**9, 50).tolist()]
    assert numerals.words(numbers, language) == [num2words.num2words(n, lang=language) for n in numbers]
    for n in (0, 7, 20, 21, 100, 1000, 10**6):  # alone, each is the highest: names above it are not looked at
        assert numerals.words([n], language) == [num2words.num2words(n, lang=language)]


def test_splits_share_no_number_and_training_has_the_small_ones():
    sizes = {'train': 3000, 'valid': 200, 'test': 300}
    splits = numerals.splits('digits', 'digits', 99_999, *sizes.values(), seed=0)
    numbers = {name: [int(text.replace(' ', '')) for text in pairs[0]] for name, pairs in splits.items()}
    assert {name: len(part) for name, part in numbers.items()} == sizes
    everything = [n for part in numbers.values() for n in part]
    assert len(set(everything)) == 3500
    assert 0 <= min(everything) <= max(everything) <= 99_999
    assert set(range(100)) <= set(numbers['train'])
    # 10 + 90 + 900 are all there are; the other 2,500 are shared by those of four and five digits.
    digits = collections.Counter(len(str(n)) for n in everything)
    assert digits == {1: 10, 2: 90, 3: 900, 4: 1250, 5: 1250}
    for name in ('valid', 'test'):
        part = collections.Counter(len(str(n)) for n in numbers[name])
        assert part[3] == pytest.approx(len(numbers[name]) * 900 / 3400, rel=0.35)
    assert numbers['train'] != sorted(numbers['train'])


@pytest.mark.parametrize('highest', [9, 10, 99, 100, 12345, 10**12])
def test_sizes_are_kept_up_to_the_last_number(highest):
    total = min(highest + 1, 200)
    train, valid, test = splits = total - 4, 2, 2
    made = numerals.splits('digits', 'digits', highest, *splits)
    numbers = [int(text.replace(' ', '')) for pairs in made.values() for text in pairs[0]]
    assert [len(pairs[0]) for pairs in made.values()] == [train, valid, test]
    assert len(set(numbers)) == total
    assert max(numbers) <= highest
    if total == highest + 1:
        assert sorted(numbers) == list(range(total))


@pytest.mark.parametrize('left_out', [(3000, 4999), (0, 9), (50, 2500), (9000, 9999)])
def test_numbers_that_are_left_out_are_in_no_split(left_out):
    first, last = left_out
    total = 10_000 - (last - first + 1)
    made = numerals.splits('digits', 'digits', 9999, total - 20, 10, 10, left_out=left_out)
    numbers = sorted(int(text.replace(' ', '')) for pairs in made.values() for text in pairs[0])
    assert numbers == [n for n in range(10_000) if not first <= n <= last], 'all others can be drawn, each once'
    few = numerals.splits('digits', 'digits', 9999, 1000, 10, 10, left_out=left_out)
    assert not [text for pairs in few.values() for text in pairs[0] if first <= int(text.replace(' ', '')) <= last]


def test_what_is_drawn_where_nothing_is_left_out():
    """As before there was such a choice."""
    made = numerals.splits('digits', 'digits', 99_999, 20, 2, 3, seed=5)
    assert made['test'][0] == KEPT


def test_the_seed_decides():
    one, other = (numerals.splits('digits', 'en', 9999, 100, 10, 10, seed) for seed in (1, 2))
    assert one == numerals.splits('digits', 'en', 9999, 100, 10, 10, 1)
    assert one != other
    sources, targets = one['test']
    assert targets == [num2words.num2words(int(text.replace(' ', ''))) for text in sources]


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"no language 'fra'; did you mean 'fr'\?"):
        numerals.pairs([1], 'en', 'fra')
    with pytest.raises(UserError, match=r"no language 'digit'; did you mean 'digits'\?"):
        numerals.words([1], 'digit')
    with pytest.raises(UserError, match=r'30 pairs .* cannot be made of the 10 numbers up to 9'):
        numerals.splits('en', 'fr', 9, 10, 10, 10)
    with pytest.raises(UserError, match=r'cannot be made of the 8 numbers up to 9'):
        numerals.splits('en', 'fr', 9, 7, 1, 1, left_out=(4, 5))
    with pytest.raises(UserError, match='numbers 5 to 12 cannot be left out of those up to 9'):
        numerals.splits('en', 'fr', 9, 1, 1, 1, left_out=(5, 12))
    with pytest.raises(UserError, match="cannot say 1000000000000 in 'te'"):
        numerals.splits('te', 'en', 10**12, 10, 10, 10)
    with pytest.raises(UserError, match='out of range'):
        numerals.splits('digits', 'digits', 2**63, 10, 10, 10)
