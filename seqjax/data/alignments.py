"""Which word of a number translates which: alignments that are known, and the error rate of those that are guessed.

A number is made of parts: in each group of three digits (0 the lowest, 1 the thousands) the digit of the hundreds, the
word 'hundred' itself, the tens, the ones, and the word that names the group ('thousand'). A word *says* the parts that
its value is made of: in English 'thirty' the tens, 'seventeen' tens and ones; in French 'cent' of 'cent cinq' both the
one and the hundred, 'soixante' and 'dix' of 'soixante-dix' both the tens, 'onze' of 'soixante et onze' tens and ones; a
German number, written as one word, all that there is. Words that join ('and', 'et', ',', '-') say nothing, and *may*
stand for what they join; a digit says its place, and may stand for the marks ('hundred', 'thousand') that its place
implies; a zero within a number says nothing.

Two words are linked for *sure* where they say a part in common, and *possibly* where what they say or may stand for has
a part in common. (The two kinds are those of Och and Ney 2003, who have them from human annotators.)

Defined for numbers below a million in the languages of `LANGUAGES`: those where num2words writes marks and tens apart,
German as one word, and digits.
"""

import functools
import itertools
import re
from collections.abc import Sequence, Set
from typing import NamedTuple

from seqjax.data.numerals import DIGITS, words
from seqjax.errors import UserError, did_you_mean

Link = tuple[int, int]  # position in the source, position in the target, from 0
Part = tuple[int, str]  # group of three digits, and which part of it

# Marks multiply what stands before them, or stand alone: 100, or 1000 which ends a group. Joins have no value.
# Forms are those that no number below a thousand has as its only word.
LANGUAGES = {
    'en': dict(marks={'hundred': 100, 'thousand': 1000}, joins=('and',)),
    'fr': dict(marks={'cent': 100, 'cents': 100, 'mille': 1000}, joins=('et',), forms={'vingts': 20}),
    'es': dict(marks={'mil': 1000}, joins=('y',), forms={'ciento': 100}),
    'pt': dict(marks={'mil': 1000}, joins=('e',), forms={'cento': 100}),
    'no': dict(marks={'hundre': 100, 'tusen': 1000}, joins=('og',), forms={'en': 1, 'ett': 1}),
    'pl': dict(marks={'tysiąc': 1000, 'tysiące': 1000, 'tysięcy': 1000}, joins=()),
    'ru': dict(marks={'тысяча': 1000, 'тысячи': 1000, 'тысяч': 1000}, joins=(), forms={'одна': 1, 'две': 2}),
    'de': None,
    DIGITS: None,
}
LIMIT = 10**6
FOUR_TWENTIES = ('vingt', 'vingts')  # after 'quatre', in French


class Word(NamedTuple):
    """A piece of a number: a word, a digit, or a sign between words."""

    text: str
    value: int
    says: frozenset[Part]
    may: frozenset[Part]


class Alignment(NamedTuple):
    """The links of one pair; the possible ones hold the sure ones."""

    sure: frozenset[Link]
    possible: frozenset[Link]


def pieces(text: str) -> list[str]:
    """The words, digits and signs of a number: those of a 'word' vocabulary."""
    return re.findall(r'[^\W\d_]+|\d|[^\w\s]+', text)


def align(source_text: str, target_text: str, source: str, target: str) -> Alignment:
    """The links between the pieces of a number in two languages, as `numerals.words` writes it.

    Raises UserError for a language that is not in LANGUAGES, a word that is no part of a number, a million and more,
    and texts of two numbers.
    """
    sides = [read(source_text, source), read(target_text, target)]
    numbers = [number for number, _ in sides]
    if numbers[0] != numbers[1]:
        raise UserError(f'{source_text!r} is {numbers[0]} and {target_text!r} is {numbers[1]}: no translations')
    (_, ours), (_, theirs) = sides
    pairs = [(i, j) for i in range(len(ours)) for j in range(len(theirs))]
    sure = frozenset((i, j) for i, j in pairs if ours[i].says & theirs[j].says)
    possible = frozenset((i, j) for i, j in pairs
                         if (ours[i].says | ours[i].may) & (theirs[j].says | theirs[j].may))
    return Alignment(sure, possible)


def read(text: str, language: str) -> tuple[int, list[Word]]:
    """The number that `text` writes out, and its pieces with the parts of it that they say."""
    if language not in LANGUAGES:
        raise UserError(f'alignments of {language!r} are not known, for its words are not told apart'
                        f'{did_you_mean(language, LANGUAGES)}; there are those of {", ".join(LANGUAGES)}')
    found = pieces(text)
    if not found:
        raise UserError(f'{text!r} is no number in {language!r}')
    return (_read_digits if language == DIGITS else _read_german if language == 'de' else _read_words)(found, language)


def alignment_error_rate(links: Sequence[Set[Link]], sure: Sequence[Set[Link]], possible: Sequence[Set[Link]]) -> float:
    """AER = 1 - (|A and S| + |A and P|) / (|A| + |S|), counted over all sentences (Och and Ney 2003).

    Args:
      links: A, the links that were guessed, a set for each sentence.
      sure, possible: S and P; what is sure counts as possible too.

    Returns:
      0 (all sure links found, and none that is not possible) to 1; 0 where there is nothing to link.
    """
    hits = total = 0
    for guessed, s, p in zip(links, sure, possible, strict=True):
        hits += len(guessed & s) + len(guessed & (p | s))
        total += len(guessed) + len(s)
    return 1 - hits / total if total else 0.0


