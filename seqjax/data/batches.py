"""Batch n as a pure function of (seed, n): an epoch's plan in numpy, read and prefetched by grain."""

import concurrent.futures
import functools
import importlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seqjax.data.room import Room, balanced, room_for
from seqjax.data.vocabulary import PAD, Ragged


class Batch(NamedTuple):
    """Pairs of fixed shape. Each row of source and target ends in EOS, then PAD; there is no BOS."""

    source: np.ndarray  # (B, S) int32
    target: np.ndarray  # (B, T) int32
    weight: np.ndarray  # (B,) float32, 0 for a filler row, whose ids are all PAD
    row: np.ndarray  # (B,) int32, index of the pair in its split, -1 for a filler row
    room: Room | None = None  # what tokens without padding need; None where padding is to stay


class Shape(NamedTuple):
    """Widths of a batch, in tokens with EOS."""

    source: int
    target: int


def choose_shapes(source_lengths: np.ndarray, target_lengths: np.ndarray, count: int,
                  multiple: int = 4, longest: int | None = None) -> tuple[Shape, ...]:
    """At most `count` shapes that hold every pair with the least padding.

    Pairs are grouped by ranges of max(source, target) length. A group's shape is the longest of either side, rounded up
    to a `multiple`. The boundaries are those with the fewest padded tokens (both sides), found by dynamic programming
    over the distinct lengths: O(count L^2). Few shapes matter since each one is compiled.

    Rounding stops at `longest`, which no pair exceeds: a model may have no positions beyond it.
    """
    source_lengths, target_lengths = np.asarray(source_lengths), np.asarray(target_lengths)
    if count < 1:
        raise ValueError(f'count is {count}: at least one shape is needed')
    longer = np.maximum(source_lengths, target_lengths)
    lengths, group, rows = np.unique(longer, return_inverse=True, return_counts=True)
    sides = np.zeros((2, len(lengths)), np.int64)
    np.maximum.at(sides[0], group, source_lengths)
    np.maximum.at(sides[1], group, target_lengths)
    sides = -(-sides // multiple) * multiple
    if longest is not None:
        sides = np.minimum(sides, longest)
    before = np.concatenate([[0], np.cumsum(rows)])

    # cost[k, j]: least tokens for the first j lengths in exactly k groups; cut[k, j]: where the last of them begins.
    groups = min(count, len(lengths))
    cost = np.full((groups + 1, len(lengths) + 1), np.inf)
    cut = np.zeros(cost.shape, np.int64)
    cost[0, 0] = 0
    for j in range(1, len(lengths) + 1):
        widths = np.maximum.accumulate(sides[:, :j][:, ::-1], axis=1)[:, ::-1].sum(0)  # of a group from i up to j
        total = cost[:-1, :j] + widths * (before[j] - before[:j])
        cut[1:, j] = total.argmin(1)
        cost[1:, j] = total.min(1)
    shapes, end = set(), len(lengths)
    for k in range(int(cost[:, end].argmin()), 0, -1):
        start = cut[k, end]
        shapes.add(Shape(*map(int, sides[:, start:end].max(1))))
        end = start
    return tuple(sorted(shapes))


def longest_lengths(encodings: Sequence[tuple[Ragged, Ragged]]) -> list[np.ndarray]:
    """The length of each row in the encoding in which it is longest, of the sources and of the targets."""
    return [functools.reduce(np.maximum, (side.lengths for side in sides)) for sides in zip(*encodings)]


def pad_rows(ragged: Ragged, rows: np.ndarray, width: int) -> np.ndarray:
    """The ids of `rows` as (B, width) int32, PAD after each; a row of -1 is all PAD. ValueError where one is longer."""
    starts, lengths = ragged.offsets[rows], ragged.offsets[rows + 1] - ragged.offsets[rows]  # lengths <= 0 for row -1
    if lengths.max(initial=0) > width:
        raise ValueError(f'row {rows[lengths.argmax()]} has {lengths.max()} tokens and the shape {width}')
    place = np.arange(width)
    filled = place < lengths[:, None]
    padded = np.full(filled.shape, PAD, np.int32)
    padded[filled] = ragged.flat[(starts[:, None] + place)[filled]]
    return padded


class Batches:
    """The batches of a split, of which each is addressed by its number.

    Training (a seed): epoch e, batches e * batches_per_epoch onwards, permutes the pairs by a generator seeded with
    (seed, e), deals them into the shapes, cuts each shape's pairs into batches, fills its last one with rows of
    weight 0, and permutes the batches. Evaluation (seed None): one pass, shape by shape, in the order of the split.
    Either way a pass holds every pair exactly once.

    Where there are `others`, further encodings of the same pairs (BPE-dropout), epoch e reads number e of all, counted
    from 0 and round again. A pair is of one shape, which holds each of its encodings.

    With `parts`, (replicas that take a block of rows each, micro-batches that each deals its block out to), every batch
    says what room such a part needs, one for each shape: a few pairs change batches, so that none needs more.
    """

    def __init__(self, source: Ragged, target: Ragged, batch_size: int, shapes: Sequence[Shape], seed: int | None,
                 parts: tuple[int, int] | None = None, others: Sequence[tuple[Ragged, Ragged]] = ()):
        """Raises ValueError where a pair fits none of the `shapes`: leave such pairs out, or choose longer shapes."""
        if source.count() != target.count():
            raise ValueError(f'{source.count()} source rows against {target.count()} target rows')
        self.encodings, self.batch_size, self.seed = [(source, target), *others], batch_size, seed
        self.shapes = tuple(sorted(shapes, key=lambda shape: (sum(shape), shape)))
        # Each pair takes the cheapest shape that holds it.
        self._bucket = np.full(source.count(), -1)
        longest = longest_lengths(self.encodings)
        for k, shape in reversed(list(enumerate(self.shapes))):
            self._bucket[(longest[0] <= shape.source) & (longest[1] <= shape.target)] = k
        if (self._bucket < 0).any():
            row = int(self._bucket.argmin())
            raise ValueError(f'pair {row} has {longest[0][row]} source and {longest[1][row]} target tokens: '
                             f'longer than every shape of {[tuple(shape) for shape in self.shapes]}')
        pairs = np.bincount(self._bucket, minlength=len(self.shapes))
        self.batches_per_epoch = int((-(-pairs // batch_size)).sum())
        self._lengths, self._parts = [(source.lengths, target.lengths) for source, target in self.encodings], parts
        self._rooms = [self._room(k) if parts and pairs[k] else None for k in range(len(self.shapes))]
        # Prefetching threads work on both sides of an epoch's end.
        self._lock = threading.Lock()
        self._cached_plan = functools.lru_cache(maxsize=2)(self._make_plan)

    def _room(self, k: int) -> Room | None:
        """Of a part of each batch of shape k; None where it would save little."""
        rows, mine, shape = self.batch_size // math.prod(self._parts), self._bucket == k, self.shapes[k]
        room = Room(*(max(room_for(lengths[side][mine], rows, width) for lengths in self._lengths)
                      for side, width in enumerate(shape)))
        return room if room.source + room.target <= 0.95 * rows * sum(shape) else None

    def _balance(self, rows: np.ndarray, lengths: tuple[np.ndarray, np.ndarray], room: Room | None
                 ) -> tuple[np.ndarray, np.ndarray]:
        """Rows (N, B) of a shape's batches, dealt so that their parts have room, and which batches have it."""
        if room is None:
            return rows, np.zeros(len(rows), bool)
        replicas, micros = self._parts
        dealt = rows.reshape(-1, replicas, self.batch_size // (replicas * micros), micros).swapaxes(2, 3)
        groups, fit = balanced(dealt.reshape(-1, dealt.shape[-1]), lengths, room)
        return (groups.reshape(dealt.shape).swapaxes(2, 3).reshape(rows.shape),
                fit.reshape(len(rows), -1).all(axis=1))

    def _make_plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shape index (N,), rows (N, B), -1 for filler, and whether they fit the shape's room (N,), of N batches."""
        rng = None if self.seed is None else np.random.default_rng((self.seed, epoch))
        order = np.arange(len(self._bucket)) if rng is None else rng.permutation(len(self._bucket))
        rows, which, fit = [], [], []
        lengths = self._lengths[epoch % len(self._lengths)]
        for k in range(len(self.shapes)):
            mine = order[self._bucket[order] == k]
            mine = np.append(mine, np.full(-len(mine) % self.batch_size, -1)).reshape(-1, self.batch_size)
            mine, fits = self._balance(mine, lengths, self._rooms[k])
            rows.append(mine)
            which.append(np.full(len(mine), k))
            fit.append(fits)
        rows, which, fit = np.concatenate(rows), np.concatenate(which), np.concatenate(fit)
        batches = np.arange(len(which)) if rng is None else rng.permutation(len(which))
        return which[batches], rows[batches].astype(np.int32), fit[batches]

    def _planned(self, n: int) -> tuple[Shape, np.ndarray, Room | None, tuple[Ragged, Ragged]]:
        """The shape, the rows and the room of batch n, and the encoding of the pairs."""
        if n < 0 or not self.batches_per_epoch or (self.seed is None and n >= self.batches_per_epoch):
            raise IndexError(f'no batch {n}: a pass has {self.batches_per_epoch}')
        epoch, place = divmod(n, self.batches_per_epoch)
        with self._lock:
            which, rows, fit = self._cached_plan(epoch)
        return (self.shapes[which[place]], rows[place], self._rooms[which[place]] if fit[place] else None,
                self.encodings[epoch % len(self.encodings)])

    def shape(self, n: int) -> Shape:
        """The shape of batch n."""
        return self._planned(n)[0]

    def batch(self, n: int, rows: slice = slice(None)) -> Batch:
        """Batch n, or the `rows` of it that one process holds."""
        shape, row, room, (source, target) = self._planned(n)
        row = row[rows]
        return Batch(pad_rows(source, row, shape.source), pad_rows(target, row, shape.target),
                     (row >= 0).astype(np.float32), row, room)

    def iterate(self, start: int, stop: int, rows: slice = slice(None), prefetch: int = 4) -> Iterator[Batch]:
        """Batches start to stop - 1, `prefetch` of them made ahead by grain's threads once two were taken.

        The threads end with the iterator: when it is exhausted, closed, or dropped.
        """
        if start >= stop:
            return
        yield self.batch(start, rows)
        if start + 1 == stop:
            return
        with concurrent.futures.ThreadPoolExecutor(1) as aside:
            # It takes a third of a second, in which the first batch is worked on.
            library = aside.submit(importlib.import_module, 'grain')
            yield self.batch(start + 1, rows)
            grain = library.result()
        options = grain.ReadOptions(num_threads=min(prefetch, 2), prefetch_buffer_size=prefetch)
        numbers = grain.MapDataset.range(start + 2, stop)
        batches = iter(numbers.map(functools.partial(self.batch, rows=rows)).to_iter_dataset(options))
        try:
            yield from batches
        finally:
            batches.close()
