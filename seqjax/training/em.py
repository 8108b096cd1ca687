"""Expectation maximisation as a learner: counts expected under the parameters, added up over a pass and normalised.

The same pure function under pmap, shard_map and jit, with or without micro-batches, as gradient descent is. Within a
pass the parameters stand still, so a pass does not depend on how the data are cut into batches.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from seqjax.training.step import Sums, interleave


@dataclasses.dataclass(frozen=True)
class Counting:
    """Expected counts: a pass over the training split is an update, and there is nothing to set."""

    learner = 'counts'
    depends_on_steps = False  # a longer run goes on where a shorter one ended


class State(NamedTuple):
    """All that a step changes, as plain arrays with no device axis."""

    step: jax.Array  # batches seen so far, int32
    params: Any
    counts: Any  # of this pass, in the shapes of params


@dataclasses.dataclass(frozen=True)
class ExpectationMaximisation:
    """The learner that counts (Dempster et al. 1977).

    Args:
      model: has `expect(params, batch) -> (evidence, sums)`, the evidence leading with rows; `collect(counts,
        evidence) -> counts`; `maximise(params, counts, passes) -> params`; and `conclude(params, data)`.
      batches_per_pass: batches after which counts are normalised and start again from 0.
      accumulate: micro-batches to a step; divides every replica's share of the batch.
    """

    model: Any
    batches_per_pass: int
    accumulate: int = 1

    def init(self, params: Any) -> State:
        """The state before the first batch."""
        return State(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.zeros_like, params))

    def step(self, state: State, batch: Any, axis: str | None = None) -> tuple[State, Sums]:
        """Counts one batch; the last one of a pass ends it. Arguments and result are those of gradient descent."""
        number = state.step + 1
        if self.accumulate == 1:
            evidence, terms = self.model.expect(state.params, batch)
        else:
            micros = interleave(batch, self.accumulate)
            evidence, terms = jax.lax.map(lambda micro: self.model.expect(state.params, micro), micros)
            evidence = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), evidence)
            terms = jax.tree.map(lambda x: x.sum(0), terms)
        if axis:
            # The sum of all replicas' counts, as a psum of them would be; but a batch touches few of the counts.
            evidence = jax.tree.map(lambda x: jax.lax.all_gather(x, axis, tiled=True), evidence)
            terms = jax.lax.psum(terms, axis)
        counts = self.model.collect(state.counts, evidence)

        def end(counts: Any) -> tuple[Any, Any]:
            passes = number // self.batches_per_pass
            return self.model.maximise(state.params, counts, passes), jax.tree.map(jnp.zeros_like, counts)

        params, counts = jax.lax.cond(number % self.batches_per_pass == 0, end, lambda counts: (state.params, counts),
                                      counts)
        return State(number, params, counts), terms

    def finish(self, params: Any, data: Any) -> dict[str, Any]:
        """The tables that the model makes of its final parameters, by name, on the host."""
        if jax.process_count() > 1:
            params = multihost_utils.process_allgather(params, tiled=True)
        return self.model.conclude(jax.device_get(params), data)
