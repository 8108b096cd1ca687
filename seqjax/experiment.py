"""Experiment: the frozen dataclass that joins task, model, optimizer, training and decoding, and checks them all."""

import dataclasses
from typing import Any

from seqjax.decoding.options import Decoding
from seqjax.errors import UserError
from seqjax.options import check_value, options
from seqjax.training.optimizer import Optimizer
from seqjax.training.training import Training

GROUPS = ('task', 'model', 'optimizer', 'training', 'decoding')


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run, wholly described: a Task x a Model x a Training. Every option of every part is a flag.

    Raises:
      UserError: where a value is not of its field's type, is out of bounds, or does not fit another.
    """

    task: Any
    model: Any
    optimizer: Any = Optimizer()  # or Counting, for a model that learns by counting
    training: Training = Training()
    decoding: Any = Decoding()  # or PhraseDecoding, for a model that searches phrases

    def __post_init__(self):
        for group in GROUPS:
            config = getattr(self, group)
            for field in options(config):
                check_value(f'--{group}.{field.name}', getattr(config, field.name), field)
            if hasattr(config, 'check'):
                config.check()
        self._check_kinds()
        self._check_passes()

    def _check_kinds(self) -> None:
        """A model that counts has an optimizer that counts, one that searches phrases a decoding of phrases."""
        for group, kind in (('optimizer', 'learner'), ('decoding', 'searches')):
            wanted, got = (getattr(part, kind) for part in (self.model, getattr(self, group)))
            if wanted != got:
                raise UserError(f'{type(self.model).__name__} and {type(getattr(self, group)).__name__} do not go '
                                f'together ({kind}: {wanted}, {got}); take the {group} of a recipe in experiments/')
        # Of a loss, which counting has not.
        for name, off in (('label_smoothing', 0.0), ('rdrop', 0.0), ('sampling', 'none')):
            value = getattr(self.task, name, off)
            if self.model.learner == 'counts' and value != off:
                raise UserError(f'--task.{name}={value} is not read by {type(self.model).__name__}, which learns by '
                                f'counting; set it to {off}')

    def _check_passes(self) -> None:
        """Two passes over a batch say something where dropout makes them differ."""
        rdrop = getattr(self.task, 'rdrop', 0.0)
        if rdrop and not any(getattr(self.model, field.name) for field in options(self.model)
                             if field.name.endswith('dropout')):
            raise UserError(f'--task.rdrop={rdrop} compares two passes that dropout makes differ, and with '
                            '--model.dropout=0.0 they are the same; raise dropout, or set rdrop to 0')

    def replace(self, group: str, **values) -> 'Experiment':
        """A copy in which fields of one group have other values."""
        return dataclasses.replace(self, **{group: dataclasses.replace(getattr(self, group), **values)})

    def sized(self, **sizes) -> 'Experiment':
        """A copy whose model knows what only the data tells: the sizes of the vocabularies, the longest source."""
        return self.replace('model', **sizes)


def flat(experiment: Experiment) -> dict[str, Any]:
    """{'group.field': value} of every option."""
    return {f'{group}.{field.name}': getattr(getattr(experiment, group), field.name)
            for group in GROUPS for field in options(getattr(experiment, group))}
