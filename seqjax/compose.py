"""From names and flags to an Experiment: one way for the launcher, for the trials of a study and for tests."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from absl import flags as absl_flags

from seqjax import catalogue, flags
from seqjax.errors import UserError
from seqjax.experiment import GROUPS, Experiment


class Recipe(NamedTuple):
    """A named experiment with a model, as its function makes it, before any flag."""

    name: str
    model: str
    experiment: Experiment
    doc: str


def recipe(name: str | None, model: str | None) -> Recipe:
    """The experiment called `name` with the model called `model`; None: the experiment's own choice.

    Raises:
      UserError: there is no such experiment or model.
    """
    if name is None:
        raise UserError(f'--experiment is missing; choose one of {", ".join(sorted(catalogue.experiments()))}')
    function = catalogue.load('experiment', name)
    model = model or function.__defaults__[0]
    catalogue.load('model', model)
    return Recipe(name, model, function(model), function.__doc__ or '')


def given(argv: Sequence[str], parts: dict[str, Any], others: Sequence[Any] = ()
          ) -> Iterator[dict[str, dict[str, Any]]]:
    """{group: {field: value}} of the flags of `parts` that are set: those of flagfiles, and then those that were typed.

    Args:
      others: dataclasses whose flags, which have no prefix, may stand in `argv` and are read elsewhere.

    Raises:
      UserError: a flag does not exist, or has no such value.
    """
    for words in flags.stages(argv):
        values = absl_flags.FlagValues()
        for other in others:
            flags.define(values, '', other)
        for group, part in parts.items():
            flags.define(values, f'{group}.', part)
        flags.read(words, values)
        yield {group: flags.given(values, f'{group}.', part) for group, part in parts.items()}


def overridden(argv: Sequence[str], parts: dict[str, Any], others: Sequence[Any] = ()) -> dict[str, Any]:
    """The `parts` ({group: dataclass}) with the values that a flagfile gives, and over them those that were typed.

    Raises:
      UserError: a flag does not exist, has no such value, or is not read.
    """
    for stage in given(argv, parts, others):
        parts = {group: flags.override(f'{group}.', part, stage[group]) for group, part in parts.items()}
    return parts


def compose(name: str | None, model: str | None, argv: Sequence[str] = (), others: Sequence[Any] = ()) -> Recipe:
    """The recipe with the values of the flags in `argv` in place of its own.

    Raises:
      UserError: a name or a flag does not exist, has no such value, is not read, or does not fit another.
    """
    found = recipe(name, model)
    parts = {group: getattr(found.experiment, group) for group in GROUPS}
    return found._replace(experiment=Experiment(**overridden(argv, parts, others)))
