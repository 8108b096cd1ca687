"""A study from the command line: every trial an ordinary run, nothing done twice, no failure silent."""

import csv
import dataclasses
import errno
import json
import os
import shlex
import shutil
import signal

import pytest
from little import ACTIONS, in_catalogue, named, study  # noqa: F401
from tiny import launch, outcome, snapshot, steps_of, summary

from seqjax import files
from seqjax.compose import compose
from seqjax.errors import UserError
from seqjax.experiment import flat
from seqjax.studies import trials
from seqjax.studies.axes import SEED
from seqjax.studies.folder import Folder
from seqjax.studies.table import Table

pytestmark = pytest.mark.usefixtures('in_catalogue')
NAMES = ['hidden_size=4,seed=0', 'hidden_size=8,seed=0', 'hidden_size=4,seed=1', 'hidden_size=8,seed=1']


@pytest.fixture
def counted(monkeypatch):
    """The trials that are trained, by their folders' names, and how often the data are read."""
    seen = {'trained': [], 'read': 0}

    def train(experiment, workdir, *args, train=trials.train, **options):
        seen['trained'].append(workdir.name)
        return train(experiment, workdir, *args, **options)

    def once(once=trials.once):
        read = once()

        def reading(task, codec):
            before = task.prepare.__func__

            def prepare(self, codec=None):
                seen['read'] += 1
                return before(self, codec)

            with monkeypatch.context() as patch:
                patch.setattr(type(task), 'prepare', prepare)
                return read(task, codec)
        return reading

    monkeypatch.setattr(trials, 'train', train)
    monkeypatch.setattr(trials, 'once', once)
    return seen


@pytest.fixture(scope='module')
def done(tmp_path_factory):
    """A study that was run."""
    folder = tmp_path_factory.mktemp('study') / 'study'
    with named():
        assert study(folder) == 0
    return Folder(folder)


def test_every_trial_is_an_ordinary_run(done, capsys):
    assert list(done.study()['trials']) == NAMES
    for name in NAMES:
        workdir = done.trial(name)
        config = json.loads((workdir / 'config.json').read_text())
        assert (config['experiment'], config['model']) == ('pairs', 'gru')
        size, seed = (int(part.partition('=')[2]) for part in name.split(','))
        assert config['argv'] == ['--experiment=pairs', '--model=gru', f'--model.hidden_size={size}',
                                  f'--training.seed={seed}', f'--workdir={workdir}']
        composed = compose('pairs', None, config['argv'][2:4]).experiment
        assert config['fields'].items() <= {**flat(composed)}.items()
        assert steps_of(workdir)[-1] == 4
        assert 'step 4/4' in (workdir / 'log.txt').read_text()
        assert done.seconds(name) > 0
    before = outcome(done.trial(NAMES[0]))
    assert launch(*json.loads((done.trial(NAMES[0]) / 'config.json').read_text())['argv'],
                  '--compilation_cache=none') == 0
    assert outcome(done.trial(NAMES[0])) == before, 'by hand it is the same run'
    assert 'step 4' not in capsys.readouterr().err


def test_rows_are_settings_and_what_was_measured(done):
    results = done.results()
    assert [row['loss'] for row in results.rows] == [summary(done.trial(name))['test']['loss'] for name in NAMES]
    assert len(set(results.column('loss'))) == 4
    assert results.rows[1] | {'loss': 0} == {'experiment': 'pairs', 'model': 'gru', 'model.hidden_size': 8, SEED: 0,
                                             'loss': 0, 'sentences': 9}
    assert done.floors() == [{'floor': 'sentences', 'sentences': 9}]
    rows = list(csv.DictReader((done.path / 'results.csv').read_text().splitlines()))
    assert [float(row['loss']) for row in rows if row['loss']] == results.column('loss')
    assert not list((done.path / 'workers').glob('*.json')), 'nobody is at work any more'


def test_the_same_command_again_does_nothing_twice(done, counted, capsys):
    before = {name: content for name, content in snapshot(done.path / 'trials').items()}
    assert study(done.path) == 0
    assert counted == {'trained': [], 'read': 0}
    assert snapshot(done.path / 'trials') == before
    said = capsys.readouterr().out
    assert 'Wider is better. (Nobody (1999), section 0)' in said
    assert 'Effect' in said


