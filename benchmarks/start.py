"""Seconds from the command to the first finished step, and the memory that `--mode=plan` foretells.

Both are commands of their own, each in a fresh process, and have no peer but `import jax`.
"""

import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks import protocol

ROOT = pathlib.Path(__file__).resolve().parents[1]
POLL = 0.005  # seconds


@dataclasses.dataclass(frozen=True)
class Timed:
    """An item that is measured by commands of its own: (repeats, threads) -> the sides' entries."""

    name: str
    unit: str
    shape: dict[str, Any]
    measure: Callable[[int, int], dict[str, dict[str, Any]]]
    quick: bool = False
    note: str = ''


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


def plans(arguments: list[str]) -> Callable[[int, int], dict[str, dict[str, Any]]]:
    """Measures a training step's memory, each time in a fresh process, and puts beside it what the plan says."""

    def measure(repeats: int, threads: int) -> dict[str, dict[str, Any]]:
        found = []
        for _ in range(repeats):
            done = subprocess.run([sys.executable, '-m', 'benchmarks.memory', *arguments], cwd=ROOT,
                                  capture_output=True, text=True, preexec_fn=lambda: protocol.only(threads))
            if done.returncode:
                return {'ours': {'error': (done.stderr.strip().splitlines() or ['?'])[-1]}}
            found.append(json.loads(done.stdout.splitlines()[-1]))
        values = [told['peak_bytes'] / told['plan_bytes'] for told in found]
        return {'ours': found[0] | {'peak_bytes': statistics.median_high(told['peak_bytes'] for told in found),
                                    'values': values}}

    return measure


def items() -> dict[str, Timed]:
    """The items, by name."""
    found = [Timed('start.transformer', 'seconds', {'experiment': 'numerals', 'model': 'transformer'},
                   starts('transformer'), quick=True)]
    small = ['--task.train_size=4000', '--task.valid_size=10', '--task.test_size=10']
    for name, arguments in (
            ('transformer.256', ['--model=transformer', '--model.hidden_size=256', '--model.num_layers=3',
                                 '--model.feedforward_size=1024', '--training.batch_size=256']),
            ('transformer.512', ['--model=transformer', '--model.hidden_size=512', '--model.feedforward_size=2048',
                                 '--training.batch_size=64']),
            ('bahdanau.256', ['--model=bahdanau', '--model.hidden_size=256', '--training.batch_size=256'])):
        given = ['--experiment=numerals', *small, *arguments]
        found.append(Timed(f'plan.{name}', 'measured / planned', {'flags': ' '.join(given)}, plans(given)))
    return {item.name: item for item in found}
