"""Speed beside the programs that people would use instead: one run, one machine, ours and theirs in turn.

    python -m benchmarks.peers                                  # once: their environment, .cache/peers
    python -m benchmarks.translation                            # all: 50 minutes on two idle cores
    python -m benchmarks.translation --quick                    # an item of each kind: two minutes
    python -m benchmarks.translation --only=training.transformer,decoding.beam.64
    python -m benchmarks.translation --only=translating --run=RUN   # all with the parameters of that run
    python -m benchmarks.tables docs/performance.md runs/benchmarks/translation.json

Each side is a process that stays alive; only one of them works at a time. A side is compiled and warm before the first
turn, a turn is as many steps as take --turn seconds, and the order of the sides is turned round after each repeat. A
side that cannot be measured is an entry with its reason. Results go to a JSON file after each item; an item that is
measured again takes the place of what was there, or with --more its turns stand beside those: a machine that others
share has better and worse hours.

Not run: flax's own wmt example, which reads its data by TensorFlow and tensorflow_text, and these are installed on
neither side.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import commands, items, protocol, results
from benchmarks.peers.__main__ import PYTHON as PEERS
from seqjax import allocator, files, rundir

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODULES = {'ours': 'benchmarks.ours', 'torch': 'benchmarks.peers.in_torch', 'joeynmt': 'benchmarks.peers.in_joeynmt',
           'marian': 'benchmarks.peers.in_marian', 'pegasus': 'benchmarks.peers.in_pegasus'}
SETTLE = 0.3  # seconds between turns: threads of OpenMP go on spinning for a while
TOLD = {'parameters': ',', 'bleu': '.2f', 'plan_bytes': ',', 'peak_bytes': ','}  # besides rates, and how it is written
MOST = 200  # steps of a turn


class Workers:
    """The workers that were asked so far, each started when it is first asked."""

    def __init__(self, threads: int, cache: str):
        self.threads, self.running, self.abouts = threads, {}, {}
        self.env = os.environ | {'OMP_NUM_THREADS': str(threads), 'MKL_NUM_THREADS': str(threads),
                                 'HF_HUB_OFFLINE': '1', 'TOKENIZERS_PARALLELISM': 'false',
                                 allocator.NAME: allocator.SETTINGS,  # as launch.py; the others gain by it too
                                 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}  # an accelerator's memory is shared
        if cache:
            self.env |= {'JAX_COMPILATION_CACHE_DIR': cache, 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1'}

    def __getitem__(self, name: str) -> protocol.Worker:
        """The worker of that name; one that died is started again."""
        worker = self.running.get(name)
        if worker is None or not worker.alive:
            python = sys.executable if name == 'ours' else str(PEERS)
            if not pathlib.Path(python).exists():
                raise protocol.Failed(f'{python} is not there; make it by python -m benchmarks.peers')
            worker = protocol.Worker([python, '-m', MODULES[name], str(self.threads)], cwd=ROOT, env=self.env)
            self.running[name] = worker
            self.abouts[name] = worker.ask('about')
        return worker

    def close(self) -> None:
        """Ends them all."""
        for worker in self.running.values():
            worker.close()


def measure(item: items.Item, workers: Any, repeats: int, turn: float, without: set[str],
            settle: float = SETTLE) -> dict[str, dict[str, Any]]:
    """One item, all its sides in turn.

    Returns:
      {side: what is told of it, with 'device', 'times' (steps of a turn), and of each turn 'values' (work a second) and
      'cpu_values' (work a second of processor time, which other work on the machine disturbs less)}; {'error': why} of
      a side that failed.
    """
    found: dict[str, dict[str, Any]] = {}
    sides = [side for side in item.sides if side.name not in without]
    for side in sides:
        try:
            worker = workers[side.worker]
            told = worker.ask('make', 900, key=side.name, kind=side.kind, shape=item.shape | side.options)
            if 'found' in told:  # translations, which who has the vocabulary and the references scores
                shape = item.shape | {'found': told.pop('found')}
                told |= workers['ours'].ask('make', key='scored', kind='scored', shape=shape)
            first = worker.ask('run', key=side.name, times=1)
            times = min(max(round(turn / first['seconds']), 1), MOST)
            about = workers.abouts[side.worker]
            found[side.name] = told | {'device': about['device'], 'device_kind': about['device_kind'], 'times': times,
                                       'values': [], 'cpu_values': []}
        except protocol.Failed as failure:
            found[side.name] = {'error': str(failure)}
    for repeat in range(repeats):
        for side in sides if repeat % 2 == 0 else reversed(sides):
            entry = found[side.name]
            if 'error' in entry:
                continue
            time.sleep(settle)
            try:
                run = workers[side.worker].ask('run', 300, key=side.name, times=entry['times'])
                if not run['work']:
                    raise protocol.Failed('ended its sentences early')
                entry['values'].append(run['work'] / run['seconds'])
                entry['cpu_values'].append(run['work'] / max(run['cpu_seconds'], 1e-9))
            except protocol.Failed as failure:
                found[side.name] = {'error': str(failure)}
    for side in sides:
        if 'error' not in found[side.name]:
            workers[side.worker].ask('drop', key=side.name)
    return found


def alone(item: commands.Timed, repeats: int, threads: int) -> dict[str, dict[str, Any]]:
    """An item of commands of its own; {'ours': {'error': why}} where one of them failed."""
    try:
        return item.measure(repeats, threads)
    except protocol.Failed as failure:
        return {'ours': {'error': str(failure)}}


def show(name: str, result: dict[str, Any], say: Callable[[str], None] = print) -> None:
    """One line a side."""
    say(f'{name} ({result["unit"]}; {result["shape"]}; load {result["load"][0]:.1f} to {result["load"][1]:.1f}, '
        f'{result["seconds"]:.0f} s)')
    for side, entry in result['sides'].items():
        if 'error' in entry:
            say(f'  {side:<26} {entry["error"]}')
            continue
        values = entry['values']
        told = '  '.join(f'{key} {entry[key]:{form}}' for key, form in TOLD.items() if key in entry)
        say(f'  {side:<26} {statistics.median(values):>16,.2f}  ({min(values):,.2f} to {max(values):,.2f})  {told}')


def main() -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.translation', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', default='', help='names, beginnings of names or patterns, with commas')
    parser.add_argument('--quick', action='store_true', help='an item of each kind, 3 repeats, no torch.compile')
    parser.add_argument('--list', action='store_true', help='names the items and ends')
    parser.add_argument('--repeats', type=int, help='turns of each side; 5, or 3 with --quick')
    parser.add_argument('--more', action='store_true', help='add turns to those that were measured before')
    parser.add_argument('--turn', type=float, help='seconds of a turn; 1.5, or 0.7 with --quick')
    parser.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)), help='of every side')
    parser.add_argument('--without', default='', help='sides to leave out, with commas')
    parser.add_argument('--results', type=pathlib.Path, default=ROOT / 'runs' / 'benchmarks' / 'translation.json')
    parser.add_argument('--run', default='', help='a trained transformer, whose validation split all translate')
    parser.add_argument('--cache', default='', help="folder for our compiled programs, to repeat a run sooner")
    options = parser.parse_args()
    known = {item.name: item for item in items.items(options.run)} | commands.items()
    names = items.selected(known, options.only, options.quick and not options.only)
    if not names:
        needs = '' if options.run else ' (what is translated, translating.*, needs --run)'
        print(f'error: --only={options.only} names none of{needs}', *known, sep='\n', file=sys.stderr)
        return 2
    if options.list:
        print('\n'.join(names))
        return 0
    present = {side.name for item in known.values() if isinstance(item, items.Item) for side in item.sides}
    without = set(filter(None, options.without.split(',')))
    if unknown := without - present:
        print(f'error: --without={options.without}: no side is called {", ".join(sorted(unknown))}; there are '
              f'{"; ".join(sorted(present))}', file=sys.stderr)
        return 2
    repeats = options.repeats or (3 if options.quick else 5)
    turn = options.turn or (0.7 if options.quick else 1.5)
    found = json.loads(options.results.read_text()) if options.results.exists() else {}
    workers = Workers(options.threads, options.cache)
    without |= {'torch.compile'} if options.quick else set()
    began = time.monotonic()
    try:
        for name in names:
            item, load, clock = known[name], os.getloadavg()[0], time.monotonic()
            of_commands = isinstance(item, commands.Timed)
            times = 1 if of_commands and options.quick else repeats
            sides = (alone(item, times, options.threads) if of_commands
                     else measure(item, workers, times, turn, without))
            now = {
                'unit': item.unit, 'shape': item.shape, 'note': item.note, 'sides': sides, 'repeats': times,
                'turns': not of_commands or item.turns,
                'seconds': time.monotonic() - clock, 'load': [load, os.getloadavg()[0]], 'threads': options.threads,
                'when': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d %H:%M UTC'),
                'commit': rundir.git_commit(), 'machine': rundir.machine(),
                'system': f'{platform.platform()}, Python {platform.python_version()}',
                'versions': {k: v for about in workers.abouts.values() for k, v in about['versions'].items()}}
            both = results.together(found[name], now) if options.more and name in found else None
            if options.more and name in found and both is None:
                print(f'{name} was measured elsewhere or otherwise before: what is new takes its place')
            found[name] = both or now
            show(name, found[name])
            sys.stdout.flush()
            files.write(options.results, json.dumps(found, indent=1) + '\n')
    finally:
        workers.close()
    print(f'{options.results}: {len(names)} items in {(time.monotonic() - began) / 60:.1f} minutes')
    return 0


if __name__ == '__main__':
    sys.exit(main())
