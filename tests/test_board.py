"""How far a study is, told from its folder: counts, steps, scores, and the time that is left."""

import io
import json
import time

import pytest

from seqjax.studies import board, trials
from seqjax.studies.folder import Folder, write
from seqjax.studies.sweep import study

NAMES = ['gru,seed=0', 'gru,seed=1', 'lstm,seed=0', 'lstm,seed=1']  # by model, not in the order of the trials


@pytest.fixture
def jobs():
    return trials.jobs(study('model=gru,lstm training.seed=0,1', {
        'experiment': 'numerals', 'model': 'gru', 'training.steps': 100}))


@pytest.fixture
def folder(tmp_path):
    """gru,seed=0 is done after 40 s, lstm,seed=0 is at step 25 of 100 for 10 s, gru,seed=1 failed."""
    folder = Folder(tmp_path)
    folder.finish(NAMES[0], [])
    folder.spend(NAMES[0], 30)
    folder.spend(NAMES[0], 10)
    folder.fail(NAMES[1], 'it\ndiverged')
    write(tmp_path / 'workers' / 'a.json', {'trial': NAMES[2], 'since': 1000.0})
    records = [{'step': 20, 'split': 'valid', 'exact_match': 12.5}, {'step': 25, 'split': 'train', 'nll': 1.0}]
    path = folder.trial(NAMES[2]) / 'metrics.jsonl'
    path.parent.mkdir(parents=True)
    path.write_text('x' * 5000 + '\n' + ''.join(json.dumps(record) + '\n' for record in records) + '{"step": 9')
    return folder


def test_a_glance(jobs, folder):
    """Of lstm none is done, so it is taken to last as long as gru: 30 s for what runs, and 40 s for the other."""
    seen = board.glance(jobs, folder, now=lambda: 1010.0)
    assert (seen.done, seen.failed, seen.open) == ([NAMES[0]], [NAMES[1]], [NAMES[3]])
    assert seen.running == [(NAMES[2], 25, 100, 'exact_match 12.5', 10.0)]
    assert seen.left == 30 + 40
    folder.finish(NAMES[3], [])
    folder.spend(NAMES[3], 100)
    assert board.glance(jobs, folder, now=lambda: 1010.0).left == 90, 'by its own kind'
    write(folder.path / 'workers' / 'b.json', {'trial': None, 'since': 0})
    assert board.glance(jobs, folder, now=lambda: 1010.0).left == 90


def test_before_a_trial_is_done_its_pace_tells(jobs, folder):
    (folder.trial(NAMES[0]) / 'measures.json').unlink()
    seen = board.glance(jobs, folder, now=lambda: 1010.0)
    assert seen.left == 30 + 2 * 40, '10 s for 25 of 100 steps are 40 s a trial'
    (folder.trial(NAMES[2]) / 'metrics.jsonl').unlink()
    assert board.glance(jobs, folder, now=lambda: 1010.0).left is None


def test_two_that_run_share_what_is_left(jobs, folder):
    write(folder.path / 'workers' / 'b.json', {'trial': NAMES[3], 'since': 1005.0})
    assert board.glance(jobs, folder, now=lambda: 1010.0).left == (30 + 35) / 2


def test_the_headline(jobs, folder):
    seen = board.glance(jobs, folder, now=lambda: 1010.0)
    assert board.headline(seen, 0, 65) == (
        '1 of 4 trials done, 1 running, 1 failed, 01:05 so far, about 01:10 left')
    assert board.headline(seen._replace(left=None), 0, 65).endswith('time left unknown yet')
    assert board.headline(seen._replace(running=[], open=[]), 0, 65).endswith('01:05 so far')


def test_the_table_fits_its_terminal(jobs, folder):
    seen = board.glance(jobs, folder, now=lambda: 1010.0)
    lines = board.table(seen, 0, 65, 100, 24)
    assert lines[1].split() == ['lstm,seed=0', 'step', '25', 'of', '100', 'exact_match', '12.5', '00:10']
    assert lines[2] == '  gru,seed=1  failed'
    assert all(len(line) < 30 for line in board.table(seen, 0, 65, 30, 24))
    assert len(board.table(seen, 0, 65, 100, 3)) == 2


def test_without_a_terminal_it_says_what_ends(jobs, folder, monkeypatch):
    stream = io.StringIO()
    with board.shown(jobs, folder, stream, every=1000.0) as say:
        until(lambda: stream.getvalue().count('\n') == 1)
        folder.finish(NAMES[2], [])
        until(lambda: f'{NAMES[2]}: done' in stream.getvalue())
        folder.fail(NAMES[3], 'no luck')
        until(lambda: f'{NAMES[3]}: failed (no luck)' in stream.getvalue())
        say('by the way')
    said = stream.getvalue().splitlines()
    assert 'by the way' in said
    assert said[0].startswith('1 of 4 trials done')
    assert sum(line.startswith('2 of 4 trials done, 0 running, 2 failed') for line in said) == 1, 'the end, once'
    assert '\x1b' not in stream.getvalue()


def until(condition):
    """At most some seconds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_at_a_terminal_it_is_drawn_in_place(jobs, folder):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with board.shown(jobs, folder, stream) as say:
        until(lambda: stream.getvalue())
        say('by the way')
    drawn = stream.getvalue()
    assert drawn.count('\x1b[3F\x1b[J') >= 1, 'three lines are taken back'
    last = drawn.rpartition('\x1b[J')[2].splitlines()
    assert last[0] == 'by the way'
    assert last[1].startswith('1 of 4 trials done'), 'the table stays, below what was said'
