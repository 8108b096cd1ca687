"""How far a run is: a bar at a terminal, plain lines elsewhere, always on stderr."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from tqdm import tqdm


class Progress:
    """Step, loss, tokens a second, and the time that is left.

    Args:
      total: steps of the whole run.
      initial: steps made before, so that a resumed run's bar and time left are right.
      every: steps between two lines where there is no terminal.
      stream: stderr by default.
      clock: seconds; replaced in tests.
    """

    def __init__(self, total: int, initial: int = 0, every: int = 50, stream: TextIO | None = None,
                 clock: Callable[[], float] = time.monotonic):
        self._stream = stream or sys.stderr
        self._total, self._first, self._step, self._every = total, initial, initial, every
        self._clock, self._start = clock, clock()
        self._work, self._loss = 0.0, 0.0
        self._last = (self._start, initial, 0.0, 0.0)  # at the last line: time, step, tokens, loss
        self._speed = (0.0, 0.0)  # tokens and steps a second, over the last interval
        terminal = self._stream.isatty()
        self._bar = tqdm(total=total, initial=initial, file=self._stream, unit='step', dynamic_ncols=True,
                         smoothing=0.05) if terminal else None

    def advance(self, step: int, sums: Mapping[str, tuple[Any, Any]], work: str) -> None:
        """Shows that `step` is done. The term `work` is the loss to show, and its count the tokens of the step."""
        loss, tokens = (float(x) for x in sums[work])
        self._work += tokens
        self._loss += loss
        self._step = step
        now = self._clock()
        then, before, work_then, loss_then = self._last
        work_since = self._work - work_then
        # The mean since the last line: one batch of long sentences says little.
        value = (self._loss - loss_then) / work_since if work_since else float('nan')
        if step % self._every == 0 or step == self._total:
            seconds = max(now - then, 1e-9)
            self._speed = work_since / seconds, (step - before) / seconds
            self._last = now, step, self._work, self._loss
        if self._bar is not None:
            self._bar.set_postfix_str(f'{work} {value:.3f}, {self._tokens(now):,.0f} tokens/s', refresh=False)
            self._bar.update(step - self._bar.n)
        elif step % self._every == 0 or step == self._total:
            print(f'step {step}/{self._total}  {work} {value:.4f}  {self._tokens(now):,.0f} tokens/s  '
                  f'{_duration(self._left())} left', file=self._stream, flush=True)

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def clock(self) -> dict[str, float]:
        """Clock values for a record: seconds since this process began, tokens and steps a second lately."""
        return {'seconds': round(self._clock() - self._start, 3), 'tokens_per_second': round(self._speed[0], 1),
                'steps_per_second': round(self._speed[1], 3)}

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _tokens(self, now: float) -> float:
        """Tokens a second: of the last interval, or since the start while there is none."""
        return self._speed[0] or self._work / max(now - self._start, 1e-9)

    def _left(self) -> float:
        """Seconds left, at the pace of the steps made by this process."""
        made = self._step - self._first
        return (self._clock() - self._start) / max(made, 1) * (self._total - self._step)


def _duration(seconds: float) -> str:
    return tqdm.format_interval(seconds)
