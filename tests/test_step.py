"""One update: sums over counts of the whole batch, one dropout mask for each micro-batch and replica, nothing skipped.

That every mode has the same gradient, and float64's, is in test_parallel.py.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqjax.training.parallel import Placement
from seqjax.training.step import GradientDescent, interleave

START = {'w': jnp.zeros(4)}


def learner(loss, accumulate=1, optimizer=None):
    return GradientDescent(loss, optimizer or optax.sgd(1.0), lambda t: 0.1 * t, seed=3, accumulate=accumulate)


def test_sums_over_counts_with_terms_of_different_counts():
    """d/dw [sum_i c_i x_i w_0 / sum c + sum_i r_i w_1 / sum r], where x, c and r differ in every row, by hand."""
    def loss(params, batch, rng, step):
        x, c, r = batch
        return ({'a': ((c * x * params['w'][0]).sum(), c.sum()), 'b': ((r * params['w'][1]).sum(), r.sum())},
                {'seen': (x.sum(), jnp.float32(x.size))})

    x, c, r = np.arange(1.0, 9), np.array([1., 0, 2, 0, 0, 0, 5, 1]), np.array([1., 1, 0, 0, 0, 0, 1, 0])
    for accumulate in (1, 2, 4):
        state, sums = learner(loss, accumulate).step(learner(loss).init(START), tuple(map(jnp.asarray, (x, c, r))))
        np.testing.assert_allclose(state.params['w'], [-(c * x).sum() / c.sum(), -1, 0, 0], rtol=1e-6)
        assert set(sums) == {'a', 'b', 'seen', 'gradient_norm', 'learning_rate'}
        np.testing.assert_allclose(sums['seen'], (36, 8))
        np.testing.assert_allclose([sums['a'][1], sums['b'][1]], [9, 3])
        np.testing.assert_allclose(sums['gradient_norm'], (np.hypot((c * x).sum() / c.sum(), 1), 1), rtol=1e-6)


def test_a_term_that_counted_nothing_moves_nothing():
    def loss(params, batch, rng, step):
        return {'a': ((batch * params['w'][0]).sum(), batch.sum()), 'b': (params['w'][1] * 3, jnp.float32(0))}, {}

    state, sums = learner(loss).step(learner(loss).init(START), jnp.ones(4))
    np.testing.assert_array_equal(state.params['w'], [-1, 0, 0, 0])
    state, sums = learner(loss).step(learner(loss).init(START), jnp.zeros(4))
    np.testing.assert_array_equal(state.params['w'], np.zeros(4))
    assert sums['gradient_norm'][0] == 0


def test_updates_are_counted_from_one():
    def loss(params, batch, rng, step):
        return {'a': ((batch * params['w'][0]).sum(), batch.sum())}, {'step': (step * 1.0, jnp.float32(1))}

    learn = learner(loss)
    state = learn.init(START)
    assert state.step == 0
    for number in (1, 2, 3):
        state, sums = jax.jit(learn.step)(state, jnp.ones(4))
        assert state.step == number
        assert sums['step'][0] == number
        assert sums['learning_rate'][0] == pytest.approx(0.1 * number)
    assert learn.finish(state.params, None) == {}


def test_the_norm_is_that_before_clipping():
    def loss(params, batch, rng, step):
        return {'a': (5 * params['w'][0] * batch.sum(), batch.sum())}, {}

    learn = learner(loss, optimizer=optax.chain(optax.clip_by_global_norm(2.0), optax.sgd(1.0)))
    state, sums = learn.step(learn.init(START), jnp.ones(4))
    assert sums['gradient_norm'][0] == 5
    np.testing.assert_allclose(state.params['w'], [-2, 0, 0, 0], rtol=1e-6)


def test_what_is_not_finite_is_shown_and_not_skipped():
    def loss(params, batch, rng, step):
        return {'a': (jnp.log(params['w'][0]) * batch.sum(), batch.sum())}, {}

    state, sums = learner(loss).step(learner(loss).init(START), jnp.ones(4))
    assert not np.isfinite(sums['gradient_norm'][0])
    assert not np.isfinite(state.params['w'][0])


def test_interleave_deals_rows_out():
    rows = {'a': np.arange(12), 'b': np.arange(24).reshape(12, 2)}
    parts = interleave(rows, 3)
    np.testing.assert_array_equal(parts['a'], [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]])
    np.testing.assert_array_equal(parts['b'][1], rows['b'][1::3])
    with pytest.raises(ValueError, match='12 rows are not a multiple of 5'):
        interleave(rows, 5)


def test_micro_batches_move_no_row_between_devices():
    placement = Placement('jit', 'data=4')
    batch = placement.place_batch(np.arange(16, dtype=np.float32).reshape(16, 1))
    compiled = jax.jit(lambda x: jax.lax.map(lambda micro: (micro ** 2).sum(), interleave(x, 2))).lower(batch).compile()
    moves = ('all-gather', 'all-to-all', 'collective-permute')
    assert not any(move in compiled.as_text() for move in moves)
    blocks = jax.jit(lambda x: jax.lax.map(lambda micro: (micro ** 2).sum(), x.reshape(2, 8, 1))).lower(batch).compile()
    assert any(move in blocks.as_text() for move in moves), 'cut into blocks, they would'


B, UNITS = 16, 64


def masks(mode, mesh='', accumulate=1, seed=3, steps=1, built_in=False):
    """The dropout mask of every row (steps, B, UNITS), read out of the gradient: row b's weights see only its mask."""
    def loss(params, batch, rng, step):
        mask_BU = jax.random.bernoulli(rng, 0.5, (batch.shape[0], UNITS))
        picked = batch[:, :, None] * mask_BU[:, None, :]  # batch is one-hot: which row it is
        return {'a': ((picked * params).sum(), jnp.float32(1))}, {}

    placement = Placement(mode, mesh)
    learn = GradientDescent(loss, optax.sgd(1.0), lambda t: 1.0, seed, accumulate)
    state, out = placement.place_state(learn.init(jnp.zeros((B, UNITS)))), []
    step = placement.step(learn.step, *(() if built_in else learn.constants))
    for _ in range(steps):
        before = np.asarray(state.params)
        state, _ = step(state, placement.place_batch(np.eye(B, dtype=np.float32)))
        out.append((before - np.asarray(state.params)) > 1e-6)
    return np.stack(out)


