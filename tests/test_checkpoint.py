"""What comes back is what was saved, on any number of devices, or the one before it and a line that says so."""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqjax.errors import UserError
from seqjax.prepared import final_parameters
from seqjax.training.checkpoint import TMP_DIR_SUFFIX, Checkpoints, digest, digests
from seqjax.training.parallel import Placement
from seqjax.training.step import State

# Orbax leaves reads of a damaged checkpoint unfinished, and Python tells pytest when it collects them.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
RULES = (('kernel$', ('fsdp', 'tensor')),)


def make_state(step=1, width=256):
    params = {'encoder': {'kernel': jax.random.normal(jax.random.key(step), (width, 16)), 'bias': jnp.arange(16.0)},
              'scale': jnp.float32(step)}
    return State(jnp.int32(step), params, optax.adam(1e-3).init(params))


def abstract(state, placement=None):
    return (placement or Placement('jit', 'data=1')).abstract(jax.eval_shape(lambda: state))


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture
def open_(tmp_path):
    opened = []

    def open_(keep=2, **options):
        opened.append(Checkpoints(tmp_path / 'checkpoints', keep, **options))
        return opened[-1]

    yield open_
    for checkpoints in opened:
        checkpoints.close()


def saved(checkpoints, *steps):
    for step in steps:
        checkpoints.save(step, make_state(step), {'history': step})
    checkpoints.wait()
    return checkpoints


def data_file(directory, step):
    """The file that holds the arrays: the largest in a 'd' folder."""
    return max(pathlib.Path(directory, str(step)).rglob('d/*'), key=lambda f: f.stat().st_size)


def test_round_trip_in_another_process_object(open_):
    writer = open_()
    assert writer.restore(abstract(make_state())) is None
    assert not writer.directory.exists(), 'looking changes nothing'
    saved(writer, 3)
    writer.save(3, make_state(4), {}, None)  # a step is saved once
    step, state, host = open_().restore(abstract(make_state()))
    assert (step, host) == (3, {'history': 3})
    same(state, make_state(3))


@pytest.mark.parametrize(('there', 'here'), [('data=2,fsdp=4', 'data=1'), ('data=1', 'fsdp=2,tensor=4'),
                                             ('', 'fsdp=4')])
def test_another_number_of_devices(open_, there, here):
    there, here = Placement('pmap' if not there else 'jit', there, RULES), Placement('jit', here, RULES)
    checkpoints = open_()
    checkpoints.save(1, there.place_state(make_state()), {})
    target = abstract(make_state(), here)
    _, state, _ = checkpoints.restore(target)
    same(jax.device_get(state), jax.device_get(make_state()))
    assert all(x.sharding == t.sharding for x, t in zip(jax.tree.leaves(state), jax.tree.leaves(target), strict=True))


def test_the_state_may_be_donated_while_it_is_saved(open_):
    placement = Placement('pmap')
    state = placement.place_state(make_state(width=4096))
    step = placement.step(lambda s, batch, axis: (jax.tree.map(lambda x: x + 1, s), {}))
    expected = jax.device_get(make_state(width=4096))
    checkpoints = open_()
    batch = placement.place_batch(np.zeros((8, 1), np.float32))
    checkpoints.save(0, state, {})
    for _ in range(5):
        state, _ = step(state, batch)
    _, restored, _ = checkpoints.restore(abstract(expected), [0])
    same(jax.device_get(restored), expected)


def test_what_is_kept(open_):
    checkpoints = open_(keep=2, average=2, every=4)
    scores = {1: 0.1, 2: 0.9, 3: 0.2, 5: float('nan'), 6: 0.9, 7: 0.3}
    for step in range(1, 13):
        checkpoints.save(step, make_state(step), {}, scores.get(step))
    checkpoints.wait()
    # 11 and 12 are the newest, 8 and 12 the newest on the schedule, 6 the best (the newer of equals).
    assert open_().steps() == checkpoints.steps() == [6, 8, 11, 12]
    assert open_().best() == checkpoints.best() == 6
    saved(checkpoints, 13, 14)
    assert checkpoints.steps() == [6, 8, 12, 13, 14], 'steps off the schedule do not push scheduled ones out'