def test_the_report_again_from_what_is_on_disk(done, counted, capsys):
    written = (done.path / 'results.csv').read_text()
    (done.path / 'results.csv').unlink()
    for words in ([f'--workdir={done.path}'], ['--study=widths', f'--workdir={done.path}']):
        assert launch('--mode=report', *words) == 0
        assert (done.path / 'results.csv').read_text() == written
        assert 'Wider is better.' in capsys.readouterr().out
    assert counted['trained'] == []
    assert launch('--mode=report', '--study=fresh', f'--workdir={done.path}') == 2
    assert 'holds widths; leave the flag out' in capsys.readouterr().err


def test_a_folder_of_studies_becomes_a_story(done, counted, capsys):
    root = done.path.parent
    other = root / 'gone'
    other.mkdir()
    (other / 'study.json').write_text(json.dumps(done.study() | {'asked': done.study()['asked'] | {'name': 'gone'}}))
    assert launch('--mode=report', f'--workdir={root}') == 1
    captured = capsys.readouterr()
    assert f'{other}: --study=gone: there is no such study' in captured.err
    assert f'the story is {root}/index.html' in captured.out
    for page in ('study/report.html', 'index.html', 'index.md'):
        assert 'Wider is better.' in (root / page).read_text()
    assert 'without a report yet: gone' in (root / 'index.html').read_text()
    assert counted['trained'] == []
    shutil.rmtree(other)
    assert launch('--mode=report', f'--workdir={root}') == 0


def test_data_are_read_once_a_process(tmp_path, counted):
    assert study(tmp_path / 'study', '--smoke', '--seeds=3') == 0
    assert counted == {'trained': [f'hidden_size=8,seed={seed}' for seed in range(3)], 'read': 1}


def test_more_seeds_are_more_trials_and_fewer_are_refused(tmp_path, counted, capsys):
    folder = tmp_path / 'study'
    assert study(folder, '--quick') == 0
    assert counted['trained'] == NAMES[:1]
    assert study(folder, '--seeds=1') == 0, 'the full form has what the quick one had, and more'
    assert counted['trained'] == NAMES[:2]
    assert study(folder) == 0
    assert counted['trained'] == NAMES
    before, _ = snapshot(folder), capsys.readouterr()
    assert study(folder, '--quick') == 2
    line, = capsys.readouterr().err.splitlines()
    assert line == (f"error: --workdir={folder} holds 4 trials of which 3 differ: 'hidden_size=8,seed=0' is not one of "
                    'these; give its form and seeds (--full, --seeds=2), or choose another folder') or 'form' in line
    assert study(folder, name='fresh') == 2
    assert f'--workdir={folder} holds the study widths, not fresh' in capsys.readouterr().err
    assert snapshot(folder) == before


def test_a_failure_is_a_row_and_the_rest_goes_on(tmp_path, counted, capsys):
    """Of the program, of the data, of the numbers; run again only when it is asked for, from where it failed."""
    folder = Folder(tmp_path / 'study')

    def broken(subject):
        raise ZeroDivisionError('in two\nlines')

    def wrong(subject):
        raise UserError('the data are bad; mend them')

    ACTIONS[4], ACTIONS[8] = broken, wrong
    assert study(folder.path, '--seeds=1') == 1
    reasons = {NAMES[0]: 'ZeroDivisionError: in two lines', NAMES[1]: 'the data are bad; mend them'}
    for name, reason in reasons.items():
        assert json.loads((folder.trial(name) / 'failure.json').read_text()) == {'reason': reason}
    assert folder.failures() == reasons
    said = capsys.readouterr().out
    assert all(f'{name} failed: {reason}' in said for name, reason in reasons.items())
    log = (folder.trial(NAMES[0]) / 'log.txt').read_text()
    assert 'Traceback' in log
    assert 'little.py' in log, 'the traceback is kept'
    ACTIONS.clear()
    assert study(folder.path, '--seeds=1') == 1
    assert [folder.state(name) for name in NAMES[:2]] == ['failed', 'failed']
    assert study(folder.path, '--seeds=1', '--retry') == 0
    assert [folder.state(name) for name in NAMES[:2]] == ['done', 'done']
    assert counted['trained'] == NAMES[:2], 'what was trained is measured, not trained again'
    assert folder.failures() == {}


