"""Exhaustive search against every sequence, scored one at a time."""

import functools
import itertools

import jax
import numpy as np
import pytest
from test_decoding import SCORE, TOY, decode, random_toy, sources

from seqjax.decoding.exhaustive import exhaustive, search_errors
from seqjax.errors import UserError

V = 6
ALL = jax.jit(exhaustive, static_argnums=(0, 3, 4, 5))


def brute_force(params, kind, longest, alpha):
    """The best of all sequences that end, by `score`, and its score."""
    sequences = [(*words, 2) for length in range(longest) for words in itertools.product((3, 4, 5), repeat=length)]
    target = np.zeros((len(sequences), longest), np.int32)
    for row, tokens in zip(target, sequences):
        row[:len(tokens)] = tokens
    scores = np.asarray(SCORE(TOY, params, sources(*[kind] * len(sequences)), target, alpha))
    return target[scores.argmax()], scores.max()


@functools.cache
def toys():
    return random_toy(12, V=V, T=4, seed=3)


@pytest.mark.parametrize('which', [0, 1])
def test_it_is_the_best_of_all_sequences(which):
    kinds, lengths = range(1, 13), set()
    alphas = (0.0, 1.0)
    alpha, found = alphas[which], ALL(TOY, toys(), sources(*kinds), 4, V, alphas)
    for i, kind in enumerate(kinds):
        tokens, best = brute_force(toys(), kind, 4, alpha)
        assert found.tokens_BKT[i, which].tolist() == tokens.tolist()
        np.testing.assert_allclose(found.scores_BK[i, which], best, rtol=1e-5)
        lengths.add(int((tokens != 0).sum()))
    assert len(lengths) > 1, 'answers of one length prove little'
    penalty = ((5 + (np.asarray(found.tokens_BKT[:, which]) != 0).sum(1)) / 6) ** alpha
    np.testing.assert_allclose(found.log_probs_BK[:, which], found.scores_BK[:, which] * penalty, rtol=1e-5)


def test_a_wide_beam_finds_it_and_greedy_search_errs():
    kinds = range(1, 13)
    best = ALL(TOY, toys(), sources(*kinds), 4, V, (0.0,))
    wide = decode(toys(), sources(*kinds), 4, method='beam', beam_size=100, length_penalty=0.0)
    ends = (wide.tokens_BKT[:, 0] == 2).any(-1)
    assert ends.all()
    assert not search_errors(wide.scores_BK[:, 0], best.scores_BK[:, 0]).any()
    greedy = decode(toys(), sources(*kinds), 4, method='greedy')
    wrong = search_errors(greedy.scores_BK[:, 0], best.scores_BK[:, 0])
    np.testing.assert_array_equal(wrong[(greedy.tokens_BKT[:, 0] == 2).any(-1)], [
        not np.array_equal(a, b) for a, b in zip(greedy.tokens_BKT[:, 0], best.tokens_BKT[:, 0])
        if (a == 2).any()])
    assert wrong.any()


def test_equal_scores_are_no_error():
    np.testing.assert_array_equal(search_errors(np.array([-1.0, -1.0, -2.0]), np.array([-1.0, -1.00005, -1.0])),
                                  [False, False, True])


def test_too_many_sequences_are_refused():
    with pytest.raises(UserError, match='47 words in up to 3 places are 103,823 sequences'):
        exhaustive(TOY, toys(), sources(1), 4, 50)
