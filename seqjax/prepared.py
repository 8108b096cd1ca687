"""An experiment made ready: sizes filled in, devices chosen; and the parameters that a run ends with."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from seqjax.data.batches import Batches, choose_shapes, longest_lengths
from seqjax.errors import UserError
from seqjax.experiment import Experiment
from seqjax.tasks.translation import Codec, Data
from seqjax.training.checkpoint import Checkpoints
from seqjax.training.em import ExpectationMaximisation
from seqjax.training.parallel import Placement
from seqjax.training.step import GradientDescent


def fresh(model: Any, rng: jax.Array) -> Any:
    """Fresh parameters of a model that knows its sizes; their shapes depend on no batch."""
    tokens = np.ones((1, 2), np.int32)
    return model.init(rng, tokens, tokens)['params']


def initialise(model: Any, seed: int) -> Any:
    """The fresh parameters of a seed, compiled; equal models share the program."""
    return _initialise(jax.default_backend())(model, jax.random.key(seed))


@functools.cache
def _initialise(backend: str) -> Callable[[Any, jax.Array], Any]:
    # It runs once, and a draw of random bits for each parameter is long to optimise: with less effort the CPU's
    # compiler is done sooner. The last bit of a number may be another.
    options = {'xla_backend_optimization_level': 1} if backend == 'cpu' else None
    return jax.jit(fresh, static_argnums=0, compiler_options=options)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An experiment whose model knows its sizes, and the devices that it runs on."""

    experiment: Experiment
    placement: Placement

    def learner(self, steps: int, batches_per_epoch: int = 1) -> Any:
        """What learns over `steps` updates, of which `batches_per_epoch` see all of the training split.

        It has `init(params) -> state`, `step(state, batch, axis) -> (state, sums)` and `finish(params, data) ->
        tables`; a state has `step` and `params`.
        """
        task, training = self.experiment.task, self.experiment.training
        if self.experiment.optimizer.learner == 'counts':
            return ExpectationMaximisation(self.experiment.model, batches_per_epoch, training.accumulate)
        optimizer, schedule = self.experiment.optimizer.build(steps)
        return GradientDescent(functools.partial(task.loss, self.experiment.model), optimizer, schedule, training.seed,
                               training.accumulate)

    def begin(self, learner: Any) -> Any:
        """The state before the first update, not yet on the devices."""
        return jax.jit(learner.init)(initialise(self.experiment.model, self.experiment.training.seed))

    def step(self, learner: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
        """The learner's step on the devices: (state, batch) -> (state, sums). A learner may have `constants`, arrays
        that its step takes besides."""
        return self.placement.step(learner.step, *getattr(learner, 'constants', ()))

    def abstract_params(self) -> Any:
        """The parameters' shapes and shardings, without a value."""
        return self.placement.abstract(self._shapes())

    def abstract_state(self, learner: Any) -> Any:
        """The same of the whole state."""
        return self.placement.abstract(jax.eval_shape(learner.init, self._shapes()))

    def _shapes(self) -> Any:
        # Traced as `begin` runs it, so that a model is traced once.
        return _initialise(jax.default_backend()).eval_shape(self.experiment.model, jax.random.key(0))


def prepare(experiment: Experiment, codec: Codec, devices: Sequence[jax.Device] | None = None) -> Prepared:
    """Fills in what the data tells and chooses among the devices, all by default. Touches no parameter.

    Raises:
      UserError: sizes that do not fit each other, outputs longer than the model's positions, or batches that do not
        split over the devices.
    """
    experiment = experiment.sized(**experiment.task.sizes(codec))
    training, longest, limit = experiment.training, experiment.decoding.max_length, experiment.model.target_limit()
    if longest is not None and limit is not None and longest > limit:
        raise UserError(f'--decoding.max_length={longest}: the model has positions for {limit} target tokens (the '
                        '--task.max_length that it is trained with); ask for less, or train with positions that go on')
    placement = Placement(training.parallel, training.mesh, experiment.model.partition_rules(), devices)
    placement.check_batch('--training.batch_size', training.batch_size, training.accumulate)
    placement.check_batch('--decoding.batch_size', experiment.decoding.batch_size)
    return Prepared(experiment, placement)


def plan_batches(experiment: Experiment, data: Data, placement: Placement) -> Batches:
    """The training batches: number n is a pure function of the seed and n.

    Raises:
      UserError: they are to be without padding, and cannot.
    """
    training, model = experiment.training, experiment.model
    if training.unpad and not model.unpads:
        raise UserError(f'--training.unpad=true: this {type(model).__name__} keeps its padding; leave the flag out')
    if training.unpad and not placement.rows_at_home:
        raise UserError('--training.unpad=true: under jit over several devices batches keep their padding; take '
                        '--training.parallel=pmap or shard_map, or leave the flag out')
    unpad = training.unpad is not False and model.unpads and placement.rows_at_home
    first, *others = experiment.task.encodings(data, training.seed)
    shapes = data.codec.shapes if not others else choose_shapes(
        *longest_lengths([first, *others]), count=len(data.codec.shapes), longest=data.codec.max_length)
    return Batches(*first, training.batch_size, shapes, training.seed,
                   (placement.batch_shards, training.accumulate) if unpad else None, others)


def checkpoints_of(workdir: pathlib.Path, experiment: Experiment) -> Checkpoints:
    """The checkpoints in a run's folder."""
    training = experiment.training
    return Checkpoints(workdir / 'checkpoints', training.keep, training.average, training.checkpoint_every)


def final_parameters(checkpoints: Checkpoints, ready: Prepared) -> tuple[Any, str]:
    """What a run is judged by, in words too: the average of the last checkpoints if asked for, else the best one that
    is not damaged."""
    checkpoints.wait()
    if not checkpoints.steps():
        raise UserError(f'{checkpoints.directory} holds no checkpoint yet; train the run first')
    if ready.experiment.training.average:
        params, used = checkpoints.averaged(ready.abstract_params())
        return params, f'the average of the last {used} checkpoints' if used > 1 else 'the last checkpoint'
    best = checkpoints.best()
    step, state, _ = checkpoints.restore({'params': ready.abstract_params()}, checkpoints.ranked())
    which = 'the best on validation' if step == best else 'the newest' if best is None else 'of those that are intact'
    return state['params'], f'checkpoint {step}, {which}'


def parameter_count(params: Any) -> int:
    """Scalars in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
