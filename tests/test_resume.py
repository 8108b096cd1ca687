"""A run that is stopped, at whatever moment and in whatever way, and given the same command again, ends as if nothing
had happened: bit for bit on the same devices, within tolerance on others. And what must stop a run loses nothing.
"""

import errno
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny import (
    DEVICES,
    ROOT,
    bigrams,
    child,
    counting,
    flags,
    launch,
    outcome,
    records,
    snapshot,
    steps_of,
    summary,
)

from seqjax import figures, files
from seqjax.errors import UserError
from seqjax.run import train
from seqjax.tasks import scores
from seqjax.tasks.evaluation import Evaluator
from seqjax.training.checkpoint import TMP_DIR_SUFFIX, Checkpoints
from seqjax.training.loop import Interrupted
from seqjax.training.metrics import JsonLines, TensorBoard
from seqjax.training.optimizer import Optimizer
from seqjax.training.progress import Progress

# Nothing divides anything: steps, evaluations, checkpoints and records all fall apart.
RHYTHM = dict(steps=20, evaluate_every=6, checkpoint_every=4, log_every=3, accumulate=2, keep=1)
# The exact match is 0 to the end, and patience ends the run at 18. The chrF is best at 2 and 4, at none is it saved by
# schedule, and it is the same when rounded: of equals one must be chosen, whatever else was saved.
RHYTHMS = {'average and patience': dict(RHYTHM, average=2, patience=2, metric='exact_match'),
           'best of equals': dict(RHYTHM, steps=15, evaluate_every=2, checkpoint_every=5, metric='chrf', seed=21),
           # A pass is eight batches: checkpoints fall amid its counts.
           'counts': dict(RHYTHM, metric='loss')}
WAIT = 240  # seconds for a child on a busy machine


