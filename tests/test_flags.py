"""A dataclass's options as flags: one each, read from the command line or a flagfile, and refused in one line."""

import dataclasses
from typing import Literal

import pytest
from absl import flags as absl_flags

from seqjax import flags
from seqjax.errors import UserError
from seqjax.options import from_data, option, options


@dataclasses.dataclass(frozen=True)
class Config:
    """One option of each kind."""

    count: int = option(3, 'how many', at_least=1)
    rate: float = option(0.5, 'how often', at_least=0.0, below=1.0)
    name: str = option('x', 'what it is called')
    loud: bool = option(False, 'whether it is loud')
    method: Literal['greedy', 'beam'] = option('greedy', 'how it searches')
    beam_size: int = option(5, 'hypotheses', at_least=1, when={'method': ('beam',)})
    steps: int | None = option(10, 'updates', at_least=1, instead_of='epochs')
    epochs: int | None = option(None, 'passes', at_least=1, instead_of='steps')
    columns: tuple[int, int] = option((1, 2), 'columns')
    limit: float | None = option(None, 'at most')
    size: int | None = from_data('known from the data')
    plain: int = 7


def given(*argv, config=Config()):
    """The values that a command line sets."""
    values = absl_flags.FlagValues()
    flags.define(values, 'group.', config)
    assert flags.read(argv, values) == []
    return flags.given(values, 'group.', config)


def chosen(*argv, config=Config()):
    """The config that a command line asks for."""
    return flags.override('group.', config, given(*argv, config=config))


def refusal(*argv, config=Config()):
    with pytest.raises(UserError) as caught:
        chosen(*argv, config=config)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_there_is_a_flag_for_each_option_and_no_other():
    values = absl_flags.FlagValues()
    flags.define(values, 'group.', Config())
    assert set(values) == {f'group.{field.name}' for field in options(Config)}
    for field in options(Config):
        assert values[f'group.{field.name}'].value == getattr(Config(), field.name)
        assert values[f'group.{field.name}'].help == field.metadata['help']


def test_nothing_given_changes_nothing():
    assert given() == {}
    assert chosen() == Config()


ALL = dict(count=4, rate=0.25, name='a b=c', loud=True, method='beam', beam_size=2, steps=None, epochs=6,
           columns=(3, 4), limit=1.5)
WORDS = dict(count='4', rate='0.25', name='a b=c', loud='true', method='beam', beam_size='2', steps='none', epochs='6',
             columns='3,4', limit='1.5')


@pytest.mark.parametrize('style', ['--a=b', '--a b'])
def test_every_kind_of_value_in_both_styles(style):
    argv = [word for name, text in WORDS.items() for word in (
        [f'--group.{name}={text}'] if style == '--a=b' or name == 'loud' else [f'--group.{name}', text])]
    assert given(*argv) == ALL
    assert chosen(*argv) == dataclasses.replace(Config(), **ALL)


@pytest.mark.parametrize(('word', 'value'), [
    ('--group.loud', True), ('--group.loud=true', True), ('--group.loud=1', True), ('--group.loud=False', False),
    ('--group.loud=0', False), ('--nogroup.loud', False)])
def test_the_ways_to_write_a_bool(word, value):
    for default in (False, True):
        assert chosen(word, config=Config(loud=default)).loud is value


def test_the_last_of_two_wins():
    assert chosen('--group.count=4', '--group.count=5').count == 5


def test_a_default_given_in_so_many_words_counts_as_given():
    assert given('--group.count=3') == {'count': 3}


def test_one_flagfile_line_a_flag(tmp_path):
    path = tmp_path / 'flags.txt'
    path.write_text('# a comment\n--group.count=4\n\n--group.name=a b\n--group.loud\n')
    assert given(f'--flagfile={path}') == {'count': 4, 'name': 'a b', 'loud': True}
    assert given(f'--flagfile={path}', '--group.count=9')['count'] == 9
    assert given('--group.count=9', f'--flagfile={path}')['count'] == 4


@pytest.mark.parametrize('config', [
    Config(), Config(**ALL), Config(steps=None, epochs=2, name='', rate=1e-7, columns=(-1, 0), limit=None),
    Config(name='two words, "quoted" --group.count=9')], ids=['default', 'all', 'edge', 'odd'])
def test_a_flagfile_that_we_write_gives_the_same_values(config, tmp_path):
    path = tmp_path / 'flags.txt'
    path.write_text(flags.flagfile({'group.': config}))
    assert chosen(f'--flagfile={path}') == config


