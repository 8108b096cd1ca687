"""A tree of dataclasses <-> absl flags: one flag for each option field. Knows nothing about sequence models."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import flags

from seqjax.errors import UserError, did_you_mean
from seqjax.options import describe, options, parse, unparse, unread


class OptionParser(flags.ArgumentParser):
    """Parses a flag's text by a field's annotation."""

    def __init__(self, field: dataclasses.Field):
        self.field = field
        self.syntactic_help = describe(field.type)

    def parse(self, argument: Any) -> Any:
        """The value of `argument`; absl also calls this with values that are parsed already."""
        if not isinstance(argument, str):
            return argument
        try:
            return parse(argument, self.field.type)
        except (ValueError, KeyError, TypeError):
            raise ValueError(f'is not {describe(self.field.type)}') from None


class OptionSerializer(flags.ArgumentSerializer):
    """Writes a value as `OptionParser` reads it."""

    def serialize(self, value: Any) -> str:
        """The text of `value`."""
        return unparse(value)


def define(values: flags.FlagValues, prefix: str, config: Any) -> None:
    """Defines one flag in `values` for each option of the dataclass instance `config`, named prefix + field."""
    for field in options(config):
        flag = flags.Flag(OptionParser(field), OptionSerializer(), f'{prefix}{field.name}', None,
                          field.metadata['help'], boolean=field.type is bool)
        flag.default = getattr(config, field.name)
        flag.value = flag.default
        flags.DEFINE_flag(flag, flag_values=values)


def read(argv: Sequence[str], values: flags.FlagValues, known_only: bool = False) -> list[str]:
    """Parses `argv` (without the program's name) into `values`; turns absl's errors into UserError."""
    values.set_gnu_getopt(True)
    if 'flagfile' not in values:
        flags.DEFINE_string('flagfile', '', "a file with one flag a line, such as a run's flags.txt",
                            flag_values=values)
        flags.DEFINE_string('undefok', '', 'flags that may be unknown, by absl', flag_values=values)
    try:
        rest = values(['launch.py', *argv], known_only=known_only)[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(f'--{error.flagname}: there is no such flag'
                        f'{did_you_mean(error.flagname, [name for name in values if name != "undefok"])}'
                        if _near(error.flagname, values) else
                        f'--{error.flagname}: there is no such flag; --help lists them') from None
    except flags.CantOpenFlagFileError as error:
        reason = str(error).removeprefix('ERROR:: Unable to open flagfile: ')
        raise UserError(f'--flagfile: {reason}; give the path of a text file with one flag a line') from None
    except flags.IllegalFlagValueError as error:
        name, _, reason = str(error).removeprefix('flag ').partition(': ')
        raise UserError(f'{name} {reason}') from None
    except flags.Error as error:
        raise UserError(f'{" ".join(str(error).split())}; --help lists the flags') from None
    if not known_only and rest:
        raise UserError(f'unexpected argument {rest[0]!r}; flags are written --name=value')
    return rest


def _near(name: str, values: flags.FlagValues) -> bool:
    return did_you_mean(name, list(values)).startswith('; did you mean')


def stages(argv: Sequence[str]) -> list[list[str]]:
    """`argv` in two parts, flagfiles and the rest: what a file sets is a starting point for what is typed."""
    words, from_files, typed = iter(argv), [], []
    for word in words:
        name, equals, _ = word.partition('=')
        if name.lstrip('-') == 'flagfile' and word.startswith('-'):
            from_files.append(word if equals else f'{word}={next(words, "")}')
        else:
            typed.append(word)
    return [from_files, typed] if from_files else [typed]


def given(values: flags.FlagValues, prefix: str, config: Any) -> dict[str, Any]:
    """{field: value} of the options of `config` that were set on the command line or in a flagfile."""
    return {field.name: values[prefix + field.name].value for field in options(config)
            if values[prefix + field.name].present}


def override(prefix: str, config: Any, chosen: dict[str, Any]) -> Any:
    """`config` with the chosen values; fields that a chosen one stands instead of are cleared.

    Raises:
      UserError: where a chosen option is not read under the other values, or two were given of which one excludes the
        other.
    """
    changes = dict(chosen)
    for field in options(config):
        rival = field.metadata['instead_of']
        if rival and chosen.get(field.name) is not None:
            if chosen.get(rival) is not None:
                raise UserError(f'--{prefix}{field.name}={chosen[field.name]} and --{prefix}{rival}={chosen[rival]} '
                                'exclude each other; give one')
            changes[rival] = None
    result = dataclasses.replace(config, **changes)
    for field in options(result):
        reason = unread(result, field) if field.name in chosen else None
        if reason:
            wanted = ' or '.join(f'--{prefix}{name}={"|".join(map(unparse, values))}'
                                 for name, values in field.metadata['when'].items())
            raise UserError(f'--{prefix}{field.name}={unparse(chosen[field.name])} is not read with --{prefix}{reason}'
                            f'; drop it, or set {wanted}')
    return result


def help_text(title: str, prefix: str, config: Any) -> str:
    """Every option of `config`: name, default, type or choices, meaning, bounds."""
    lines = [title]
    for field in options(config):
        default = unparse(getattr(config, field.name))
        kind = describe(field.type).removeprefix('a ').removeprefix('an ')
        notes = [f'{words} {field.metadata[key]}' for key, words in
                 (('at_least', 'at least'), ('above', 'above'), ('at_most', 'at most'), ('below', 'below'))
                 if field.metadata[key] is not None]
        notes += [f'with {name}={"|".join(map(unparse, values))}' for name, values in field.metadata['when'].items()]
        lines.append(f'  --{prefix}{field.name}={default}')
        lines.append(f'      {field.metadata["help"]} ({"; ".join([kind, *notes])})')
    return '\n'.join(lines)


def flagfile(groups: dict[str, Any]) -> str:
    """The text of a flagfile that repeats a run: every option that is read, of each {prefix: dataclass}."""
    lines = []
    for prefix, config in groups.items():
        lines += [f'--{prefix}{field.name}={unparse(getattr(config, field.name))}' for field in options(config)
                  if not unread(config, field)]
    return '\n'.join(lines) + '\n'


