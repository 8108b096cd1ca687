"""What the measurements of `benchmarks/translation.py` say: medians, ranges, ratios of turns, goals. Pure functions."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.items import model_flops


class Middle(NamedTuple):
    """A median, and the least and the greatest of all."""

    median: float
    low: float
    high: float


def middle(values: Sequence[float]) -> Middle:
    """Of at least one value."""
    return Middle(statistics.median(values), min(values), max(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Middle:
    """Ours over theirs, turn by turn: a slow moment of the machine falls on both turns of a repeat."""
    return middle([a / b for a, b in zip(ours, theirs, strict=True)])


PER_TURN = 'values', 'cpu_values', 'without', 'faults', 'peaks'  # of a side, lists with a number for each turn
# What two measurements of an item have to have in common for their turns to stand side by side.
ALIKE = 'unit', 'shape', 'threads', 'machine', 'system'


def together(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any] | None:
    """An item with the turns of two measurements, say of two hours; None where they are not alike, or not of turns.

    Of what is no turn's, parameters or the peak of memory, the later one's stays.
    """
    sides, versions = measured(now), now['versions'] | before['versions']
    if any(before[name] != now[name] for name in ALIKE) or versions != before['versions'] | now['versions']:
        return None
    if not measured(before).keys() == before['sides'].keys() == sides.keys() == now['sides'].keys():
        return None
    if not now.get('turns', True) or any(
            len(side['values']) != item['repeats'] for item in (before, now) for side in item['sides'].values()):
        return None
    sides = {name: side | {key: before['sides'][name][key] + side[key] for key in PER_TURN if key in side}
             for name, side in sides.items()}
    told = {name: ', '.join(dict.fromkeys(f'{before[name]}, {now[name]}'.split(', '))) for name in ('when', 'commit')}
    return {**now, **told, 'sides': sides, 'versions': versions, 'repeats': before['repeats'] + now['repeats'],
            'seconds': before['seconds'] + now['seconds'],
            'load': [min(before['load'][0], now['load'][0]), max(before['load'][1], now['load'][1])]}


def measured(item: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sides that were measured, without those that failed."""
    return {name: side for name, side in item['sides'].items() if 'error' not in side}


def peers(item: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sides that ours is compared with: on the same kind of device, and no ceiling."""
    sides = measured(item)
    device = sides.get('ours', {}).get('device')
    return {name: side for name, side in sides.items()
            if not name.startswith(('ours', 'matmul')) and side.get('device') == device}


def fastest(item: Mapping[str, Any]) -> str | None:
    """The name of the fastest peer, or None where there is none."""
    found = {name: statistics.median(side['values']) for name, side in peers(item).items()}
    return max(found, key=found.get) if found else None


def goal(name: str, side: str) -> float | None:
    """How many times as fast as `side` the item is to be on the CPU; None: nothing was said."""
    if name.startswith('training.'):
        return 1.3
    if name.startswith(('decoding.beam', 'translating.beam')):
        return {'joeynmt': 10.0, 'Hugging Face': 3.0, 'CTranslate2': 1.0}.get(side.split(',')[0])
    return None


def same_parameters(item: Mapping[str, Any]) -> str:
    """'7,569,408 on both sides', or each side's number where they differ."""
    counts = {name: side['parameters'] for name, side in measured(item).items() if 'parameters' in side}
    if len(set(counts.values())) == 1:
        return f'{next(iter(counts.values())):,}' + (' on every side' if len(counts) > 1 else '')
    return ', '.join(f'{name} {count:,}' for name, count in counts.items())


def share(item: Mapping[str, Any]) -> Middle | None:
    """The part of the matmul ceiling that training reaches, turn by turn, in model FLOPs; None: not measured.

    What is done for padding outside attention does not count, nor work that is done again. The ceiling is that of the
    same repeat.
    """
    sides = measured(item)
    if 'ours' not in sides or 'matmul' not in sides or 'layers' not in item['shape']:
        return None
    ours, ceiling = sides['ours'], sides['matmul']
    step = model_flops(**item['shape'])
    return middle([step * tokens / ours['tokens'] / peak for tokens, peak in zip(ours['values'], ceiling['values'])])
