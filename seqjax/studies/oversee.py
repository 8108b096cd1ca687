"""Keeps the workers of a study going: starts them, replaces those that were killed, ends them when it is asked to."""

import os
import pathlib
import signal
import time
from collections.abc import Callable, Sequence

from seqjax.errors import UserError
from seqjax.studies import trials
from seqjax.studies.folder import Folder
from seqjax.studies.launchers import Start, Worker
from seqjax.studies.work import GRACE, forget_sign
from seqjax.training.loop import Interrupted

ATTEMPTS = 2  # of a trial whose worker is killed: once may be somebody else's fault, such as a machine short of memory


def oversee(start: Start, words: Sequence[str], count: int, jobs: Sequence[trials.Job], folder: Folder,
            pause: float = 0.2, say: Callable[[str], None] = print) -> None:
    """Runs `count` workers until no trial is open.

    A worker that was killed is replaced, and its trial goes on from its last checkpoint; a trial whose worker is killed
    once more has failed.

    Args:
      words: a worker's command line, without its name.

    Raises:
      Interrupted: a signal came; all workers have saved and ended.
      UserError: a worker ended for another reason than that no trial is left.
    """
    killed: dict[str | None, int] = {}
    started = 0
    living: list[Worker] = []

    def begin() -> None:
        nonlocal started
        name = f'{os.getpid()}-{started}'
        living.append(start([*words, f'--worker={name}'], name, log(folder, name)))
        started += 1

    def is_open() -> bool:
        return any(folder.state(job.name) == 'open' for job in jobs)

    try:
        for _ in range(min(count, sum(folder.state(job.name) == 'open' for job in jobs))):
            begin()
        while living:
            time.sleep(pause)
            for worker in list(living):
                status = worker.status()
                if status is None:
                    continue
                living.remove(worker)
                trial = forget_sign(folder, worker.name)
                if status < 0 and is_open():
                    killed[trial] = killed.get(trial, 0) + 1
                    cause = signal.Signals(-status).name
                    if killed[trial] < ATTEMPTS:
                        say(f'a worker was killed by {cause}' + (f'; {trial} goes on' if trial else ''))
                    elif trial is None:
                        raise UserError(f'workers are killed by {cause} before they take a trial; see '
                                        f'{log(folder, worker.name)}')
                    else:
                        folder.fail(trial, f'its process was killed by {cause}, {killed[trial]} times; there may be '
                                           'too little memory for it')
                    begin()
                elif status and is_open():
                    raise UserError(f'a worker ended with {status}: {last_line(log(folder, worker.name))}')
    except BaseException:
        end(living, folder)
        raise


def end(living: Sequence[Worker], folder: Folder) -> None:
    """Asks workers to save and end, waits for them, and ends those that do not, or at once when asked again."""
    for worker in living:
        worker.stop()
    deadline = time.monotonic() + GRACE
    try:
        while any(worker.status() is None for worker in living) and time.monotonic() < deadline:
            time.sleep(0.1)
    except Interrupted:
        pass
    for worker in living:
        if worker.status() is None:
            worker.kill()
        forget_sign(folder, worker.name)


def log(folder: Folder, name: str) -> pathlib.Path:
    """Where a worker's own words go."""
    return folder.path / 'workers' / f'{name}.log'


def last_line(path: pathlib.Path) -> str:
    """The last thing that a worker said."""
    lines = path.read_text(encoding='utf-8', errors='replace').split('\n') if path.exists() else []
    said = [line for line in lines if line.strip()]
    return f'{said[-1]} ({path})' if said else f'it said nothing; see {path.parent.parent}'
