"""Puzzles: their answers by hand, their shares by counting, the votes against Bayes' rule by enumeration."""

import itertools

import numpy as np
import pytest

from seqjax.data import puzzles
from seqjax.errors import UserError
from seqjax.tasks.puzzles import Puzzle

SIZES = {'train': 3000, 'valid': 20, 'test': 50}


def test_recall_asks_for_the_first_word():
    sources, targets = puzzles.splits('recall', SIZES, symbols=5, length=6)['train']
    assert [source.split()[0] for source in sources] == targets
    assert np.bincount([puzzles.difficulty(source) for source in sources], minlength=8).tolist()[7] == 0
    assert min(np.bincount([puzzles.difficulty(source) for source in sources])) > 3000 / 7 * 0.8
    assert {word for source in sources for word in source.split()} == set('abcde')


def test_witnesses_are_right_as_often_as_they_are_known_to_be():
    sources, targets = puzzles.splits('witnesses', SIZES, symbols=4, length=5, reliabilities=(0.9, 0.5, 0.0))['train']
    voices = [(*voice, truth) for source, truth in zip(sources, targets) for voice in source.split()]
    for level, share in zip('012', (0.9, 0.5, 0.0)):
        right = [word == truth for word, at, truth in voices if at == level]
        assert len(right) == pytest.approx(3000, rel=0.1)
        assert np.mean(right) == pytest.approx(share, abs=0.03)
    wrong = [(ord(word) - ord(truth)) % 4 for word, at, truth in voices if at == '2']
    assert set(wrong) == {1, 2, 3}
    assert np.bincount(wrong)[1:] == pytest.approx(np.full(3, len(wrong) / 3), rel=0.15)
    assert {puzzles.difficulty(source) for source in sources} == {0, 1, 2, 3, 4}


def test_hops_follow_the_links():
    sources, targets = puzzles.splits('hops', SIZES, symbols=6, hops=3)['train']
    for source, target in zip(sources, targets):
        *links, query = source.split()
        table = dict(links)
        assert len(table) == len(set(table.values())) == 6
        word, count = query
        for _ in range(int(count)):
            word = table[word]
        assert word == target
        assert word != query[0]
    assert np.bincount([puzzles.difficulty(source) for source in sources])[1:] == pytest.approx([1000] * 3, rel=0.12)
    assert len({source.rpartition(' ')[0] for source in sources}) > 2900, 'links come in any order'


def test_a_weighted_vote_is_the_likeliest_word_and_an_even_one_a_poll():
    reliabilities = (0.9, 0.4, 0.1)
    for said, levels in itertools.product(itertools.product('abc', repeat=3), itertools.product(range(3), repeat=3)):
        source = ' '.join(f'{word}{level}' for word, level in zip(said, levels))
        likelihood = np.array([np.prod([reliabilities[level] if word == truth else (1 - reliabilities[level]) / 2
                                        for word, level in zip(said, levels)]) for truth in 'abc'])
        winners = np.isclose(likelihood, likelihood.max(), rtol=1e-9)
        np.testing.assert_allclose(puzzles.vote(source, 3, reliabilities, True), winners / winners.sum())
    assert puzzles.vote('a2 a2 b0', 3, reliabilities, False).tolist() == [1, 0, 0]
    assert puzzles.vote('a2 b0', 3, reliabilities, False).tolist() == [0.5, 0.5, 0]
    assert puzzles.vote('a2 a2 b0', 3, reliabilities, True).tolist() == [0, 1, 0]


def test_a_chain_retells_as_the_product_of_its_channels():
    reliabilities, K = (0.9, 0.4, 0.2), 5
    channel = np.mean([np.where(np.eye(K, dtype=bool), r, (1 - r) / (K - 1)) for r in reliabilities], axis=0)
    for count in (0, 1, 2, 7):
        assert puzzles.retold(count, K, reliabilities) == pytest.approx(np.linalg.matrix_power(channel, count)[0, 0])


def test_the_task_reads_its_options():
    task = Puzzle(kind='hops', symbols=4, hops=2, train_size=30, valid_size=5, test_size=7)
    text = task.splits()
    assert [len(text[name][0]) for name in ('train', 'valid', 'test')] == [30, 5, 7]
    assert {len(source.split()) for source in text['test'][0]} == {5}
    assert text == task.splits()
    assert Puzzle(kind='hops', symbols=4, hops=2, train_size=30, data_seed=1).splits()['train'] != text['train']
    judge = Puzzle(kind='witnesses', symbols=3, reliabilities=(0.9, 0.4, 0.1))
    assert (judge.polled('a2 b0', 'b', True), judge.polled('a2 b0', 'b', False)) == (1.0, 0.5)
    assert judge.difficulty('a2 b0') == 1
    assert judge.retold('a2 b0') == puzzles.retold(2, 3, (0.9, 0.4, 0.1))
    with pytest.raises(UserError, match=r'--task\.hops=4 leads around the 4 words') as caught:
        Puzzle(kind='hops', symbols=4, hops=4).splits()
    assert '\n' not in str(caught.value)
