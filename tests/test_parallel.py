"""All modes and meshes give one device's gradients, losses and SGD parameters, and those of float64 numpy.

Tolerance: 2e-6 of the largest entry. float32 keeps 6e-8, and the sums here have some hundred terms.
"""

import contextlib
import pathlib
import socket
import subprocess
import sys
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import environment_of

from seqjax.errors import UserError
from seqjax.training.checkpoint import Checkpoints, digest
from seqjax.training.parallel import Placement
from seqjax.training.step import GradientDescent, State

TOLERANCE = 2e-6
B, T, D, F, V = 16, 5, 8, 12, 7
RATE = 0.5
RULES = (('embedding$', ('tensor', 'fsdp')), ('kernel$', ('fsdp', 'tensor')))
SETTINGS = [('pmap', '', 1), ('pmap', 'data=2', 4), ('pmap', 'data=4', 1), ('shard_map', '', 2), ('jit', '', 1),
            ('jit', 'data=1', 4), ('jit', 'data=2,fsdp=2', 1), ('jit', 'fsdp=4', 2), ('jit', 'tensor=2', 2),
            ('jit', 'data=2,fsdp=2,tensor=2', 4)]


class Rows(NamedTuple):
    x_BTD: np.ndarray
    label_BT: np.ndarray
    mask_BT: np.ndarray


def make_batch() -> Rows:
    """Rows of 0 to T tokens: rows 2 and 3, a whole replica of eight, and row 9 have none."""
    random = np.random.default_rng(0)
    lengths_B = random.integers(1, T + 1, B)
    lengths_B[[2, 3, 9]] = 0
    return Rows(random.normal(size=(B, T, D)).astype(np.float32), random.integers(0, V, (B, T)).astype(np.int32),
                (np.arange(T) < lengths_B[:, None]).astype(np.float32))


def make_params():
    random = np.random.default_rng(1)
    return {'hidden': {'kernel': jnp.asarray(random.normal(size=(D, F)), jnp.float32), 'bias': jnp.zeros(F)},
            'out': {'kernel': jnp.asarray(random.normal(size=(F, V)), jnp.float32), 'bias': jnp.zeros(V)}}


def loss(params, batch, rng, step):
    """Cross entropy over tokens, and a second term with another count: hidden units squared over rows."""
    hidden_BTF = jnp.tanh(batch.x_BTD @ params['hidden']['kernel'] + params['hidden']['bias'])
    logits_BTV = hidden_BTF @ params['out']['kernel'] + params['out']['bias']
    nll_BT = -jnp.take_along_axis(jax.nn.log_softmax(logits_BTV), batch.label_BT[..., None], -1)[..., 0]
    rows_B = batch.mask_BT[:, 0]
    right = (logits_BTV.argmax(-1) == batch.label_BT) * batch.mask_BT
    objective = {'nll': ((nll_BT * batch.mask_BT).sum(), batch.mask_BT.sum()),
                 'activity': (((hidden_BTF ** 2).mean((1, 2)) * rows_B).sum(), rows_B.sum())}
    return objective, {'accuracy': (right.sum(), batch.mask_BT.sum())}


def learner(accumulate=1, loss=loss, optimizer=None):
    return GradientDescent(loss, optimizer or optax.sgd(RATE), lambda t: jnp.float32(RATE), seed=3,
                           accumulate=accumulate)


def reference(params, batch):
    """Objective and gradient in numpy float64, by hand."""
    w, b, u, c = (np.asarray(params[layer][name], np.float64)
                  for layer in ('hidden', 'out') for name in ('kernel', 'bias'))
    x, mask = batch.x_BTD.astype(np.float64), batch.mask_BT.astype(np.float64)
    rows, hidden = mask[:, 0], np.tanh(x @ w + b)
    logits = hidden @ u + c
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    hit = np.eye(V)[batch.label_BT]
    nll = -(np.log(p) * hit).sum(-1)
    value = {'nll': ((nll * mask).sum(), mask.sum()), 'activity': ((hidden ** 2).mean((1, 2)) @ rows, rows.sum()),
             'accuracy': (((p.argmax(-1) == batch.label_BT) * mask).sum(), mask.sum())}
    d_logits = (p - hit) * mask[..., None] / mask.sum()
    d_hidden = d_logits @ u.T + 2 * hidden / (T * F) * rows[:, None, None] / rows.sum()
    d_pre = d_hidden * (1 - hidden ** 2)
    gradient = {'hidden': {'kernel': np.einsum('btd,btf->df', x, d_pre), 'bias': d_pre.sum((0, 1))},
                'out': {'kernel': np.einsum('btf,btv->fv', hidden, d_logits), 'bias': d_logits.sum((0, 1))}}
    return value, gradient


