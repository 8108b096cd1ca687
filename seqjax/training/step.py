"""One update of gradient descent: the same pure function under pmap, shard_map and jit, with or without accumulation.

The objective is the sum over terms of sum/count, where sums and counts are taken over the whole batch: a replica or a
micro-batch with fewer tokens counts for less, and a mean of means is never taken.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Sums = dict[str, tuple[jax.Array, jax.Array]]  # {term: (sum, count)}, float32 scalars


class State(NamedTuple):
    """All that an update changes, as plain arrays with no device axis."""

    step: jax.Array  # updates made so far, int32
    params: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True)
class GradientDescent:
    """The learner that follows a gradient.

    Args:
      loss: (params, batch, rng, step) -> (objective, report), two Sums. Only the objective is optimised. `rng` is None
        where dropout is off; `step` counts updates from 1. A report term that bears the path of a parameter
        ('encoder/norm/running_mean') is what the batch has seen of it, arrays of the parameter's shape: the parameter
        has no gradient, and is the running mean of sum/count over updates.
      optimizer: from `Optimizer.build`.
      schedule: update number, from 1 -> learning rate; only reported, the optimizer holds its own.
      seed: of dropout.
      accumulate: micro-batches to an update; divides every replica's share of the batch.
      decay: of running means, an update.
    """

    loss: Callable[[Any, Any, jax.Array | None, jax.Array], tuple[Sums, Sums]]
    optimizer: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]
    seed: int
    accumulate: int = 1
    decay: float = 0.99

    def init(self, params: Any) -> State:
        """The state before the first update."""
        return State(jnp.zeros((), jnp.int32), params, self.optimizer.init(params))

    @property
    def constants(self) -> tuple[jax.Array, ...]:
        """What `step` takes besides: the dropout key, so that runs that differ in their seed share one program."""
        return (jax.random.key_data(jax.random.key(self.seed)),)

    def step(self, state: State, batch: Any, axis: str | None = None, key: jax.Array | None = None
             ) -> tuple[State, Sums]:
        """One update.

        Args:
          state: the state before it.
          batch: a pytree whose leaves lead with rows: a replica's rows under `axis`, else all of them.
          axis: the mapped axis of the replicas, or None where the compiler splits the batch (jit).
          key: of dropout, as `constants` has it; None: the same, built into the program.

        Returns:
          The new state, and every term of objective and report totalled over replicas and micro-batches, with
          'gradient_norm' (before clipping) and 'learning_rate' of this update. Nothing is skipped when a gradient is
          not finite: the norm and the parameters then say so.
        """
        number = state.step + 1
        # XLA copies what it sums over a single replica, all gradients.
        alone = axis is None or jax.lax.axis_size(axis) == 1
        everywhere = (lambda tree: tree) if alone else (lambda tree: jax.lax.psum(tree, axis))

        def sums(params: Any, micro: Any, index: jax.Array) -> tuple[dict, tuple[dict, Sums]]:
            objective, report = self.loss(params, micro, self._key(number, index, axis, key), number)
            totals, counts = ({name: pair[i] for name, pair in objective.items()} for i in (0, 1))
            return totals, (counts, report)

        def gradient(micro: Any, index: jax.Array, counts: dict | None = None) -> tuple[Any, Sums]:
            totals, pull, (own, report) = jax.vjp(lambda params: sums(params, micro, index), state.params, has_aux=True)
            counts = everywhere(own) if counts is None else counts
            # d(sum/count)/d(sum) with the count of the whole batch; a term that counted nothing has no gradient.
            slopes = {name: jnp.where(count == 0, 0, 1 / jnp.where(count == 0, 1, count)).astype(totals[name].dtype)
                      for name, count in counts.items()}
            return pull(slopes)[0], report | {name: (totals[name], own[name]) for name in totals}

        if self.accumulate == 1:
            gradients, terms = gradient(batch, jnp.zeros((), jnp.int32))
        else:
            micros = (interleave(batch, self.accumulate), jnp.arange(self.accumulate))
            # The counts of the whole batch come first. This pass uses nothing else, so XLA drops the model from it.
            counts = jax.lax.map(lambda micro: sums(state.params, *micro)[1][0], micros)
            counts = everywhere(jax.tree.map(lambda x: x.sum(0), counts))

            def add(total: Any, micro: tuple) -> tuple[Any, Sums]:
                gradients, terms = gradient(*micro, counts)
                return jax.tree.map(jnp.add, total, gradients), terms

            gradients, terms = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, state.params), micros)
            terms = jax.tree.map(lambda x: x.sum(0), terms)

        gradients, terms = everywhere((gradients, terms))
        updates, opt_state = self.optimizer.update(gradients, state.opt_state, state.params)
        params, terms = self._run(state.params, optax.apply_updates(state.params, updates), terms)
        one = jnp.ones((), jnp.float32)
        terms |= {'gradient_norm': (optax.global_norm(gradients), one),
                  'learning_rate': (jnp.asarray(self.schedule(number), jnp.float32), one)}
        return State(number, params, opt_state), terms

    def _run(self, before: Any, after: Any, terms: Sums) -> tuple[Any, Sums]:
        """`after` an update, its running means moved from `before` by what was seen of them; and the other terms.

        An entry that nobody has seen this time stays as it is.
        """
        terms = dict(terms)

        def move(path: tuple, old: jax.Array, new: jax.Array) -> jax.Array:
            total, count = terms.pop(jax.tree_util.keystr(path, simple=True, separator='/'), (None, None))
            if total is None:
                return new
            mean = total / jnp.where(count == 0, 1, count)
            return jnp.where(count == 0, old, self.decay * old + (1 - self.decay) * mean)

        return jax.tree_util.tree_map_with_path(move, before, after), terms

    def finish(self, params: Any, data: Any) -> dict[str, Any]:
        """What is made of the final parameters when training has ended, arrays by name: nothing."""
        return {}

    def _key(self, number: jax.Array, micro: jax.Array, axis: str | None, key: jax.Array | None) -> jax.Array:
        """The dropout key of one micro-batch of one update, of one replica where there are replicas."""
        key = jax.random.wrap_key_data(self.constants[0] if key is None else key)
        key = jax.random.fold_in(jax.random.fold_in(key, number), micro)
        return jax.random.fold_in(key, jax.lax.axis_index(axis)) if axis else key


def interleave(batch: Any, parts: int) -> Any:
    """Cuts rows (B, ...) into (parts, B / parts, ...); part i takes the rows i, i + parts, i + 2 parts, ...

    Under jit the rows are spread over the devices in blocks. Cut into blocks again, a micro-batch would lie on a few of
    the devices; dealt out like cards, it takes as many rows from every device, and no row moves. As `parts` divides
    each device's block, a replica that deals out its own block makes the same micro-batches.
    """
    def deal(x: jax.Array) -> jax.Array:
        if x.shape[0] % parts:
            raise ValueError(f'{x.shape[0]} rows are not a multiple of {parts} micro-batches')
        return jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)

    return jax.tree.map(deal, batch)
