"""Options: what is a value of a type, how it is written and read, its bounds, and when it is read at all."""

import dataclasses
import math
import random
import string
from typing import Literal

import pytest

from seqjax import catalogue
from seqjax.errors import UserError, did_you_mean
from seqjax.experiment import GROUPS
from seqjax.options import check_value, describe, from_data, is_a, option, options, parse, unparse, unread

Colour = Literal['red', 'green']


def some_text(rng):
    return ''.join(rng.choices(string.ascii_letters + string.digits + ' =-_./,é漢', k=rng.randrange(12)))


# For each annotation: random values of it, and values that are not.
TYPES = {
    int: (lambda rng: rng.randrange(-10**12, 10**12), [1.0, '1', None, True, (1,)]),
    float: (lambda rng: rng.choice([rng.gauss(0, 1), rng.gauss(0, 1) * 10.0 ** rng.randrange(-300, 300), 0.0]),
            ['1', None, False, math.nan, math.inf, -math.inf]),
    str: (some_text, [1, None, True, ('a',)]),
    bool: (lambda rng: rng.random() < 0.5, [1, 0, 'true', None]),
    int | None: (lambda rng: rng.choice([None, rng.randrange(100)]), [1.5, 'none', False]),
    float | None: (lambda rng: rng.choice([None, rng.random()]), ['none', True, math.inf]),
    Colour: (lambda rng: rng.choice(['red', 'green']), ['blue', 'Red', None, 1, '']),
    Colour | None: (lambda rng: rng.choice(['red', 'green', None]), ['blue', 'none']),
    tuple[int, int]: (lambda rng: (rng.randrange(9), rng.randrange(-9, 9)), [(1,), (1, 2, 3), [1, 2], (1, 2.0), 1]),
    tuple[float, bool, int]: (lambda rng: (rng.random(), rng.random() < 0.5, rng.randrange(9)), [(1.0, 1, 1)]),
}


@pytest.mark.parametrize('annotation', TYPES, ids=str)
def test_what_is_written_is_read_back_the_same(annotation):
    rng, (draw, _) = random.Random(0), TYPES[annotation]
    for _ in range(200):
        value = draw(rng)
        assert is_a(value, annotation), value
        again = parse(unparse(value), annotation)
        assert again == value
        assert type(again) is type(value)


@pytest.mark.parametrize('annotation', TYPES, ids=str)
def test_other_values_are_not_of_the_type(annotation):
    for value in TYPES[annotation][1]:
        assert not is_a(value, annotation), value


@pytest.mark.parametrize(('text', 'annotation', 'value'), [
    ('1e3', int, 1000), ('-7', int, -7), ('1_000', int, 1000), ('3', float, 3.0), ('1e-3', float, 1e-3),
    ('none', int | None, None), ('None', float | None, None), ('none', str, 'none'), ('', str, ''),
    ('TRUE', bool, True), ('1', bool, True), ('false', bool, False), ('0', bool, False),
    ('1,2', tuple[int, int], (1, 2)), ('red', Colour | None, 'red')])
def test_texts_that_people_write(text, annotation, value):
    assert parse(text, annotation) == value
    assert type(parse(text, annotation)) is type(value)


@pytest.mark.parametrize(('text', 'annotation'), [
    ('1.5', int), ('1e-3', int), ('', int), ('none', int), ('two', int), ('1e999', int), ('x', float), ('none', float),
    ('yes', bool), ('', bool), ('blue', Colour), ('none', Colour), ('RED', Colour), ('1', tuple[int, int]),
    ('1,2,3', tuple[int, int]), ('1,b', tuple[int, int]), ('many', int | None)])
def test_texts_that_stand_for_nothing(text, annotation):
    with pytest.raises((ValueError, KeyError)):
        parse(text, annotation)


@pytest.mark.parametrize(('annotation', 'words'), [
    (int, 'an int'), (float | None, 'a float or none'), (Colour, 'one of red, green'), (bool, 'a bool'),
    (tuple[int, int], 'a comma-separated tuple of int, int')])
def test_types_in_words(annotation, words):
    assert describe(annotation) == words


@dataclasses.dataclass(frozen=True)
class Config:
    """Bounds of every kind."""

    count: int | None = option(1, 'things', at_least=1, at_most=9)
    rate: float = option(0.5, 'a rate', above=0, below=1)
    pair: tuple[int, int] = option((1, 2), 'columns', at_least=1)
    kind: Colour = option('red', 'a colour')
    shade: int = option(0, 'how green', when={'kind': ('green',)})
    size: int | None = from_data('a size')
    plain: int = 3


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


@pytest.mark.parametrize(('name', 'value'), [
    ('count', 1), ('count', 9), ('count', None), ('rate', 1e-9), ('rate', 0.999), ('pair', (1, 1))])
def test_values_within_their_bounds(name, value):
    check_value(f'--{name}', value, FIELDS[name])


@pytest.mark.parametrize(('name', 'value', 'message'), [
    ('count', 0, '--count=0 must be at least 1: things'), ('count', 10, '--count=10 must be at most 9: things'),
    ('count', 2.0, '--count=2.0 is not an int or none'), ('rate', 0, '--rate=0 must be above 0: a rate'),
    ('rate', 1.0, '--rate=1.0 must be below 1: a rate'), ('rate', math.nan, '--rate=nan is not a float'),
    ('pair', (1, 0), '--pair=(1, 0) must be at least 1: columns'),
    ('kind', 'blue', "--kind='blue' is not one of red, green"),
    ('pair', '1,2', "--pair='1,2' is not a comma-separated tuple of int, int")])
def test_values_out_of_bounds_or_type_are_refused_in_one_line(name, value, message):
    with pytest.raises(UserError) as caught:
        check_value(f'--{name}', value, FIELDS[name])
    assert str(caught.value) == message


def test_only_options_are_options():
    assert [field.name for field in options(Config())] == ['count', 'rate', 'pair', 'kind', 'shade']
    assert [field.name for field in options(Config)] == ['count', 'rate', 'pair', 'kind', 'shade']


def test_an_option_is_unread_under_other_choices():
    assert unread(Config(), FIELDS['shade']) == 'kind=red'
    assert unread(Config(kind='green'), FIELDS['shade']) is None
    assert unread(Config(), FIELDS['count']) is None


def test_names_that_are_near_and_names_that_are_not():
    assert did_you_mean('transfomer', ['gru', 'transformer']) == "; did you mean 'transformer'?"
    assert did_you_mean('zzz', ['transformer', 'gru']) == '; choose one of gru, transformer'


@pytest.mark.parametrize('model', catalogue.models())
@pytest.mark.parametrize('experiment', catalogue.experiments())
def test_every_option_of_every_experiment_is_well_made(experiment, model):
    """Its default is a value of its type and can be written; it has a meaning; what it depends on exists."""
    composed = catalogue.load('experiment', experiment)(model)
    for group in GROUPS:
        config = getattr(composed, group)
        names = {field.name for field in dataclasses.fields(config)}
        for field in options(config):
            value = getattr(config, field.name)
            assert parse(unparse(value), field.type) == value, field.name
            check_value(field.name, value, field)
            assert field.metadata['help'], field.name
            assert '\n' not in field.metadata['help'], field.name
            assert set(field.metadata['when']) <= names, field.name
            assert field.metadata['instead_of'] in names | {None}, field.name
            for other, values in field.metadata['when'].items():
                kind = next(f.type for f in options(config) if f.name == other)
                assert all(is_a(v, kind) for v in values), field.name
