"""Sentences of things and their colours in English and French: word order that is turned around, by a rule, and known.

'the small blue car sees a dog' is 'la petite voiture bleue voit un chien': a colour stands before its noun in English
and behind it in French, a size before it in both, so that which words change places is told by the words themselves.
Articles, sizes, colours and verbs agree with the noun in French; some nouns are several words there. Every phrase
keeps its place in the sentence, and all links are known.
"""

import functools
from collections.abc import Set
from typing import NamedTuple

import numpy as np

from seqjax.data.alignments import Alignment, Link
from seqjax.data.parallel import Splits
from seqjax.errors import UserError

# English: French, masculine and feminine; then the same of many.
ARTICLES = {('the', 'the'): (('le', 'la'), ('les', 'les')), ('my', 'my'): (('mon', 'ma'), ('mes', 'mes')),
            ('this', 'these'): (('ce', 'cette'), ('ces', 'ces')), ('a', 'two'): (('un', 'une'), ('deux', 'deux'))}
SIZES = {'small': ('petit', 'petite'), 'big': ('gros', 'grosse'), 'pretty': ('joli', 'jolie'),
         'new': ('nouveau', 'nouvelle')}
COLOURS = {'blue': ('bleu', 'bleue'), 'green': ('vert', 'verte'), 'black': ('noir', 'noire'),
           'white': ('blanc', 'blanche'), 'grey': ('gris', 'grise'), 'red': ('rouge', 'rouge'),
           'yellow': ('jaune', 'jaune'), 'brown': ('brun', 'brune'), 'pink': ('rose', 'rose'),
           'purple': ('violet', 'violette')}
# English, one and many: French, one and many, and whether feminine.
NOUNS = {('car', 'cars'): ('voiture', 'voitures', 1), ('house', 'houses'): ('maison', 'maisons', 1),
         ('dog', 'dogs'): ('chien', 'chiens', 0), ('cat', 'cats'): ('chat', 'chats', 0),
         ('flower', 'flowers'): ('fleur', 'fleurs', 1), ('table', 'tables'): ('table', 'tables', 1),
         ('book', 'books'): ('livre', 'livres', 0), ('boat', 'boats'): ('bateau', 'bateaux', 0),
         ('door', 'doors'): ('porte', 'portes', 1), ('coat', 'coats'): ('manteau', 'manteaux', 0),
         ('dress', 'dresses'): ('robe', 'robes', 1), ('hat', 'hats'): ('chapeau', 'chapeaux', 0),
         ('potato', 'potatoes'): ('pomme de terre', 'pommes de terre', 1),
         ('railway', 'railways'): ('chemin de fer', 'chemins de fer', 0),
         ('wheelbarrow', 'wheelbarrows'): ('brouette', 'brouettes', 1),
         ('sandcastle', 'sandcastles'): ('château de sable', 'châteaux de sable', 0),
         ('windmill', 'windmills'): ('moulin à vent', 'moulins à vent', 0),
         ('typewriter', 'typewriters'): ('machine à écrire', 'machines à écrire', 1)}
VERBS = {('sees', 'see'): ('voit', 'voient'), ('wants', 'want'): ('veut', 'veulent'),
         ('follows', 'follow'): ('suit', 'suivent'), ('sells', 'sell'): ('vend', 'vendent'),
         ('paints', 'paint'): ('peint', 'peignent'), ('hides', 'hide'): ('cache', 'cachent'),
         ('finds', 'find'): ('trouve', 'trouvent'), ('washes', 'wash'): ('lave', 'lavent')}
PLACES = {'behind': 'derrière', 'under': 'sous', 'on': 'sur', 'with': 'avec'}
COLOURED, SIZED, PLACED = 0.7, 0.4, 0.3  # how often a thing has a colour, and a size; and an action a place


class Word(NamedTuple):
    """What a sentence says at one place, in both languages; in French it may take several words."""

    english: str
    french: str


