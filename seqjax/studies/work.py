"""Who works on a study: takes open trials that nobody else is at, one after the other, until none is left.

Any number of workers, on any machines that see the folder, share the trials by locks that go with the process. A
worker says in workers/NAME.json what it is at, and touches the file while it lives.
"""

import contextlib
import os
import pathlib
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence

from seqjax import files
from seqjax.studies import trials
from seqjax.studies.folder import Folder, read, write
from seqjax.studies.study import Study

BEAT = 5.0  # seconds between two signs of life
SILENCE = 60.0  # seconds without one, after which a worker is taken for dead
GRACE = 300.0  # seconds in which a worker that was told to end must have saved


def work(study: Study, jobs: Sequence[trials.Job], folder: Folder, name: str | None = None) -> None:
    """Runs open trials in this process until those that are left are held by others.

    Raises:
      Interrupted: a signal came; the run's state has been saved.
    """
    reader = trials.once()
    with sign(folder, name or f'{socket.gethostname()}-{os.getpid()}') as at:
        worked = True
        while worked:  # again, for what others have left since
            worked = False
            for job in jobs:
                with contextlib.suppress(files.Held), files.locked(folder.path / '.claims' / job.name):
                    if folder.state(job.name) == 'open':
                        at(job.name)
                        trials.run(job, study, folder, reader)
                        trials.forget()
                        worked = True
                    at(None)


@contextlib.contextmanager
def sign(folder: Folder, name: str) -> Iterator:
    """Says who works and on what: gives a function that takes a trial's name, or None."""
    path = folder.path / 'workers' / f'{name}.json'
    ended = threading.Event()

    def at(trial: str | None) -> None:
        write(path, {'trial': trial, 'host': socket.gethostname(), 'pid': os.getpid(), 'since': time.time()})

    def live() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    at(None)
    threading.Thread(target=live, daemon=True).start()
    try:
        yield at
    finally:
        ended.set()
        path.unlink(missing_ok=True)


def signs(folder: Folder) -> dict[str, dict]:
    """{worker: what it is at} of those that live."""
    found = {}
    for path in sorted((folder.path / 'workers').glob('*.json')):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime < SILENCE:
                found[path.stem] = read(path, {'trial': None, 'since': 0})
    return found


def forget_sign(folder: Folder, name: str) -> str | None:
    """Takes away the sign of a worker that is dead; returns the trial that it was at."""
    path: pathlib.Path = folder.path / 'workers' / f'{name}.json'
    trial = read(path, {'trial': None})['trial']
    path.unlink(missing_ok=True)
    return trial


def follow_stdin() -> None:
    """Ends this process, after it has saved, when its stdin is closed: by the end of whoever started it, too."""
    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(143)

    threading.Thread(target=watch, daemon=True).start()
