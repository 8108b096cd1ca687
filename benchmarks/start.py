"""Seconds from the command to the first finished step, beside those of `import jax`; the most memory of a process."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks import protocol

ROOT = pathlib.Path(__file__).resolve().parents[1]
POLL = 0.005  # seconds


def first_step(command: list[str], workdir: pathlib.Path, env: dict[str, str], threads: int,
               limit: float = 300.0) -> tuple[float, int]:
    """Seconds until a run's metrics.jsonl has its first record, and the most memory it has had in use by then, bytes.

    The run is killed then.

    Raises:
      protocol.Failed: it ended before.
    """
    records = workdir / 'metrics.jsonl'
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: protocol.only(threads))
    try:
        while not (records.exists() and records.stat().st_size):
            if process.poll() is not None or time.perf_counter() - began > limit:
                process.kill()
                raise protocol.Failed(f'no step within {limit:.0f} s: {process.stderr.read()[-300:]}')
            time.sleep(POLL)
        return time.perf_counter() - began, most_memory(process.pid)
    finally:
        process.kill()
        process.communicate()


def most_memory(pid: int | str = 'self') -> int:
    """The most bytes that a process has had in memory (VmHWM), or 0 where Linux does not say."""
    try:
        found = re.search(r'VmHWM:\s+(\d+) kB', pathlib.Path(f'/proc/{pid}/status').read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def starts(model: str) -> Callable[[int, int], dict[str, dict[str, Any]]]:
    """Measures a run of numerals: with nothing compiled, with all compiled before, and `import jax` alone."""

    def measure(repeats: int, threads: int) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {name: {'values': [], 'peaks': []} for name in ('cached', 'cold')}
        found['import jax'] = {'values': []}
        with tempfile.TemporaryDirectory() as scratch:
            env = {name: value for name, value in os.environ.items() if not name.startswith('JAX_')}

            def run(cache: str, number: int) -> tuple[float, int]:
                workdir = pathlib.Path(scratch) / f'{cache}-{number}-{model}-run'
                command = [sys.executable, 'launch.py', '--experiment=numerals', f'--model={model}',
                           '--task.train_size=2000', '--task.valid_size=10', '--task.test_size=10',
                           '--training.log_every=1', '--training.steps=100', f'--workdir={workdir}',
                           f'--compilation_cache={pathlib.Path(scratch) / cache}']
                return first_step(command, workdir, env, threads)

            run('filled', -1)  # fills the cache, and brings the files of Python's modules into memory
            for repeat in range(repeats):
                for name, cache in (('cold', f'empty-{repeat}'), ('cached', 'filled')):
                    seconds, peak = run(cache, repeat)
                    found[name]['values'].append(seconds)
                    found[name]['peaks'].append(peak)
                began = time.perf_counter()
                subprocess.run([sys.executable, '-c', 'import jax'], check=True, env=env,
                               preexec_fn=lambda: protocol.only(threads))
                found['import jax']['values'].append(time.perf_counter() - began)
        for entry in found.values():
            if 'peaks' in entry:
                entry['peak_bytes'] = max(entry['peaks'])
        return found

    return measure