def lines(capfd) -> list[str]:
    """What was said on stderr, progress apart."""
    said = capfd.readouterr().err.splitlines()
    return [line for line in said if not re.match(r'step \d|\d+ of \d+ translations', line)]


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take most of the time of a small run."""
    monkeypatch.setattr(figures, 'draw_run', lambda *args: [])


@pytest.fixture
def coarse(monkeypatch):
    """Scores that are often equal."""
    def summary(*args, exact=scores.summary):
        values, signatures = exact(*args)
        return values | {'chrf': values['chrf'] // 5}, signatures

    monkeypatch.setattr(scores, 'summary', summary)


def quiet(text: str) -> None:
    """Takes what a run says."""


class Died(Exception):
    """The machine went off."""


class Moments:
    """Acts at one of the moments of a run: before and after everything that leaves a trace. Aimed at the n-th of all
    of them, or at the first of a name.
    """

    PLACES = ((Evaluator, 'losses'), (Evaluator, 'decode'), (Checkpoints, 'save'), (Progress, 'advance'),
              (JsonLines, 'write'), (TensorBoard, 'write'), (files, 'write'))

    def __init__(self, monkeypatch, act):
        self.aim, self.passed, self.act, self.seen, self.names = None, 0, act, [], []
        for owner, name in self.PLACES:
            self.names += [f'{when} {owner.__name__}.{name}' for when in ('before', 'after')]
            monkeypatch.setattr(owner, name, self.watched(getattr(owner, name), *self.names[-2:]))

    def watched(self, function, before, after):
        def call(*args, **options):
            self.reach(before)
            result = function(*args, **options)
            self.reach(after)
            return result
        return call

    def reach(self, name):
        self.passed += 1
        if self.aim in (name, self.passed):
            self.aim = None
            self.seen.append(name)
            self.act()


def uninterrupted(rhythm, workdir):
    """The experiment, and what it ends in if nobody stops it; it is as hard as it was meant to be."""
    experiment = (counting if rhythm == 'counts' else bigrams)(**RHYTHMS[rhythm])
    train(experiment, workdir, say=quiet)
    expected = outcome(workdir)
    metric = experiment.task.metric
    values = {record['step']: record[metric] for record in expected['records'] if record['split'] == 'valid'}
    best = [step for step, value in values.items() if value == max(values.values())]
    if rhythm == 'counts':
        assert values[20] < values[6], 'something was learned'
    elif rhythm == 'best of equals':
        assert (best, expected['steps'], expected['parameters_from'].split(',')[0]) == ([2, 4], 15, 'checkpoint 4')
    else:
        assert (best, expected['steps']) == ([6, 12, 18], 18)
    return experiment, expected


def die():
    raise Died


@pytest.mark.parametrize('rhythm', RHYTHMS)
def test_a_run_that_dies_at_every_moment(tmp_path, monkeypatch, undrawn, coarse, rhythm):
    """Its n-th attempt dies at the n-th of its moments, until one comes through."""
    experiment, expected = uninterrupted(rhythm, tmp_path / 'whole')
    moments = Moments(monkeypatch, die)
    for attempt in itertools.count(1):
        moments.aim, moments.passed = 3 * attempt, 0
        try:
            train(experiment, tmp_path / 'run', say=quiet)
            break
        except Died:
            assert attempt < 100, moments.seen
    assert attempt > 5
    assert len(set(moments.seen)) > 5, moments.seen
    assert outcome(tmp_path / 'run') == expected, moments.seen


@pytest.mark.parametrize(('rhythm', 'places'), [
    ('average and patience', ()),
    ('best of equals', ('before Evaluator.decode', 'after Evaluator.decode', 'after Progress.advance'))],
    ids=['at every moment', 'in every evaluation'])
def test_a_run_that_is_asked_to_stop(tmp_path, monkeypatch, undrawn, coarse, rhythm, places):
    """SIGTERM between steps, within an evaluation, while saving: what was done is saved, and the end is the same."""
    experiment, expected = uninterrupted(rhythm, tmp_path / 'whole')
    moments = Moments(monkeypatch, lambda: signal.raise_signal(signal.SIGTERM))
    done = []
    monkeypatch.setattr(Progress, 'advance', lambda progress, step, *rest, advance=Progress.advance: (
        done.append(step), advance(progress, step, *rest)))
    places = places or moments.names
    for attempt in itertools.count():
        moments.aim = places[attempt % len(places)]
        try:
            train(experiment, tmp_path / 'run', say=quiet)
            break
        except Interrupted as stopped:
            assert stopped.status == 143  # noqa: PT017
            assert steps_of(tmp_path / 'run')[-1:] == done[-1:], moments.seen
            assert attempt < 100, moments.seen
    assert {*places[:8]} <= {*moments.seen}
    assert outcome(tmp_path / 'run') == expected, moments.seen


# The same by the launcher, in processes that really end, with a real model on two devices.
LAUNCHED = ['--model.num_layers=2', '--model.dropout=0.3', '--training.mesh=data=2', '--training.average=2',
            '--training.patience=2', *(f'--training.{name}={value}' for name, value in RHYTHM.items())]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run that nobody stopped."""
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    assert launch(*flags(workdir, *LAUNCHED)) == 0
    assert summary(workdir)['steps'] == 18
    return workdir


def send(signum, process, condition, log):
    """Sends a signal as soon as `condition` holds, and returns the exit code."""
    deadline = time.monotonic() + WAIT
    try:
        while not condition():
            assert process.poll() is None, f'ended before it could be stopped: {log.read_text()}'
            assert time.monotonic() < deadline, f'never came so far: {log.read_text()}'
            time.sleep(0.001)
        process.send_signal(signum)
        return process.wait(WAIT)
    finally:
        process.kill()


def evaluating(workdir, step):
    """Whether a run is in the evaluation of `step`, before whose start the record of that step is written."""
    path = workdir / 'metrics.jsonl'
    last = path.read_text().splitlines()[-1:] if path.exists() else []
    return any(f'"step": {step}, "split": "train"' in line for line in last)


