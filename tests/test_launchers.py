"""Workers by Slurm and by Ray, for real where they are there: two trials on two of them."""

import os
import shutil
import subprocess
import sys

import pytest
from tiny import flags, launch

from seqjax.errors import UserError
from seqjax.studies import launchers, trials
from seqjax.studies.command import Asked
from seqjax.studies.folder import Folder
from seqjax.studies.oversee import oversee

NAMES = ['gru,seed=0', 'gru,seed=1']


@pytest.fixture
def open_study(tmp_path):
    """A study of which no trial has been run: the folder, its jobs, and a worker's command."""
    folder = Folder(tmp_path / 'study')
    command = [*flags(folder.path, '--training.steps=2'), '--sweep=training.seed=0..1']
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('seqjax.studies.work.work', lambda *args: None)  # claims the folder, and works not
        assert launch(*command) == 1
    study = Asked(**folder.study()['asked']).build()
    return folder, trials.jobs(study), launchers.command(folder.path)


def finished(open_study, start, count=2):
    """Runs it; all trials are done."""
    folder, jobs, words = open_study
    oversee(start, words, count, jobs, folder)
    assert [folder.state(name) for name in NAMES] == ['done', 'done'], [
        path.read_text() for path in (folder.path / 'workers').glob('*.log')]
    assert len(folder.results()) == 2
    return folder


def test_submitits_own_processes(open_study):
    pytest.importorskip('submitit', reason='pip install submitit')
    folder = open_study[0]
    finished(open_study, launchers.slurm(folder.path, {'timeout_min': 10}, cluster='local'), count=1)
    assert list((folder.path / 'slurm').glob('*_result.pkl'))


def test_submitit_cancels(open_study):
    """A worker that was asked to stop has saved and ended, with the exit code of a signal."""
    pytest.importorskip('submitit', reason='pip install submitit')
    folder, *_ = open_study
    start = launchers.slurm(folder.path, {'timeout_min': 10}, cluster='local')
    script = [sys.executable, '-c', 'import sys, time; print("up", flush=True); time.sleep(100)']
    log = folder.path / 'workers' / 'a.log'
    worker = start(script, 'a', log)
    wait(lambda: log.exists() and log.read_text().startswith('up'))
    assert worker.status() is None
    worker.stop()
    wait(lambda: worker.status() is not None)
    assert worker.status() != 0


def wait(condition):
    """At most a minute or two."""
    import time
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def slurm_is_up():
    """Whether jobs can be submitted here."""
    return shutil.which('sbatch') is not None and subprocess.run(
        ['sinfo', '--noheader', '--states=idle,mixed'], capture_output=True, text=True, timeout=30).stdout.strip() != ''


@pytest.mark.skipif(not slurm_is_up(), reason='no Slurm is running here (sbatch and sinfo)')
def test_slurm(open_study):
    pytest.importorskip('submitit', reason='pip install submitit')
    finished(open_study, launchers.launcher('slurm', 'timeout_min=10 cpus_per_task=1', 2, open_study[0].path))


def test_ray_on_two_nodes(open_study, monkeypatch):
    """Two nodes on this machine's loopback, each with room for one worker."""
    pytest.importorskip('ray', reason='pip install ray')
    monkeypatch.setenv('RAY_USAGE_STATS_ENABLED', '0')
    import ray
    from ray.cluster_utils import Cluster
    node = dict(num_cpus=1, object_store_memory=80 * 2**20, node_ip_address='127.0.0.2')  # .1 means another to Ray
    cluster = Cluster(initialize_head=True, head_node_args=node | {'include_dashboard': False})
    try:
        cluster.add_node(**node)
        start = launchers.launcher('ray', f'address={cluster.address} num_cpus=1', 2, open_study[0].path)
        assert len([n for n in ray.nodes() if n['Alive']]) == 2
        finished(open_study, start)
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.parametrize(('kind', 'missing'), [('slurm', 'submitit'), ('ray', 'ray')])
def test_what_is_not_installed_is_named(kind, missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=rf'--launcher={kind} needs \w+; pip install {missing}'):
        launchers.launcher(kind, '', 1, tmp_path)


def test_slurm_needs_its_commands(tmp_path, monkeypatch):
    pytest.importorskip('submitit', reason='pip install submitit')
    monkeypatch.setenv('PATH', os.devnull)
    with pytest.raises(UserError, match=r'--launcher=slurm: there is no sbatch here'):
        launchers.launcher('slurm', '', 1, tmp_path)


def test_resources():
    assert launchers.settings("timeout_min=5 slurm_partition=gpu comment='two words'") == {
        'timeout_min': 5, 'slurm_partition': 'gpu', 'comment': 'two words'}
    with pytest.raises(UserError, match=r"--resources: 'gpu' says nothing; write NAME=VALUE"):
        launchers.settings('gpu')


def test_resources_that_submitit_does_not_know(tmp_path):
    pytest.importorskip('submitit', reason='pip install submitit')
    with pytest.raises(UserError, match=r'^--resources: '):
        launchers.slurm(tmp_path, {'timeout': 5}, cluster='local')
