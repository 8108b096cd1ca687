"""The grammar of colours: French by hand, links by what was put in, and no sentence twice."""

import itertools

import numpy as np
import pytest

from seqjax.data import colours
from seqjax.data.alignments import crossings
from seqjax.errors import UserError


def test_links_by_hand():
    found = colours.align('the small blue car sees a dog', 'la petite voiture bleue voit un chien')
    assert found.sure == found.possible == {(0, 0), (1, 1), (2, 3), (3, 2), (4, 4), (5, 5), (6, 6)}
    assert crossings(found.sure) == {((2, 3), (3, 2))}
    # A noun of three words crosses three times; what comes twice is told apart by its turn.
    found = colours.align('a red potato hides a red cat', 'une pomme de terre rouge cache un chat rouge')
    assert found.sure == {(0, 0), (1, 4), (2, 1), (2, 2), (2, 3), (3, 5), (4, 6), (5, 8), (6, 7)}
    assert len(crossings(found.sure)) == 4
    assert colours.align('my big coats', 'mes gros manteaux').sure == {(0, 0), (1, 1), (2, 2)}


def test_french_agrees():
    rng = np.random.default_rng(3)
    found = ' '.join(colours.sentence(rng)[1] for _ in range(3000)).split()
    follows = set(itertools.pairwise(found))
    for right, wrong in ((('voiture', 'bleue'), ('voiture', 'bleu')), (('maisons', 'vertes'), ('maisons', 'verte')),
                         (('chiens', 'gris'), ('chien', 'grises')), (('nouveaux', 'chats'), ('nouveaus', 'chats')),
                         (('cette', 'porte'), ('ce', 'porte')), (('gros', 'livres'), ('gross', 'livres')),
                         (('jolies', 'fleurs'), ('jolis', 'fleurs'))):
        assert right in follows, right
        assert wrong not in follows, wrong
    assert not {(colour, noun) for forms in colours.COLOURS.values() for colour in forms
                for noun, *_ in colours.NOUNS.values() if ' ' not in noun} & follows, 'no colour stands before its noun'


def test_every_word_has_one_meaning():
    """No form of one word is put over that of another."""
    forms = [form for numbers in colours.ARTICLES.values() for pair in numbers for form in {*pair}]
    forms += [form for pair in (colours.SIZES | colours.COLOURS).values()
              for form in {colours._number(one, many) for one in pair for many in (0, 1)}]
    forms += [form for one, many, _ in colours.NOUNS.values() for form in (one, many)]
    forms += [form for pair in colours.VERBS.values() for form in pair]
    forms += colours.PLACES.values()
    assert len(colours._lexicon('fr')) == len(forms) == len(set(forms))
    assert len(colours._lexicon('en')) == 6 + 4 + 10 + 2 * 18 + 2 * 8 + 4


def test_splits():
    made = colours.splits(500, 30, 40, seed=1)
    assert [len(side) for pair in made.values() for side in pair] == [500, 500, 30, 30, 40, 40]
    english = [line for sources, _ in made.values() for line in sources]
    assert len(set(english)) == 570
    assert made == colours.splits(500, 30, 40, seed=1) != colours.splits(500, 30, 40, seed=2)
    crossed = 0
    for source, target in zip(*made['train']):
        found = colours.align(source, target)
        assert {j for _, j in found.sure} == set(range(len(target.split())))
        assert {i for i, _ in found.sure} == set(range(len(source.split())))
        coloured = sum(word in colours.COLOURS for word in source.split())
        assert (len(crossings(found.sure)) > 0) == (coloured > 0)
        assert len({a for a, _ in crossings(found.sure)}) == coloured
        crossed += coloured > 0
    assert 0.85 < crossed / 500 < 0.98  # 1 - 0.3^2 or 0.3^3


def test_mistakes_are_named():
    with pytest.raises(UserError, match="'chair' in 'the blue chair' is no word"):
        colours.align('the blue chair', 'la chaise bleue')
    with pytest.raises(UserError, match='no translations of one another'):
        colours.align('the blue car', 'la voiture verte')
