import collections
import itertools
import pathlib
import subprocess
import sys
import unicodedata

import numpy as np
import pytest

from seqjax.data.vocabulary import BOS, EOS, PAD, UNK, Ragged, Vocabulary
from seqjax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
TEXTS = [
    'Ein Mann geht.', "l'été d'or, état-major", 'two  spaces   three', ' leading', '  leading two', 'trailing ', ' ',
    '  ', '', '\ttabs\tand\u00a0more', 'e\u0301 decomposed', '👩\u200d🚀 and 🇩🇪!', '</s> <pad> <unk>', 'a</s>b',
    '4 17 32', '漢字かな',
    "don't we'll", 'Ġ ▁ odd', 'line\u2028separator', 'STRASSE Straße ÀÉ',
]
KINDS = [('word', None), ('char', None), ('bpe', 300)]


@pytest.mark.parametrize('lowercase', [False, True])
@pytest.mark.parametrize(('kind', 'size'), KINDS)
def test_decode_gives_the_text_back(kind, size, lowercase):
    vocabulary = Vocabulary.learn(TEXTS, kind, size, lowercase=lowercase)
    ids = vocabulary.encode(TEXTS)
    assert ids.count() == len(TEXTS)
    for i, text in enumerate(TEXTS):
        row = ids.row(i)
        assert row[-1] == EOS
        assert (row[:-1] > UNK).all()
        assert row.max() < vocabulary.size
        expected = unicodedata.normalize('NFC', text)
        assert vocabulary.decode(row) == (expected.lower() if lowercase else expected)


def test_bpe_writes_what_it_never_saw():
    vocabulary = Vocabulary.learn(['abc abc'], 'bpe', 262)
    rng = np.random.default_rng(0)
    points = [chr(c) for c in rng.integers(1, 0x10ffff, 3000) if not 0xd800 <= c <= 0xdfff]
    texts = [unicodedata.normalize('NFC', ''.join(points[i:i + 10])) for i in range(0, len(points), 10)]
    ids = vocabulary.encode(texts)
    assert UNK not in ids.flat
    assert [vocabulary.decode(ids.row(i)) for i in range(ids.count())] == texts


def test_words_carry_the_space_before_them():
    vocabulary = Vocabulary.learn(['4 17 32 17'], 'word', None)
    # 17 is the most frequent; the rest by spelling.
    np.testing.assert_array_equal(vocabulary.encode(['17 4 32', '32']).flat, [4, 6, 5, EOS, 5, EOS])
    assert vocabulary.pieces([4, 6, 5, EOS, UNK, PAD, BOS]) == ['17', '4', '32', '</s>', '<unk>', '<pad>', '<s>']


@pytest.mark.parametrize('kind', ['word', 'char'])
def test_the_most_frequent_pieces_are_kept(kind):
    rng = np.random.default_rng(1)
    texts = [' '.join(rng.choice(list('abcdefghij'), 5)) for _ in range(30)]
    pieces = (' ' + ' '.join(texts)).split(' ')[1:] if kind == 'word' else ''.join(texts)
    ranked = [piece for piece, _ in sorted(collections.Counter(pieces).items(), key=lambda pair: (-pair[1], pair[0]))]
    vocabulary = Vocabulary.learn(texts, kind, size=4 + 6)
    assert vocabulary.size == 10
    assert vocabulary.pieces(range(4, 10)) == [piece.replace(' ', '▁') for piece in ranked[:6]]
    least = collections.Counter(pieces)[ranked[5]]
    kept = [piece for piece in ranked if collections.Counter(pieces)[piece] >= least]
    assert Vocabulary.learn(texts, kind, None, min_frequency=least).size == 4 + len(kept)


def bpe_by_hand(words, merges):
    """Sennrich et al. 2016, algorithm 1; ties go to the pair that was made of the earliest symbols."""
    words = {tuple(word): count for word, count in collections.Counter(words).items()}
    rank = {c: i for i, c in enumerate(sorted({c for word in words for c in word}))}
    made = []
    for _ in range(merges):
        pairs = collections.Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], rank[pair[0]], rank[pair[1]]))
        made.append(best)
        rank[''.join(best)] = len(rank)
        merged = {}
        for word, count in words.items():
            out = []
            for symbol in word:
                if out and (out[-1], symbol) == best:
                    out[-1] += symbol
                else:
                    out.append(symbol)
            merged[tuple(out)] = count
        words = merged
    return made, words


def test_bpe_merges_the_most_frequent_pairs():
    rng = np.random.default_rng(2)
    texts = [' '.join(''.join(rng.choice(list('abcd'), rng.integers(1, 7))) for _ in range(6)) for _ in range(20)]
    words = ['Ġ' + word for text in texts for word in text.split()]
    merges, segmented = bpe_by_hand(words, 25)
    vocabulary = Vocabulary.learn(texts, 'bpe', 4 + 256 + 25)
    assert vocabulary.pieces(range(260, 285)) == [''.join(pair).replace('Ġ', '▁') for pair in merges]
    for word in segmented:
        ids = vocabulary.encode([''.join(word)[1:]]).row(0)[:-1]
        assert vocabulary.pieces(ids) == [symbol.replace('Ġ', '▁') for symbol in word]


