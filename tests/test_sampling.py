"""Sampling: what is kept, how often each token is drawn, and on what a sample depends."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_decoding import SCORE, TOY, decode, log_softmax, random_toy, sources, toy

from seqjax.decoding.options import EOS
from seqjax.decoding.sampling import filter_logits

# The logits and what is kept of them: the table of OpenAI's tests of their GPT-2 sampling.
LOGITS = [1.0, 1.01, 1.001, 0.0, 0.0, 0.0, 2.0]
KEPT = [(dict(top_k=2), {1.01, 2}), (dict(top_p=0.7), {1.01, 1.001, 2}), (dict(top_p=0.6), {1.01, 2}),
        (dict(top_p=0.5), {2}), (dict(top_p=0.0), {2}), (dict(top_p=1.0), set(LOGITS)), ({}, set(LOGITS)),
        (dict(top_k=7), set(LOGITS)), (dict(top_k=50), set(LOGITS)), (dict(top_k=1), {2}),
        (dict(top_k=4), {2, 1.01, 1.001, 1.0}),
        # Within the three likeliest 2 has .58 of the mass and, with 1.01, .79: p = .75 keeps one and .8 two.
        (dict(top_k=3, top_p=0.75), {2}), (dict(top_k=3, top_p=0.8), {2, 1.01})]


@pytest.mark.parametrize(('flags', 'kept'), KEPT)
def test_filter_logits_keeps(flags, kept):
    rolled = np.stack([np.roll(LOGITS, i) for i in range(7)]).astype(np.float32)
    filtered = np.asarray(filter_logits(jnp.asarray(rolled), **flags))
    for before, after in zip(rolled, filtered):
        expected = np.isin(before, np.array(list(kept), np.float32))
        np.testing.assert_array_equal(after > -np.inf, expected)
        np.testing.assert_array_equal(after[expected], before[expected])


def test_ties_with_the_last_one_kept_are_kept():
    tied = jnp.array([[3.0, 1.0, 1.0, 0.0]])
    np.testing.assert_array_equal(filter_logits(tied, top_k=2) > -np.inf, [[True, True, True, False]])


def test_all_mass_keeps_every_token():
    # Float32 sums of so many probabilities pass 1, or stop short of it, before the last token.
    logits = jnp.asarray(np.random.default_rng(13).normal(0, 4, (8, 20000)), jnp.float32)
    assert (filter_logits(logits, top_p=1.0) > -np.inf).all()


def chi_square(draws, probs):
    """Pearson's statistic of draws against probabilities, and its degrees of freedom."""
    observed = np.bincount(draws, minlength=len(probs))
    assert not observed[probs == 0].any(), 'something impossible was drawn'
    expected = probs[probs > 0] * len(draws)
    return ((observed[probs > 0] - expected) ** 2 / expected).sum(), (probs > 0).sum() - 1


def allowed(logits, temperature=1.0):
    """Probabilities (V,) of the tokens that may be drawn: neither PAD nor BOS."""
    probs = np.exp(log_softmax(np.asarray(logits, np.float64) / temperature))
    probs[:2] = 0
    return probs / probs.sum()


@pytest.mark.parametrize('flags', [{}, dict(temperature=3.0), dict(top_p=0.8),
                                   dict(temperature=2.0, top_k=4, top_p=0.7)], ids=str)
def test_frequencies_are_the_probabilities(flags):
    n, V = 4000, 8
    params = random_toy(1, V=V, T=2, seed=8, scale=1.0)
    found = decode(params, sources(*[1] * n), 2, method='sample', seed=11, **flags)
    tokens = found.tokens_BKT[:, 0]

    def expected(logits):
        probs = allowed(logits, flags.get('temperature', 1.0))
        order = np.argsort(-probs)
        keep = flags.get('top_k', V)
        probs[order[keep:]] = 0
        probs /= probs.sum()
        if 'top_p' in flags:
            probs[order[max(1, (np.cumsum(probs[order]) <= flags['top_p']).sum()):]] = 0
        return probs / probs.sum()

    # The first token, and the second after the most frequent first one that does not end.
    first = np.bincount(tokens[:, 0], minlength=V) * (np.arange(V) != EOS)
    after = int(first.argmax())
    for draws, node in ((tokens[:, 0], 0), (tokens[tokens[:, 0] == after, 1], after + 1)):
        assert len(draws) > 300
        statistic, freedom = chi_square(draws, expected(params['logits'][1, node]))
        # Far beyond the 99.9 % quantile (18.5 at 4 degrees of freedom, 20.5 at 5) would be a wrong distribution.
        assert statistic < freedom + 4 * np.sqrt(2 * freedom) + 1e-9
    assert (tokens[tokens[:, 0] == EOS, 1] == 0).all()


def test_low_temperature_tends_to_greedy():
    params = random_toy(20, seed=9)
    greedy = decode(params, sources(*range(1, 21)), 5)
    cold = decode(params, sources(*range(1, 21)), 5, method='sample', temperature=1e-4)
    np.testing.assert_array_equal(cold.tokens_BKT, greedy.tokens_BKT)


def test_log_probs_are_the_models_whatever_was_filtered():
    params, source_BS = random_toy(20, seed=10), sources(*range(1, 21))
    found = decode(params, source_BS, 4, method='sample', temperature=2.0, top_k=3)
    own = SCORE(TOY, params, source_BS, jnp.asarray(found.tokens_BKT[:, 0]))
    np.testing.assert_allclose(found.log_probs_BK[:, 0], own, rtol=1e-5)
    np.testing.assert_array_equal(found.scores_BK, found.log_probs_BK)


def test_a_sample_depends_on_seed_and_row_alone():
    params, source_BS = random_toy(1, V=9, T=3, seed=12, scale=0.3), sources(*[1] * 6)

    def draw(**kwargs):
        return decode(params, source_BS, 6, method='sample', **kwargs).tokens_BKT[:, 0]

    base = draw()
    np.testing.assert_array_equal(draw(row=jnp.arange(6)), base)
    np.testing.assert_array_equal(draw(row=jnp.array([4, 1, 1, 5, 0, -1]))[:5], base[[4, 1, 1, 5, 0]])
    np.testing.assert_array_equal(draw(rng=jax.random.key(0)), base)
    # Same sentence, six rows: six samples; and others again with another seed.
    assert len({tuple(row) for row in base.tolist()}) == 6
    other = draw(seed=5)
    assert (other != base).any(1).sum() >= 5
    np.testing.assert_array_equal(draw(rng=jax.random.key(5)), other)


def test_positions_draw_independently():
    # Over two equally likely tokens, all 2^4 sequences are equally likely: no key is used twice in a row.
    even = toy(np.array([[-np.inf, -np.inf, -np.inf, 0.0, 0.0]]))
    tokens = decode(even, sources(*[1] * 1600), 4, method='sample').tokens_BKT[:, 0]
    counts = [int((tokens == row).all(1).sum()) for row in itertools.product((3, 4), repeat=4)]
    assert sum(counts) == 1600
    assert sum((c - 100) ** 2 / 100 for c in counts) < 37.7  # the 99.9 % quantile of chi-square(15)
