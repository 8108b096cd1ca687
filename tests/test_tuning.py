"""Minimum error rate training: the envelope and the line search by brute force, BLEU by sacreBLEU."""

import types

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from seqjax.statistical.tuning import bleu, envelope, optimise, search_line, statistics, tune


def text(ids):
    return ' '.join(f'w{i}' for i in ids)


def corpus(rng, sentences=12, derivations=8, features=4):
    """References; and for each sentence derivations, words and features."""
    references = [rng.integers(0, 6, rng.integers(5, 9)).tolist() for _ in range(sentences)]
    words = [[[w if rng.random() < p else int(rng.integers(0, 6)) for w in reference][:rng.integers(4, 9)]
              for p in np.linspace(0, 1, derivations)] for reference in references]
    values = [rng.normal(size=(derivations, features)) for _ in references]
    return references, words, values


def test_statistics_are_sacrebleus():
    rng = np.random.default_rng(0)
    references, words, _ = corpus(rng)
    chosen = [some[6] for some in words]
    stats = sum(statistics(ours, theirs) for ours, theirs in zip(chosen, references))
    theirs = BLEU(tokenize='none', force=True).corpus_score(list(map(text, chosen)), [list(map(text, references))])
    assert stats[0:8:2].tolist() == theirs.counts
    assert stats[1:8:2].tolist() == theirs.totals
    assert stats[8:].tolist() == [theirs.sys_len, theirs.ref_len]
    # One hit is added above unigrams, to keep few sentences from 0: sacreBLEU's own "add-k" of 1 is the same.
    added = BLEU(tokenize='none', force=True, smooth_method='add-k', smooth_value=1).corpus_score(
        list(map(text, chosen)), [list(map(text, references))])
    np.testing.assert_allclose(100 * bleu(stats), added.score, rtol=1e-9)
    assert bleu(statistics([1, 2, 3, 4], [1, 2, 3, 4])) == 1
    assert bleu(statistics([], [1, 2])) == 0
    assert bleu(statistics([5], [1, 2])) == 0


@pytest.mark.filterwarnings('error')
def test_the_envelope_is_the_maximum_everywhere():
    rng = np.random.default_rng(1)
    for _ in range(100):
        slope, offset = rng.integers(-3, 4, (2, rng.integers(1, 9))).astype(float)
        lines, begins = envelope(slope, offset)
        assert begins[0] == -np.inf
        assert (np.diff(begins) > 0).all()
        for x in rng.uniform(-8, 8, 40):
            k = lines[np.searchsorted(begins, x, side='right') - 1]
            assert offset[k] + x * slope[k] == pytest.approx((offset + x * slope).max(), abs=1e-12)


def reranked(values, stats, weights):
    """BLEU of the best derivations under weights."""
    best = [some[int((value @ weights).argmax())] for some, value in zip(stats, values)]
    return float(bleu(sum(best)))


def test_a_line_search_finds_the_best_point_of_the_line():
    gains = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        references, words, values = corpus(rng)
        stats = [np.stack([statistics(w, reference) for w in some]) for some, reference in zip(words, references)]
        weights, direction = rng.normal(size=(2, 4))
        x, score = search_line(values, stats, weights, direction)
        assert reranked(values, stats, weights + x * direction) == pytest.approx(score)
        grid = max(reranked(values, stats, weights + x * direction) for x in np.linspace(-30, 30, 3001))
        assert score >= grid - 1e-12
        gains.append(score - reranked(values, stats, weights))
        again = search_line(values, stats, weights + x * direction, direction)
        assert again == (0.0, pytest.approx(score)), 'stays where it is best'
    assert min(gains) >= 0
    assert max(gains) > 0.02


def test_optimising_finds_what_tells_good_from_bad():
    """The last feature is how good a derivation is, with noise. The first is so without; but it must stay 0."""
    rng = np.random.default_rng(3)
    references, words, values = corpus(rng)
    stats = [np.stack([statistics(w, reference) for w in some]) for some, reference in zip(words, references)]
    for value, stat in zip(values, stats):
        value[:, -1] = bleu(stat) + rng.normal(size=len(value)) / 4
        value[:, 0] = bleu(stat)
    start, active = np.array([0.0, 1.0, 1.0, -1.0]), np.array([False, True, True, True])
    weights, score = optimise(values, stats, start, active, np.random.default_rng(0))
    assert reranked(values, stats, weights) == pytest.approx(score)
    assert score > reranked(values, stats, start) + 0.2
    assert weights[0] == 0
    assert weights[3] > 0


def test_tuning_keeps_the_best_that_was_decoded():
    """A decoder of three derivations, of which it shows the two that its weights like best."""
    shown = []
    references = [[1, 2, 3, 4, 5]] * 3
    pool = [types.SimpleNamespace(words=words, features=np.array(features)) for words, features in (
        ((1, 2, 3, 4, 5), (0.0, 1.0)), ((9, 9, 3, 4, 5), (1.0, 0.5)), ((9, 9), (2.0, 0.0)))]

    def decode(weights):
        shown.append(weights)
        return [sorted(pool, key=lambda d: -(d.features @ weights))[:2]] * 3

    weights, history = tune(decode, references, np.array([1.0, 0.1]), np.array([True, True]), 5)
    assert history[0] < 0.5
    assert max(history) == history[-1] == 1.0
    np.testing.assert_array_equal(weights, shown[int(np.argmax(history))])
    assert len(shown) <= 4, 'it ends when there is nothing new'
    np.testing.assert_array_equal(weights, tune(decode, references, np.array([1.0, 0.1]), np.array([True, True]), 5)[0])
    untouched, history = tune(decode, references, np.array([1.0, 0.1]), np.array([False, False]), 2)
    np.testing.assert_allclose(untouched, np.array([1.0, 0.1]))