def test_a_run_that_diverges(tmp_path, capsys):
    code = launch('--experiment=pairs', '--sweep=optimizer.learning_rate=0.05,1e38 optimizer.name=sgd',
                  '--optimizer.clip_norm=none', '--optimizer.beta1=0.9', f'--workdir={tmp_path}/a')
    assert code == 2, 'of a flag that is not read the sweep begins nothing'
    assert not (tmp_path / 'a').exists()
    assert '--optimizer.beta1=0.9 is not read with --optimizer.name=sgd' in capsys.readouterr().err
    code = launch('--experiment=pairs', '--sweep=optimizer.learning_rate=0.05,1e38', '--optimizer.name=sgd',
                  '--optimizer.clip_norm=none', f'--workdir={tmp_path}/a', '--compilation_cache=none')
    assert code == 1
    folder = Folder(tmp_path / 'a')
    (name, reason), = folder.failures().items()
    assert name == 'learning_rate=1e+38,seed=0'
    assert 'at step' in reason
    assert 'lower --optimizer.learning_rate' in reason
    assert len(folder.results()) == 1


def test_a_full_disk_is_no_trials_failure(tmp_path, capsys):
    def full(subject):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ACTIONS[4] = full
    assert study(tmp_path / 'study', '--quick') == 2
    assert 'the disk is full' in capsys.readouterr().err
    assert Folder(tmp_path / 'study').state(NAMES[0]) == 'open'
    ACTIONS.clear()
    assert study(tmp_path / 'study', '--quick') == 0


