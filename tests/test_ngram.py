"""Kneser-Ney by its formula, by an independent library, and as a distribution."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from nltk.lm import KneserNeyInterpolated

from seqjax.statistical.ngram import BOS, EOS, NGrams, discounts, learn

RNG = np.random.default_rng(0)
V = 9  # PAD, BOS, EOS, UNK and five words, the last of which never comes
TEXT = [RNG.choice(4, RNG.integers(1, 7), p=[0.5, 0.3, 0.15, 0.05]) + 4 for _ in range(40)]
FEW = TEXT[:8]


def contexts(order):
    """All contexts that a sentence can have, seen or not."""
    words = range(3, V)
    for begun in range(order):
        for tail in itertools.product(words, repeat=order - 1 - begun):
            yield (BOS,) * begun + tail


@pytest.mark.parametrize('smoothing', ['kneser-ney', 'modified-kneser-ney'])
@pytest.mark.parametrize('order', [1, 2, 4])
def test_probabilities_sum_to_one(order, smoothing):
    model = learn(TEXT, V, order, smoothing)
    assert model.order == order
    for context in contexts(order):
        p = np.exp(model.log_probs(np.array([context] * (V - 2)).reshape(V - 2, order - 1), np.arange(2, V)))
        assert (p > 0).all()
        np.testing.assert_allclose(p.sum(), 1, rtol=1e-12, err_msg=str(context))


@pytest.mark.parametrize(('order', 'discount'), [(2, 0.1), (3, 0.1), (3, 0.75), (4, 0.4)])
def test_nltk(order, discount):
    """nltk counts what it is given: all n-grams that do not end in BOS, which is never predicted."""
    grams = []
    for sentence in FEW:
        padded = list(map(str, [BOS] * (order - 1) + sentence.tolist() + [EOS]))  # nltk's words are text
        grams.append([tuple(padded[i + 1 - k:i + 1]) for i in range(order - 1, len(padded))
                      for k in range(1, order + 1)])
    theirs = KneserNeyInterpolated(order, discount)
    theirs.fit(grams, vocabulary_text=list(map(str, range(1, V))))
    ours = learn(FEW, V, order, discount=discount, floor=False)
    seen = unseen = 0
    for context in contexts(order):
        for word in [EOS, 4, 5, 6, 7]:
            theirs_h, theirs_w = tuple(map(str, context)), str(word)
            expected = theirs.unmasked_score(theirs_w, theirs_h)
            got = np.exp(ours.log_probs(np.array([context]), np.array([word])))[0]
            np.testing.assert_allclose(got, expected, rtol=1e-12, err_msg=f'{context} {word}')
            there = theirs.counts[theirs_h][theirs_w] > 0
            seen, unseen = seen + there, unseen + (not there)
    assert min(seen, unseen) > 10


def test_the_formula_by_hand():
    """'4 4 5' and '4 5', bigrams, D = n1 / (n1 + 2 n2) of each order, as fractions."""
    model = learn([np.array([4, 4, 5]), np.array([4, 5])], V, 2, 'kneser-ney')
    # Bigrams: (BOS 4) 2, (4 4) 1, (4 5) 2, (5 EOS) 2: n1 = 1, n2 = 3, D = 1/7.
    # Continuations: 4 after BOS and 4: 2; 5 after 4: 1; EOS after 5: 1; n1 = 2, n2 = 1, D = 1/2; of 4 in all.
    D2, D1 = Fraction(1, 7), Fraction(1, 2)
    even = 3 * D1 / 4 / (V - 2)
    p1 = {4: (2 - D1) / 4 + even, 5: (1 - D1) / 4 + even, EOS: (1 - D1) / 4 + even, 8: even}
    expected = {(4, 4): (1 - D2) / 3 + 2 * D2 / 3 * p1[4], (4, 5): (2 - D2) / 3 + 2 * D2 / 3 * p1[5],
                (4, EOS): 2 * D2 / 3 * p1[EOS], (5, EOS): (2 - D2) / 2 + D2 / 2 * p1[EOS],
                (BOS, 4): (2 - D2) / 2 + D2 / 2 * p1[4], (BOS, 8): D2 / 2 * even, (7, 5): p1[5]}
    for (before, word), p in expected.items():
        np.testing.assert_allclose(np.exp(model.log_probs(np.array([[before]]), np.array([word])))[0], float(p),
                                   rtol=1e-12)
    np.testing.assert_allclose(model.sentence(np.array([4, 5])), np.log([float(expected[pair]) for pair in (
        (BOS, 4), (4, 5), (5, EOS))]), rtol=1e-12)


def test_discounts():
    # n1 = 4, n2 = 3, n3 = 2, n4 = 1: Y = 4/10; D1 = 1 - 2Y 3/4, D2 = 2 - 3Y 2/3, D3 = 3 - 4Y 1/2.
    counts = np.array([1] * 4 + [2] * 3 + [3] * 2 + [4] + [9])
    np.testing.assert_allclose(discounts(counts, 'modified-kneser-ney'), [0.4] * 4 + [1.2] * 3 + [2.2] * 4)
    np.testing.assert_allclose(discounts(counts, 'kneser-ney'), [0.4] * 11)
    np.testing.assert_allclose(discounts(np.array([3, 7]), 'modified-kneser-ney'), [0.5] * 2)


def test_more_context_predicts_better_and_arrays_are_the_model():
    """A text in which every word follows from the two before it."""
    text = [np.array(([4, 5, 4, 6] * 6)[i:i + 12]) for i in range(4)]
    nll = [-np.concatenate([learn(text, V, order).sentence(s) for s in text]).mean() for order in (1, 2, 3)]
    assert nll[0] > nll[1] + 0.2 > nll[2] + 0.4
    model = learn(TEXT, V, 3)
    again = NGrams.from_arrays(model.to_arrays())
    np.testing.assert_array_equal(again.sentence(TEXT[0]), model.sentence(TEXT[0]))
    assert again.order == 3
