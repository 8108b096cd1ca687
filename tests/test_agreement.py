"""However a step is spread over devices, micro-batches and processes, it is the same step: gradients, losses and SGD's
parameters (Adam would hide a wrong scale). With dropout, what must differ does.
"""

import contextlib
import dataclasses
import functools
import signal
import socket
import subprocess
import sys
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import ROOT, environment_of, flags, launch, records, steps_of, summary

from experiments.translation import numerals
from seqjax import catalogue
from seqjax.data.batches import Batch, Batches
from seqjax.data.room import Room
from seqjax.layers.dropout import Dropout
from seqjax.models.contract import shift_right
from seqjax.prepared import prepare
from seqjax.reuse import parameters_of
from seqjax.training.optimizer import Optimizer
from seqjax.training.step import interleave

RATE = 0.5
# Of a gradient's largest entry; float32 has 6e-8, and sums over a batch are taken in another order in each setting.
TOLERANCE = 2e-5
SETTINGS = [('pmap', '', 1), ('shard_map', '', 1), ('jit', 'data=8', 1), ('pmap', 'data=4', 2),
            ('jit', 'fsdp=2,tensor=2', 2)]
# What a model does to a setting. pmap and shard_map hand a replica's rows to the model as they are, and eight replicas
# are no others than four: these two are tried with a recurrent model, one that attends, and one that counts.
OWN = SETTINGS[2:]


TEXT = dict(train_size=60, valid_size=9, test_size=9, highest=999, buckets=1)


def counts(model):
    """Whether a model learns by counting."""
    return catalogue.load('model', model).learner == 'counts'


def experiment(model, **options):
    """Number words, with sizes that 2 and 4 divide, dropout off and SGD; or counts, where every batch is a pass."""
    base = numerals(model)
    if counts(model):
        return base.replace('task', **TEXT).replace('model', model1_passes=0, **options).replace(
            'training', batch_size=16)
    size = dict(num_layers=1, hidden_size=8, dropout=0.0) | (
        {'num_layers': 2, 'num_heads': 2} if hasattr(base.model, 'num_heads') else {})
    size = {name: value for name, value in size.items() if hasattr(base.model, name)}
    base = dataclasses.replace(base, optimizer=Optimizer(name='sgd', learning_rate=RATE))
    return base.replace('task', **TEXT, label_smoothing=0.1).replace('model', **size | options).replace(
        'training', batch_size=16)


@functools.cache
def data():
    """The corpus, and two batches of 16 rows, of which the second has 4 for filler."""
    prepared = experiment('rnn').task.prepare()
    batches = Batches(*prepared.ids['train'], 16, prepared.codec.shapes, None)
    return prepared, [batches.batch(0), batches.batch(3)]


def with_room(batch, replicas, accumulate):
    """The batch, and just as much room as the fullest of its parts needs, cut as a step cuts them."""
    parts = [interleave(ids, accumulate) for ids in zip(*(np.split(side, replicas) for side in batch[:2]))]
    return batch._replace(room=Room(*(int(max((np.asarray(part[side]) != 0).sum(axis=(1, 2)).max() for part in parts))
                                      for side in (0, 1))))


@mock.patch.object(jax.nn, 'relu', jax.nn.gelu)  # one of the numbers that ReLU gets lies 3e-8 from its kink
def trained(model, mode, mesh, accumulate, task=(), unpadded=False, **options):
    """Parameters before, after one and after two steps, and the sums of both."""
    prepared, batches = data()
    spread = experiment(model, **options).replace('training', parallel=mode, mesh=mesh, accumulate=accumulate)
    spread = spread.replace('task', **dict(task))
    ready = prepare(spread, prepared.codec)
    learner = ready.learner(9)
    step = ready.placement.step(learner.step)
    state = ready.begin(learner)
    if counts(model):  # begins with tables that know nothing, of which one pass leaves some as they are
        rng = np.random.default_rng(0)
        state = state._replace(params=jax.tree.map(lambda x: x * rng.uniform(0.5, 1.5, x.shape).astype(x.dtype),
                                                   state.params))
    state = ready.placement.place_state(state)
    params, sums = [jax.device_get(state.params)], []
    for batch in batches:
        batch = with_room(batch, ready.placement.batch_shards, accumulate) if unpadded else batch
        state, out = step(state, ready.placement.place_batch(batch))
        params.append(jax.device_get(state.params))
        sums.append({name: np.array(pair) for name, pair in jax.device_get(out).items()})
    return params, sums