def crossings(links: Set[Link]) -> set[tuple[Link, Link]]:
    """The pairs of links that cross: of two source words the first is translated behind the second."""
    return {(a, b) for a, b in itertools.combinations(sorted(links), 2) if a[0] < b[0] and a[1] > b[1]}


def parts(value: int, group: int = 0) -> frozenset[Part]:
    """The parts that a value below a thousand is made of; 0 has its ones."""
    hundreds, tens, ones = value // 100, value // 10 % 10, value % 10
    named = [('hundreds', hundreds), ('hundred', hundreds), ('tens', tens), ('ones', ones or not value)]
    return frozenset((group, name) for name, there in named if there)


@functools.cache
def _lexicon(language: str) -> dict[str, int]:
    """The words that are a number below a thousand by themselves."""
    values = range(100 if language == 'de' else 1000)
    known = {text: value for value, text in zip(values, words(values, language)) if len(pieces(text)) == 1}
    return known | (LANGUAGES[language] or {}).get('forms', {})


def _read_words(found: list[str], language: str) -> tuple[int, list[Word]]:
    """Words apart: groups end at the word for thousand."""
    grammar, lexicon = LANGUAGES[language], _lexicon(language)
    marks, joins = grammar['marks'], grammar['joins']
    thousands = [i for i, piece in enumerate(found) if marks.get(piece) == 1000]
    end = thousands[-1] if thousands else -1
    read: list[Word] = []
    number, value, last = 0, 0, None  # of the groups before, of this group, the last word that had a value
    for i, piece in enumerate(found):
        group = int(i <= end)
        mark = marks.get(piece)
        if mark == 1000:
            says = {(1, 'thousand')} | (set() if value else {(1, 'ones')})
            number, value, last = (value or 1) * 1000, 0, None
        elif mark == 100:
            says = {(group, 'hundred'), *(() if value else ((group, 'hundreds'),))}
            if value:  # the word before counts hundreds
                read[last] = read[last]._replace(says=frozenset({(group, 'hundreds')}))
            value, last = (value or 1) * 100, None
        elif piece in joins or not piece.isalpha():
            says = set()
        elif piece in lexicon:
            own = lexicon[piece]
            if language == 'fr' and piece in FOUR_TWENTIES and last is not None and read[last].value == 4:
                read[last] = read[last]._replace(says=frozenset({(group, 'tens')}))
                own = 80 - 4
                says = {(group, 'tens')}
            else:
                says = parts(own, group)
            value, last = value + own, i
        else:
            raise UserError(f'{piece!r} is no part of a number below a million in {language!r}')
        read.append(Word(piece, lexicon.get(piece, 0), frozenset(says), frozenset()))
    # A word that joins may stand for what is joined.
    says = [word.says for word in read]
    for i, word in enumerate(read):
        if not word.says:
            before = next((said for said in reversed(says[:i]) if said), frozenset())
            after = next((said for said in says[i + 1:] if said), frozenset())
            read[i] = word._replace(may=before | after)
    return number + value, read


def _read_german(found: list[str], language: str) -> tuple[int, list[Word]]:
    """One word, which says everything."""
    text = ''.join(found)
    lexicon = {'': 0, 'ein': 1} | _lexicon(language)

    def value(text: str) -> int:
        head, hundert, tail = text.rpartition('hundert')
        if len(found) > 1 or head not in lexicon or tail not in lexicon:
            raise UserError(f'{text!r} is no number below a million in {language!r}')
        return (lexicon[head] or 1) * 100 + lexicon[tail] if hundert else lexicon[tail]

    head, tausend, tail = text.partition('tausend')
    number = (value(head) or 1) * 1000 + value(tail) if tausend else value(tail or head)
    return number, [Word(text, number, _all_parts(number), frozenset())]


def _all_parts(number: int) -> frozenset[Part]:
    high, low = divmod(number, 1000)
    upper = parts(high, 1) | {(1, 'thousand')} if high else frozenset()
    return upper | (parts(low) if low or not high else frozenset())


def _read_digits(found: list[str], language: str) -> tuple[int, list[Word]]:
    """Digits say their place and may stand for the marks that it implies."""
    if len(found) > 6 or not all(piece.isdecimal() for piece in found):
        raise UserError(f'{" ".join(found)!r} are no digits of a number below a million')
    number, read = int(''.join(found)), []
    places = list(itertools.product((1, 0), ('hundreds', 'tens', 'ones')))[-len(found):]
    for piece, (group, place) in zip(found, places):
        says = {(group, place)} if piece != '0' or number == 0 else set()
        # A zero also makes room for the group above it.
        may = {(1, 'thousand')} if group == 1 or (piece == '0' and len(found) > 3) else set()
        may |= {(group, 'hundred')} if place == 'hundreds' else set()
        read.append(Word(piece, int(piece), frozenset(says), frozenset(may)))
    return number, read
