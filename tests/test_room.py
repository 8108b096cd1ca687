"""Rows dealt so that no part of a batch has more tokens than its program has places for."""

import numpy as np
import pytest

from seqjax.data.batches import Batches, Shape, choose_shapes
from seqjax.data.room import Room, balanced, room_for, tokens_of
from seqjax.data.vocabulary import Ragged
from seqjax.training.step import interleave


def corpus(count, seed=0, longest=20):
    """Sides whose lengths hang together, as those of translations do."""
    rng = np.random.default_rng(seed)
    source = rng.integers(1, longest, count, endpoint=True)
    target = np.clip(source + rng.integers(-2, 3, count), 1, longest)
    return Ragged.of([np.full(n, 4) for n in source]), Ragged.of([np.full(n, 4) for n in target])


def test_room_is_a_deviation_above_the_mean_and_within_the_shape():
    lengths = np.array([4, 8])  # mean 6, deviation 2
    assert room_for(lengths, 64, 8) == 400  # 384 + 16
    assert room_for(lengths, 16, 8) == 112  # 96 + 8 = 104, rounded up to 16
    assert room_for(lengths, 1, 8) == 8


def test_tokens_of_groups():
    lengths = (np.array([1, 2, 3]), np.array([10, 20, 30]))
    np.testing.assert_array_equal(tokens_of(np.array([[0, 2], [1, -1]]), lengths), [[4, 2], [40, 20]])


def test_the_exchange_that_helps_most_is_made_and_no_other():
    lengths = (np.array([9, 8, 1, 2, 5, 5]), np.array([1, 1, 1, 1, 1, 1]))
    rows = np.array([[0, 1], [2, 3], [4, 5]])  # 17, 3 and 10 tokens
    dealt, fit = balanced(rows, lengths, Room(11, 2))
    assert dealt.tolist() == [[2, 1], [0, 3], [4, 5]]
    assert fit.all()
    assert balanced(rows, lengths, Room(17, 2))[0].tolist() == rows.tolist(), 'all have room'
    assert rows.tolist() == [[0, 1], [2, 3], [4, 5]], 'what was given is left alone'


def test_fillers_stay_and_what_cannot_be_helped_is_left():
    lengths = (np.array([6, 6, 6]), np.array([1, 1, 1]))
    dealt, fit = balanced(np.array([[0, 1], [2, -1]]), lengths, Room(11, 2))
    assert dealt.tolist() == [[0, 1], [2, -1]]
    assert fit.tolist() == [False, True]


@pytest.mark.parametrize('parts', [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_every_part_as_a_step_cuts_it_has_room(parts):
    source, target = corpus(1000)
    batches = Batches(source, target, 32, choose_shapes(source.lengths, target.lengths, 2), 0, parts)
    plain = Batches(source, target, 32, batches.shapes, 0)
    rooms = {}
    for n in range(2 * batches.batches_per_epoch):
        batch = batches.batch(n)
        assert batches.shape(n) == plain.shape(n)
        rooms.setdefault(batches.shape(n), set()).add(batch.room)
        for block in zip(*(np.split(side, parts[0]) for side in batch[:2])):
            for ids, most in zip(interleave(block, parts[1]), (batch.room.source, batch.room.target)):
                assert (np.asarray(ids) != 0).sum(axis=(1, 2)).max() <= most
    assert {len(found) for found in rooms.values()} == {1}, 'one program for each shape'
    assert {None} not in rooms.values()
    epoch = np.concatenate([batches.batch(n).row for n in range(batches.batches_per_epoch)])
    assert sorted(epoch[epoch >= 0].tolist()) == list(range(1000))


def test_no_room_is_named_where_it_would_save_little():
    source, target = (Ragged.of([np.full(4, 4)] * 64) for _ in range(2))
    assert Batches(source, target, 16, [Shape(4, 4)], 0, (1, 1)).batch(0).room is None
    assert Batches(source, target, 16, [Shape(8, 8)], 0, (1, 1)).batch(0).room == Room(64, 64)


def test_a_batch_that_cannot_be_helped_keeps_its_padding():
    """One pair is so long that no exchange makes room for it."""
    lengths = [2] * 47 + [40]
    source, target = (Ragged.of([np.full(n, 4) for n in lengths]) for _ in range(2))
    batches = Batches(source, target, 4, [Shape(40, 40)], 0, (1, 1))
    rooms = [batches.batch(n).room for n in range(12)]
    longest = [47 in batches.batch(n).row for n in range(12)]
    assert all((room is None) == has for room, has in zip(rooms, longest))