def close(ours, theirs, what):
    """Each array to TOLERANCE of its largest entry."""
    def check(path, a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * max(np.abs(b).max(), 1e-2),
                                   err_msg=f'{what} {jax.tree_util.keystr(path)}')

    jax.tree_util.tree_map_with_path(check, ours, theirs)


def agree(model, settings=SETTINGS, unpadded=False, **options):
    """Gradients, parameters and sums in each setting are those of one device; returns the sums of the first step."""
    (before, after, end), sums = trained(model, 'jit', 'data=1', 1, **options)
    gradient = jax.tree.map(lambda a, b: (a - b) / RATE, before, after)
    assert all(np.abs(leaf).max() > 3e-6 for leaf in jax.tree.leaves(gradient)), jax.tree.map(np.max, gradient)
    for setting in settings:
        (_, other, other_end), other_sums = trained(model, *setting, unpadded=unpadded, **options)
        close(jax.tree.map(lambda a, b: (a - b) / RATE, before, other), gradient, f'{setting} gradient')
        close(other_end, end, f'{setting} parameters')
        close(other_sums, sums, f'{setting} sums')
    return sums[0]


@pytest.mark.parametrize('model', catalogue.models())
def test_every_setting_agrees_with_one_device(model):
    agree(model, SETTINGS if model in ('lstm', 'transformer', 'smt') else OWN)


@pytest.mark.parametrize('model', ['lstm', 'transformer'])
def test_every_setting_agrees_where_the_model_reads_its_own_words(model):
    """All of them, and the likeliest: nothing is drawn."""
    sums = agree(model, SETTINGS[3:], task=dict(sampling='constant', sampling_share=1.0, sampling_word='argmax'))
    assert sums['teacher_forcing'][0] == 0
    assert sums['teacher_forcing'][1] > 0
    _, forced = trained(model, 'jit', 'data=1', 1)
    assert abs(sums['loss'] - forced[0]['loss'])[0] > 1e-2, 'the words read are others'


@pytest.mark.parametrize(('model', 'task'), [
    ('transformer', dict(sampling='constant', sampling_share=1.0, sampling_word='argmax')), ('bahdanau', {})])
def test_parts_without_padding_agree_with_a_whole_batch_that_has_it(model, task):
    agree(model, [('jit', 'data=1', 1), ('pmap', 'data=4', 2)], unpadded=True, task=task)


@pytest.mark.parametrize(('model', 'positions'), [('transformer', 't5'), ('decoderonly', 'rotary')])
def test_position_encodings_agree_where_parameters_are_split(model, positions):
    agree(model, SETTINGS[-1:], positions=positions)


def test_predicted_windows_agree_where_parameters_are_split():
    agree('luong', SETTINGS[-1:], attention='predictive', window=3)


@pytest.mark.parametrize(('model', 'options', 'accumulate', 'settings'), [
    ('transformer', {}, 1, [('pmap', 'data=4'), ('jit', 'data=4')]),
    ('lstm', dict(bidirectional=True), 2, [('shard_map', 'data=4')])])
def test_batch_normalisation_sees_every_replica(model, options, accumulate, settings):
    """A micro-batch has statistics of its own, so that settings with as many micro-batches agree."""
    (before, after, end), sums = trained(model, 'jit', 'data=1', accumulate, normalisation='batch', **options)
    moved = [leaf for path, leaf in jax.tree_util.tree_flatten_with_path(jax.tree.map(np.subtract, end, after))[0]
             if path[-1].key == 'running_mean']
    assert moved
    assert all(np.abs(leaf).max() > 1e-5 for leaf in moved)
    for setting in settings:
        (_, other, other_end), other_sums = trained(model, *setting, accumulate, normalisation='batch', **options)
        close(jax.tree.map(lambda a, b: (a - b) / RATE, before, other),
              jax.tree.map(lambda a, b: (a - b) / RATE, before, after), f'{setting} gradient')
        close(other_end, end, f'{setting} parameters')
        close(other_sums, sums, f'{setting} sums')


