"""The greatest of long rows against numpy's stable order, and searches on several devices against one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_decoding import TOY, decode, random_toy, sources

from seqjax.decoding.options import Decoding
from seqjax.decoding.ranking import BLOCK, best, top_k
from seqjax.decoding.search import search
from seqjax.training.parallel import Placement


@pytest.mark.parametrize('rank', [top_k, best], ids=['top_k', 'best'])
@pytest.mark.parametrize('length', [130, 640, 20 * BLOCK, 20 * BLOCK + 1, 5000])
def test_ties_and_all(rank, length):
    """Ties, many of them, go to the first; so do those among -inf."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 40, (6, length)).astype(np.float32)
    rows[2] = rng.normal(size=length)
    rows[3, :-3] = -np.inf
    rows[4] = -np.inf
    rows[5] = 0
    values, places = jax.jit(rank, static_argnums=1)(rows, 10)
    expected = np.argsort(-rows, axis=1, kind='stable')[:, :10]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(rows, expected, axis=1))


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