@pytest.mark.parametrize('mode', ['pmap', 'shard_map', 'jit'])
def test_the_seed_is_no_part_of_the_program(mode):
    """Runs that differ in their seed share a program; the masks are those of a key that is built in."""
    def program(seed):
        learn = GradientDescent(lambda params, batch, rng, step: (
            {'a': ((params * jax.random.bernoulli(rng, 0.5, (B, UNITS))).sum(), jnp.float32(1))}, {}), optax.sgd(1.0),
            lambda t: 1.0, seed)
        placement = Placement(mode, 'data=1')
        state = placement.place_state(learn.init(jnp.zeros((B, UNITS))))
        batch = placement.place_batch(np.eye(B, dtype=np.float32))
        return [placement.step(learn.step, *constants).lower(state, batch).as_text()
                for constants in (learn.constants, ())]

    (one, built_in), (other, other_built_in) = program(1), program(2)
    assert one == other
    assert built_in != other_built_in
    assert (masks(mode) == masks(mode, built_in=True)).all()
    assert (masks(mode) != masks(mode, seed=4)).any()


@pytest.mark.parametrize(('mode', 'accumulate'), [('pmap', 1), ('pmap', 2), ('shard_map', 2), ('jit', 2), ('jit', 1)])
def test_masks_differ_between_replicas_micro_batches_and_steps(mode, accumulate):
    drawn = masks(mode, 'data=4', accumulate, steps=2)
    rows = drawn.reshape(-1, UNITS)
    assert len({row.tobytes() for row in rows}) == 2 * B, 'no row of any step shares its mask'
    assert 0.4 < rows.mean() < 0.6
    np.testing.assert_array_equal(drawn, masks(mode, 'data=4', accumulate, steps=2))
    assert (drawn[:1] != masks(mode, 'data=4', accumulate, seed=4)).any()


def test_pmap_and_shard_map_draw_the_same_masks():
    np.testing.assert_array_equal(masks('pmap', 'data=4', 2), masks('shard_map', 'data=4', 2))


def test_the_counting_pass_is_not_computed():
    """With accumulation the model runs once forward for the gradient, and not once more for the counts."""
    def loss(params, batch, rng, step):
        return {'a': (jnp.tanh(batch @ params['w']).sum(), batch[:, 0].sum())}, {}

    def products(accumulate):
        learn = learner(loss, accumulate)
        compiled = jax.jit(learn.step).lower(learn.init({'w': jnp.ones((64, 64))}), jnp.ones((64, 64))).compile()
        return len(re.findall(' = .* (dot|custom-call)[(]', compiled.as_text()))

    assert products(2) == products(1) > 0
