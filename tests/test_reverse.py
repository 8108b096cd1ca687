import numpy as np

from seqjax.data import reverse


def test_targets_are_sources_backwards():
    splits = reverse.splits(2000, 300, 400, seed=5)
    assert {name: len(pairs[0]) for name, pairs in splits.items()} == {'train': 2000, 'valid': 300, 'test': 400}
    for sources, targets in splits.values():
        assert [' '.join(reversed(source.split(' '))) for source in sources] == targets


def test_lengths_and_integers_are_those_of_joeynmt():
    splits = reverse.splits(5000, 2000, 2000)
    for name, longest in (('train', 25), ('valid', 30), ('test', 30)):
        rows = [list(map(int, source.split())) for source in splits[name][0]]
        assert {len(row) for row in rows} == set(range(1, longest + 1))
        assert {n for row in rows for n in row} == set(range(50))
    small = reverse.splits(500, 500, 500, highest=3, train_length=2, test_length=4)
    assert {n for source in small['train'][0] for n in source.split()} == {'0', '1', '2', '3'}
    assert max(len(source.split()) for source in small['train'][0]) == 2
    assert max(len(source.split()) for source in small['test'][0]) == 4


def test_the_seed_decides():
    one = reverse.splits(50, 50, 50, seed=1)
    assert one == reverse.splits(50, 50, 50, seed=1)
    assert one != reverse.splits(50, 50, 50, seed=2)
    assert one['valid'][0][0] != one['test'][0][0]
    assert one['valid'] == reverse.splits(10, 50, 50, seed=1)['valid']


def test_skewed_integers_are_as_frequent_as_zipf_has_it():
    """Shares of 0..9 against (n + 1)^-1, and what is uniform stays as it was, number for number."""
    drawn = [int(n) for source in reverse.splits(20_000, 1, 1, highest=9, skew=1.0)['train'][0] for n in source.split()]
    shares = np.bincount(drawn, minlength=10) / len(drawn)
    expected = 1 / np.arange(1, 11)
    np.testing.assert_allclose(shares, expected / expected.sum(), rtol=0.03)
    rng = np.random.default_rng((0, 0))
    lengths = rng.integers(1, 25, 3, endpoint=True)
    assert ' '.join(reverse.splits(3, 1, 1)['train'][0]) == ' '.join(map(str, rng.integers(
        0, 49, lengths.sum(), endpoint=True)))
