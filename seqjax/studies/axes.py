"""Axes of a study, as plain lists of settings.

A setting is a dict from names to values: 'model' and 'experiment' name a model and an experiment, any other name is a
flag's ('model.hidden_size', 'training.steps'). Lists of settings are combined by the functions here, and nothing else:

    cross(grid({'model': ('rnn', 'gru'), 'model.hidden_size': (64, 128)}), seeds(3))
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from seqjax.errors import UserError

Settings = dict[str, Any]
SEED = 'training.seed'


def grid(values: Mapping[str, Sequence[Any]]) -> list[Settings]:
    """Every combination of the values, the last name varying fastest."""
    for name, choices in values.items():
        if not len(choices):
            raise UserError(f'the axis {name} has no value; give at least one')
    return [dict(zip(values, combination)) for combination in itertools.product(*values.values())]


def zipped(values: Mapping[str, Sequence[Any]]) -> list[Settings]:
    """The first value of each name, the second of each, and so on; all names have as many."""
    lengths = {name: len(choices) for name, choices in values.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        raise UserError('axes that go together have as many values each, at least one: '
                        + ', '.join(f'{name} has {length}' for name, length in lengths.items()))
    return [dict(zip(values, together)) for together in zip(*values.values())]


def chain(*lists: Sequence[Settings]) -> list[Settings]:
    """One list after the other, without those that were there before."""
    found: list[Settings] = []
    for settings in itertools.chain(*lists):
        if settings not in found:
            found.append(settings)
    return found


def cross(*lists: Sequence[Settings]) -> list[Settings]:
    """Every setting of the first list with every one of the second, and so on; a later name wins over an earlier."""
    crossed = []
    for parts in itertools.product(*lists):
        together: Settings = {}
        for part in parts:
            together |= part
        crossed.append(together)
    return crossed


def lasting(steps: int, evaluations: int = 1) -> Settings:
    """So many steps with so many evaluations, the last one and the only checkpoint at their end."""
    return {'training.steps': steps, 'training.evaluate_every': max(1, steps // evaluations),
            'training.checkpoint_every': steps}


def seeds(chosen: int | Sequence[int]) -> list[Settings]:
    """The seeds that are listed, or 0 to the number - 1."""
    if isinstance(chosen, int):
        chosen = range(chosen)
    if not len(chosen):
        raise UserError(f'the axis {SEED} has no value; at least one seed is needed')
    return [{SEED: seed} for seed in chosen]