def test_sigkill(tmp_path, whole, capfd):
    workdir, log = tmp_path / 'run', tmp_path / 'log'
    command = flags(workdir, *LAUNCHED)
    refused = []

    def started():
        if not (workdir / 'metrics.jsonl').exists():
            return False
        refused.append((launch(*command), lines(capfd)))
        return True

    def saving():
        return workdir.joinpath('checkpoints').is_dir() and any(
            TMP_DIR_SUFFIX in path.name for path in workdir.joinpath('checkpoints').iterdir())

    for moment in (started, saving, lambda: evaluating(workdir, 12), lambda: 18 in steps_of(workdir)):
        assert send(signal.SIGKILL, child(command, log), moment, log) == -signal.SIGKILL
        assert not (workdir / 'summary.json').exists()
    assert launch(*command) == 0
    assert outcome(workdir) == outcome(whole)
    (code, said), = refused
    assert code == 2
    assert said == [f'error: --workdir={workdir}: another process is training there; wait for it, or choose another '
                    'folder']


def test_sigterm_in_an_evaluation(tmp_path, whole):
    workdir, log = tmp_path / 'run', tmp_path / 'log'
    command = flags(workdir, *LAUNCHED)
    assert send(signal.SIGTERM, child(command, log), lambda: evaluating(workdir, 6), log) == 143
    assert f'stopped by SIGTERM; saved in {workdir}: the same command goes on from there' in log.read_text()
    assert 'Traceback' not in log.read_text()
    assert steps_of(workdir)[-1] == 6
    assert not [record for record in records(workdir) if record['split'] == 'valid']
    assert launch(*command) == 0
    assert outcome(workdir) == outcome(whole)


def test_flags_txt_repeats_the_run(tmp_path, whole):
    assert launch(f'--flagfile={whole}/flags.txt', f'--workdir={tmp_path}/again', '--compilation_cache=none') == 0
    assert outcome(tmp_path / 'again') == outcome(whole)


def test_the_same_command_again_changes_nothing(tmp_path, whole):
    shutil.copytree(whole, tmp_path / 'run')
    assert launch(*flags(tmp_path / 'run', *LAUNCHED)) == 0
    assert outcome(tmp_path / 'run') == outcome(whole)
    assert summary(whole)['time']['tokens_per_second'] > 0
    assert summary(tmp_path / 'run')['time']['tokens_per_second'] is None, 'no step was made'


def test_a_full_disk(tmp_path, whole, capfd, monkeypatch):
    """While a metric is written, then while a checkpoint is: a line, and the run goes on once there is room."""
    from orbax.checkpoint._src.serialization import type_handlers
    workdir = tmp_path / 'run'
    command = flags(workdir, *LAUNCHED)

    def full(writer, record, write=JsonLines.write):
        if record['step'] > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(writer, record)

    with monkeypatch.context() as patch:
        patch.setattr(JsonLines, 'write', full)
        assert launch(*command) == 2
        line, = lines(capfd)
        assert line.startswith('error: the disk is full ')
        assert 'make room and give the same command again' in line

    async def full_too(*args, **options):
        raise ValueError('RESOURCE_EXHAUSTED: Error writing "manifest": No space left on device [OS error 28]')

    with monkeypatch.context() as patch:
        patch.setattr(type_handlers.ArrayHandler, 'serialize', full_too)
        newest = steps_of(workdir)[-1]
        assert launch(*command) == 2
        line, = lines(capfd)
        assert line.startswith(f'error: no space left for a checkpoint on the disk of {workdir}/checkpoints; '
                               f'the last good one is that of step {newest};')
    assert not (workdir / 'summary.json').exists()
    assert launch(*command) == 0
    assert outcome(workdir) == outcome(whole)