def test_a_flagfile_holds_only_what_is_read():
    """A run that does not search with a beam says nothing of its size, or reading the file back would be refused."""
    assert flags.flagfile({'a.': Config(), 'b.': Config(method='beam')}).splitlines() == [
        '--a.count=3', '--a.rate=0.5', '--a.name=x', '--a.loud=false', '--a.method=greedy', '--a.steps=10',
        '--a.epochs=none', '--a.columns=1,2', '--a.limit=none',
        '--b.count=3', '--b.rate=0.5', '--b.name=x', '--b.loud=false', '--b.method=beam', '--b.beam_size=5',
        '--b.steps=10', '--b.epochs=none', '--b.columns=1,2', '--b.limit=none']


def test_steps_and_epochs_stand_instead_of_each_other():
    assert (chosen('--group.steps=5').steps, chosen('--group.steps=5').epochs) == (5, None)
    by_epochs = chosen('--group.epochs=2')
    assert (by_epochs.steps, by_epochs.epochs) == (None, 2)
    again = chosen('--group.steps=5', config=by_epochs)
    assert (again.steps, again.epochs) == (5, None)
    assert chosen('--group.steps=none', '--group.epochs=2') == by_epochs
    assert refusal('--group.steps=5', '--group.epochs=2') == (
        '--group.steps=5 and --group.epochs=2 exclude each other; give one')


def test_an_option_that_is_not_read_is_refused():
    assert refusal('--group.beam_size=3') == (
        '--group.beam_size=3 is not read with --group.method=greedy; drop it, or set --group.method=beam')
    assert chosen('--group.beam_size=3', '--group.method=beam').beam_size == 3
    assert chosen('--group.beam_size=3', config=Config(method='beam')).beam_size == 3
    assert 'is not read with --group.method=greedy' in refusal(
        '--group.beam_size=3', '--group.method=greedy', config=Config(method='beam'))
    # Left over from the recipe, and not given: no reason to refuse.
    assert chosen('--group.method=greedy', config=Config(method='beam', beam_size=2)).beam_size == 2


@pytest.mark.parametrize(('argv', 'message'), [
    (['--group.cuont=4'], "--group.cuont: there is no such flag; did you mean 'group.count'?"),
    (['--group.beamsize', '4'], "--group.beamsize: there is no such flag; did you mean 'group.beam_size'?"),
    (['--zzz=1'], '--zzz: there is no such flag; --help lists them'),
    (['--group.size=4'], '--group.size: there is no such flag; did you mean'),
    (['--group.count=four'], '--group.count=four is not an int'),
    (['--group.count=1.5'], '--group.count=1.5 is not an int'),
    (['--group.count='], '--group.count= is not an int'),
    (['--group.count=none'], '--group.count=none is not an int'),
    (['--group.rate=x'], '--group.rate=x is not a float'),
    (['--group.loud=maybe'], '--group.loud=maybe is not a bool'),
    (['--group.method=bean'], '--group.method=bean is not one of greedy, beam'),
    (['--group.columns=1'], '--group.columns=1 is not a comma-separated tuple of int, int'),
    (['--group.limit=much'], '--group.limit=much is not a float or none'),
    (['--group.count'], 'Missing value for flag --group.count; --help lists the flags'),
    (['--nogroup.count'], '--nogroup.count: there is no such flag'),
    (['stray'], "unexpected argument 'stray'; flags are written --name=value"),
    (['--group.count=4', 'group.rate=1'], "unexpected argument 'group.rate=1'; flags are written --name=value"),
    (['--flagfile=/nowhere/flags.txt'], "--flagfile: [Errno 2] No such file or directory: '/nowhere/flags.txt'; give")])
def test_mistakes_are_told_in_one_line(argv, message):
    assert refusal(*argv).startswith(message)


def test_a_mistake_in_a_flagfile_is_told_too(tmp_path):
    path = tmp_path / 'flags.txt'
    path.write_text('--group.cuont=4\n')
    assert refusal(f'--flagfile={path}') == "--group.cuont: there is no such flag; did you mean 'group.count'?"


def test_reading_only_known_flags_leaves_the_rest():
    """The launcher first learns the experiment, and with it which other flags there are."""
    values = absl_flags.FlagValues()
    flags.define(values, '', Config())
    argv = ['--model.size', '3', '--count=8', '--other.loud', '--name', 'y', '--x=1']
    rest = flags.read(argv, values, known_only=True)
    assert (values['count'].value, values['name'].value) == (8, 'y')
    assert rest == ['--model.size', '3', '--other.loud', '--x=1']


def test_help_shows_each_option_with_default_type_bounds_and_condition():
    text = flags.help_text('the group', 'group.', Config())
    assert text.startswith('the group\n')
    for field in options(Config):
        assert f'--group.{field.name}=' in text
        assert field.metadata['help'] in text
    assert '  --group.rate=0.5\n      how often (float; at least 0.0; below 1.0)\n' in text
    assert '  --group.beam_size=5\n      hypotheses (int; at least 1; with method=beam)\n' in text
    assert '  --group.method=greedy\n      how it searches (one of greedy, beam)\n' in text
    assert 'size=None' not in text
    assert 'plain' not in text
