"""Items that are measured by commands of their own, each in a fresh process: the start, the plan's memory, what a step
consists of, what the allocator is told, and workers.
"""

import dataclasses
import json
import os
import pathlib
import statistics
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import protocol, workers
from benchmarks.start import starts
from seqjax import allocator

ROOT = pathlib.Path(__file__).resolve().parents[1]
Sides = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Timed:
    """An item, and how it is measured: (repeats, threads) -> the sides' entries."""

    name: str
    unit: str
    shape: dict[str, Any]
    measure: Callable[[int, int], Sides]
    quick: bool = False
    note: str = ''
    turns: bool = True  # whether values are a number for each repeat


def told(module: str, arguments: list[str], threads: int, **environment: str) -> Any:
    """What `python -m MODULE ARGUMENTS` writes in its last line, as JSON.

    Raises:
      protocol.Failed: it did not end well.
    """
    command = [sys.executable, '-m', module, *arguments]
    return json.loads(protocol.finished(command, threads, cwd=ROOT, env=os.environ | environment).splitlines()[-1])


def plans(arguments: list[str]) -> Callable[[int, int], Sides]:
    """Measures a training step's memory, each time in a fresh process, and puts beside it what the plan says."""

    def measure(repeats: int, threads: int) -> Sides:
        found = [told('benchmarks.memory', arguments, threads) for _ in range(repeats)]
        peak = statistics.median_high(one['peak_bytes'] for one in found)
        return {'ours': found[0] | {'peak_bytes': peak,
                                    'values': [one['peak_bytes'] / one['plan_bytes'] for one in found]}}

    return measure


def steps(width: int) -> Callable[[int, int], Sides]:
    """Measures the gradient of a Transformer as it is and done otherwise, in turn, in one process."""
    arguments = [f'--width={width}', '--kinds']
    return lambda repeats, threads: told('benchmarks.steps', [*arguments, f'--repeats={repeats}'], threads)


def allocators(width: int) -> Callable[[int, int], Sides]:
    """Measures that gradient with memory as glibc has it left alone, in large pages, and in those that are kept."""
    settings = {'left alone': '', 'large pages': 'glibc.malloc.hugetlb=1', 'large pages, kept': allocator.SETTINGS}

    def measure(repeats: int, threads: int) -> Sides:
        found: Sides = {name: {'values': [], 'without': [], 'faults': []} for name in settings}
        for _ in range(repeats):
            for name, setting in settings.items():
                ours, other = told('benchmarks.steps', [f'--width={width}', '--ways=as it is,without all of these'],
                                   threads, **{allocator.NAME: setting}).values()
                found[name]['values'].append(statistics.median(ours['values']))
                found[name]['without'].append(statistics.median(other['values']))
                found[name]['faults'].append(ours['faults'])
        return found

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
    found += [Timed(f'steps.{width}', 'seconds', {'width': width}, steps(width), turns=False) for width in (256, 512)]
    found.append(Timed('allocator.256', 'seconds', {'width': 256}, allocators(256)))
    found.append(Timed('workers.gru', 'seconds', workers.SHAPE, workers.measure))
    return {item.name: item for item in found}
