"""Who starts the workers of a study: this machine, Slurm, Ray. A worker is a command, so each of them is thin.

A launcher is a function: command, name, log -> Worker. All of them need to see the study's folder.
"""

import contextlib
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from seqjax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Worker(NamedTuple):
    """A worker that was started.

    Args:
      status: its exit code, None while it lives; negative: the signal that killed it.
      stop: asks it to save and end. kill: ends it at once.
    """

    name: str
    status: Callable[[], int | None]
    stop: Callable[[], None]
    kill: Callable[[], None]


Start = Callable[[Sequence[str], str, pathlib.Path], Worker]


def command(workdir: pathlib.Path, *more: str) -> list[str]:
    """The command line of a worker."""
    return [sys.executable, str(ROOT / 'launch.py'), '--mode=work', f'--workdir={workdir.absolute()}', *more]


def launcher(kind: str, resources: str, workers: int, folder: pathlib.Path) -> Start:
    """The launcher of that kind; `resources` is the text of --resources.

    Raises:
      UserError: what it needs is not there.
    """
    options = settings(resources)
    if kind == 'local':
        if options:
            raise UserError(f'--resources={resources} is not read with --launcher=local; drop it, or set '
                            '--launcher=slurm|ray')
        return local(workers)
    return slurm(folder, options) if kind == 'slurm' else ray(options)


def settings(resources: str) -> dict[str, Any]:
    """{name: value} of 'name=value name=value'; numbers are numbers."""
    found: dict[str, Any] = {}
    for word in shlex.split(resources):
        name, equals, value = word.partition('=')
        if not equals:
            raise UserError(f'--resources: {word!r} says nothing; write NAME=VALUE')
        found[name] = int(value) if value.lstrip('-').isdecimal() else value
    return found


def local(workers: int) -> Start:
    """Processes on this machine, each on its own share of the processors.

    Two programs that both spread over all processors wait for each other; on a share of its own each runs small
    models nearly as fast as alone.
    """
    shares = iter(divide(workers) * 1000)

    def start(words: Sequence[str], name: str, log: pathlib.Path) -> Worker:
        log.parent.mkdir(parents=True, exist_ok=True)
        # Of several workers on one accelerator, none may take all of its memory.
        environment = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'} | os.environ if workers > 1 else None
        with open(log, 'ab') as file:
            process = subprocess.Popen([*words, '--attached'], stdin=subprocess.PIPE, stdout=file, stderr=file,
                                       start_new_session=True, env=environment)
        share = next(shares)
        if share:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(process.pid, share)
        return Worker(name, process.poll, process.terminate, process.kill)

    return start


def divide(workers: int) -> list[set[int]]:
    """The processors that this process may use, dealt out to workers; empty sets where there are too few to deal."""
    if not hasattr(os, 'sched_getaffinity') or workers < 2:
        return [set()] * workers
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < workers:
        return [set()] * workers
    return [set(processors[i::workers]) for i in range(workers)]


