"""What `benchmarks/translation.py` measures: the items, their shapes and batches. Read by every worker: numpy alone.

All sides of an item get the same sizes and the same batches. Ids: pad 0, bos 1, eos 2, unk 3.
"""

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

PAD, BOS, EOS = 0, 1, 2
WORDS = 4  # the first id that is a word


class Side(NamedTuple):
    """One that takes part in an item: a name, the worker that does it, and what it is told besides the shape."""

    name: str
    worker: str
    kind: str
    options: dict[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Item:
    """One thing to measure, side by side: the first side is ours."""

    name: str
    unit: str  # of the work whose rate is measured
    shape: dict[str, Any]
    sides: tuple[Side, ...]
    quick: bool = False  # also in the form of two minutes
    note: str = ''


def lengths(rows: int, length: int) -> np.ndarray:
    """The lengths of an array's rows, evenly from six tenths of its width to all of it."""
    return np.linspace(length, 0.6 * length, rows).round().astype(int)


def batches(rows: int, source_length: int, target_length: int, words: int, count: int = 2,
            seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of arrays (rows, length) int32: even draws from the words, then EOS, then padding.

    Lengths are in another order in each array: all batches have equally many tokens.
    """
    rng = np.random.default_rng(seed)

    def side(length: int) -> np.ndarray:
        ids = rng.integers(WORDS, words, (rows, length), dtype=np.int32)
        end, place = rng.permutation(lengths(rows, length))[:, None] - 1, np.arange(length)
        return np.where(place == end, EOS, np.where(place < end, ids, PAD)).astype(np.int32)

    return [(side(source_length), side(target_length)) for _ in range(count)]


def tokens_of(pairs: list[tuple[np.ndarray, np.ndarray]]) -> int:
    """Target tokens without padding in a batch, of which all have equally many."""
    return int((pairs[0][1] != PAD).sum())


def transformer(width: int, **more: Any) -> dict[str, Any]:
    """Sizes of an encoder-decoder of three layers each, feed-forward four times as wide."""
    sizes = dict(width=width, layers=3, heads=max(width // 64, 4), feedforward=4 * width, words=8000, rows=64,
                 source_length=24, target_length=24)
    return sizes | more


def model_flops(width: int, layers: int, feedforward: int, words: int, rows: int, source_length: int,
                target_length: int, **_: Any) -> int:
    """FLOPs of the matrix products that one training step of a Transformer must do.

    Forward, 2 for each multiplication and addition, with D width, F feed-forward, N layers, V words, x source and y
    target tokens without padding, and B rows that are padded to S and T of them:

        source tokens   2 x N (4 D^2 + 2 D F + 2 D^2)    self-attention, feed-forward, the decoder's keys and values
        target tokens   2 y (N (4 D^2 + 2 D^2 + 2 D F) + D V)    the same, queries and outputs on the source, logits
        scores, sums    4 B D N (S^2 + T^2 + S T)

    and twice that backward. Attention counts the whole square. Nothing that is computed again counts, nor element-wise
    work, nor embeddings, which are looked up.
    """
    B, S, T, D, F, N, V = rows, source_length, target_length, width, feedforward, layers, words
    source = 2 * int(lengths(B, S).sum()) * N * (4 * D * D + 2 * D * F + 2 * D * D)
    target = 2 * int(lengths(B, T).sum()) * (N * (4 * D * D + 2 * D * D + 2 * D * F) + D * V)
    scores = 4 * B * D * N * (S * S + T * T + S * T)
    return 3 * (source + target + scores)


def factors(width: int, feedforward: int, words: int, rows: int, target_length: int,
            **_: Any) -> list[tuple[int, int, int]]:
    """(m, k, n) of each product (m, k) times (k, n) that a layer of self-attention and the logits make of a batch's
    target tokens without padding: the projections, the feed-forward layer's two, the output."""
    m = int(lengths(rows, target_length).sum())
    return [(m, width, 3 * width), (m, width, width), (m, width, feedforward), (m, feedforward, width),
            (m, width, words)]


def products() -> list[Item]:
    """Those products alone, and the two that each has in the backward pass."""
    return [Item(f'products.{width}', 'FLOPs', transformer(width),
                 (Side('ours', 'ours', 'products'), Side('torch', 'torch', 'products')))
            for width in (128, 256, 512)]


def training() -> list[Item]:
    """Training steps."""
    found = []
    for width in (128, 256, 512):
        for dropout in (0.1, 0.0):
            sides = [Side('ours', 'ours', 'train', {'model': 'transformer'}), Side('torch', 'torch', 'transformer'),
                     Side('torch.compile', 'torch', 'transformer', {'compiled': True}),  # a minute of compiling
                     Side('matmul', 'ours', 'matmul')]
            if not dropout:
                del sides[2]
            found.append(Item(f'training.transformer.{width}' + ('' if dropout else '.nodrop'), 'target tokens',
                              transformer(width, dropout=dropout), tuple(sides), quick=width == 256 and dropout > 0))
    for width in (128, 256, 512):
        shape = dict(width=width, words=8000, rows=64, source_length=24, target_length=24, dropout=0.1)
        found.append(Item(f'training.lstm.{width}', 'target tokens', shape, (
            Side('ours', 'ours', 'train', {'model': 'bahdanau'}), Side('torch', 'torch', 'lstm')), quick=width == 256))
    reverse = dict(width=64, embedding=16, words=54, rows=10, source_length=26, target_length=26, dropout=0.1)
    found.append(Item('training.joeynmt.reverse', 'target tokens', reverse, (
        Side('ours', 'ours', 'train', {'model': 'luong'}), Side('joeynmt', 'joeynmt', 'recurrent'),
        Side('joeynmt, 1 thread', 'joeynmt', 'recurrent', {'threads': 1})), quick=True,
        note="joeynmt's rnn_reverse recipe: LSTM, general scores, input feeding, batches of 10. Ours has 32,896 "
             "parameters more to start the decoder from the encoder's states, joeynmt a second bias for each gate."))
    multi30k = transformer(256, rows=128, source_length=16, target_length=16, dropout=0.15)
    found.append(Item('training.joeynmt.multi30k', 'target tokens', multi30k, (
        Side('ours', 'ours', 'train', {'model': 'transformer'}), Side('joeynmt', 'joeynmt', 'transformer')),
        note="the Transformer and the commonest batch of --experiment=multi30k, on random words; joeynmt's attention "
             'has biases'))
    return found


def decoding() -> list[Item]:
    """Translating sources, every output as long as `target_length`: no side may end a sentence before."""
    found = []
    for beam in (1, 5):
        for rows in (1, 64):
            shape = transformer(256, rows=rows, source_length=16, target_length=24, beam=beam)
            sides = (Side('ours', 'ours', 'decode'), Side('CTranslate2', 'marian', 'ctranslate2'),
                     Side('Hugging Face', 'marian', 'generate'), Side('joeynmt', 'joeynmt', 'decode'))
            found.append(Item(f'decoding.{"greedy" if beam == 1 else "beam"}.{rows}', 'sentences', shape, sides,
                              quick=rows == 64 and beam == 5,
                              note="the others' attention has biases; joeynmt keeps no keys and values"))
    return found


def translating(run: str) -> list[Item]:
    """Translating a validation split with the parameters of a trained run, on every side; sentences end as they do.

    The exponent of the length penalty is that of ((5 + length) / 6) for us and joeynmt, of the length for the others.
    """
    sides = (Side('ours', 'ours', 'translate'), Side('CTranslate2', 'pegasus', 'ctranslate2'),
             Side('Hugging Face', 'pegasus', 'generate'),
             Side('Hugging Face, by length', 'pegasus', 'generate', {'by_length': True}),
             Side('joeynmt', 'joeynmt', 'translate'))
    return [Item(f'translating.{name}', 'sentences', dict(run=run, rows=64, beam=beam, penalty=1.0), sides)
            for name, beam in (('greedy', 1), ('beam', 5))]


def in_bfloat16(item: Item) -> Item:
    """The item with products in bfloat16, of the sides that can, and ours in float32 besides."""
    sides = [side for side in item.sides if side.name != 'joeynmt']
    ours = sides[0]._replace(name='ours float32', options=sides[0].options | {'dtype': 'float32'})
    return dataclasses.replace(item, name=f'bfloat16.{item.name}', shape=item.shape | {'dtype': 'bfloat16'},
                               sides=(sides[0], ours, *sides[1:]), quick=False)


def items(run: str = '') -> list[Item]:
    """All that is measured with workers that take turns, in order; with a trained run, also what it translates."""
    found = training() + products() + decoding()
    return found + (translating(run) if run else []) + [in_bfloat16(item) for item in found
                    if item.name.startswith(('training.transformer', 'training.lstm', 'decoding'))]


def selected(known: Mapping[str, Any], only: str, quick: bool) -> list[str]:
    """Names of `known` that one of the comma-separated names, beginnings or patterns of `only` names; '' names all.

    With `quick` those alone that say of themselves that they are.
    """
    patterns = [part for part in only.split(',') if part]
    return [name for name, item in known.items() if (item.quick or not quick) and (not patterns or any(
        name == part or name.startswith(f'{part}.') or fnmatch.fnmatchcase(name, part) for part in patterns))]