def test_a_damaged_best_gives_way_to_the_next_best(open_, capfd):
    checkpoints = open_(keep=5)
    for step, score in ((1, 0.1), (2, 0.9), (3, None), (4, 0.3), (5, None)):
        checkpoints.save(step, make_state(step), {}, score)
    checkpoints.wait()
    assert open_().ranked() == checkpoints.ranked() == [2, 4, 1, 5, 3]
    shapes = abstract(make_state()).params
    ready = types.SimpleNamespace(abstract_params=lambda: shapes, experiment=types.SimpleNamespace(
        training=types.SimpleNamespace(average=0)))
    assert final_parameters(open_(), ready)[1] == 'checkpoint 2, the best on validation'
    data_file(checkpoints.directory, 2).unlink()
    params, which = final_parameters(open_(), ready)
    assert which == 'checkpoint 4, of those that are intact'
    same(params, make_state(4).params)
    assert 'checkpoint 2' in capfd.readouterr().err
    ready.experiment.training.average = 3
    assert final_parameters(open_(average=3), ready)[1] == 'the average of the last 3 checkpoints'
    assert final_parameters(open_(average=9), ready)[1] == 'the average of the last 4 checkpoints'


def test_no_score_no_best(open_):
    assert open_().best() is None
    assert saved(open_(), 1).best() is None


@pytest.mark.parametrize('damage', ['flip', 'zeros', 'truncate', 'remove', 'no record', 'edited record'])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(open_, capfd, damage):
    checkpoints = saved(open_(), 1, 2)
    file = data_file(checkpoints.directory, 2)
    content = bytearray(file.read_bytes())
    record = checkpoints.directory / '2' / 'record' / 'metadata'
    match damage:
        case 'flip':
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        case 'zeros':
            middle = len(content) // 2
            file.write_bytes(content[:middle] + bytes(100) + content[middle + 100:])
        case 'truncate':
            file.write_bytes(content[:100])
        case 'remove':
            file.unlink()
        case 'no record':
            record.unlink()
        case 'edited record':
            record.write_text(record.read_text().replace('"history": 2', '"history": 7'))
    again = open_()
    step, state, host = again.restore(abstract(make_state()))
    assert (step, host) == (1, {'history': 1})
    same(state, make_state(1))
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f'checkpoint 2 in {again.directory} is damaged and not used: ')
    saved(again, 2)  # the step is made again, and saved again
    assert open_().restore(abstract(make_state()))[0] == 2
    assert len(list(again.directory.glob('damaged-2-*'))) == 1
    assert not capfd.readouterr().err


def test_a_bit_flipped_in_the_values_is_seen_by_the_digest(open_, capfd, monkeypatch):
    """Orbax may hand out a wrong number without a word: here it is damaged after reading, past all of its checks."""
    checkpoints = saved(open_(), 1, 2)
    restore = checkpoints._manager.restore

    def flipped(step, args):
        out = restore(step, args=args)
        if step == 2 and 'state' in out:
            bits = np.asarray(out.state['params']['encoder']['kernel']).copy()
            bits.view(np.uint32)[3, 5] ^= 1
            out.state['params']['encoder']['kernel'] = jnp.asarray(bits)
        return out

    monkeypatch.setattr(checkpoints._manager, 'restore', flipped)
    assert checkpoints.restore(abstract(make_state()))[0] == 1
    assert 'params/encoder/kernel does not match its SHA-256' in capfd.readouterr().err


def test_all_damaged(open_):
    checkpoints = saved(open_(), 1, 2)
    for step in (1, 2):
        data_file(checkpoints.directory, step).unlink()
    with pytest.raises(UserError, match=r'every checkpoint .* is damaged \(2, 1\)'):
        open_().restore(abstract(make_state()))