def close(ours, theirs, tolerance=TOLERANCE):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max())),
                 jax.tree.map(np.asarray, ours), jax.tree.map(np.asarray, theirs))


def run(placement, learn, batch, steps=1):
    state = placement.place_state(learn.init(make_params()))
    step = placement.step(learn.step)
    for _ in range(steps):
        state, sums = step(state, placement.place_batch(batch))
    return jax.device_get((state, sums))


@pytest.mark.parametrize(('mode', 'mesh', 'accumulate'), SETTINGS)
def test_every_mode_has_the_gradient_of_float64(mode, mesh, accumulate):
    batch, params = make_batch(), jax.device_get(make_params())
    value, gradient = reference(params, batch)
    state, sums = run(Placement(mode, mesh, RULES), learner(accumulate), batch)
    close(jax.tree.map(lambda old, new: (old - new) / RATE, params, state.params), gradient, 4 * TOLERANCE)
    close({name: sums[name] for name in value}, value)
    norm = np.sqrt(sum((g ** 2).sum() for g in jax.tree.leaves(gradient)))
    close(sums['gradient_norm'], (norm, 1.0))
    close(sums['learning_rate'], (RATE, 1.0))
    assert state.step == 1


def test_every_mode_has_the_parameters_of_one_device():
    batch = make_batch()
    one = run(Placement('jit', 'data=1'), learner(), batch, steps=4)
    for mode, mesh, accumulate in SETTINGS:
        close(run(Placement(mode, mesh, RULES), learner(accumulate), batch, steps=4), one, 4 * TOLERANCE)


def test_a_mean_of_means_would_be_seen():
    """The same step with the counts of each replica: what the tests above guard against is no rounding error."""
    def wrong(params, batch, rng, step):
        objective, _ = loss(params, batch, rng, step)
        return {name: (total / jnp.maximum(count, 1), jnp.float32(1)) for name, (total, count) in objective.items()}, {}

    batch = make_batch()
    right, _ = run(Placement('pmap'), learner(), batch)
    mean, _ = run(Placement('pmap'), learner(loss=wrong), batch)
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max() / RATE, right.params, mean.params)
    assert min(jax.tree.leaves(apart)) > 1000 * TOLERANCE