def splits(train_size: int, valid_size: int, test_size: int, seed: int = 0) -> Splits:
    """Train, valid and test pairs (English, French); no English sentence is there twice. Deterministic in `seed`."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < train_size + valid_size + test_size:
        english, french = sentence(rng)
        found[english] = french
    pairs = list(found.items())
    cut = {'train': pairs[:train_size], 'valid': pairs[train_size:train_size + valid_size],
           'test': pairs[train_size + valid_size:]}
    return {name: ([english for english, _ in part], [french for _, french in part]) for name, part in cut.items()}


def sentence(rng: np.random.Generator) -> tuple[str, str]:
    """A thing that does something to another, perhaps somewhere: in English and in French."""
    many = int(rng.integers(2))
    verb = _one(rng, VERBS)
    parts = [*_thing(rng, many), [Word(verb[many], VERBS[verb][many])], *_thing(rng, int(rng.integers(2)))]
    if rng.random() < PLACED:
        place = _one(rng, PLACES)
        parts += [[Word(place, PLACES[place])], *_thing(rng, int(rng.integers(2)))]
    # A part holds what stands side by side in English; French turns the colour and its noun around.
    return (' '.join(word.english for part in parts for word in part),
            ' '.join(word.french for part in parts for word in reversed(part)))


def _thing(rng: np.random.Generator, many: int) -> list[list[Word]]:
    article, noun = _one(rng, ARTICLES), _one(rng, NOUNS)
    feminine = NOUNS[noun][2]
    found = [[Word(article[many], ARTICLES[article][many][feminine])]]
    if rng.random() < SIZED:
        size = _one(rng, SIZES)
        found.append([Word(size, _number(SIZES[size][feminine], many))])
    thing = [Word(noun[many], NOUNS[noun][many])]
    if rng.random() < COLOURED:
        colour = _one(rng, COLOURS)
        thing.insert(0, Word(colour, _number(COLOURS[colour][feminine], many)))
    return [*found, thing]


def _one(rng: np.random.Generator, known: dict) -> object:
    return list(known)[rng.integers(len(known))]


def _number(adjective: str, many: int) -> str:
    """The adjective, of one or of many."""
    if not many or adjective.endswith('s'):
        return adjective
    return adjective + ('x' if adjective.endswith('eau') else 's')


def align(source_text: str, target_text: str) -> Alignment:
    """The links between the words of a sentence in English and in French: all of them sure.

    Raises UserError for words of no such sentence, and for texts of two sentences.
    """
    ours, theirs = read(source_text, 'en'), read(target_text, 'fr')
    if set(ours) != set(theirs):
        raise UserError(f'{source_text!r} and {target_text!r} are no translations of one another')
    links: frozenset[Link] = frozenset((i, j) for i, one in enumerate(ours) for j, other in enumerate(theirs)
                                       if one == other)
    return Alignment(links, links)


def read(text: str, language: str) -> list[tuple[str, int]]:
    """What each word is a part of, and the how-manieth of its kind that is: parts keep their order in both languages
    but for a colour and its noun, of which no thing has two."""
    lexicon, words = _lexicon(language), text.split()
    found: list[tuple[str, int]] = []
    counts: dict[str, int] = {}
    while words:
        length = next((n for n in (3, 1) if tuple(words[:n]) in lexicon and len(words) >= n), 0)
        if not length:
            raise UserError(f'{words[0]!r} in {text!r} is no word of a sentence of colours')
        meaning = lexicon[tuple(words[:length])]
        counts[meaning] = counts.get(meaning, 0) + 1
        found += [(meaning, counts[meaning])] * length
        words = words[length:]
    return found


@functools.cache
def _lexicon(language: str) -> dict[tuple[str, ...], str]:
    """{words: what they mean, by an English name}."""
    found: dict[tuple[str, ...], str] = {}

    def put(meaning: str, english: Set[str], french: Set[str]) -> None:
        for form in english if language == 'en' else french:
            found[tuple(form.split())] = meaning

    for english, forms in ARTICLES.items():
        put(english[0], {*english}, {form for number in forms for form in number})
    for english, forms in (SIZES | COLOURS).items():
        put(english, {english}, {_number(form, many) for form in forms for many in (0, 1)})
    for english, (one, many, _) in NOUNS.items():
        put(english[0], {*english}, {one, many})
    for english, forms in VERBS.items():
        put(english[0], {*english}, {*forms})
    for english, form in PLACES.items():
        put(english, {english}, {form})
    return found
