"""Text to ids and back, by words, characters or byte pairs; nothing is lost where no piece is unknown."""

import functools
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Self, get_args

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from seqjax.data.subwords import Cutter
from seqjax.errors import UserError, did_you_mean

PAD, BOS, EOS, UNK = 0, 1, 2, 3
# Entries of the model's table, not tokens searched for in the text: '</s>' typed by somebody is four characters. No
# pre-token equals one of them, for a pre-token never joins letters to punctuation.
SPECIALS = ('<pad>', '<s>', '</s>', '<unk>')
Kind = Literal['word', 'char', 'bpe']


class Ragged(NamedTuple):
    """Rows of ids of any length: row i is `flat[offsets[i]:offsets[i + 1]]`."""

    flat: np.ndarray  # int32
    offsets: np.ndarray  # int64, one more than rows

    @property
    def lengths(self) -> np.ndarray:
        """Ids in each row, int64."""
        return np.diff(self.offsets)

    def count(self) -> int:
        """The number of rows (`len` would be that of the tuple)."""
        return len(self.offsets) - 1

    def row(self, i: int) -> np.ndarray:
        """The ids of row i, 0 <= i < count()."""
        return self.flat[self.offsets[i]:self.offsets[i + 1]]

    def take(self, rows: np.ndarray) -> 'Ragged':
        """The rows with these indices, or where a mask is true, in that order."""
        rows = np.arange(self.count())[rows]
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Ragged(self.flat[source], offsets)

    def where(self, mask: np.ndarray, other: 'Ragged') -> 'Ragged':
        """These rows where the mask (one entry a row) is true, and those of `other` elsewhere."""
        both = Ragged(np.concatenate([self.flat, other.flat]),
                      np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]]))
        rows = np.arange(self.count())
        return both.take(np.where(mask, rows, self.count() + rows))

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> 'Ragged':
        """Packs sequences of ids."""
        rows = [np.asarray(row, np.int32) for row in rows]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return cls(np.concatenate([np.zeros(0, np.int32), *rows]), offsets)


