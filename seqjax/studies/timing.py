"""Times that can be compared: compiled first, waited for, taken in turn, and summed up by their median."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Time(NamedTuple):
    """Seconds of one call: the median of the repeats, and their quartiles."""

    median: float
    low: float
    high: float
    repeats: int


def alternating(calls: Mapping[str, Callable[[], Any]], repeats: int = 5, budget: float = math.inf,
                clock: Callable[[], float] = time.perf_counter) -> dict[str, Time]:
    """Seconds of each call, all of them in turn, `repeats` times, so that a slow moment of the machine falls on all.

    Each is called once before, which compiles it. A round after which `budget` seconds are spent is the last.

    Args:
      calls: what to time; the results, arrays of jax, are waited for.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    began = clock()
    for _ in range(repeats):
        for name, call in calls.items():
            start = clock()
            jax.block_until_ready(call())
            seconds[name].append(clock() - start)
        if clock() - began > budget:
            break
    return {name: of_seconds(values) for name, values in seconds.items()}


def of_seconds(seconds: Sequence[float]) -> Time:
    """Median and quartiles of some times."""
    low, high = np.percentile(seconds, [25, 75])
    return Time(statistics.median(seconds), float(low), float(high), len(seconds))


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent k of y = a x^k, by least squares between the logarithms; NaN for fewer than two points."""
    if len(x) < 2:
        return math.nan
    return float(np.polyfit(np.log(np.asarray(x, np.float64)), np.log(np.asarray(y, np.float64)), 1)[0])


def crossing(x: Sequence[float], ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The x from which `ours` is the greater for good, between two points by a power law.

    Infinity where ours is no greater at the last point, 0 where it is greater at all of them.
    """
    ratio = np.log(np.asarray(ours, np.float64)) - np.log(np.asarray(theirs, np.float64))
    below = np.flatnonzero(ratio <= 0)
    if not len(below):
        return 0.0
    i = below[-1]
    if i == len(ratio) - 1:
        return math.inf
    share = -ratio[i] / (ratio[i + 1] - ratio[i])
    return float(math.exp((1 - share) * math.log(x[i]) + share * math.log(x[i + 1])))
