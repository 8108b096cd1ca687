"""How far a study is: at a terminal a table that is drawn again in place, elsewhere a line now and then, on stderr."""

import contextlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TextIO

from tqdm import tqdm

from seqjax.studies import trials
from seqjax.studies.folder import Folder
from seqjax.studies.work import signs

TAIL = 4096  # bytes of metrics.jsonl that are looked at


class At(NamedTuple):
    """Where a running trial is: steps made and in all, its last validation score, seconds since it was taken up."""

    name: str
    step: int
    steps: int | None
    score: str
    seconds: float


class Glance(NamedTuple):
    """A study at one moment; `left` is in seconds, None while nothing is known."""

    done: list[str]
    failed: list[str]
    running: list[At]
    open: list[str]  # neither of these
    left: float | None


def glance(jobs: Sequence[trials.Job], folder: Folder, now: Callable[[], float] = time.time) -> Glance:
    """Reads off the folder how far each trial is, and estimates the time that is left.

    A trial is taken to last as long as the finished ones of its experiment and model on average, or as all finished
    ones; while there is none, as long as the running ones' pace of steps says.
    """
    states = {job.name: folder.state(job.name) for job in jobs}
    taken = {sign['trial']: sign['since'] for sign in signs(folder).values() if sign['trial'] in states}
    done = [name for name, state in states.items() if state == 'done']
    failed = [name for name, state in states.items() if state == 'failed']
    by_name = {job.name: job for job in jobs}
    running = [where(by_name[name], folder, now() - taken[name]) for name, state in states.items()
               if state == 'open' and name in taken]
    names = {at.name for at in running}
    still = [name for name, state in states.items() if state == 'open' and name not in names]

    def kind(name: str) -> tuple[str, str]:
        return by_name[name].recipe.name, by_name[name].recipe.model

    spent = {name: folder.seconds(name) for name in done}
    paces = [at.seconds * at.steps / at.step for at in running if at.steps and at.step]

    def lasts(name: str) -> float | None:
        alike = [seconds for other, seconds in spent.items() if kind(other) == kind(name)]
        known = alike or list(spent.values()) or paces
        return sum(known) / len(known) if known else None

    estimates = [lasts(name) for name in [*still, *names]]
    if None in estimates:
        return Glance(done, failed, running, still, None)
    left = sum(lasts(name) for name in still) + sum(max(lasts(at.name) - at.seconds, 0) for at in running)
    return Glance(done, failed, running, still, left / max(len(running), 1))


def where(job: trials.Job, folder: Folder, seconds: float) -> At:
    """Where a running trial is, by its metrics.jsonl."""
    experiment = job.recipe.experiment
    step, score = 0, ''
    path = folder.trial(job.name) / 'metrics.jsonl'
    with contextlib.suppress(OSError), open(path, 'rb') as file:
        file.seek(max(path.stat().st_size - TAIL, 0))
        for line in file.read().split(b'\n'):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # torn lines
                record = json.loads(line)
                step = max(step, record['step'])
                if record['split'] == 'valid':
                    score = f'{experiment.task.metric} {record[experiment.task.metric]:.4g}'
    return At(job.name, step, experiment.training.steps, score, seconds)


def headline(seen: Glance, began: float, now: float) -> str:
    """The study in one line."""
    total = len(seen.done) + len(seen.failed) + len(seen.running) + len(seen.open)
    parts = [f'{len(seen.done)} of {total} trials done', f'{len(seen.running)} running']
    if seen.failed:
        parts.append(f'{len(seen.failed)} failed')
    parts.append(f'{tqdm.format_interval(now - began)} so far')
    if seen.running or seen.open:
        parts.append('time left unknown yet' if seen.left is None else f'about {tqdm.format_interval(seen.left)} left')
    return ', '.join(parts)


def table(seen: Glance, began: float, now: float, width: int, height: int) -> list[str]:
    """The lines that a terminal shows: the headline, what runs, what failed; as many as there is room for."""
    lines = [headline(seen, began, now)]
    longest = max((len(at.name) for at in seen.running), default=0)
    for at in seen.running:
        steps = f'step {at.step}' + (f' of {at.steps}' if at.steps else '')
        lines.append(f'  {at.name:<{longest}}  {steps:<18} {at.score:<20} {tqdm.format_interval(at.seconds)}')
    lines += [f'  {name}  failed' for name in seen.failed]
    return [line[:width - 1] for line in lines[:max(height - 1, 1)]]


@contextlib.contextmanager
def shown(jobs: Sequence[trials.Job], folder: Folder, stream: TextIO | None = None, every: float = 60.0) -> Iterator:
    """Shows how far the study is while the block runs; gives a function that says a line meanwhile.

    Args:
      every: seconds between two lines where there is no terminal, besides those that tell of a trial's end.
    """
    stream = stream or sys.stderr
    terminal = stream.isatty()
    began = time.time()
    ended, lock = threading.Event(), threading.Lock()
    drawn, told, last, said = 0, None, began, False

    def erase() -> None:
        nonlocal drawn
        if drawn:
            stream.write(f'\x1b[{drawn}F\x1b[J')
        drawn = 0

    def draw(final: bool = False) -> None:
        nonlocal drawn, told, last, said
        with lock:
            seen = glance(jobs, folder)
            now = time.time()
            if terminal:
                size = shutil.get_terminal_size()
                erase()
                lines = table(seen, began, now, size.columns, size.lines)
                stream.write(''.join(f'{line}\n' for line in lines))
                drawn = len(lines)
            else:
                over = (*seen.done, *seen.failed)
                for name in over if told is not None else ():
                    if name not in told:
                        how = 'done' if name in seen.done else f'failed ({folder.reason(name)})'
                        stream.write(f'{name}: {how}\n')
                # The last word is said once.
                if told is None or set(over) != told or now - last >= every or (final and not said):
                    stream.write(headline(seen, began, now) + ''.join(
                        f'; {at.name} at step {at.step}' for at in seen.running) + '\n')
                    last, said = now, not seen.running and not seen.open
                told = set(over)
            stream.flush()

    def say(text: str) -> None:
        with lock:
            erase()
            stream.write(f'{text}\n')
            stream.flush()

    def watch() -> None:
        draw()
        while not ended.wait(1.0):
            with contextlib.suppress(OSError):
                draw()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield say
    finally:
        ended.set()
        thread.join()
        draw(final=True)