def slurm(folder: pathlib.Path, options: dict[str, Any], cluster: str = 'slurm') -> Start:
    """Jobs of Slurm, by submitit. Options are those of submitit's `AutoExecutor.update_parameters`.

    A job that runs out of its time is queued again, and goes on. Jobs outlive the command that submitted them where
    that was killed; the same command then works beside them.

    Args:
      cluster: 'slurm', or 'local' for submitit's own processes.
    """
    try:
        import submitit
    except ImportError:
        raise UserError('--launcher=slurm needs submitit; pip install submitit') from None
    if cluster == 'slurm' and shutil.which('sbatch') is None:
        raise UserError('--launcher=slurm: there is no sbatch here; use a machine that submits to Slurm')
    executor = submitit.AutoExecutor(folder=folder / 'slurm', cluster=cluster)
    try:
        executor.update_parameters(**({'name': 'seqjax', 'timeout_min': 24 * 60} | options))
    except (TypeError, ValueError, NameError) as error:
        raise UserError(f'--resources: {" ".join(str(error).split())}') from None

    class Again(serving()):
        """What submitit queues once more when the time is up: the worker saves at the same signal."""

        def checkpoint(self, *args: Any) -> Any:
            return submitit.helpers.DelayedSubmission(self, *args)

    def start(words: Sequence[str], name: str, log: pathlib.Path) -> Worker:
        try:
            job = executor.submit(Again(), list(words), os.getcwd(), str(log.absolute()))
        except submitit.core.utils.FailedJobError as error:
            raise UserError(f'--launcher=slurm: {" ".join(str(error).split())}') from None
        asked = 0.0

        def status() -> int | None:
            nonlocal asked
            if job.paths.result_pickle.exists():
                kind, result = submitit.core.utils.pickle_load(job.paths.result_pickle)
                return result if kind == 'success' else 1
            if cluster != 'slurm':
                return -signal.SIGKILL if job.done() else None
            if time.monotonic() - asked < ASK:
                return None
            asked = time.monotonic()
            state = subprocess.run(['squeue', '--noheader', '--states=all', f'--jobs={job.job_id}', '--format=%T'],
                                   capture_output=True, text=True).stdout.strip()
            if state == 'CANCELLED':
                return 128 + signal.SIGTERM
            return -signal.SIGKILL if state in LOST else None

        return Worker(name, status, job.cancel, job.cancel)

    return start


ASK = 10.0  # seconds between two questions to Slurm about one job
LOST = ('FAILED', 'TIMEOUT', 'OUT_OF_MEMORY', 'NODE_FAIL', 'PREEMPTED', 'BOOT_FAIL', 'DEADLINE')


def serving() -> type:
    """The class of a function, (words, cwd, log) -> exit code, that runs a worker wherever it is sent.

    Made here and not found in a module, so that it travels whole: nothing has to be importable there.
    """
    class Serve:
        def __call__(self, words: list[str], cwd: str, log: str) -> int:
            import os
            import subprocess
            os.makedirs(os.path.dirname(log), exist_ok=True)
            with open(log, 'ab') as file:
                process = subprocess.Popen([*words, '--attached'], stdin=subprocess.PIPE, stdout=file, stderr=file,
                                           cwd=cwd)
                try:
                    return process.wait()
                finally:  # cancelled: it saves
                    process.terminate()
                    process.wait()

    return Serve


def ray(options: dict[str, Any]) -> Start:
    """Tasks of a Ray cluster that is there. Options: `address` of the cluster, and what `ray.remote` takes."""
    try:
        import ray as library
    except ImportError:
        raise UserError('--launcher=ray needs Ray; pip install ray') from None
    options = {'num_cpus': 1, 'scheduling_strategy': 'SPREAD', 'max_retries': 0} | options
    address = options.pop('address', 'auto')
    if not library.is_initialized():
        try:
            library.init(address=address, log_to_driver=False, logging_level='error')
        except (ConnectionError, ValueError) as error:
            raise UserError(f'--launcher=ray: there is no Ray cluster at address={address} '
                            f'({" ".join(str(error).split())}); ray start --head begins one, --resources=address='
                            'HOST:PORT names one') from None
    served = serving()

    def serve(*arguments: Any) -> int:
        return served()(*arguments)

    try:
        task = library.remote(**options)(serve)
    except (TypeError, ValueError) as error:
        raise UserError(f'--resources: {" ".join(str(error).split())}') from None

    def start(words: Sequence[str], name: str, log: pathlib.Path) -> Worker:
        reference = task.remote(list(words), os.getcwd(), str(log.absolute()))

        def status() -> int | None:
            ready, _ = library.wait([reference], timeout=0)
            if not ready:
                return None
            try:
                return library.get(reference)
            except library.exceptions.TaskCancelledError:
                return 128 + signal.SIGTERM
            except library.exceptions.RayError:  # its node or its process died
                return -signal.SIGKILL

        return Worker(name, status, lambda: library.cancel(reference),
                      lambda: library.cancel(reference, force=True))

    return start
