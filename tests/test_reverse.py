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