def test_a_checkpoint_that_does_not_fit(open_):
    checkpoints = saved(open_(), 1)
    with pytest.raises(UserError, match=r'encoder/kernel is \(256, 16\) float32 there and \(9, 16\) float32 here'):
        checkpoints.restore(abstract(make_state(width=9)))
    more = make_state()._replace(params={**make_state().params, 'gate': jnp.zeros(3)})
    with pytest.raises(UserError, match=r'params/gate is missing there and \(3,\) float32 here'):
        checkpoints.restore(abstract(more))
    with pytest.raises(UserError, match=r'opt_state/0/count is \(\) int32 there and missing here'):
        checkpoints.restore(abstract(make_state()._replace(opt_state=optax.EmptyState())))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), make_state().params)
    with pytest.raises(UserError, match=r'params/encoder/bias is .* float32 there and .* bfloat16 here'):
        checkpoints.restore({'params': half})
    with pytest.raises(UserError, match=r'no checkpoint of step 5 .* those of 1'):
        checkpoints.restore(abstract(make_state()), [5])


def test_parameters_alone(open_):
    _, part, _ = saved(open_(), 1).restore({'params': abstract(make_state()).params})
    same(part['params'], make_state(1).params)


def test_averaged(open_, capfd):
    checkpoints = saved(open_(keep=1, average=3, every=10), 10, 20, 30, 40, 47)
    assert checkpoints.steps() == [20, 30, 40, 47]
    shapes = abstract(make_state()).params

    def mean(*steps):
        leaves = [jax.device_get(make_state(step).params) for step in steps]
        return jax.tree.map(lambda *x: np.mean(np.asarray(x, np.float64), 0).astype(np.float32), *leaves)

    averaged, used = checkpoints.averaged(shapes)
    assert used == 3
    same(averaged, mean(30, 40, 47))
    data_file(checkpoints.directory, 40).unlink()
    same(open_(keep=1, average=3, every=10).averaged(shapes)[0], mean(20, 30, 47))
    assert 'checkpoint 40' in capfd.readouterr().err
    same(open_(keep=1).averaged(shapes)[0], jax.device_get(make_state(47).params))


def test_the_average_of_equal_checkpoints_is_that_checkpoint(open_):
    checkpoints = open_(average=3)
    for step in (1, 2, 3):
        checkpoints.save(step, make_state(9), {})
    same(checkpoints.averaged(abstract(make_state()).params)[0], make_state(9).params)


def test_digests():
    tree = {'a': np.float32([1, 2]), 'b': {'c': jnp.int32(3)}}
    assert list(digests(tree)) == ['a', 'b/c']
    assert digest(tree) == digest(jax.tree.map(jnp.asarray, tree))
    one_bit = np.float32([1, 2])
    one_bit.view(np.uint32)[0] ^= 1
    others = [{**tree, 'a': one_bit}, {**tree, 'a': np.float32([[1, 2]])}, {**tree, 'a': tree['a'].view(np.int32)},
              {'A': tree['a'], 'b': tree['b']}]
    assert len({digest(tree), *map(digest, others)}) == 5
    placed = jax.device_put(np.arange(16.0, dtype=np.float32).reshape(8, 2), Placement('jit')._split)
    assert digest(placed) == digest(np.arange(16.0, dtype=np.float32).reshape(8, 2))


