"""Calls to be timed: a training step, a forward pass, and the generation of so many words, on sequences of a length."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.data.batches import Batch
from seqjax.data.vocabulary import EOS, UNK
from seqjax.decoding.greedy import rollout
from seqjax.decoding.search import begin
from seqjax.decoding.walk import walk
from seqjax.studies.subject import Subject
from seqjax.training import flops

Call = Callable[[], Any]  # gives arrays of jax, to be waited for


def random_batch(model: Any, rows: int, source_length: int, target_length: int, seed: int = 0) -> Batch:
    """Sequences without padding, of words drawn evenly, EOS at the end of each."""
    rng = np.random.default_rng(seed)

    def tokens(size: int, length: int) -> np.ndarray:
        words = rng.integers(UNK + 1, size, (rows, length), dtype=np.int32)
        words[:, -1] = EOS
        return words

    return Batch(tokens(model.source_size, source_length), tokens(model.target_size, target_length),
                 np.ones(rows, np.float32), np.arange(rows, dtype=np.int32))


def step_flops(subject: Subject, batch: Batch) -> int:
    """The FLOPs of a training step on `batch`, as `training/flops.py` counts them; nothing is computed."""
    learner = subject.ready.learner(1000)
    return flops.count(learner.step, subject.ready.abstract_state(learner), batch)


def stepping(subject: Subject, batch: Batch) -> Call:
    """One training step on `batch`, from the state that the call before left; the first state is fresh."""
    ready = subject.ready
    learner = ready.learner(1000)
    step = ready.placement.step(learner.step)
    state = [ready.placement.place_state(ready.begin(learner))]
    placed = ready.placement.place_batch(batch)

    def once() -> Any:
        state[0], sums = step(state[0], placed)  # the state before is used up
        return sums

    return once


def forwarding(subject: Subject, batch: Batch) -> Call:
    """The loss of `batch`, teacher-forced, without a gradient."""
    ready, task, model = subject.ready, subject.composed.task, subject.model
    run = ready.placement.sums(lambda params, batch: task.loss(model, params, batch, None, 0)[0])
    params, placed = subject.params, ready.placement.place_batch(batch)
    return lambda: run(params, placed)


def generating(subject: Subject, batch: Batch) -> Call:
    """As many words as the targets of `batch` are long, one after the other, from its sources; EOS is never chosen."""
    model, params, length = subject.model, subject.params, batch.target.shape[1]

    @jax.jit
    def run(params: Any, source_BS: jax.Array) -> jax.Array:
        before = begin(model, params, source_BS, length, length, 1)

        def likeliest_but_end(sums_BV, logits_BV, position, own):
            return sums_BV.at[:, EOS].set(-jnp.inf).argmax(-1).astype(jnp.int32)

        loop = functools.partial(walk, max_length=length, room=length, go_on=before.go_on, groups=False)
        nothing_B = jnp.zeros(source_BS.shape[0], bool)
        return rollout(before.step, likeliest_but_end, before.model, nothing_B, loop, length)[0]

    source = jnp.asarray(batch.source)
    return lambda: run(params, source)
