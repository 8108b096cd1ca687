"""Trivial methods: by hand on a corpus of four lines."""

import itertools
import math

import numpy as np
import pytest

from seqjax.tasks.floors import END, NGrams, outputs, scored
from seqjax.tasks.scores import exact_match

LINES = ['a b', 'a a b', 'b', 'a b']


def test_probabilities_by_hand():
    unigrams = NGrams(LINES, 1)
    # 8 words and 4 ends: a 4, b 4, end 4; 3 kinds, and 4 things that may come: a, b, end, the unknown
    assert unigrams.probability('a', []) == pytest.approx((4 + 3 / 4) / (12 + 3))
    assert unigrams.probability('z', []) == pytest.approx((3 / 4) / 15)
    bigrams = NGrams(LINES, 2)
    # after a: b 3, a 1; two kinds
    assert bigrams.probability('b', ['a']) == pytest.approx((3 + 2 * (4 + 3 / 4) / 15) / (4 + 2))
    assert bigrams.probability('b', ['b', 'a']) == bigrams.probability('b', ['a'])
    # at the beginning: a 3, b 1
    assert bigrams.probability('a', []) == pytest.approx((3 + 2 * (4 + 3 / 4) / 15) / (4 + 2))
    assert bigrams.probability(END, ['b']) == pytest.approx((4 + 1 * (4 + 3 / 4) / 15) / (4 + 1))
    assert bigrams.probability('a', ['z']) == pytest.approx(unigrams.probability('a', []))


@pytest.mark.parametrize('order', [1, 2, 3])
def test_probabilities_sum_to_one_after_everything(order):
    model = NGrams(LINES, order)
    for length in range(4):
        for before in itertools.product('abz', repeat=length):
            total = sum(model.probability(word, before) for word in ('a', 'b', END, 'unknown'))
            assert total == pytest.approx(1.0)


def test_perplexity_is_the_geometric_mean_over_words_and_ends():
    model = NGrams(LINES, 2)
    p = [model.probability('a', []), model.probability('b', ['a']), model.probability(END, ['a', 'b']),
         model.probability('b', []), model.probability(END, ['b'])]
    assert model.perplexity(['a b', 'b']) == pytest.approx(math.prod(p) ** (-1 / 5))
    assert NGrams(LINES, 3).perplexity(LINES) < model.perplexity(LINES) < NGrams(LINES, 1).perplexity(LINES)


def test_samples_follow_the_counts():
    model, rng = NGrams(LINES, 3), np.random.default_rng(0)
    drawn = [model.sample(rng, 5) for _ in range(2000)]
    # With the first two words known, only lines of the corpus can come out; 'a b' is half of it.
    assert set(drawn) == set(LINES)
    assert drawn.count('a b') / 2000 == pytest.approx(0.5, abs=0.04)
    first = [NGrams(LINES, 1).sample(rng, 3) for _ in range(2000)]
    assert sum(line == '' for line in first) / 2000 == pytest.approx(1 / 3, abs=0.04)
    assert max(len(line.split()) for line in first) == 3


def test_each_method_gives_a_line_for_each_source():
    train = (['x', 'y y', 'z', 'w w w'], LINES)
    found = outputs(train, ['x', 'y z'], order=3)
    assert found['copy of the source'] == ['x', 'y z']
    assert found['most frequent target'] == ['a b', 'a b']
    assert found['most frequent word'] in (['a', 'a a'], ['b', 'b b'])
    assert set(found['3-gram model']) <= set(LINES)
    assert all(len(lines) == 2 for lines in found.values())
    assert exact_match(found['most frequent target'], ['a b', 'b']).value == 50.0
    assert outputs(train, ['x', 'y z']) == outputs(train, ['x', 'y z'])


def test_scores_are_those_of_the_lines():
    train, test = (['x', 'y', 'z'], ['a b c d', 'a b c d', 'e']), (['a b c d', 'u v w x'], ['a b c d'] * 2)
    rows = {row['floor']: row for row in scored(train, test)}
    assert set(rows) == set(outputs((['x'], ['a']), ['x']))
    assert (rows['copy of the source']['exact_match'], rows['most frequent target']['exact_match']) == (50, 100)
    assert [rows[name]['bleu'] for name in ('copy of the source', 'most frequent target')] == pytest.approx([50, 100])
