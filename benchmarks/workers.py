"""What a sweep gains from workers and from the compilation cache: an item of `benchmarks/translation.py`.

The same sweep of small models with one worker and with two, in alternation, each into a fresh folder; the cache for
compiled programs is empty at first and shared from then on.
"""

import json
import pathlib
import sys
import tempfile
import time
from typing import Any

from benchmarks import protocol

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHAPE = {'flags': '--experiment=numerals --model=gru --sweep=training.seed=0..3 --task.train_size=4000 '
                  '--task.valid_size=50 --task.test_size=50 --model.hidden_size=64 --model.dropout=0.1 '
                  '--optimizer.warmup_steps=10 --training.steps=300'}


def sweep(folder: pathlib.Path, cache: pathlib.Path, workers: int, threads: int) -> tuple[float, list[float]]:
    """Runs the sweep; returns its seconds, and those that its trials compiled, in the order in which they ended.

    Raises:
      protocol.Failed: it did not end well.
    """
    command = [sys.executable, 'launch.py', *SHAPE['flags'].split(), f'--workdir={folder}', f'--workers={workers}',
               f'--compilation_cache={cache}']
    began = time.monotonic()
    protocol.finished(command, threads, cwd=ROOT)
    seconds = time.monotonic() - began
    paths = sorted(folder.glob('trials/*/summary.json'), key=lambda path: path.stat().st_mtime)
    return seconds, [json.loads(path.read_text())['time']['compile_seconds'] for path in paths]


def measure(repeats: int, threads: int) -> dict[str, dict[str, Any]]:
    """{how: 'values', seconds of each sweep; 'compiling', seconds of each trial of the last one}."""
    found: dict[str, dict[str, Any]] = {name: {'values': []} for name in (
        'one worker, empty cache', 'one worker', 'two workers')}
    first, *others = found
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(repeats + 1):  # the first fills the cache
            for name in others if repeat else [first]:
                folder, cache = pathlib.Path(scratch) / f'{repeat}-{name}', pathlib.Path(scratch) / 'cache'
                seconds, compiling = sweep(folder, cache, 1 + (name == 'two workers'), threads)
                found[name]['values'].append(seconds)
                found[name]['compiling'] = compiling
    return found