LEARN = '''
import sys
from seqjax.data.vocabulary import Vocabulary
texts = [f'{a}{b} {b}{a}' for a in 'abcdefghijklmnop' for b in 'qrstuvwxyzäöü']
for kind, size in (('word', 100), ('char', 20), ('bpe', 330)):
    sys.stdout.buffer.write(Vocabulary.learn(texts, kind, size).to_json().encode() + b'\\n')
'''


def test_learning_is_deterministic_across_processes():
    command = [sys.executable, '-c', LEARN]
    runs = [subprocess.run(command, capture_output=True, check=True, cwd=ROOT) for _ in range(3)]
    assert len(runs[0].stdout.splitlines()) == 3
    assert runs[0].stdout == runs[1].stdout == runs[2].stdout
    assert runs[0].stderr == b''


@pytest.mark.parametrize('lowercase', [False, True])
@pytest.mark.parametrize(('kind', 'size'), KINDS)
def test_json_keeps_everything(kind, size, lowercase):
    vocabulary = Vocabulary.learn(TEXTS, kind, size, lowercase=lowercase)
    again = Vocabulary.from_json(vocabulary.to_json())
    assert (again.kind, again.size) == (kind, vocabulary.size)
    assert '\n' not in vocabulary.to_json()
    assert again.to_json() == vocabulary.to_json()
    fresh = ['Mann Frau LEADING été', *TEXTS]
    np.testing.assert_array_equal(again.encode(fresh).flat, vocabulary.encode(fresh).flat)
    assert again.pieces(range(again.size)) == vocabulary.pieces(range(again.size))


def test_decode_ends_at_eos_and_shows_the_unknown():
    words = Vocabulary.learn(['a b'], 'word', None)
    a, b = words.encode(['a b']).row(0)[:2]
    assert words.decode([BOS, a, UNK, b, PAD, PAD]) == 'a <unk> b'
    assert words.decode([UNK, a, EOS, b]) == '<unk> a'
    assert words.decode([EOS, a]) == ''
    assert words.decode(np.array([a, PAD, EOS, b], np.int32)) == 'a'
    np.testing.assert_array_equal(words.encode(['a zebra b']).row(0), [a, UNK, b, EOS])
    letters = Vocabulary.learn(['ab'], 'char', None)
    assert letters.decode(letters.encode(['azb']).row(0)) == 'a\ufffdb'


def test_pieces_are_readable():
    words = Vocabulary.learn(['été  d’or\tx'], 'word', None)
    assert words.pieces(words.encode(['été  d’or\tx']).row(0)) == ['été', '▁', 'd', '’', 'or', r'\t', 'x', '</s>']
    bytes_ = Vocabulary.learn([''], 'bpe', 260)
    assert bytes_.pieces(bytes_.encode(['é a']).row(0)) == ['▁', r'\xc3', r'\xa9', '▁', 'a', '</s>']


def test_impossible_vocabularies_are_refused():
    with pytest.raises(UserError, match=r"'words' is unknown; did you mean 'word'"):
        Vocabulary.learn(['a'], 'words', None)
    with pytest.raises(UserError, match='bpe vocabulary needs a size'):
        Vocabulary.learn(['a'], 'bpe', None)
    with pytest.raises(UserError, match='259 pieces is too small: 4 special pieces and 256 bytes make 260'):
        Vocabulary.learn(['a'], 'bpe', 259)


def test_nothing_in_nothing_out():
    vocabulary = Vocabulary.learn(['a'], 'word', None)
    empty = vocabulary.encode([])
    assert empty.count() == 0
    assert empty.flat.dtype == np.int32
    np.testing.assert_array_equal(vocabulary.encode(['', '']).flat, [EOS, EOS])


def test_ragged():
    rows = [[5, 6, 7], [], [8], [9, 10]]
    ragged = Ragged.of(rows)
    assert (ragged.flat.dtype, ragged.offsets.dtype) == (np.int32, np.int64)
    assert ragged.count() == 4
    np.testing.assert_array_equal(ragged.lengths, [3, 0, 1, 2])
    assert [ragged.row(i).tolist() for i in range(4)] == rows
    for chosen in (np.array([3, 0, 0, 1]), np.array([True, False, True, True]), np.array([], int)):
        taken = ragged.take(chosen)
        assert [taken.row(i).tolist() for i in range(taken.count())] == [rows[i] for i in np.arange(4)[chosen]]
        assert (taken.flat.dtype, taken.offsets.dtype) == (np.int32, np.int64)
    assert Ragged.of([]).count() == 0


def test_long_lists_are_encoded_like_short_ones():
    vocabulary = Vocabulary.learn(TEXTS, 'word', None)
    texts = [TEXTS[i % len(TEXTS)] for i in range(20_000)]
    ids, few = vocabulary.encode(texts), vocabulary.encode(TEXTS)
    assert ids.count() == 20_000
    for i in (0, 8191, 8192, 16_384, 19_999):
        np.testing.assert_array_equal(ids.row(i), few.row(i % len(TEXTS)))