def test_the_batches_would_show_a_mean_of_means():
    """Replicas and micro-batches hold unlike numbers of tokens, and of rows."""
    _, batches = data()
    tokens, rows = ([np.array([(part != 0).sum() for part in np.split(x, 8)]) for x in xs] for xs in (
        [batch.target for batch in batches], [batch.weight for batch in batches]))
    assert all(len(set(counts)) > 2 for counts in tokens)
    assert rows[1].min() == 0


def nll_by_row(model, mode, mesh, accumulate, steps=1):
    """Each row's loss in a batch of one sentence eight times, in each step (parameters stand still): (steps, 8)."""
    prepared, (batch, _) = data()
    spread = experiment(model, dropout=0.4).replace(
        'training', batch_size=8, parallel=mode, mesh=mesh, accumulate=accumulate)
    spread = dataclasses.replace(spread, optimizer=Optimizer(name='sgd', learning_rate=1e-30))
    ready = prepare(spread, prepared.codec)

    def loss(params, batch, rng, step):
        logits_BTV = ready.experiment.model.apply({'params': params}, batch.source, shift_right(batch.target),
                                                  rngs={'dropout': rng})
        nll_BT = -jnp.take_along_axis(jax.nn.log_softmax(logits_BTV), batch.target[:, :, None], axis=-1)[:, :, 0]
        nll_B = (nll_BT * (batch.target != 0)).sum(1)
        one = jnp.ones(())
        return {'loss': (nll_B.sum(), one)}, {f'row {i}': (jnp.where(batch.row == i, nll_B, 0).sum(), one)
                                              for i in range(8)}

    learner = dataclasses.replace(ready.learner(9), loss=loss)
    step = ready.placement.step(learner.step)
    state = ready.placement.place_state(ready.begin(learner))
    same = Batch(*(np.repeat(x[:1], 8, axis=0) for x in batch[:3]), np.arange(8, dtype=np.int32))
    found = []
    for _ in range(steps):
        state, sums = step(state, ready.placement.place_batch(same))
        found.append([float(sums[f'row {i}'][0]) for i in range(8)])
    return np.array(found)


@pytest.mark.parametrize(('model', 'mode', 'mesh', 'accumulate'), [
    ('transformer', 'pmap', '', 1), ('gru', 'shard_map', '', 1), ('transformer', 'jit', 'data=1', 8),
    ('gru', 'pmap', 'data=4', 2), ('gru', 'jit', 'data=4', 2)])
def test_dropout_differs_in_replicas_micro_batches_and_steps(model, mode, mesh, accumulate):
    """Each row lies at the same place of its replica's micro-batch: only the key can tell them apart."""
    nll = nll_by_row(model, mode, mesh, accumulate, steps=2)
    assert len(np.unique(nll.round(4))) == 16, nll
    np.testing.assert_array_equal(nll[:1], nll_by_row(model, mode, mesh, accumulate))


@pytest.mark.parametrize('model', ['transformer', 'decoderonly', 'gru', 'luong', 'convs2s'])
def test_dropout_differs_in_layers_and_places(model):
    """No two masks of a pass are the same: rate 0.5, so half of two masks agree."""
    prepared, _ = data()
    net = prepare(experiment(model, dropout=0.5, hidden_size=32, num_layers=3), prepared.codec).experiment.model
    rows = np.full((8, 12), 5, np.int32)  # no padding, where outputs may be 0 anyway
    params = jax.jit(net.init)(jax.random.key(0), rows, rows)['params']
    _, sown = jax.jit(lambda params, key: net.apply(
        {'params': params}, rows, rows, rngs={'dropout': key}, mutable=['intermediates'],
        capture_intermediates=lambda module, method: isinstance(module, Dropout)))(params, jax.random.key(1))
    masks = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(sown['intermediates'])[0]:
        layers = np.asarray(leaf) != 0
        if 'rop' in jax.tree_util.keystr(path):
            masks += [(jax.tree_util.keystr(path), mask) for mask in (layers if layers.ndim == 4 else [layers])]
    masks = [(name, mask) for name, mask in masks if 0.4 < mask.mean() < 0.6]  # relu makes zeros too
    assert len(masks) >= 4, [name for name, _ in masks]
    for i, (name, mask) in enumerate(masks):
        for other, theirs in masks[:i]:
            if mask.shape == theirs.shape:
                assert 0.4 < (mask == theirs).mean() < 0.6, (name, other)