@pytest.mark.skipif(not pathlib.Path('/dev/full').exists(), reason='the system has no full device')
def test_a_full_output(tmp_path, whole, capfd):
    source = tmp_path / 'source'
    source.write_text('one\n' * 3)
    command = ['--mode=predict', f'--workdir={whole}', f'--input={source}', '--compilation_cache=none']
    assert launch(*command, '--output=/dev/full') == 2
    line, = lines(capfd)
    assert line.startswith('error: the disk is full')
    buffered = {name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'}
    with open('/dev/full', 'w') as full:
        done = subprocess.run([sys.executable, 'launch.py', *command], cwd=ROOT, stdout=full, stderr=subprocess.PIPE,
                              text=True, check=False, timeout=WAIT, env=buffered)
    assert done.returncode == 2, done.stderr
    told = [line for line in done.stderr.splitlines() if 'had no end' not in line]  # nothing was learned to end with
    assert len(told) == 1, done.stderr
    assert told[0].startswith('error: the disk is full')


class StopsAt:
    """A writer that ends the run."""

    def __init__(self, step):
        self.step = step

    def cut(self, step, evaluated=None):
        """Nothing was written."""

    def write(self, record):
        if record['step'] == self.step:
            raise Died

    def close(self):
        """Nothing is open."""


def part(experiment, workdir, step):
    """Trains until the record of `step` is written, and no further."""
    with pytest.raises(Died):
        train(experiment, workdir, writers=[StopsAt(step)], say=quiet)


def test_a_damaged_checkpoint(tmp_path, undrawn, capfd):
    """The newest is damaged: it is named, the one before is used, and the end is the same."""
    experiment = bigrams(steps=14, evaluate_every=7, checkpoint_every=4, log_every=3, keep=2)
    train(experiment, tmp_path / 'whole', say=quiet)
    part(experiment, tmp_path / 'run', 12)
    assert steps_of(tmp_path / 'run') == [7, 8]
    largest = max((tmp_path / 'run' / 'checkpoints' / '8').rglob('d/*'), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    said = []
    capfd.readouterr()
    train(experiment, tmp_path / 'run', say=said.append)
    line, = lines(capfd)
    assert line.startswith(f'checkpoint 8 in {tmp_path}/run/checkpoints is damaged and not used: ')
    assert 'going on after step 7' in said[0]
    assert outcome(tmp_path / 'run') == outcome(tmp_path / 'whole')


def test_another_number_of_devices(tmp_path, undrawn):
    """Eight under pmap, then one under jit, then four that split the parameters: the same loss to 1e-4."""
    experiment = bigrams(optimizer=Optimizer(name='sgd', learning_rate=0.5), metric='loss', steps=14, evaluate_every=7,
                         checkpoint_every=3, log_every=1).replace('model', dropout=0.0)
    places = [dict(parallel='pmap', mesh=''), dict(parallel='jit', mesh='data=1'), dict(parallel='jit', mesh='fsdp=4')]
    everywhere = [experiment.replace('training', **place) for place in places]
    train(everywhere[0], tmp_path / 'whole', say=quiet)
    part(everywhere[0], tmp_path / 'run', 5)
    part(everywhere[1], tmp_path / 'run', 10)
    said = []
    train(everywhere[2], tmp_path / 'run', say=said.append)
    assert 'going on after step 9' in said[0]
    one, other = records(tmp_path / 'run'), records(tmp_path / 'whole')
    assert [(r['step'], r['split']) for r in one] == [(r['step'], r['split']) for r in other]
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose([ours['loss'], ours.get('gradient_norm', 0)],
                                   [theirs['loss'], theirs.get('gradient_norm', 0)], rtol=1e-4, err_msg=str(ours))
    assert one[0]['loss'] > 1.1 * one[-1]['loss'], 'nothing was learned, and everything agrees'
    np.testing.assert_allclose(summary(tmp_path / 'run')['test']['loss'], summary(tmp_path / 'whole')['test']['loss'],
                               rtol=1e-4)


def test_another_run_in_the_folder_is_refused(tmp_path, whole, capfd):
    """The fields that differ are named, and nothing of the run is touched."""
    before = snapshot(whole)
    capfd.readouterr()
    for change, words in {
            '--model.hidden_size=9 --training.seed=1': 'model.hidden_size was 8 and is now 9; training.seed was 0 and '
                                                       'is now 1;',
            '--task.highest=888': 'task.highest was 999 and is now 888',
            '--task.max_length=5': 'task.max_length was 32 and is now 5',
            '--model=rnn': 'model class was seqjax.models.recurrent:GRU and is now seqjax.models.recurrent:RNN',
            '--training.batch_size=16': 'training.batch_size was 8 and is now 16',
            '--optimizer.schedule=cosine': 'optimizer.schedule was inverse_sqrt and is now cosine',
            f'--init_from={tmp_path}': f'init_from was none and is now {tmp_path}',
            '--training.steps=7': '--training.steps=7 lies behind the checkpoint at step 18'}.items():
        assert launch(*flags(whole, *LAUNCHED, *change.split())) == 2, change
        line, = lines(capfd)
        assert line.startswith('error: ')
        assert words in line
    assert snapshot(whole) == before


def test_a_run_from_before_an_option_existed_has_its_default(tmp_path, whole, undrawn, capfd):
    run = shutil.copytree(whole, tmp_path / 'run')
    config = json.loads((run / 'config.json').read_text())
    assert config['fields'].pop('task.sampling') == 'none'
    (run / 'config.json').write_text(json.dumps(config))
    assert launch(*flags(run, *LAUNCHED, '--task.sampling=linear')) == 2
    assert 'task.sampling was none and is now linear' in lines(capfd)[-1]
    assert launch(*flags(run, *LAUNCHED)) == 0


def test_a_folder_of_something_else_is_refused(tmp_path, capfd):
    (tmp_path / 'thesis.tex').write_text('years of work')
    assert launch(*flags(tmp_path)) == 2
    line, = lines(capfd)
    assert 'is not empty and holds no run' in line
    assert (tmp_path / 'thesis.tex').read_text() == 'years of work'


def test_a_folder_that_was_only_begun_is_used(tmp_path, undrawn):
    """What a killed run leaves, before it could say what it was; what a mistake leaves, which the next try mends."""
    (tmp_path / 'killed').mkdir()
    (tmp_path / 'killed' / '.config.json.123').write_text('{"experiment": ')
    experiment = bigrams(steps=1)
    train(experiment, tmp_path / 'killed', say=quiet)
    with pytest.raises(UserError, match=r'batch_size=7 does not split'):
        train(experiment.replace('training', batch_size=7, mesh='data=2'), tmp_path / 'mistaken', say=quiet)
    with pytest.raises(UserError, match=r'--init_from|holds no run'):
        train(experiment, tmp_path / 'mistaken', init_from=str(tmp_path / 'nothing'), say=quiet)
    train(experiment, tmp_path / 'mistaken', say=quiet)
    assert outcome(tmp_path / 'mistaken') == outcome(tmp_path / 'killed')


def test_what_is_free_may_change(tmp_path, undrawn):
    experiment = bigrams(steps=8, evaluate_every=4, checkpoint_every=2, log_every=2, keep=1)
    train(experiment, tmp_path / 'whole', say=quiet)
    part(experiment, tmp_path / 'run', 4)
    said = []
    train(experiment.replace('training', log_every=3, keep=3, parallel='shard_map').replace('decoding', method='beam'),
          tmp_path / 'run', say=said.append)
    assert 'shard_map' in said[0]
    assert 'going on after step' in said[0]
    assert summary(tmp_path / 'run')['params_sha256'] == summary(tmp_path / 'whole')['params_sha256']
    config = json.loads((tmp_path / 'run' / 'config.json').read_text())
    assert (config['fields']['training.keep'], config['fields']['decoding.method']) == (3, 'beam')


@pytest.mark.parametrize('schedule', ['constant', 'inverse_sqrt', 'cosine', 'linear'])
def test_more_steps(tmp_path, undrawn, schedule):
    """A run may grow where its schedule does not read its length; it is then the run that was longer from the start."""
    experiment = bigrams(optimizer=Optimizer(learning_rate=0.05, schedule=schedule, warmup_steps=2), steps=8,
                         evaluate_every=4, checkpoint_every=4)
    train(experiment, tmp_path / 'run', say=quiet)
    longer = experiment.replace('training', steps=12)
    if schedule in ('cosine', 'linear'):
        before = snapshot(tmp_path / 'run')
        with pytest.raises(UserError, match=r'training\.steps was 8 and is now 12'):
            train(longer, tmp_path / 'run', say=quiet)
        assert snapshot(tmp_path / 'run') == before
        return
    train(longer, tmp_path / 'whole', say=quiet)
    train(longer, tmp_path / 'run', say=quiet)
    assert summary(tmp_path / 'run')['steps'] == 12
    assert summary(tmp_path / 'run')['params_sha256'] == summary(tmp_path / 'whole')['params_sha256']


def test_changed_data_are_noticed(tmp_path, capfd, undrawn):
    """In a tsv that another program wrote over, were it by one word; or by lines that no batch has room for."""
    path, workdir = tmp_path / 'pairs.tsv', tmp_path / 'run'
    pairs = [f'{a} und {b}\t{a} and {b}\n' for a in range(20) for b in range(20)]
    path.write_text(''.join(pairs))
    command = ['--experiment=parallel', '--model=rnn', f'--task.path={path}', '--task.vocabulary=word',
               '--task.vocabulary_size=none', '--model.hidden_size=8', '--model.num_layers=1', '--training.steps=2',
               '--training.checkpoint_every=1', f'--workdir={workdir}', *DEVICES]
    assert launch(*command) == 0
    first, before = outcome(workdir), snapshot(workdir)
    capfd.readouterr()
    for changed in (pairs[:-1] + ['19 und 19\t19 or 19\n'], pairs[1:] + ['1' + ' 1' * 50 + '\t1\n'],
                    pairs[1:] + ['1' + ' 1' * 500 + '\t1\n']):
        path.write_text(''.join(changed))
        for mode in ([], ['--mode=evaluate']):
            say = [word for word in command if '--model=' in word or not word.startswith('--model')]
            assert launch(*(say if mode else command), *mode) == 2, mode
            line, = lines(capfd)
            assert 'the data' in line
            assert 'SHA-256' in line
            assert snapshot(workdir) == before
    path.write_text(''.join(pairs))
    assert launch(*command) == 0
    assert outcome(workdir) == first


def test_a_loss_that_is_no_number(tmp_path, capfd):
    workdir = tmp_path / 'run'
    command = flags(workdir, '--optimizer.learning_rate=1e38', '--optimizer.schedule=constant',
                    '--training.steps=9', '--training.checkpoint_every=1')
    assert launch(*command) == 2
    line, = lines(capfd)
    kept = steps_of(workdir)[-1]
    found = re.fullmatch(r'error: (loss|gradient_norm) is (nan|inf) at step (\d); the last good checkpoint is step '
                         r'(\d); lower --optimizer.learning_rate or set --optimizer.clip_norm, and start again in a '
                         r'new --workdir', line)
    assert found, line
    assert (int(found[3]), int(found[4])) == (kept + 1, kept)


def test_parameters_that_are_no_numbers_are_not_saved(tmp_path, undrawn):
    """The loss of a step is that of the parameters before it, and may be the last good one."""
    experiment = bigrams(optimizer=Optimizer(name='adamw', learning_rate=3e38, weight_decay=10.0), steps=4,
                         checkpoint_every=1)
    with pytest.raises(UserError, match='a parameter is not finite at step 1; there is no checkpoint yet;'):
        train(experiment, tmp_path / 'run', say=quiet)
    assert not steps_of(tmp_path / 'run')
