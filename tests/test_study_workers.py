"""Workers that share a study: killed, stopped, left alone by whoever started them, nothing is lost."""

import json
import os
import signal
import time

import pytest
from tiny import child, flags, launch, outcome

from seqjax.errors import UserError
from seqjax.studies import trials
from seqjax.studies.folder import Folder, write
from seqjax.studies.launchers import Worker, divide
from seqjax.studies.oversee import oversee
from seqjax.studies.work import forget_sign, sign, signs
from seqjax.training.loop import Interrupted

WAIT = 300  # seconds for children on a busy machine
RHYTHM = ['--training.steps=200', '--training.checkpoint_every=10', '--training.evaluate_every=100',
          '--training.log_every=5', '--model.hidden_size=128', '--training.batch_size=32', '--decoding.batch_size=32']
NAMES = ['gru,seed=0', 'gru,seed=1']


def until(condition, what):
    """Waits for it."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f'never: {what}'
        time.sleep(0.02)


def alive(pid):
    """Whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def recorded(folder, name):
    """Records of training that a trial has."""
    path = folder.trial(name) / 'metrics.jsonl'
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_two_workers_that_are_killed_stopped_and_left_alone(tmp_path):
    """The end of the trial that it hits each time is that of a plain run, bit for bit."""
    folder, log = Folder(tmp_path / 'study'), tmp_path / 'log'
    command = [*flags(folder.path, *RHYTHM), '--sweep=training.seed=0..1', '--workers=2']

    def at_work():
        return {sign['trial']: sign['pid'] for sign in signs(folder).values() if sign['trial']}

    def goes_on(trial, since):
        return lambda: trial in at_work() and recorded(folder, trial) > since + 2

    parent = child(command, log)
    try:
        # A worker is killed: its trial goes on in another, and nobody else notices.
        until(lambda: set(at_work()) == set(NAMES), 'both trials at once')
        until(goes_on(NAMES[1], 0), 'training')
        victim = at_work()[NAMES[1]]
        os.kill(victim, signal.SIGKILL)
        until(lambda: at_work().get(NAMES[1]) not in (None, victim), 'another worker')
        assert parent.poll() is None
        # The command is asked to stop: the workers save and end before it does.
        until(goes_on(NAMES[1], recorded(folder, NAMES[1])), 'training again')
        workers = list(at_work().values())
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(WAIT) == 143
        assert not [pid for pid in workers if alive(pid)]
        assert not list((folder.path / 'workers').glob('*.json'))
        said = log.read_text()
        assert f'a worker was killed by SIGKILL; {NAMES[1]} goes on' in said
        assert f'stopped by SIGTERM; saved in {folder.path}: the same command goes on from there' in said
        assert 'Traceback' not in said
        assert folder.state(NAMES[1]) == 'open'
        # The command itself is killed: its workers save and end by themselves.
        before = recorded(folder, NAMES[1])
        parent = child(command, log)
        until(goes_on(NAMES[1], before), 'training once more')
        workers = list(at_work().values())
        parent.kill()
        until(lambda: not any(map(alive, workers)), 'the end of workers whose starter was killed')
    finally:
        parent.kill()
    assert folder.state(NAMES[1]) == 'open'
    assert launch(*command[:-1]) == 0
    words = json.loads((folder.trial(NAMES[1]) / 'config.json').read_text())['argv']
    assert launch(*words[:-1], f'--workdir={tmp_path}/plain', '--compilation_cache=none') == 0
    assert outcome(tmp_path / 'plain') == outcome(folder.trial(NAMES[1]))