@contextlib.contextmanager
def two_processes(folder, *more):
    """The launcher twice, two devices each, as one run in folder / 'two'; what they say is in 'log0' and 'log1'."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    environment = environment_of(devices=2)
    processes = []
    try:
        for i in range(2):
            command = [sys.executable, 'launch.py', *flags(folder / 'two', *SGD, *more),
                       '--training.mesh=data=2,fsdp=2', f'--coordinator={address}', '--processes=2', f'--process={i}']
            with open(folder / f'log{i}', 'w') as file:
                processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file))
        yield processes
    finally:
        for process in processes:
            process.kill()


def ended(processes, folder):
    """Their exit codes; what they said where one does not end."""
    deadline = time.monotonic() + WAIT
    try:
        return [process.wait(max(deadline - time.monotonic(), 0)) for process in processes]
    except subprocess.TimeoutExpired:
        pytest.fail('\n'.join((folder / f'log{i}').read_text()[-2000:] for i in range(2)))


SGD = ['--optimizer.name=sgd', f'--optimizer.learning_rate={RATE}', '--model.dropout=0', '--training.log_every=1',
       '--training.parallel=jit']
WAIT = 200  # seconds for processes on a busy machine


def test_two_processes_are_one(tmp_path):
    """Two processes of two devices: the metrics and parameters of one device, and files written once."""
    more = ['--training.steps=6', '--training.checkpoint_every=4', '--training.evaluate_every=3']
    with two_processes(tmp_path, *more) as processes:
        assert ended(processes, tmp_path) == [0, 0], (tmp_path / 'log0').read_text()[-2000:]
    assert launch(*flags(tmp_path / 'one', *SGD, *more)) == 0
    one, two = records(tmp_path / 'one'), records(tmp_path / 'two')
    assert [(r['step'], r['split']) for r in one] == [(r['step'], r['split']) for r in two]
    for ours, theirs in zip(two, one, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ('loss', 'nll', 'gradient_norm'):
            np.testing.assert_allclose(ours.get(name, 0), theirs.get(name, 0), rtol=1e-4, err_msg=str(ours))
    assert one[0]['loss'] - one[-1]['loss'] > 0.1, 'nothing was learned, and everything agrees'
    params = [jax.device_get(parameters_of(tmp_path / name)) for name in ('two', 'one')]
    close(*params, 'parameters')
    finals = [summary(tmp_path / name) for name in ('one', 'two')]
    assert finals[0]['parameters'] == finals[1]['parameters']
    np.testing.assert_allclose(finals[0]['test']['loss'], finals[1]['test']['loss'], rtol=1e-4)
    assert (tmp_path / 'two' / 'predictions' / 'test.txt').read_bytes().count(b'\n') == 9
    assert len(list((tmp_path / 'two').glob('events.*'))) == 1
    # One process goes on where two ended.
    assert launch(*flags(tmp_path / 'two', *SGD, *more, '--training.steps=7')) == 0
    assert summary(tmp_path / 'two')['steps'] == 7


def test_two_processes_stop_together(tmp_path):
    """SIGTERM to one: both save the same step and exit with 143."""
    metrics = tmp_path / 'two' / 'metrics.jsonl'
    with two_processes(tmp_path, '--training.steps=100000', '--training.checkpoint_every=100000',
                       '--training.evaluate_every=100000') as processes:
        deadline = time.monotonic() + WAIT
        while not metrics.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGTERM)
        assert ended(processes, tmp_path) == [143, 143]
    assert steps_of(tmp_path / 'two') == [records(tmp_path / 'two')[-1]['step']]
    assert 'Traceback' not in ''.join((tmp_path / f'log{i}').read_text() for i in range(2))
