"""How a dataclass field says that it is an option: its meaning, its bounds, and when it is read.

A field declared with `option` becomes one flag (seqjax/flags.py), is checked against its annotation and its bounds
(seqjax/experiment.py), and is either part of a run's identity or free to change between resumptions (seqjax/rundir.py).
"""

import dataclasses
import math
import operator
import types
import typing
from typing import Any

from seqjax.errors import UserError


def option(default: Any, help: str, *, at_least: float | None = None, at_most: float | None = None,
           above: float | None = None, below: float | None = None, when: dict[str, tuple] | None = None,
           free: bool = False, instead_of: str | None = None) -> Any:
    """A dataclass field that is a flag.

    Args:
      default: the value when nobody says otherwise.
      help: one line for `--help`, units included.
      at_least, at_most: inclusive bounds. above, below: exclusive bounds. None values are not bounded.
      when: {other field of the same dataclass: values with which this one is read}. Setting the flag while it is not
        read is refused.
      free: may differ between a run and its resumption (True), or is part of the run's identity (False).
      instead_of: a field of the same dataclass that setting this one clears (steps and epochs).
    """
    return dataclasses.field(default=default, metadata=dict(
        help=help, at_least=at_least, at_most=at_most, above=above, below=below, when=when or {}, free=free,
        instead_of=instead_of))


def from_data(help: str) -> Any:
    """A field that the task fills from the data (a vocabulary's size): no flag, and None until then."""
    return dataclasses.field(default=None, metadata=dict(help=help, from_data=True))


def options(config: Any) -> list[dataclasses.Field]:
    """The fields of a dataclass, or of an instance, that are flags."""
    return [f for f in dataclasses.fields(config) if 'free' in f.metadata]


def unread(config: Any, field: dataclasses.Field) -> str | None:
    """Why `field` is not read under the other values of `config`, as 'name=value', or None when it is read."""
    for name, values in field.metadata['when'].items():
        if getattr(config, name) not in values:
            return f'{name}={getattr(config, name)}'
    return None


BOUNDS = (('at_least', operator.ge, 'at least'), ('at_most', operator.le, 'at most'),
          ('above', operator.gt, 'above'), ('below', operator.lt, 'below'))


def check_value(name: str, value: Any, field: dataclasses.Field) -> None:
    """Raises UserError unless `value` is of the field's type and within its bounds."""
    if not is_a(value, field.type):
        raise UserError(f'{name}={value!r} is not {describe(field.type)}')
    bounds = field.metadata
    numbers = [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, int | float)]
    for number in numbers:
        for key, holds, words in BOUNDS:
            if bounds[key] is not None and not holds(number, bounds[key]):
                raise UserError(f'{name}={value} must be {words} {bounds[key]}: {field.metadata["help"]}')


def is_a(value: Any, annotation: Any) -> bool:
    """Whether `value` has the type that `annotation` names: scalars, X | None, Literal, and tuples of fixed length."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(is_a(value, a) for a in typing.get_args(annotation))
    if origin is typing.Literal:
        return value in typing.get_args(annotation)
    if origin is tuple:
        kinds = typing.get_args(annotation)
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(is_a, value, kinds))
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is annotation


def describe(annotation: Any) -> str:
    """'an int', 'one of a, b', 'a float or none': a type in words, for messages and --help."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return ' or '.join(describe(a) for a in typing.get_args(annotation))
    if origin is typing.Literal:
        return 'one of ' + ', '.join(map(str, typing.get_args(annotation)))
    if origin is tuple:
        return 'a comma-separated tuple of ' + ', '.join(a.__name__ for a in typing.get_args(annotation))
    if annotation in (None, type(None)):
        return 'none'
    return {int: 'an int', float: 'a float', str: 'a str', bool: 'a bool'}.get(annotation, str(annotation))


def parse(text: str, annotation: Any) -> Any:
    """The value that `text` stands for under `annotation`; ValueError where it stands for none."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        kinds = typing.get_args(annotation)
        if type(None) in kinds and text.lower() == 'none':
            return None
        return parse(text, next(kind for kind in kinds if kind is not type(None)))
    if origin is typing.Literal:
        for choice in typing.get_args(annotation):
            if str(choice) == text:
                return choice
        raise ValueError(text)
    if origin is tuple:
        kinds, parts = typing.get_args(annotation), text.split(',')
        if len(kinds) != len(parts):
            raise ValueError(text)
        return tuple(map(parse, parts, kinds))
    if annotation is bool:
        return {'true': True, '1': True, 'false': False, '0': False}[text.lower()]
    if annotation is int:
        return int(float(text)) if 'e' in text.lower() and float(text).is_integer() else int(text)
    return annotation(text)


def unparse(value: Any) -> str:
    """The inverse of `parse`: how a value is written in a flag."""
    if value is None:
        return 'none'
    if isinstance(value, tuple):
        return ','.join(map(unparse, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
