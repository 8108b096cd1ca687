"""The best continuations against numpy's stable order, and searches on several devices against one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_decoding import TOY, decode, random_toy, sources

from seqjax.decoding.greedy import next_log_probs
from seqjax.decoding.options import BOS, PAD, Decoding
from seqjax.decoding.ranking import BLOCK, extensions, top_k
from seqjax.decoding.search import search
from seqjax.training.parallel import Placement


@pytest.mark.parametrize('length', [130, 640, 20 * BLOCK + 1])
def test_ties_and_all(length):
    """Ties, many of them, go to the first; so do those among -inf."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 40, (6, length)).astype(np.float32)
    rows[2] = rng.normal(size=length)
    rows[3, :-3] = -np.inf
    rows[4] = -np.inf
    rows[5] = 0
    values, places = jax.jit(top_k, static_argnums=1)(rows, 10)
    expected = np.argsort(-rows, axis=1, kind='stable')[:, :10]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(rows, expected, axis=1))


@pytest.mark.parametrize('V', [70, 5 * BLOCK, 5 * BLOCK + 1, 2000])
def test_extensions_are_the_greatest_of_all_sums(V):
    """Ties go to the lower hypothesis, then to the lower token; PAD and BOS are never chosen, nor who is not there."""
    rng = np.random.default_rng(V)
    K, count = 5, 10
    logits = rng.integers(0, 3, (8, K, V)).astype(np.float32)  # ties everywhere
    logits[1] = 3 * rng.normal(size=(K, V))
    logits[2, :, [PAD, BOS]] = 50.0  # likely, and never to be chosen; yet they have their share of all probability
    logits[3] = 0.0
    logits[6] = 3 * rng.normal(size=(K, V))
    logits[6, :, PAD] = 50.0  # the greatest of its block, which is not for that among the best
    logits[7] = 0.0
    logits[7, :, V - 5] = 5.0  # among the equal ones behind these the first are to be found in other blocks
    log_probs = -np.ones((8, K), np.float32)
    log_probs[1] = rng.normal(size=K)
    log_probs[4, 1:] = -np.inf
    log_probs[5] = [-np.inf, -2.0, -1.0, -2.0, -np.inf]
    sums = jax.jit(lambda before, logits: before[:, :, None] + next_log_probs(logits))(log_probs, logits)
    flat = np.asarray(sums).reshape(8, K * V)
    expected = np.argsort(-flat, axis=1, kind='stable')[:, :count]
    values, parents, tokens = jax.jit(extensions, static_argnums=2)(log_probs, logits, count)
    np.testing.assert_array_equal(parents * V + tokens, expected)
    np.testing.assert_allclose(values, np.take_along_axis(flat, expected, axis=1), rtol=1e-6)
    assert not np.isin(tokens, [PAD, BOS]).any()


def test_extensions_of_nothing_are_impossible_and_within_the_vocabulary():
    """More than there are tokens, so that the first hypothesis' last block, which is not full, is used up."""
    V, K = 5 * BLOCK + 1, 165
    values, _, tokens = extensions(jnp.full((1, K), -jnp.inf), jnp.zeros((1, K, V)), 2 * K)
    assert (values == -jnp.inf).all()
    assert (tokens < V).all()


def test_of_one_hypothesis_more_extensions_than_tokens():
    """What there are not so many of is impossible, and within the vocabulary."""
    values, parents, tokens = extensions(jnp.array([[-1.0]]), jnp.array([[[0.0, 0.0, 2.0, 3.0, 1.0]]]), 8)
    assert tokens[0, :3].tolist() == [3, 2, 4]
    np.testing.assert_allclose(values[0, :3], np.array([3, 2, 1]) - 1 - np.log(2 + np.exp([2, 3, 1]).sum()), rtol=1e-5)
    assert (values[0, 3:] == -jnp.inf).all()
    assert (tokens < 5).all()
    assert not parents.any()


@pytest.mark.parametrize('parallel', ['pmap', 'shard_map', 'jit'])
@pytest.mark.parametrize('flags', [
    dict(method='beam', beam_size=2), dict(method='beam', beam_size=2, nbest=2), dict(method='sample', top_k=3)],
    ids=str)
def test_searches_on_several_devices_are_those_on_one(parallel, flags):
    """XLA has passes of its own for programs of several devices, one of which has aborted at these."""
    V, T = 300, 2  # long enough for blocks
    params, source_BS = random_toy(3, V=V, T=T), sources(1, 2, 3, 3, 2, 1, 0, 1)
    decoding, row_B = Decoding(**flags), jnp.arange(8, dtype=jnp.int32)
    placement = Placement(parallel, devices=jax.devices()[:4])
    run = placement.rows(lambda params, batch: search(TOY, params, batch['source'], decoding, T, row_B=batch['row']))
    found = run(placement.place_state(params), placement.place_batch({'source': source_BS, 'row': row_B}))
    expected = decode(params, source_BS, T, row=row_B, **flags)
    np.testing.assert_array_equal(found[0], expected.tokens_BKT)
    np.testing.assert_allclose(found[1], expected.scores_BK, rtol=1e-6)
