import collections

import num2words
import numpy as np
import pytest

from seqjax.data import numerals
from seqjax.errors import UserError


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
    with pytest.raises(UserError, match="cannot say 1000000000000 in 'te'"):
        numerals.splits('te', 'en', 10**12, 10, 10, 10)
    with pytest.raises(UserError, match='out of range'):
        numerals.splits('digits', 'digits', 2**63, 10, 10, 10)
