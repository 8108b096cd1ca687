"""What a study measures: a trial's experiment, data and parameters, read when they are asked for."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from seqjax.experiment import Experiment
from seqjax.prepared import Prepared, prepare
from seqjax.reuse import opened, reopen
from seqjax.tasks.evaluation import Evaluator
from seqjax.tasks.translation import Codec, Data


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trial to be measured.

    Args:
      workdir: the trial's folder; holds a finished run where the study trains.
      composed: the experiment as its flags make it.
      trained: whether parameters come from the run (those that its test scores are of), or are fresh from the seed.
      read: (task, codec or None) -> data.
    """

    workdir: pathlib.Path
    composed: Experiment
    trained: bool = True
    read: Callable[[Any, Codec | None], Data] = lambda task, codec: task.prepare(codec)

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        """The run's summary.json."""
        return json.loads((self.workdir / 'summary.json').read_text(encoding='utf-8'))

    @functools.cached_property
    def data(self) -> Data:
        """The splits, by the run's own vocabularies."""
        return self.read(self.composed.task, reopen(self.workdir)[1] if self.trained else None)

    @property
    def codec(self) -> Codec:
        """Vocabularies and shapes."""
        return self.data.codec

    @functools.cached_property
    def ready(self) -> Prepared:
        """The experiment with its sizes."""
        return prepare(self.composed, self.codec)

    @property
    def model(self) -> Any:
        """The model, sized."""
        return self.ready.experiment.model

    @functools.cached_property
    def _opened(self) -> tuple[Evaluator, Any]:
        if self.trained:
            return opened(self.workdir, self.composed, self.codec)
        evaluator = Evaluator(self.composed.task, self.model, self.codec, self.ready.placement)
        return evaluator, self.ready.placement.place_state(self.fresh)

    @property
    def evaluator(self) -> Evaluator:
        """Scores and predicts with the model."""
        return self._opened[0]

    @property
    def params(self) -> Any:
        """The parameters."""
        return self._opened[1]

    @property
    def fresh(self) -> Any:
        """The parameters that its seed begins with."""
        return jax.jit(self.ready.initialise)(jax.random.key(self.composed.training.seed))


def untrained(model: Any, seed: int) -> Any:
    """Parameters of another sized model, that nobody has trained."""
    tokens = np.ones((1, 2), np.int32)
    return jax.jit(model.init)(jax.random.key(seed), tokens, tokens)['params']
