"""The command line: exit codes, the one line that a mistake gets, help, and every recipe as it is written."""

import os
import pathlib

import jax
import pytest
from regenerate import GOLDEN, composed, pairs

from seqjax import catalogue, launcher
from seqjax.compose import overridden
from seqjax.experiment import GROUPS
from seqjax.options import options, unparse

SMALL = ['--experiment=numerals', '--model=transformer', '--task.train_size=40', '--task.valid_size=5',
         '--task.test_size=5', '--task.highest=999', '--compilation_cache=none']


def words(value):
    """A test's id: its command line."""
    return ' '.join(value).replace(' '.join(SMALL), '...') if isinstance(value, list) else ''


def refused(capsys, *argv):
    """The one line on stderr of a command that exits with 2 and says nothing else."""
    assert launcher.main([*map(str, argv)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith('error: ')
    assert err.endswith('\n')
    assert err.count('\n') == 1, err
    assert 'Traceback' not in err
    assert out == ''
    return err.removeprefix('error: ').rstrip('\n')


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """A run that is started by mistake must not land in the repository."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(('argv', 'message'), [
    (['--experiment=numeral'], "--experiment=numeral: there is no such experiment; did you mean 'numerals'?"),
    (['--experiment=zzz'], '--experiment=zzz: there is no such experiment; choose one of colours, multi30k, '),
    (['--model=gru'], '--experiment is missing; choose one of colours, multi30k, '),
    (['--experiment=numerals', '--model=transfomer'],
     "--model=transfomer: there is no such model; did you mean 'transformer'?"),
    ([*SMALL, '--model.hiden_size=8'], "--model.hiden_size: there is no such flag; did you mean 'model.hidden_size'?"),
    ([*SMALL, '--training.step', '8'], "--training.step: there is no such flag; did you mean 'training.steps'?"),
    ([*SMALL, '--qqqqqqq=1'], '--qqqqqqq: there is no such flag; --help lists them'),
    ([*SMALL, '--model.source_size=8'], '--model.source_size: there is no such flag'),
    ([*SMALL, '--training.steps=many'], '--training.steps=many is not an int or none'),
    ([*SMALL, '--model.hidden_size=8.5'], '--model.hidden_size=8.5 is not an int'),
    ([*SMALL, '--model.norm=between'], '--model.norm=between is not one of before, after'),
    ([*SMALL, '--mode=tarin'], '--mode=tarin is not one of train, evaluate, predict, plan'),
    ([*SMALL, '--model.dropout=1.5'], '--model.dropout=1.5 must be below 1.0'),
    ([*SMALL, '--optimizer.learning_rate=nan'], '--optimizer.learning_rate=nan is not a float'),
    ([*SMALL, '--decoding.method=beam', '--decoding.beam_size=0'], '--decoding.beam_size=0 must be at least 1'),
    ([*SMALL, '--decoding.beam_size=4'], '--decoding.beam_size=4 is not read with --decoding.method=greedy; drop it, '
     'or set --decoding.method=beam'),
    ([*SMALL, '--optimizer.momentum=0.9'], '--optimizer.momentum=0.9 is not read with --optimizer.name=adam'),
    ([*SMALL, '--training.steps=3', '--training.epochs=2'], 'exclude each other; give one'),
    ([*SMALL, '--training.steps=none'], '--training.steps=none and --training.epochs=none'),
    ([*SMALL, '--training.seed=4294967296'], '--training.seed=4294967296 must be at most 4294967295'),
    ([*SMALL, 'training.steps=3'], "unexpected argument 'training.steps=3'; flags are written --name=value"),
    ([*SMALL, '--training.steps'], 'Missing value for flag --training.steps'),
    ([*SMALL, '--flagfile=nowhere.txt'], '--flagfile: '),
    ([*SMALL, '--input=a.txt'], '--input=a.txt is not read with --mode=train; drop it, or set --mode=predict'),
    (['--mode=predict', '--init_from=runs/a'], '--init_from=runs/a is not read with --mode=predict'),
    ([*SMALL, '--processes=2'], '--processes=2 and --coordinator=None: several processes need both'),
    ([*SMALL, '--processes=0'], '--processes=0 must be at least 1'),
    ([*SMALL, '--processes=2', '--coordinator=a:1', '--process=2'], '--process=2 '),
    (['--mode=predict'], '--mode=predict needs --workdir=RUN'),
    (['--mode=evaluate', '--workdir=empty'], '--workdir=empty holds no run (no config.json)'),
    (['--mode=predict', '--workdir=empty'], '--workdir=empty holds no run (no config.json)'),
    (['--mode=predict', '--experiment=numerals'], '--workdir=runs/numerals-transformer holds no run'),
    (['--experiment=nothing', '--help'], '--experiment=nothing: there is no such experiment'),
    (['--experiment=numerals', '--model=nothing', '--help'], '--model=nothing: there is no such model')],
    ids=words)
def test_mistakes_that_need_no_data(argv, message, capsys, tmp_path):
    said = refused(capsys, *argv, *([] if '--compilation_cache=none' in argv else ['--compilation_cache=none']))
    assert message in said
    assert list(tmp_path.iterdir()) == [], 'a mistake leaves nothing behind'


@pytest.mark.parametrize(('argv', 'message'), [
    (['--model.num_heads=3'], '--model.num_heads=3 does not divide --model.hidden_size=128; choose a divisor'),
    (['--model.tie=all'], '--model.tie=all needs one vocabulary for both sides'),
    (['--training.mesh=data=16'], 'data=16'),
    (['--training.mesh=date=2'], "'data'"),
    (['--training.mesh=fsdp=2'], 'fsdp'),
    (['--training.batch_size=12', '--training.mesh=data=8'], '--training.batch_size=12'),
    (['--task.max_length=2'], '--task.max_length=2'),
    (['--init_from=nowhere'], 'nowhere holds no run (no config.json)')], ids=words)
def test_mistakes_that_only_the_data_or_the_devices_show(argv, message, capsys):
    assert message in refused(capsys, *SMALL, '--workdir=run', *argv)


@pytest.mark.parametrize(('argv', 'message'), [
    (['--experiment=parallel', '--task.path='], '--task.path'),
    (['--experiment=parallel', '--task.path=nowhere.tsv'], 'nowhere.tsv'),
    (['--experiment=parallel', '--task.path=a.en,b.fr'], 'a.en'),
    (['--experiment=multi30k', '--task.path=nowhere'], 'nowhere'),
    (['--experiment=tfds', '--task.dataset='], '--task.dataset'),
    (['--experiment=numerals', '--task.source=xx'], 'xx')], ids=words)
def test_data_that_are_not_there(argv, message, capsys):
    assert message in refused(capsys, *argv, '--mode=plan', '--compilation_cache=none')


def test_a_second_try_finds_the_folder_as_the_first_did(capsys):
    """Only the parameters of another run show that they are not there, when much has been prepared."""
    for folder in ('nowhere', 'elsewhere'):
        said = refused(capsys, *SMALL, '--workdir=run', f'--init_from={folder}')
        assert f'{folder} holds no run (no config.json)' in said


def test_a_folder_that_is_no_run_is_left_alone(capsys, tmp_path):
    (tmp_path / 'thesis').mkdir()
    (tmp_path / 'thesis' / 'thesis.tex').write_text('years of work')
    assert '--workdir=thesis is not empty and holds no run' in refused(capsys, *SMALL, '--workdir=thesis')
    assert (tmp_path / 'thesis' / 'thesis.tex').read_text() == 'years of work'
    assert {path.name for path in (tmp_path / 'thesis').iterdir()} <= {'thesis.tex', '.lock'}


def test_a_file_where_a_folder_should_be(capsys, tmp_path):
    (tmp_path / 'file').write_text('')
    assert 'file' in refused(capsys, *SMALL, '--workdir=file')


def test_nothing_said_gives_the_short_help(capsys):
    assert launcher.main([]) == 0
    assert '--experiment=NAME' in capsys.readouterr().out


def test_list_shows_every_name(capsys):
    assert launcher.main(['--list']) == 0
    out, err = capsys.readouterr()
    assert out == catalogue.listing() + '\n'
    assert err == ''


@pytest.mark.parametrize('word', ['--help', '-h', '-help', '--helpfull', '--helpshort'])
def test_help_alone_lists_the_launchers_flags(word, capsys):
    assert launcher.main([word]) == 0
    out, err = capsys.readouterr()
    for field in options(launcher.Launch):
        assert f'--{field.name}={unparse(field.default)}\n' in out
        assert field.metadata['help'] in out
    assert err == ''


@pytest.mark.parametrize(('experiment', 'model'), [(name, None) for name in catalogue.experiments()]
                         + [('numerals', name) for name in catalogue.models()])
def test_help_of_an_experiment_lists_every_option_with_its_value(experiment, model, capsys):
    chosen = [] if model is None else [f'--model={model}']
    assert launcher.main([f'--experiment={experiment}', *chosen, '--help', '--compilation_cache=none']) == 0
    out, err = capsys.readouterr()
    assert err == ''
    function = catalogue.load('experiment', experiment)
    assert out.startswith(function.__doc__.strip().partition('\n')[0])
    recipe = function() if model is None else function(model)
    for group in GROUPS:
        part = getattr(recipe, group)
        for field in options(part):
            assert f'  --{group}.{field.name}={unparse(getattr(part, field.name))}\n' in out
            assert field.metadata['help'] in out


def test_the_sinusoids_are_drawn_into_a_folder(capsys, tmp_path):
    assert launcher.main(['--draw=sinusoids', '--workdir=pictures']) == 0
    assert capsys.readouterr().out == 'drew pictures/sinusoids.png\n'
    assert {path.name for path in (tmp_path / 'pictures').iterdir()} == {'sinusoids.png', 'sinusoids.npz'}


def test_the_compilation_cache_goes_where_it_is_told(tmp_path):
    before = {name: getattr(jax.config, name) for name in (
        'jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs',
        'jax_persistent_cache_min_entry_size_bytes')}
    try:
        launcher.main(['--experiment=numerals', '--help', '--compilation_cache=none'])
        assert jax.config.jax_compilation_cache_dir == before['jax_compilation_cache_dir']
        launcher.main(['--experiment=numerals', '--help', f'--compilation_cache={tmp_path / "cache"}'])
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'cache')
        launcher.main(['--experiment=numerals', '--help', '--compilation_cache=~/cache'])
        assert jax.config.jax_compilation_cache_dir == os.path.expanduser('~/cache')
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.parametrize(('experiment', 'model'), pairs())
def test_recipes_are_as_they_were(experiment, model):
    path = GOLDEN / f'{experiment}-{model}.txt'
    assert path.exists(), f'{path.name} is missing; python -m tests.regenerate writes it'
    assert composed(experiment, model) == path.read_text(encoding='utf-8'), (
        f'the recipe has changed: every run of {experiment} with {model} is now another. Where that is meant, '
        'python -m tests.regenerate writes the new one, and docs/results.md needs new numbers')
    recipe = catalogue.load('experiment', experiment)(model)
    parts = {group: getattr(recipe, group) for group in GROUPS}
    assert overridden([f'--flagfile={path}'], parts) == parts


def test_there_is_no_recipe_that_nobody_has():
    assert {path.stem for path in pathlib.Path(GOLDEN).glob('*')} == {'-'.join(pair) for pair in pairs()}
