"""Known alignments of number words, written down by hand; and the alignment error rate."""

import itertools

import numpy as np
import pytest

from seqjax.data import numerals
from seqjax.data.alignments import LANGUAGES, LIMIT, align, alignment_error_rate, pieces, read
from seqjax.data.vocabulary import Vocabulary
from seqjax.errors import UserError

# By hand: number, languages, sure links as pairs of words, some that are only possible.
GOLD = [
    (5, 'en', 'fr', 'five-cinq', ''),
    (0, 'en', 'digits', 'zero-0', ''),
    (17, 'en', 'fr', 'seventeen-dix seventeen-sept', 'seventeen--'),
    (71, 'en', 'fr', 'seventy-soixante seventy-onze one-onze', 'seventy-et one-et --et --soixante --onze'),
    (80, 'en', 'fr', 'eighty-quatre eighty-vingts', 'eighty--'),
    (105, 'en', 'fr', 'one-cent hundred-cent five-cinq', 'and-cent and-cinq'),
    (420, 'en', 'fr', 'four-quatre hundred-cent twenty-vingt', 'and-cent and-vingt'),
    (1000, 'en', 'fr', 'one-mille thousand-mille', ''),
    (2005, 'en', 'es', 'two-dos thousand-mil five-cinco', 'and-mil and-cinco'),
    (721, 'en', 'es', 'seven-setecientos hundred-setecientos twenty-veintiuno one-veintiuno',
     'and-setecientos and-veintiuno --veintiuno'),
    (21, 'en', 'de', 'twenty-einundzwanzig one-einundzwanzig', '--einundzwanzig'),
    (3040, 'de', 'fr', 'dreitausendvierzig-trois dreitausendvierzig-mille dreitausendvierzig-quarante', ''),
    (305, 'digits', 'en', '3-three 5-five', '3-hundred 3-and 5-and'),
    (2001, 'pl', 'ru', 'dwa-две tysiące-тысячи jeden-один', ''),
]


def named(links, sides):
    return sorted(f'{sides[0][i]}-{sides[1][j]}' for i, j in links)


@pytest.mark.parametrize(('number', 'source', 'target', 'sure', 'more'), GOLD)
def test_by_hand(number, source, target, sure, more):
    texts = [numerals.words([number], language)[0] for language in (source, target)]
    found = align(*texts, source, target)
    sides = list(map(pieces, texts))
    assert named(found.sure, sides) == sorted(sure.split())
    assert named(found.possible - found.sure, sides) == sorted(more.split())
    turned = align(*texts[::-1], target, source)
    assert {(j, i) for i, j in turned.sure} == found.sure
    assert {(j, i) for i, j in turned.possible} == found.possible


@pytest.mark.parametrize('language', LANGUAGES)
def test_every_number_is_read_back_and_every_part_is_said(language):
    numbers = [*range(1200), *np.random.default_rng(0).integers(0, LIMIT, 1500).tolist(), 80_000, 80_080, 200_200]
    for number, text in zip(numbers, numerals.words(numbers, language), strict=True):
        value, found = read(text, language)
        assert value == number
        places = {(1 - i // 3, ('hundreds', 'tens', 'ones')[i % 3]) for i, digit in enumerate(f'{number:06}')
                  if digit != '0'} or {(0, 'ones')}
        said = set().union(*(word.says for word in found))
        assert {part for part in said if part[1] not in ('hundred', 'thousand')} == places, text
        assert language == 'digits' or ((1, 'thousand') in said) == (number >= 1000)


@pytest.mark.parametrize('language', LANGUAGES)
def test_positions_are_those_of_a_vocabulary(language):
    texts = numerals.words([*range(130), 1234, 21_080, 100_100, 999_999], language)
    vocabulary = Vocabulary.learn(texts, 'word', None)
    for text in texts:
        assert vocabulary.pieces(vocabulary.encode([text]).row(0)[:-1]) == pieces(text)


def test_every_word_with_a_value_has_its_word():
    numbers = np.random.default_rng(1).integers(0, LIMIT, 100).tolist()
    for source, target in itertools.permutations(['en', 'fr', 'es', 'de'], 2):
        for ours, theirs in zip(*numerals.pairs(numbers, source, target), strict=True):
            linked = {i for i, _ in align(ours, theirs, source, target).sure}
            assert linked == {i for i, word in enumerate(read(ours, source)[1]) if word.says}, (ours, theirs)


def test_alignment_error_rate():
    # A of 3 links: one sure, one possible only, one wrong; 2 sure links: 1 - (1 + 2) / (3 + 2).
    guessed, sure, possible = {(0, 0), (1, 1), (2, 2)}, {(0, 0), (1, 2)}, {(0, 0), (1, 2), (1, 1)}
    assert alignment_error_rate([guessed], [sure], [possible]) == pytest.approx(1 - 3 / 5)
    assert alignment_error_rate([guessed], [sure], [{(1, 1)}]) == pytest.approx(1 - 3 / 5), 'sure is possible too'
    assert alignment_error_rate([sure], [sure], [possible]) == 0
    assert alignment_error_rate([possible], [sure], [possible]) == 0
    assert alignment_error_rate([set()], [sure], [possible]) == 1
    # Counts of sentences are added, not their rates: 1 - (1 + 2 + 1 + 1) / (3 + 2 + 1 + 1).
    assert alignment_error_rate([guessed, {(0, 0)}], [sure, {(0, 0)}], [possible, set()]) == pytest.approx(1 - 5 / 7)
    assert alignment_error_rate([], [], []) == 0


@pytest.mark.parametrize(('arguments', 'message'), [
    (('one', 'ichi', 'en', 'ja'), "alignments of 'ja' are not known"),
    (('one', 'une', 'en', 'frr'), "alignments of 'frr' are not known.*did you mean 'fr'"),
    (('two', 'trois', 'en', 'fr'), "'two' is 2 and 'trois' is 3"),
    (('two dogs', 'deux', 'en', 'fr'), "'dogs' is no part of a number"),
    (('one million', 'un million', 'en', 'fr'), "'million' is no part of a number below a million"),
    (('1 2 3 4 5 6 7', 'un', 'digits', 'fr'), 'no digits of a number below a million'),
    (('hund', 'un', 'de', 'fr'), "'hund' is no number below a million in 'de'"),
    (('', '', 'en', 'fr'), "'' is no number"),
])
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        align(*arguments)