@pytest.mark.parametrize(('signum', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_study_that_is_asked_to_stop(tmp_path, done, capsys, signum, code):
    """While a trial is measured, then while one is trained: the same command goes on, and the end is the same."""
    folder = Folder(tmp_path / 'study')
    ACTIONS[4] = lambda subject: signal.raise_signal(signum)
    assert study(folder.path, '--seeds=1') == code
    assert f'stopped by {signal.Signals(signum).name}; saved in {folder.path}: the same command goes on' in (
        capsys.readouterr().err)
    assert folder.state(NAMES[0]) == 'open'
    assert not list((folder.path / 'workers').glob('*.json'))
    ACTIONS.clear()
    assert study(folder.path, '--seeds=1') == 0
    assert [outcome(folder.trial(name)) for name in NAMES[:2]] == [outcome(done.trial(name)) for name in NAMES[:2]]


def test_trials_that_others_are_at_are_left_to_them(tmp_path, capsys):
    folder = Folder(tmp_path / 'study')
    with files.locked(folder.path / '.claims' / NAMES[0]):
        assert study(folder.path, '--seeds=1') == 1
    assert [folder.state(name) for name in NAMES[:2]] == ['open', 'done']
    assert '1 of 2 trials are not finished' in capsys.readouterr().out
    with files.locked(folder.trial(NAMES[0])):  # by hand
        assert study(folder.path, '--seeds=1') == 1
    assert folder.state(NAMES[0]) == 'open'
    assert study(folder.path, '--seeds=1') == 0


def test_a_study_may_look_at_fresh_parameters(tmp_path):
    folder = Folder(tmp_path / 'study')
    assert study(folder.path, name='fresh') == 0
    trial = folder.trial('hidden_size=8,seed=0')
    assert not (trial / 'checkpoints').exists()
    assert json.loads((trial / 'config.json').read_text())['data_sha256']
    row, = folder.results().rows
    assert 0 < row['largest'] < 10


def test_a_plan_lists_the_commands_and_writes_nothing(tmp_path, capsys):
    assert study(tmp_path / 'study', '--mode=plan') == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[-1] == f'4 trials in {tmp_path}/study'
    words = shlex.split(lines[1])
    assert words[:4] == ['python', 'launch.py', '--experiment=pairs', '--model=gru']
    assert words[-1] == f'--workdir={tmp_path}/study/trials/{NAMES[1]}'
    assert not (tmp_path / 'study').exists()


def test_a_study_says_what_it_is(capsys):
    assert launch('--study=widths', '--help') == 0
    said = capsys.readouterr().out
    assert said.startswith('Wider is better.')
    assert '--workers=1' in said


SWEEP = ['--experiment=pairs', '--sweep=model.hidden_size=4,8']


@pytest.mark.parametrize(('argv', 'message'), [
    (['--study=width'], "--study=width: there is no such study; did you mean 'widths'?"),
    (['--study=widths', '--sweep=model.hidden_size=4'], '--study=widths and --sweep=model.hidden_size=4 exclude each'),
    (['--study=widths', '--quick', '--smoke'], '--quick and --smoke exclude each other; give one'),
    (['--study=widths', '--workers=0'], '--workers=0 must be at least 1'),
    (['--study=widths', '--seeds=0'], '--seeds=0 must be at least 1'),
    (['--study=widths', '--mode=predict'], '--mode=predict is of one run, not of a study; give --workdir=RUN'),
    (['--study=widths', '--mode=evaluate'], '--mode=evaluate is of one run, not of a study'),
    (['--study=widths', '--mode=plan', '--workers=2'], '--workers=2 is not read with --mode=plan; drop it'),
    (['--study=widths', '--experiment=pairs'], '--study=widths and --experiment=pairs exclude each other'),
    (['--study=widths', '--training.steps=5'], '--training.steps: there is no such flag'),
    (['--study=widths', '--wandb=project'], '--wandb=project is not read by a study; drop it'),
    (['--study=widths', '--launcher=cloud'], '--launcher=cloud is not one of local, slurm, ray'),
    (['--study=widths', '--resources=a=1'], '--resources=a=1 is not read with --launcher=local'),
    (['--study=widths', '--launcher=slurm', '--resources=a'], "--resources: 'a' says nothing; write NAME=VALUE"),
    (['--study=widths', '--attached'], '--attached=true is not read with --mode=train'),
    ([*SWEEP, '--model.hiden_size=4'], "--model.hiden_size: there is no such flag; did you mean 'model.hidden_size'?"),
    ([*SWEEP, '--smoke'], '--smoke: a sweep has no such form'),
    (['--experiment=pairs', '--sweep=model.hidden_size='], 'the axis model.hidden_size has no value'),
    (['--experiment=pairs', '--sweep=model.hiden_size=4'], "--model.hiden_size: there is no such flag; did you mean"),
    (['--sweep=model.hidden_size=4'], '--sweep needs --experiment=NAME'),
    (['--experiment=pairs', '--workers=2'], '--workers=2 is read with --study or --sweep; drop it'),
    (['--mode=report'], '--mode=report needs --study=NAME or --workdir=FOLDER'),
    (['--mode=work'], '--mode=work needs --workdir=FOLDER, the folder of a study'),
    (['--mode=report', '--workdir=nowhere'], '--workdir=nowhere holds no study (no study.json)'),
    (['--mode=work', '--workdir=nowhere'], '--workdir=nowhere holds no study (no study.json)')],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '')
def test_mistakes_are_one_line_and_leave_nothing(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = launch(*argv, *([] if '--mode=report' in argv else ['--compilation_cache=none']))
    out, err = capsys.readouterr()
    line, = err.splitlines()
    assert (code, out) == (2, '')
    assert message in line
    assert not list(tmp_path.iterdir())


def test_folders_that_are_no_study_are_left_alone(tmp_path, capsys):
    (tmp_path / 'thesis.tex').write_text('years of work')
    assert study(tmp_path) == 2
    assert 'is not empty and holds no study (no study.json)' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_what_is_measured_is_plain(tmp_path):
    """Numpy's numbers are numbers; what JSON cannot say is the trial's failure, and nothing is half written."""
    import numpy as np
    folder = Folder(tmp_path)
    folder.finish('a', [{'x': np.float32(0.5), 'n': np.int64(3), 'list': np.arange(2), 'nan': float('nan')}])
    row, = folder.rows('a')
    assert (row['x'], row['n'], row['list']) == (0.5, 3, [0, 1])
    assert Table.of([row]).interval('nan').count == 0
    with pytest.raises(TypeError, match='measure plain values'):
        folder.finish('b', [{'x': object()}])
    assert folder.state('b') == 'open'


def test_jobs_are_composed_like_plain_runs(monkeypatch):
    """Before the first trial runs: the wrong one is the last."""
    import little
    widths = little.widths()
    wrong = dataclasses.replace(widths, axes=[*widths.axes, {'model.hidden_size': 0}])
    assert len(trials.jobs(widths)) == 4
    with pytest.raises(UserError, match=r'--model\.num_layers: there is no such flag'):
        trials.jobs(dataclasses.replace(wrong, axes=[*widths.axes, {'model.num_layers': 1}]))


@pytest.fixture
def captions(tmp_path):
    """A folder as Multi30k's, of sixty sentences."""
    words = {'de': ('ein', 'mann', 'hund', 'läuft', 'neben'), 'en': ('a', 'man', 'dog', 'runs', 'beside')}
    for split, count in (('train', 60), ('val', 6), ('test_2016_flickr', 6)):
        for language, known in words.items():
            (tmp_path / f'{split}.{language}').write_text(''.join(
                ' '.join(known[i // step % 5] for step in (1, 6, 2)) + '\n' for i in range(count)))
    return tmp_path


def test_the_ladder_on_ones_own_text(captions, capsys):
    """Two systems, two steps: the folder is called after the text, and what is abroad has a column."""
    (captions / 'tales.tsv').write_text('a man runs\tein mann läuft\n' * 5)
    command = ('--study=ladder', '--smoke', f'--text={captions}', f'--abroad={captions}/tales.tsv:2,1')
    assert launch(*command, '--mode=plan') == 0
    assert '2 trials in runs/smoke/ladder-text' in capsys.readouterr().out
    assert launch(*command, f'--workdir={captions}/study') == 0
    assert '<h1>On captions systems with attention' in (captions / 'study' / 'report.html').read_text()
    rows = list(csv.DictReader((captions / 'study' / 'results.csv').open()))
    assert {row['model'] for row in rows if row['model']} == {'smt', 'gru'}
    assert all(0 <= float(row['bleu_tales']) <= 100 for row in rows if row['model'])
    assert json.loads((captions / 'study' / 'report.json').read_text())['study'] == 'ladder-text'


def test_recipes_on_ones_own_text(captions):
    """One rung, five steps, read four ways."""
    assert launch('--study=recipes', '--smoke', f'--text={captions}', f'--workdir={captions}/study') == 0
    rows = [row for row in csv.DictReader((captions / 'study' / 'results.csv').open()) if row['model']]
    assert [(row['model'], row['weights'], row['search']) for row in rows] == [
        ('lstm', 'best', 'greedy'), ('lstm', 'best', 'beam'), ('lstm', 'best', 'beam, penalised'),
        ('lstm', 'averaged', 'beam, penalised')]
    assert all(0 <= float(row['bleu_lowercase']) <= 100 for row in rows)
    assert 'GRU like for like: not run.' in (captions / 'study' / 'report.md').read_text()


@pytest.mark.parametrize(('words', 'reason'), [
    (('--study=gates', '--text='), '--text=: gates makes'),
    (('--study=gates', '--text=there'), 'gates makes its own text and reads no other'),
    (('--study=ladder', '--abroad=tales.tsv'), '--abroad=tales.tsv is tested on beside --text'),
    (('--study=ladder', '--text=nowhere'), '--text=nowhere is no folder'),
    (('--study=recipes', '--text=nowhere'), '--text=nowhere is no folder'),
    (('--study=recipes', '--text=.', '--abroad=tales.tsv'), '--abroad=tales.tsv: recipes is tested on its own text'),
    (('--sweep=model=gru', '--experiment=numerals', '--text=there'), 'read by a study, not by --sweep')])
def test_text_where_none_is_read_is_refused(words, reason, capsys):
    assert launch(*words) == 2
    assert reason in capsys.readouterr().err
