"""The loop that every learner runs in: evaluate, save, take the next batch, step, write; in that order.

Evaluate before saving, so that a checkpoint knows its score and is kept if it is the best. Save before taking a batch,
so that what is on disk is a state between steps. Write last, about the step before: the host never waits for the
device.
"""

import contextlib
import dataclasses
import math
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from seqjax.errors import UserError
from seqjax.training.checkpoint import Checkpoints
from seqjax.training.metrics import Totals


class Interrupted(Exception):
    """A signal asked the run to end; what there was is saved. `status` is the exit code, 128 + the signal's number."""

    def __init__(self, signum: int):
        self.status = 128 + signum
        super().__init__(f'stopped by {signal.Signals(signum).name}')


class Stop:
    """Remembers SIGTERM and SIGINT until the loop is between two steps or two evaluation batches."""

    def __init__(self):
        self.signum: int | None = None

    def __enter__(self):
        # Several processes may get the signal at unlike steps, or one alone: jax's own handler tells the others.
        # And only the main thread may set handlers.
        alone = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
        signals = (signal.SIGTERM, signal.SIGINT) if alone else ()
        self._before = {s: signal.signal(s, self._remember) for s in signals}
        return self

    def __exit__(self, *exception):
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _remember(self, signum, frame):
        if self.signum == signal.SIGINT == signum:  # asked twice at the keyboard: at once
            raise KeyboardInterrupt
        self.signum = signum

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`. Several processes agree on the step: jax passes SIGTERM on among them."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signum = signal.SIGTERM
        return self.signum is not None

    def check(self) -> None:
        """Raises Interrupted if a signal has come."""
        if self.signum is not None:
            raise Interrupted(self.signum)


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """How long the loop runs and how often it evaluates, saves and writes, in steps."""

    steps: int
    evaluate_every: int
    checkpoint_every: int
    log_every: int
    patience: int | None = None  # evaluations without improvement


@dataclasses.dataclass
class History:
    """What the loop must remember to go on as if it had never stopped; saved with each checkpoint."""

    evaluated: int = 0  # the step of the last evaluation that was finished
    best_score: float | None = None
    waited: int = 0  # evaluations since the best
    totals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)  # since the last record
    seconds: float = 0.0  # of training, before this process

    def saw(self, step: int, score: float) -> bool:
        """Takes in an evaluation's score (higher is better); whether none was better yet.

        Of equals the newest is the best, so each of them is saved: else an extra checkpoint, from a signal, would win.
        """
        best = -math.inf if self.best_score is None else self.best_score
        self.evaluated, self.waited = step, 0 if score > best else self.waited + 1
        if not score >= best:  # also where it is no number
            return False
        self.best_score = score
        return True


def fit(state: Any, step_fn: Callable, batches: Callable[[int], Iterator], rhythm: Rhythm, history: History,
        evaluate: Callable[[Any, int], tuple[dict, float]], checkpoints: Checkpoints, write: Callable[[dict], None],
        progress: Any, stop: Stop, work: str = 'nll', trace: str | None = None) -> Any:
    """Runs a learner from `state` to the last step, or until evaluations no longer improve.

    Args:
      state: with fields `step` and `params`.
      step_fn: (state, batch on the devices) -> (state, sums); uses the old state up.
      batches: first batch's number -> batches on the devices, in order.
      evaluate: (state, step) -> (metrics, score, higher is better).
      write: takes the records of metrics.
      progress: shows step, loss and speed.
      work: the term whose count is a step's work, in tokens.
      trace: folder for a profile of ten steps.

    Returns:
      The last state.

    Raises:
      Interrupted: SIGTERM or SIGINT came, and the state has been saved.
      UserError: a loss or gradient is not finite; the step and the last good checkpoint are named.
    """
    n, start = int(state.step), int(state.step)
    stream = batches(n)
    pending = None
    totals = Totals(history.totals)
    first = start + min(10, (rhythm.steps - start) // 2)  # when what is compiled is compiled
    traced, tracing = range(first, min(first + 10, rhythm.steps)), contextlib.ExitStack()

    def drain() -> None:
        """Brings the metrics of the last step home."""
        nonlocal pending
        if pending is None:
            return
        step, sums = pending
        pending, sums = None, jax.device_get(sums)
        broken = [name for name, (total, _) in sums.items() if not math.isfinite(total)]
        if broken:
            raise diverged(f'{broken[0]} is {sums[broken[0]][0]}', step)
        totals.add(sums)
        progress.advance(step, sums, work)
        if step % rhythm.log_every == 0 or step == rhythm.steps:
            write({'step': step, 'split': 'train', **totals.means(), 'time': progress.clock()})
            totals.clear()

    def diverged(what: str, step: int) -> UserError:
        checkpoints.wait()
        kept = checkpoints.steps()
        last = f'the last good checkpoint is step {max(kept)}' if kept else 'there is no checkpoint yet'
        return UserError(f'{what} at step {step}; {last}; lower --optimizer.learning_rate or set '
                         '--optimizer.clip_norm, and start again in a new --workdir')

    def save(score: float | None = None) -> None:
        drain()
        if n > start and not finite(state):  # the loss of a step is that of the parameters before it
            raise diverged('a parameter is not finite', n)
        seconds = history.seconds + progress.clock()['seconds']
        checkpoints.save(n, state, dataclasses.asdict(history) | {'totals': totals.sums(), 'seconds': seconds}, score)

    while True:
        improved, score = False, None
        finished = n >= rhythm.steps
        due = n > 0 and (n % rhythm.evaluate_every == 0 or finished)
        if due and history.evaluated != n:
            drain()
            try:
                metrics, score = evaluate(state, n)
            except Interrupted:
                save()
                raise
            improved = history.saw(n, score)
            write({'step': n, 'split': 'valid', **metrics, 'time': progress.clock()})
        finished = finished or (rhythm.patience is not None and history.waited >= rhythm.patience)
        interrupted = stop.requested(n)
        if (n > start or due) and (finished or improved or interrupted or n % rhythm.checkpoint_every == 0):
            save(score)
        if interrupted:
            stop.check()
        if finished:
            tracing.close()
            return state
        if trace is not None and n == traced.start:
            tracing.enter_context(jax.profiler.trace(trace))
        batch = next(stream)
        state, sums = step_fn(state, batch)
        n += 1
        drain()
        pending = (n, sums)
        if trace is not None and n == traced.stop:
            jax.block_until_ready(sums)
            tracing.close()


@jax.jit
def finite(state: Any) -> jax.Array:
    """Whether every number of a state is one."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()