class Vocabulary:
    """A fixed list of pieces; the id of a piece is its place in the list, after PAD, BOS, EOS and UNK.

    Text is normalised to NFC and, if asked, lower-cased. What a piece is:
      word: a word, number or run of punctuation together with the one space before it (the pre-tokens of GPT-2, Radford
        et al. 2019), so that spacing survives; unknown words become UNK.
      char: a Unicode character; unknown characters become UNK.
      bpe: byte pairs merged within such words (Sennrich et al. 2016, algorithm 1, over the 256 bytes): never UNK.
    """

    def __init__(self, kind: Kind, tokens: Sequence[str], merges: Sequence[Sequence[str]] = (),
                 lowercase: bool = False):
        """Rebuilds a vocabulary; use `learn` or `from_json`. Tokens of word and bpe spell bytes as ByteLevel does."""
        self._kind, self._tokens, self._lowercase = kind, list(tokens), lowercase
        self._merges = [tuple(pair) for pair in merges]
        ids = {token: i for i, token in enumerate((*SPECIALS, *tokens))}
        if kind == 'bpe':
            model = models.BPE(ids, self._merges)
        else:
            model = models.WordLevel(ids, unk_token=SPECIALS[UNK])
        self._tokenizer = _tokenizer(kind, model, lowercase)
        if kind == 'char':
            self._bytes = [token.encode() for token in tokens]
        else:
            symbols = _byte_of_symbol()
            self._bytes = [bytes(symbols[c] for c in token) for token in tokens]
        # An unknown word comes with the space before it, so that words around it stay apart; an unknown character is
        # one character, so that character error rates count it once.
        self._bytes = [b'', b'', b'', {'word': b' <unk>', 'char': '\ufffd'.encode(), 'bpe': b''}[kind]] + self._bytes

    @classmethod
    def learn(cls, texts: Iterable[str], kind: Kind, size: int | None, min_frequency: int = 1,
              lowercase: bool = False) -> Self:
        """Counts pieces in `texts` and keeps the most frequent; ties go to the piece that sorts first.

        Args:
          size: most entries, the four special ones included; None keeps all pieces (not for bpe, which must stop).
          min_frequency: pieces (for bpe: pairs) seen less often are left out.
        """
        if kind not in get_args(Kind):
            raise UserError(f'vocabulary kind {kind!r} is unknown{did_you_mean(kind, get_args(Kind))}')
        alphabet = pre_tokenizers.ByteLevel.alphabet() if kind == 'bpe' else []
        least = len(SPECIALS) + len(alphabet)
        if kind == 'bpe' and size is None:
            raise UserError('a bpe vocabulary needs a size: where to stop merging, 8000 for instance')
        if size is not None and size < least:
            why = '4 special pieces and 256 bytes' if kind == 'bpe' else '4 special pieces'
            raise UserError(f'a {kind} vocabulary of {size} pieces is too small: {why} make {least}; raise its size')
        limit = 2**31 if size is None else size - len(SPECIALS)
        common = dict(vocab_size=limit, min_frequency=min_frequency, special_tokens=[], show_progress=False)
        if kind == 'bpe':
            learner = _tokenizer(kind, models.BPE(), lowercase)
            learner.train_from_iterator(texts, trainers.BpeTrainer(initial_alphabet=alphabet, **common))
        else:
            learner = _tokenizer(kind, models.WordLevel(unk_token=SPECIALS[UNK]), lowercase)
            learner.train_from_iterator(texts, trainers.WordLevelTrainer(**common))
        ids = learner.get_vocab(with_added_tokens=False)
        merges = json.loads(learner.to_str())['model']['merges'] if kind == 'bpe' else []
        return cls(kind, sorted(ids, key=ids.get), merges, lowercase)

    @property
    def kind(self) -> Kind:
        """'word', 'char' or 'bpe'."""
        return self._kind

    @property
    def size(self) -> int:
        """Number of ids, the four special ones included."""
        return len(self._bytes)

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Ids of each text, EOS appended, no BOS; never truncated."""
        texts, blocks, lengths = list(texts), [np.zeros(0, np.int32)], [0]
        for start in range(0, len(texts), 8192):  # in blocks: as Python integers ids take ten times the memory
            rows = [[*encoding.ids, EOS] for encoding in self._tokenizer.encode_batch_fast(
                texts[start:start + 8192], add_special_tokens=False)]
            lengths += map(len, rows)
            blocks.append(np.fromiter(itertools.chain.from_iterable(rows), np.int32))
        return Ragged(np.concatenate(blocks), np.cumsum(lengths, dtype=np.int64))

    def redraw(self, texts: Sequence[str], dropout: float, draws: int, seed: int | Sequence[int]) -> list[Ragged]:
        """Other encodings of the same texts, by BPE-dropout (data/subwords.py): each decodes to what `encode` gives.

        Args:
          dropout: the probability that a merge is passed over at a step, from 0 to 1. 0 is `encode`, 1 leaves bytes.
          draws: how many encodings. Each word has so many cuts, and each place where it stands takes any of them.

        Raises:
          ValueError: the vocabulary is not of byte pairs.
        """
        if self._kind != 'bpe':
            raise ValueError(f'a {self._kind} vocabulary has no merges to pass over')
        words: dict[str, int] = {}
        blocks, lengths = [np.zeros(0, np.int64)], [0]  # of each text the words, by number, and how many they are
        for start in range(0, len(texts), 8192):
            rows = [[*(words.setdefault(word, len(words)) for word, _ in self._words(text)), -1]  # -1: EOS
                    for text in texts[start:start + 8192]]
            lengths += map(len, rows)
            blocks.append(np.fromiter(itertools.chain.from_iterable(rows), np.int64))
        place_N, ends = np.concatenate(blocks), np.cumsum(lengths, dtype=np.int64)
        rng = np.random.default_rng(seed)
        cutter = Cutter(self._tokenizer.get_vocab(with_added_tokens=False), self._merges)
        cuts = Ragged.of([*(cut for _ in range(draws) for cut in cutter.cut(list(words), dropout, rng)), [EOS]])
        found = []
        for _ in range(draws):
            drawn_N = place_N + len(words) * rng.integers(draws, size=len(place_N))
            pieces = cuts.take(np.where(place_N < 0, cuts.count() - 1, drawn_N))
            found.append(Ragged(pieces.flat, pieces.offsets[ends]))
        return found

    def _words(self, text: str) -> list[tuple[str, tuple[int, int]]]:
        """What no piece reaches beyond, and where it stands."""
        return self._tokenizer.pre_tokenizer.pre_tokenize_str(self._tokenizer.normalizer.normalize_str(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text up to the first EOS. PAD and BOS are dropped; an unknown word is '<unk>'.

        An unknown character, and bytes that are no UTF-8 (a bpe model may write them), become U+FFFD.
        """
        ids = list(map(int, ids))
        ids = ids[:ids.index(EOS)] if EOS in ids else ids
        text = b''.join(self._bytes[i] for i in ids).decode(errors='replace')
        return text if self._kind == 'char' else text.removeprefix(' ')

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """A readable label for each id, specials included, for the axes of attention maps.

        The space before a word is left out of a word's label and written '▁' in a bpe label, as are all other spaces;
        control characters and broken bytes are escaped.
        """
        return [self._label(int(i)) for i in ids]

    def _label(self, i: int) -> str:
        if i < len(SPECIALS):
            return SPECIALS[i]
        text = self._bytes[i].decode(errors='backslashreplace')
        if self._kind == 'word' and len(text) > 1:
            text = text.removeprefix(' ')
        return ''.join('▁' if c == ' ' else c if c.isprintable() else repr(c)[1:-1] for c in text)

    def to_json(self) -> str:
        """All there is to know, as one line; equal vocabularies give equal text."""
        return json.dumps(dict(kind=self._kind, lowercase=self._lowercase, tokens=self._tokens, merges=self._merges),
                          ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`."""
        return cls(**json.loads(text))


def _tokenizer(kind: Kind, model: models.Model, lowercase: bool) -> Tokenizer:
    """`model` behind the normaliser and the splitting into words or characters."""
    tokenizer = Tokenizer(model)
    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]
    if kind == 'char':
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r'[\s\S]'), 'isolated')
    else:
        # ByteLevel's own add_prefix_space adds none before a text that has one: ' a' and 'a' would be the same. A space
        # that is always added can always be taken off.
        steps.append(normalizers.Prepend(' '))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


@functools.cache
def _byte_of_symbol() -> dict[str, int]:
    """The byte behind each of ByteLevel's 256 symbols: printable Latin-1 is itself, the rest moved up in order."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    itself = {c: ord(c) for c in symbols if ord(c) < 256}
    moved = sorted(set(range(256)) - set(itself.values()))
    return itself | dict(zip(symbols[len(itself):], moved))