class Crew:
    """Workers of the imagination: each takes the next open trial and ends as it is told to."""

    def __init__(self, folder, *ends):
        self.folder, self.ends, self.stopped, self.started = folder, list(ends), [], 0

    def start(self, words, name, log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text('some words\nthe last word\n')
        trial, status = self.ends.pop(0)
        self.started += 1
        write(self.folder.path / 'workers' / f'{name}.json', {'trial': trial, 'since': 0})
        state = {'status': status}
        if status == 0:
            self.folder.finish(trial, [])

        def stop():
            self.stopped.append(name)
            state['status'] = 143

        return Worker(name, lambda: state['status'], stop, stop)


@pytest.fixture
def jobs(tmp_path):
    """Two jobs and their folder."""
    from seqjax.studies.sweep import study
    return trials.jobs(study('training.seed=0,1', {'experiment': 'numerals', 'model': 'gru'})), Folder(tmp_path)


def test_a_trial_whose_worker_is_killed_twice_has_failed(jobs):
    jobs, folder = jobs
    crew, said = Crew(folder, (NAMES[0], -9), (NAMES[0], -9), (NAMES[1], 0)), []
    oversee(crew.start, ['work'], 1, jobs, folder, pause=0, say=said.append)
    assert (crew.started, crew.ends) == (3, [])
    assert folder.reason(NAMES[0]) == (
        'its process was killed by SIGKILL, 2 times; there may be too little memory for it')
    assert folder.state(NAMES[1]) == 'done'
    assert said == [f'a worker was killed by SIGKILL; {NAMES[0]} goes on']


def test_a_worker_that_ends_by_itself_ends_the_others(jobs):
    jobs, folder = jobs
    crew = Crew(folder, (NAMES[0], None), (NAMES[1], 2))
    with pytest.raises(UserError, match=r'a worker ended with 2: the last word'):
        oversee(crew.start, ['work'], 2, jobs, folder, pause=0, say=print)
    assert len(crew.stopped) == 1
    assert not list((folder.path / 'workers').glob('*.json'))


def test_workers_that_never_begin_are_not_started_for_ever(jobs):
    jobs, folder = jobs
    crew = Crew(folder, *[(None, -11)] * 9)
    with pytest.raises(UserError, match=r'workers are killed by SIGSEGV before they take a trial'):
        oversee(crew.start, ['work'], 1, jobs, folder, pause=0, say=print)
    assert crew.started == 2


def test_no_more_workers_than_open_trials(jobs):
    jobs, folder = jobs
    folder.finish(NAMES[0], [])
    crew = Crew(folder, (NAMES[1], 0))
    oversee(crew.start, ['work'], 5, jobs, folder, pause=0, say=print)
    assert crew.started == 1
    oversee(crew.start, ['work'], 5, jobs, folder, pause=0, say=print)
    assert crew.started == 1


def test_a_signal_ends_the_workers(jobs, monkeypatch):
    jobs, folder = jobs
    crew = Crew(folder, (NAMES[0], None), (NAMES[1], None))

    def interrupted(seconds):
        monkeypatch.undo()
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(time, 'sleep', interrupted)
    with pytest.raises(Interrupted):
        oversee(crew.start, ['work'], 2, jobs, folder, pause=0, say=print)
    assert len(crew.stopped) == 2


def test_signs_of_life(tmp_path):
    folder = Folder(tmp_path)
    with sign(folder, 'a') as at:
        at('gru,seed=0')
        assert signs(folder)['a'] | {'since': 0, 'host': ''} == {
            'trial': 'gru,seed=0', 'host': '', 'pid': os.getpid(), 'since': 0}
        os.utime(folder.path / 'workers' / 'a.json', (0, 0))
        assert signs(folder) == {}, 'silent for too long'
    assert not (folder.path / 'workers' / 'a.json').exists()
    write(folder.path / 'workers' / 'b.json', {'trial': 'gru,seed=1', 'since': 0})
    assert forget_sign(folder, 'b') == 'gru,seed=1'
    assert forget_sign(folder, 'b') is None


def test_processors_are_dealt_out(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 1, 2, 5, 7})
    assert divide(1) == [set()]
    assert divide(2) == [{0, 2, 7}, {1, 5}]
    assert divide(6) == [set()] * 6