KILLED = """
import os, signal, sys
import jax.numpy as jnp
from seqjax.training.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1], keep=3)
for step in (1, 2):
    checkpoints.save(step, {'x': jnp.full(40_000_000 if step == 2 else 4, step, jnp.float32)}, {})
    if step == 1:
        checkpoints.wait()
while not any('orbax-checkpoint-tmp' in name for name in os.listdir(sys.argv[1])):
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_while_saving(tmp_path, capfd):
    directory = tmp_path / 'checkpoints'
    done = subprocess.run([sys.executable, '-c', KILLED, str(directory)], timeout=60, check=False, capture_output=True,
                          cwd=pathlib.Path(__file__).parents[1])
    assert done.returncode == -signal.SIGKILL, done.stderr
    partial = [path for path in directory.iterdir() if TMP_DIR_SUFFIX in path.name]
    assert partial, 'the second save was not finished'
    checkpoints = Checkpoints(directory, keep=3)
    assert checkpoints.steps() == [1]
    step, state, _ = checkpoints.restore({'x': jax.ShapeDtypeStruct((4,), jnp.float32)})
    assert step == 1
    assert all(path.exists() for path in partial), 'a reader touches nothing'
    checkpoints.save(3, state, {})
    checkpoints.close()
    assert not any(path.exists() for path in partial)
    assert Checkpoints(directory, keep=3).steps() == [1, 3]
    assert not capfd.readouterr().err


@pytest.mark.parametrize('where', ['record', 'arrays'])
def test_a_full_disk_is_explained(open_, monkeypatch, where):
    checkpoints = saved(open_(), 7)
    if where == 'record':
        def full(*args, dumps=json.dumps, **options):
            if 'sort_keys' in options:  # ours
                return dumps(*args, **options)
            raise OSError(errno.ENOSPC, 'No space left on device')
        monkeypatch.setattr(json, 'dumps', full)
    else:
        async def full(*args, **kwargs):
            raise ValueError('RESOURCE_EXHAUSTED: Error writing "manifest": No space left on device [OS error 28]')
        from orbax.checkpoint._src.serialization import type_handlers
        monkeypatch.setattr(type_handlers.ArrayHandler, 'serialize', full)
    with pytest.raises(UserError, match=r'no space left for a checkpoint .*; the last good one is that of step 7'):
        saved(checkpoints, 8)
    monkeypatch.undo()
    checkpoints.__dict__.pop('_manager')


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which('mount'), reason='mounts a tmpfs')
def test_a_disk_that_is_really_full(tmp_path, capfd):
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1200k', 'none', str(tmp_path)], check=False).returncode:
        pytest.skip('mount is not permitted')
    try:
        checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=3)
        random = np.random.default_rng(0).normal(size=(100, 1000)).astype(np.float32)
        checkpoints.save(1, {'x': random}, {})
        checkpoints.wait()

        def fill():
            for step in range(2, 9):
                checkpoints.save(step, {'x': random + step}, {})
                checkpoints.wait()

        with pytest.raises(UserError, match=r'no space left .* last good one is that of step [23];'):
            fill()
        checkpoints._manager.close()
        again = Checkpoints(tmp_path / 'checkpoints', keep=3)
        assert again.restore({'x': jax.ShapeDtypeStruct((100, 1000), jnp.float32)})[0] == max(again.steps())
        again.close()
        assert not capfd.readouterr().err
    finally:
        subprocess.run(['umount', '-l', str(tmp_path)], check=False)


DAMAGED = """
import pathlib, sys
import jax, jax.numpy as jnp
from seqjax.training.checkpoint import Checkpoints
state = {f'x{i}': jnp.arange(3000.) for i in range(20)}
checkpoints = Checkpoints(sys.argv[1], keep=3)
for step in (1, 2):
    checkpoints.save(step, state, {})
checkpoints.close()
max(pathlib.Path(sys.argv[1], '2').rglob('d/*'), key=lambda f: f.stat().st_size).unlink()
checkpoints = Checkpoints(sys.argv[1], keep=3)
assert checkpoints.restore(jax.eval_shape(lambda: state))[0] == 1
checkpoints.close()
"""


def test_the_user_sees_one_line(tmp_path):
    """And nothing of what orbax, asyncio and Python's hook of last resort have to say, which pytest would swallow."""
    done = subprocess.run([sys.executable, '-c', DAMAGED, str(tmp_path / 'checkpoints')], timeout=60, check=False,
                          capture_output=True, text=True, cwd=pathlib.Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout == ''
    line, = done.stderr.splitlines()
    assert line.startswith(f'checkpoint 2 in {tmp_path}/checkpoints is damaged and not used: ')


def test_a_score_that_comes_later_counts(tmp_path):
    """A checkpoint saved during its evaluation, and once more when the evaluation was done again, can be the best."""
    state = {'params': {'w': jnp.arange(3.0)}}
    first = Checkpoints(tmp_path, keep=1)
    first.save(1, state, {'evaluated': 0}, 5.0)
    first.save(2, state, {'evaluated': 1})
    first.close()
    again = Checkpoints(tmp_path, keep=1)
    again.save(2, state, {'evaluated': 2}, 7.0)
    again.wait()
    assert again.best() == 2
    again.save(2, state, {'evaluated': 3}, 1.0)  # a score that is there is not replaced
    again.save(3, state, {'evaluated': 3}, 6.0)
    again.close()
    last = Checkpoints(tmp_path, keep=1)
    assert (last.best(), last.steps()) == (2, [2, 3])
    assert last.restore(state, [2])[2] == {'evaluated': 2}
