"""What a sweep gains from workers and from the compilation cache, on this machine: python benchmarks/workers.py

The same sweep of small models with one worker and with two, in alternation, each into a fresh folder; the cache for
compiled programs is empty at first and shared from then on. Prints the seconds of each, the medians and their ratio,
the load of the machine at each start, and what each trial of a process spent compiling.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def sweep(folder: pathlib.Path, cache: pathlib.Path, workers: int, steps: int, model: str) -> tuple[float, list[dict]]:
    """Runs the sweep; returns its seconds, and the summaries of its trials in the order in which they ended."""
    command = [sys.executable, 'launch.py', '--experiment=numerals', f'--model={model}', f'--workdir={folder}',
               '--sweep=training.seed=0..3', f'--workers={workers}', '--task.train_size=4000', '--task.valid_size=50',
               '--task.test_size=50', '--model.hidden_size=64', '--model.dropout=0.1', '--optimizer.warmup_steps=10',
               f'--training.steps={steps}', f'--compilation_cache={cache}']
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = time.monotonic() - began
    if done.returncode:
        sys.exit(done.stderr)
    paths = sorted(folder.glob('trials/*/summary.json'), key=lambda path: path.stat().st_mtime)
    return seconds, [json.loads(path.read_text()) for path in paths]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--steps', type=int, default=300)
    parser.add_argument('--model', default='gru')
    options = parser.parse_args()
    print(f'{os.cpu_count()} processors; sweeps of 4 seeds, {options.model}, {options.steps} steps')
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(options.repeats + 1):  # the first fills the cache
            for workers in (1, 2) if repeat else (1,):
                load = os.getloadavg()[0]
                folder = pathlib.Path(scratch) / f'{repeat}-{workers}'
                took, summaries = sweep(folder, pathlib.Path(scratch) / 'cache', workers, options.steps, options.model)
                compiling = [f'{summary["time"]["compile_seconds"]:.1f}' for summary in summaries]
                print(f'{"empty cache, " if not repeat else ""}{workers} workers: {took:.1f} s, load {load:.1f}, '
                      f'seconds compiling in each trial {", ".join(compiling)}', flush=True)
                if repeat:
                    seconds[workers].append(took)
    one, two = (statistics.median(seconds[workers]) for workers in (1, 2))
    print(f'medians: 1 worker {one:.1f} s, 2 workers {two:.1f} s: {one / two:.2f} times as fast')


if __name__ == '__main__':
    main()
