"""The stack decoder against every derivation there is."""

import dataclasses
import functools

import numpy as np
import pytest

from seqjax.statistical import ngram
from seqjax.statistical.phrases import FLOOR, NO_WORD, PhraseTable
from seqjax.statistical.stack import FEATURES, UNK, Decoder

V = 12
N = 3  # longest phrase


@functools.cache
def decoder(seed=0, order=3, limit=2, **weights):
    """Random phrases over the words 4 .. 7, to the words 4 .. 11; 7 alone has no translation."""
    rng = np.random.default_rng(seed)
    rows = {}
    for source in [(4,), (5,), (6,), (4, 5), (5, 4), (6, 7), (4, 5, 6), (5, 6), (7, 4)]:
        for _ in range(rng.integers(1, 4)):
            target = tuple(rng.integers(4, V, rng.integers(1, 4)).tolist())
            rows[source, target] = rng.uniform(-4, 0, 4)
    def padded(words):
        return [*words, *[NO_WORD] * (N - len(words))]
    order_ = sorted(rows)
    table = PhraseTable(*(np.array([padded(pair[side]) for pair in order_], np.int32) for side in (0, 1)),
                        np.array([rows[pair] for pair in order_], np.float32))
    model = None
    if order:
        text = [rng.integers(4, V, rng.integers(1, 6)) for _ in range(60)]
        model = ngram.learn(text, V, order)
    values = dict(phrase_inverse=0.3, lexical_inverse=0.1, phrase=0.4, lexical=0.2, phrases=-0.3, words=0.5,
                  distortion=0.4, language_model=0.7 if order else 0.0) | weights
    return Decoder(table, table.ranges(), model, np.array([values[name] for name in FEATURES]), limit)


def every(system, source):
    """{words: (score, features)} of the best derivation of each translation, by trying all of them in plain Python."""
    S, pairs = len(source), list(zip(system.table.source_PN.tolist(), system.table.target_PN.tolist(),
                                     system.table.scores_PF.tolist()))
    known = {tuple(w for w in s if w != NO_WORD) for s, _, _ in pairs}
    found = {}

    def go(covered, end, words, sums, count, jumps):
        if all(covered):
            lm = 0.0
            if system.language_model:
                history = [1] * (system.language_model.order - 1)
                for word in [*words, 2]:
                    context = history[len(history) - system.language_model.order + 1:]
                    lm += system.language_model.log_probs(np.array([context], int).reshape(1, -1), np.array([word]))[0]
                    history.append(word)
            features = np.array([*sums, count, len(words), -jumps, lm])
            score = float(features @ system.weights)
            if words not in found or score > found[words][0]:
                found[words] = score, features
            return
        gap = covered.index(False)
        for start in range(S):
            for stop in range(start + 1, min(start + N, S) + 1):
                if any(covered[start:stop]):
                    continue
                if system.distortion_limit is not None and (
                        abs(start - end) > system.distortion_limit
                        or (start != gap and stop - gap > system.distortion_limit)):
                    continue
                span = tuple(source[start:stop])
                options = [(tuple(w for w in t if w != NO_WORD), f) for s, t, f in pairs
                           if tuple(w for w in s if w != NO_WORD) == span]
                if span not in known and stop - start == 1:
                    options = [((UNK,), [FLOOR] * 4)]
                for target, scores in options:
                    go([c or start <= k < stop for k, c in enumerate(covered)], stop, words + target,
                       [a + b for a, b in zip(sums, scores)], count + 1, jumps + abs(start - end))

    go([False] * S, 0, (), [0.0] * 4, 0, 0)
    return found


SENTENCES = [(4,), (7,), (4, 5), (4, 5, 6), (6, 7, 4), (5, 4, 6, 7), (4, 5, 6, 4)]


@pytest.mark.parametrize('source', SENTENCES)
@pytest.mark.parametrize(('order', 'limit', 'distortion'), [
    (3, 2, 0.4), (2, None, 0.4), (1, 1, 0.4), (0, 0, 0.4), (4, 3, 0.4), (0, None, -2.0), (1, 3, -2.0), (0, 2, -2.0)])
