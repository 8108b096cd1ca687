"""What a study measures: a trial's experiment, data and parameters, read when they are asked for."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from seqjax.experiment import Experiment
from seqjax.prepared import Prepared, initialise, prepare
from seqjax.reuse import opened, reopen
from seqjax.tasks import floors
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

    def averaged(self, count: int) -> Any:
        """The mean of a trained run's last `count` scheduled checkpoints, or of as many as --training.keep has kept."""
        return opened(self.workdir, self.composed.replace('training', average=count), self.codec)[1]

    @functools.cached_property
    def fresh(self) -> Any:
        """The parameters that its seed begins with."""
        return self.untrained(self.model)

    def untrained(self, model: Any) -> Any:
        """The parameters that the same seed gives another sized model."""
        return initialise(model, self.composed.training.seed)

    @functools.cached_property
    def records(self) -> list[dict[str, Any]]:
        """The run's metrics.jsonl."""
        return [json.loads(line) for line in (self.workdir / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]

    @functools.cached_property
    def right(self) -> np.ndarray:
        """100 for each test pair whose output, of the run itself, is the reference, else 0; the mean is exact match."""
        lines = (self.workdir / 'predictions' / 'test.txt').read_text(encoding='utf-8').split('\n')[:-1]
        return np.array([100.0 * (line == reference) for line, reference in zip(lines, self.data.text['test'][1],
                                                                                strict=True)])

    def floors(self) -> list[dict[str, Any]]:
        """What trivial methods reach on the test split."""
        return floors.scored(self.data.text['train'], self.data.text['test'])
