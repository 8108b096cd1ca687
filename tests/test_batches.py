import itertools
import threading

import numpy as np
import pytest

from seqjax.data.batches import Batches, Shape, choose_shapes, pad_rows
from seqjax.data.vocabulary import Ragged


def corpus(count, seed=0, longest=20):
    """Rows whose ids tell the row and the side they belong to."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest, (2, count), endpoint=True)
    return tuple(Ragged.of([np.arange(n) + 1000 * row + offset for row, n in enumerate(side)])
                 for side, offset in zip(lengths, (100, 600)))


def batches_of(count, batch_size=8, seed=0, shapes=4):
    source, target = corpus(count)
    return Batches(source, target, batch_size, choose_shapes(source.lengths, target.lengths, shapes), seed)


def assert_equal(one, other):
    assert one.room == other.room
    for name, a, b in zip(one._fields[:4], one[:4], other[:4], strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert a.dtype == b.dtype


def padded_tokens(source_lengths, target_lengths, limits, multiple):
    """What grouping by max length with these upper limits costs, pair by pair."""
    groups = {}
    for s, t in zip(source_lengths, target_lengths):
        groups.setdefault(next(limit for limit in limits if max(s, t) <= limit), []).append((s, t))
    return sum(len(group) * sum(-(-max(side) // multiple) * multiple for side in zip(*group))
               for group in groups.values())


@pytest.mark.parametrize('multiple', [1, 4])
@pytest.mark.parametrize('count', [1, 2, 3, 5])
def test_shapes_are_the_best_there_are(count, multiple):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        source_lengths = rng.integers(1, 10, 30)
        target_lengths = np.maximum(1, source_lengths + rng.integers(-4, 5, 30))
        longer = np.unique(np.maximum(source_lengths, target_lengths))
        best = min(padded_tokens(source_lengths, target_lengths, (*limits, longer[-1]), multiple)
                   for size in range(count) for limits in itertools.combinations(longer[:-1].tolist(), size))
        shapes = choose_shapes(source_lengths, target_lengths, count, multiple)
        assert len(shapes) <= count
        assert all(width % multiple == 0 for shape in shapes for width in shape)
        fitting = [[sum(shape) for shape in shapes if s <= shape.source and t <= shape.target]
                   for s, t in zip(source_lengths, target_lengths)]
        # The cheapest shape that fits is the group's, or better still where another group's happens to fit.
        assert sum(map(min, fitting)) <= best
        if multiple == 1 and count == 1:
            assert shapes == (Shape(source_lengths.max(), target_lengths.max()),)


def test_shapes_are_rounded_up_but_not_beyond_the_longest_sentence_admitted():
    """A model with learned positions has none there."""
    assert choose_shapes([3, 9], [5, 7], 2) == (Shape(4, 8), Shape(12, 8))
    assert choose_shapes([3, 9], [5, 7], 2, longest=10) == (Shape(4, 8), Shape(10, 8))


def test_shapes_by_hand():
    assert choose_shapes([3, 3, 20], [4, 2, 17], 2) == (Shape(4, 4), Shape(20, 20))
    assert choose_shapes([3, 3, 20], [4, 2, 17], 1, multiple=1) == (Shape(20, 17),)
    assert choose_shapes([1, 2, 3], [1, 2, 3], 8) == (Shape(4, 4),)
    assert choose_shapes([3, 9], [4, 5], 1, longest=10) == (Shape(10, 8),), 'rounded up, but no further than asked'
    with pytest.raises(ValueError, match='count is 0'):
        choose_shapes([1], [1], 0)


@pytest.mark.parametrize('count', [1, 7, 8, 50, 101])
@pytest.mark.parametrize('seed', [None, 3])
def test_a_pass_holds_every_row_exactly_once(count, seed):
    batches = batches_of(count, seed=seed)
    passes = 1 if seed is None else 3
    for epoch in range(passes):
        seen = []
        for n in range(epoch * batches.batches_per_epoch, (epoch + 1) * batches.batches_per_epoch):
            batch = batches.batch(n)
            assert (batch.source.shape, batch.target.shape) == tuple((8, width) for width in batches.shape(n))
            for i, row in enumerate(batch.row):
                assert batch.weight[i] == (row >= 0)
                for ids, side in zip((batch.source[i], batch.target[i]), batches.encodings[0]):
                    expected = side.row(row) if row >= 0 else np.zeros(0, np.int32)
                    np.testing.assert_array_equal(ids, np.pad(expected, (0, len(ids) - len(expected))))
            seen += batch.row[batch.row >= 0].tolist()
        assert sorted(seen) == list(range(count))


def test_dtypes_and_names():
    batch = batches_of(5).batch(0)
    assert batch._fields == ('source', 'target', 'weight', 'row', 'room')
    assert [a.dtype for a in batch[:4]] == [np.int32, np.int32, np.float32, np.int32]


def test_a_batch_depends_on_seed_and_number_only():
    batches = batches_of(50)
    ahead = {n: batches.batch(n) for n in (25, 3, 17, 0, 3)}
    for n in (0, 3, 17, 25):
        assert_equal(batches_of(50).batch(n), ahead[n])  # what a resumed run sees


def test_orders_differ_between_epochs_and_seeds():
    def order(seed, epoch):
        batches = batches_of(64, seed=seed, shapes=1)
        return np.concatenate([batches.batch(epoch * 8 + i).row for i in range(8)]).tolist()
    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)] + [list(range(64))]
    assert len(set(map(tuple, orders))) == 5
    assert all(sorted(rows) == list(range(64)) for rows in orders)


def test_batches_of_one_shape_are_spread_over_the_epoch():
    batches = batches_of(400)
    order = [batches.shape(n) for n in range(batches.batches_per_epoch)]
    assert len(set(order)) == 4
    changes = sum(a != b for a, b in itertools.pairwise(order))
    assert changes > 10  # 3 if the batches were left shape by shape


def test_evaluation_keeps_the_order_and_ends():
    batches = batches_of(50, seed=None)
    rows = [batches.batch(n).row for n in range(batches.batches_per_epoch)]
    for shape in batches.shapes:
        mine = np.concatenate([row for n, row in enumerate(rows) if batches.shape(n) == shape])
        mine = mine[mine >= 0]
        assert (np.diff(mine) > 0).all()
    with pytest.raises(IndexError, match='no batch'):
        batches.batch(batches.batches_per_epoch)
    with pytest.raises(IndexError):
        batches_of(50).batch(-1)


def test_processes_partition_a_batch():
    batches = batches_of(21)
    for n in range(batches.batches_per_epoch):
        whole = batches.batch(n)
        parts = [batches.batch(n, slice(p * 2, (p + 1) * 2)) for p in range(4)]
        assert_equal(whole, type(whole)(*map(np.concatenate, zip(*(part[:4] for part in parts)))))


@pytest.mark.parametrize('prefetch', [0, 1, 4])
def test_iterate_is_batch_by_number(prefetch):
    batches = batches_of(30)
    start, stop = 2, 3 * batches.batches_per_epoch + 1
    got = list(batches.iterate(start, stop, prefetch=prefetch))
    assert len(got) == stop - start
    for n, batch in enumerate(got, start):
        assert_equal(batch, batches_of(30).batch(n))
    part = list(batches.iterate(0, 2, rows=slice(2, 4), prefetch=prefetch))
    assert_equal(part[1], batches.batch(1, slice(2, 4)))
    assert list(batches.iterate(3, 3, prefetch=prefetch)) == []


def test_threads_end_when_the_consumer_stops():
    batches = batches_of(30)
    before = set(threading.enumerate())
    iterator = batches.iterate(0, 10**9)
    next(iterator), next(iterator), next(iterator)  # the first two are made before there are threads
    ours = [thread for thread in threading.enumerate() if thread not in before]
    assert ours
    iterator.close()
    for thread in ours:
        thread.join(timeout=5)
    assert not any(thread.is_alive() for thread in ours)


def test_an_error_reaches_the_consumer_and_ends_the_threads():
    batches = batches_of(30, seed=None)
    before = set(threading.enumerate())
    with pytest.raises(IndexError, match='no batch') as caught:  # its traceback keeps the iterator's frame alive
        list(batches.iterate(0, batches.batches_per_epoch + 1))
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=5)
        assert not thread.is_alive()
    assert caught.tb is not None


def test_threads_agree_on_plans():
    batches, numbers = batches_of(200), list(range(0, 400, 3))
    expected = {n: batches_of(200).batch(n) for n in numbers}
    failures = []

    def work(offset):
        for n in numbers[offset:] + numbers[:offset]:
            if not np.array_equal(batches.batch(n).row, expected[n].row):
                failures.append(n)
    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(0, 120, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_pairs_that_fit_nowhere_are_refused():
    source, target = Ragged.of([[4] * 3, [4] * 9]), Ragged.of([[4] * 3, [4] * 2])
    with pytest.raises(ValueError, match=r'pair 1 has 9 source and 2 target tokens: .*\(8, 8\)'):
        Batches(source, target, 2, [Shape(4, 4), Shape(8, 8)], 0)
    with pytest.raises(ValueError, match='2 source rows against 1 target rows'):
        Batches(source, Ragged.of([[4]]), 2, [Shape(16, 16)], 0)


def test_each_pair_takes_the_cheapest_shape():
    source, target = Ragged.of([[4] * 6, [4] * 2, [4] * 8]), Ragged.of([[4] * 2, [4] * 6, [4] * 8])
    batches = Batches(source, target, 1, [Shape(8, 8), Shape(8, 4), Shape(4, 8)], None)
    assert {batches.batch(n).row[0]: batches.shape(n) for n in range(3)} == {
        0: Shape(8, 4), 1: Shape(4, 8), 2: Shape(8, 8)}


def test_a_source_without_target():
    source = Ragged.of([[5, 2], [6, 7, 2]])
    target = Ragged.of([[], []])
    batches = Batches(source, target, 4, choose_shapes(source.lengths, target.lengths, 2), None)
    batch = batches.batch(0)
    assert batch.target.shape == (4, 0)
    np.testing.assert_array_equal(batch.source, [[5, 2, 0, 0], [6, 7, 2, 0], [0] * 4, [0] * 4])


def test_pad_rows():
    ragged = Ragged.of([[5, 6], [7], [8, 9, 10]])
    np.testing.assert_array_equal(pad_rows(ragged, np.array([2, -1, 0]), 3), [[8, 9, 10], [0, 0, 0], [5, 6, 0]])
    np.testing.assert_array_equal(pad_rows(Ragged.of([]), np.array([-1]), 2), [[0, 0]])
    with pytest.raises(ValueError, match='row 2 has 3 tokens'):
        pad_rows(ragged, np.array([0, 2]), 2)