@pytest.mark.parametrize('optimizer', [optax.adam(1e-2), optax.adafactor(1e-2, min_dim_size_to_factor=4)])
def test_the_optimizer_state_is_split_like_its_parameters(optimizer):
    placement = Placement('jit', 'fsdp=2,tensor=2', RULES, jax.devices()[:4])
    learn = learner(optimizer=optimizer)
    one, _ = run(Placement('jit', 'data=1'), learn, make_batch())
    state = placement.place_state(learn.init(make_params()))
    before = placement.shardings(state)
    state, _ = placement.step(learn.step)(state, placement.place_batch(make_batch()))
    assert all(x.sharding.is_equivalent_to(s, x.ndim)
               for x, s in zip(jax.tree.leaves(state), jax.tree.leaves(before), strict=True))
    kernel = state.params['hidden']['kernel']
    assert kernel.addressable_shards[0].data.shape == (D // 2, F // 2)
    assert state.params['out']['kernel'].addressable_shards[0].data.shape == (F // 2, V), '2 does not divide 7'
    close(jax.tree.map(np.sign, one.params), jax.tree.map(np.sign, jax.device_get(state.params)))
    if hasattr(state.opt_state[0], 'mu'):
        assert state.opt_state[0].mu['hidden']['kernel'].sharding == kernel.sharding


def test_rules_meet_stacked_kernels_at_their_trailing_dimensions_and_may_be_anchored():
    placement = Placement('jit', 'fsdp=2,tensor=4', (('^encoder/.*kernel$', ('fsdp', 'tensor')), ('kernel$', ())))
    shape = jax.ShapeDtypeStruct((3, 8, 8), jnp.float32)
    params = {'encoder': {'kernel': shape, 'block': {'kernel': shape}}, 'decoder': {'kernel': shape}}
    spec = jax.tree.map(lambda s: tuple(s.spec), placement.shardings(State(shape, params, {'mu': params})))
    assert spec.params['encoder']['block']['kernel'] == (None, 'fsdp', 'tensor')
    assert spec.opt_state['mu'] == spec.params
    assert set(spec.params['decoder']['kernel']) == {None}
    assert spec.step == ()


@pytest.mark.parametrize(('mode', 'mesh'), [('pmap', ''), ('pmap', 'data=2'), ('shard_map', ''), ('jit', 'fsdp=2')])
def test_the_second_step_does_not_compile(mode, mesh, caplog):
    placement, learn = Placement(mode, mesh, RULES), learner(optimizer=optax.adam(1e-2))
    state, step = placement.place_state(learn.init(make_params())), placement.step(learn.step)
    batch = placement.place_batch(make_batch())
    used = state.params['hidden']['kernel']
    state, _ = step(state, batch)
    assert used.is_deleted(), 'the old state is donated'
    with jax.log_compiles(), jax.transfer_guard('disallow'), caplog.at_level('WARNING'):
        step(state, batch)
    assert not [r.message for r in caplog.records if 'ompil' in r.message]


@pytest.mark.parametrize(('mode', 'mesh'), [('pmap', ''), ('pmap', 'data=2'), ('shard_map', ''), ('jit', 'fsdp=2')])
def test_the_first_step_finds_what_a_thread_has_compiled(mode, mesh, caplog):
    placement, learn = Placement(mode, mesh, RULES), learner(optimizer=optax.adam(1e-2))
    step, batch = placement.step(learn.step, *learn.constants), placement.place_batch(make_batch())
    shapes = placement.abstract(jax.eval_shape(learn.init, make_params()))
    thread = threading.Thread(target=placement.compiling(step, shapes, batch))
    thread.start()
    thread.join(timeout=60)
    state = placement.place_state(learn.init(make_params()))
    with jax.log_compiles(), caplog.at_level('WARNING'):
        state, _ = step(state, batch)
    assert int(state.step) == 1
    assert not [record.message for record in caplog.records if 'ompil' in record.message]


@pytest.mark.parametrize(('mode', 'mesh'), [('pmap', ''), ('shard_map', 'data=4'), ('jit', 'fsdp=2,tensor=4')])
def test_a_step_is_lowered_from_shapes(mode, mesh):
    placement, learn = Placement(mode, mesh, RULES), learner(optimizer=optax.adam(1e-2))
    state = placement.abstract(jax.eval_shape(learn.init, make_params()))
    memory = placement.memory(placement.step(learn.step), state, make_batch())
    held = sum(4 * np.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(state))
    rows = sum(x.nbytes for x in make_batch()) / placement.batch_shards
    assert memory.argument_size_in_bytes == held + rows


@pytest.mark.parametrize(('mode', 'mesh'), [('pmap', ''), ('shard_map', 'data=4'), ('jit', ''), ('jit', 'fsdp=2')])
def test_rows_and_sums(mode, mesh):
    placement, batch, params = Placement(mode, mesh, RULES), make_batch(), jax.device_get(make_params())
    placed, rows = placement.place_state(params), placement.place_batch(batch)

    def decode(params, batch, shift, key):
        hidden = batch.x_BTD @ params['hidden']['kernel'] + shift
        return {'h': hidden, 'label': batch.label_BT[:, 0]}

    for shift in (0.0, 2.0):
        out = placement.rows(decode)(placed, rows, shift, jax.random.key(0))
        assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(out))
        np.testing.assert_allclose(out['h'], batch.x_BTD @ params['hidden']['kernel'] + shift, atol=1e-5)
        np.testing.assert_array_equal(out['label'], batch.label_BT[:, 0])
    close(placement.sums(lambda params, batch: loss(params, batch, None, None)[0])(placed, rows),
          {name: pair for name, pair in reference(params, batch)[0].items() if name != 'accuracy'})


@pytest.mark.parametrize(('mode', 'mesh', 'words'), [
    ('jit', 'dta=2', ["'dta'", "did you mean 'data'?"]),
    ('jit', 'data=4,fsdp=4', ['16', '8']),
    ('jit', 'fsdp=3', ['3', '8']),
    ('jit', 'data=2,data=4', ['twice']),
    ('jit', 'data', ["'data'", 'data=2']),
    ('jit', 'data=0', ['data=0']),
    ('pmap', 'fsdp=4', ['fsdp=4', 'pmap', 'jit']),
    ('shard_map', 'tensor=8', ['tensor=8', 'shard_map', 'jit'])])
def test_bad_meshes_are_explained(mode, mesh, words):
    with pytest.raises(UserError) as error:
        Placement(mode, mesh)
    assert all(word in str(error.value) for word in words)
    assert '\n' not in str(error.value)


def test_batches_that_do_not_split_are_explained():
    placement = Placement('jit', 'data=2,fsdp=2')
    assert placement.batch_shards == 4
    placement.check_batch('batch_size', 24, accumulate=3)
    with pytest.raises(UserError, match=r'batch_size=23 .* 4 replicas.*multiple of 4, for example 24'):
        placement.check_batch('batch_size', 23)
    with pytest.raises(UserError, match='multiple of 20, for example 20'):
        placement.check_batch('batch_size', 24, accumulate=5)


def test_describe():
    assert Placement('jit', 'data=2,fsdp=4').describe() == 'jit over data=2, fsdp=4 on 8 x cpu'
    assert Placement('pmap', 'data=1').describe() == 'pmap over data=1 on 1 x cpu'


def test_two_processes_agree_with_one(tmp_path):
    """Two operating system processes of two devices each, over loopback."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    environment = {**environment_of(devices=2), 'PYTHONPATH': str(pathlib.Path(__file__).parents[1])}
    children = [subprocess.Popen([sys.executable, __file__, str(port), str(rank), str(tmp_path)], env=environment,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for rank in range(2)]
    try:
        for child in children:
            text, _ = child.communicate(timeout=90)
            assert child.returncode == 0, text[-3000:]
    finally:
        for child in children:
            child.kill()
    one, sums = run(Placement('jit', 'data=1'), learner(), make_batch(), steps=2)
    for rank in range(2):
        theirs = dict(np.load(tmp_path / f'{rank}.npz'))
        close([theirs[f'param{i}'] for i in range(4)], jax.tree.leaves(one.params), 4 * TOLERANCE)
        close([theirs[name] for name in sums], [sums[name] for name in sums])
        np.testing.assert_array_equal(theirs['label'], make_batch().label_BT)
        assert theirs['restored']
    # What two processes saved, one restores on eight devices.
    placement = Placement('jit', 'fsdp=2,tensor=4', RULES)
    with contextlib.closing(Checkpoints(tmp_path / 'checkpoints', keep=1)) as checkpoints:
        step, state, host = checkpoints.restore(placement.abstract(jax.eval_shape(learner().init, make_params())))
    assert (step, host) == (2, {'from': 'two'})
    close(jax.device_get(state.params), one.params, 4 * TOLERANCE)


def process(port, rank, directory):
    """One of the two processes: its half of the rows, two steps, and everything gathered again."""
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(rank))
    with pytest.raises(UserError, match='pmap runs in one process and there are 2'):
        Placement('pmap')
    with pytest.raises(UserError, match='leaves out 2 of 4 devices of 2 processes'):
        Placement('jit', 'data=2')
    with pytest.raises(UserError, match='tensor=4 does not divide the 2 devices'):
        Placement('jit', 'tensor=4')
    placement, batch = Placement('jit', 'data=2,fsdp=2', RULES), make_batch()
    mine = jax.tree.map(lambda x: np.split(x, 2)[int(rank)], batch)
    state, learn = placement.place_state(learner(2).init(make_params())), learner(2)
    step = placement.step(learn.step)
    for _ in range(2):
        state, sums = step(state, placement.place_batch(mine))
    label = placement.rows(lambda params, batch, key: batch.label_BT)(
        state.params, placement.place_batch(mine), jax.random.key(1))
    whole = placement.rows(lambda params, batch: jax.tree.map(lambda x: x[None].repeat(4, 0), params))(
        state.params, placement.place_batch(mine))
    params = {f'param{i}': x[0] for i, x in enumerate(jax.tree.leaves(whole))}
    with contextlib.closing(Checkpoints(pathlib.Path(directory, 'checkpoints'), keep=1)) as checkpoints:
        checkpoints.save(2, state, {'from': 'two'}, 1.0)
        _, again, _ = checkpoints.restore(placement.abstract(jax.eval_shape(learn.init, make_params())))
        # As the parameters of another run are read: whole, on one device of each process.
        alone = Placement('jit', 'data=1', devices=jax.local_devices()[:1])
        _, whole, _ = checkpoints.restore(alone.abstract(jax.eval_shape(learn.init, make_params())))
    restored = digest(again) == digest(state) == digest(whole)
    np.savez(pathlib.Path(directory, f'{rank}.npz'), label=label, restored=restored, **params, **jax.device_get(sums))


if __name__ == '__main__':
    process(*sys.argv[1:])