def test_without_pruning_it_is_the_best_of_all(source, order, limit, distortion):
    """Also where jumps are rewarded, and hypotheses that end at different words must not be taken for the same."""
    system = decoder(order=order, limit=limit, distortion=distortion)
    expected = every(system, source)
    best = max(expected, key=lambda words: expected[words][0])
    found = system.decode(np.array(source), None)[0]
    np.testing.assert_allclose(found.score, expected[best][0], rtol=1e-6)
    score, features = expected[found.words]  # not always `best`: there are ties
    np.testing.assert_allclose(score, expected[best][0], rtol=1e-6)
    np.testing.assert_allclose(found.features @ system.weights, features @ system.weights, rtol=1e-5)
    wide = system.decode(np.array(source), 10_000)[0]
    assert (wide.words, wide.score) == (found.words, found.score)


@pytest.mark.parametrize('order', [0, 2, 3])
def test_the_n_best_are_the_n_best(order):
    """With nothing thrown away, also those that recombination has taken into others."""
    system, source = decoder(order=order, limit=2), (4, 5, 6, 4)
    expected = every(system, source)
    found = system.decode(np.array(source), None, 40)
    assert len(found) == min(40, len(expected))
    assert len({derivation.words for derivation in found}) == len(found)
    top = sorted((score for score, _ in expected.values()), reverse=True)[:len(found)]
    np.testing.assert_allclose([derivation.score for derivation in found], top, rtol=1e-6)
    for derivation in found:
        score, _ = expected[derivation.words]
        np.testing.assert_allclose(derivation.score, score, rtol=1e-6)
        np.testing.assert_allclose(derivation.features @ system.weights, score, rtol=1e-5)


def test_small_stacks_make_errors_and_never_win():
    scores = {size: [] for size in (1, 2, 8, None)}
    for seed in range(12):
        system = decoder(seed=seed, limit=3, language_model=4.0, distortion=0.0, words=4.0)
        for size, found in scores.items():
            found.append(system.decode(np.array([4, 5, 6, 4, 5, 6]), size)[0].score)
    exact = np.array(scores[None])
    for size in (1, 2, 8):
        assert (np.array(scores[size]) <= exact + 1e-9).all()
    errors = {size: int((np.array(scores[size]) < exact - 1e-9).sum()) for size in (1, 2, 8)}
    assert errors[1] > errors[8]
    assert errors[8] <= 2


def test_what_the_rest_will_cost_is_exact_where_nothing_depends_on_order():
    """Without language model and distortion a stack of one is enough: the estimate is the truth."""
    for seed in range(8):
        system = decoder(seed=seed, order=0, limit=None, distortion=0.0)
        source = np.array([4, 5, 6, 4, 5, 6, 5])
        one, all_ = (system.decode(source, size)[0].score for size in (1, None))
        assert one == pytest.approx(all_)


@pytest.mark.parametrize('limit', [0, 1, 2, None])
def test_jumps_stay_within_the_limit(limit):
    """With phrases that want to be turned round; and no hypothesis is left with a gap that it cannot fill."""
    system = decoder(limit=limit, distortion=-2.0)
    for source in ((4, 5, 6, 5, 4, 6, 6), (6, 6, 6)):
        found = system.decode(np.array(source), 5)[0]
        assert sorted(found.phrases)[0][0] == 0
        assert sum(b - a for a, b in found.phrases) == len(source)
        ends = [0, *(end for _, end in found.phrases)]
        jumps = [abs(start - end) for (start, _), end in zip(found.phrases, ends)]
        assert max(jumps) <= (99 if limit is None else limit)
        assert (max(jumps) > 0) == (limit not in (0, 1)), 'of a phrase behind a gap, the end is two from the gap'
        assert found.features[FEATURES.index('distortion')] == -sum(jumps)


def test_unknown_words_and_nothing():
    system = decoder()
    assert system.decode(np.array([7]), 5)[0].words == (UNK,)
    assert system.decode(np.array([3, 3]), 5)[0].words == (UNK, UNK)
    assert system.decode(np.array([], int), 5)[0].words == ()
    longer = [4, 5, 6] * 30  # more words than a machine word has bits
    assert sum(b - a for a, b in system.decode(np.array(longer), 2)[0].phrases) == 90


def test_weights_decide():
    long, short = (decoder(words=w).decode(np.array([4, 5, 6, 4]), 50)[0].words for w in (3.0, -3.0))
    assert len(long) > len(short)
    many, few = (decoder(phrases=w).decode(np.array([4, 5, 6, 4]), 50)[0].phrases for w in (3.0, -3.0))
    assert len(many) > len(few)
    base = decoder(order=0)
    assert dataclasses.replace(base, weights=base.weights * 2).decode(np.array([4, 5]), 50)[0].words == \
        base.decode(np.array([4, 5]), 50)[0].words
