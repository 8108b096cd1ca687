"""Power laws of losses, L(x) = E + A x^-a: fitted, with intervals of the exponent over seeds.

x is a number of parameters, of sentences, or of floating point operations (Hestness et al. 2017; Kaplan et al. 2020,
equations 1.1 to 1.3, where E is 0; Hoffmann et al. 2022, equation 2, where it is not). All arrays are float64, numpy.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize
from scipy.special import ndtri, stdtrit

from seqjax.errors import UserError
from seqjax.studies.table import Interval, Table

STARTS = (0.0, 0.5, 0.9)  # E that the search begins from, as shares of the least loss


class Law(NamedTuple):
    """L(x) = floor + scale x^-exponent; numbers, or arrays of as many laws."""

    floor: Any
    scale: Any
    exponent: Any

    def __call__(self, x: Any) -> Any:
        """The loss at `x`."""
        return self.floor + self.scale * np.asarray(x, np.float64) ** -self.exponent


def fit(x: Sequence[float], losses: Any, floor: bool = True, near: Law | None = None) -> Law:
    """The law of least squares between logarithms of losses, since noise of a loss is a share of it.

    Args:
      x: (n,), positive. losses: (..., n), positive; one problem for each leading index.
      floor: whether there is an E, found by scipy's Levenberg-Marquardt in (log A, a, log E); without, the line between
        logarithms (Kaplan et al. 2020).
      near: a law to begin the search from; None tries several E, of which the best end wins.

    Raises:
      UserError: fewer different x than the law has numbers, or what has no logarithm.
    """
    x, losses = np.asarray(x, np.float64), np.asarray(losses, np.float64)
    if len(set(x.tolist())) < 2 + floor:
        raise UserError(f'a power law of {2 + floor} numbers cannot be told from losses at {len(set(x.tolist()))} '
                        f'places; measure at {2 + floor} or more')
    if not ((x > 0) & np.isfinite(losses) & (losses > 0)).all():
        raise UserError('a power law is of positive numbers: an x or a loss is not; leave those out')
    middle = math.exp(np.log(x).mean())
    u_n, y_bn = np.log(x / middle), np.log(losses).reshape(-1, len(x))
    if floor:
        # log E: where the best E is 0 it goes towards minus infinity, and stops making a difference on the way.
        start = near and [math.log(near.scale) - near.exponent * math.log(middle), near.exponent,
                          math.log(max(near.floor, 1e-3 * near(x).min()))]
        best_b3 = np.array([_nearest(u_n, y_n, [start] if start else [_start(u_n, y_n, share) for share in STARTS])
                            for y_n in y_bn])
        scale_b, exponent_b, floor_b = np.exp(best_b3[:, 0]), best_b3[:, 1], np.exp(best_b3[:, 2])
    else:
        slope_b, height_b = np.polyfit(u_n, y_bn.T, 1)
        scale_b, exponent_b, floor_b = np.exp(height_b), -slope_b, np.zeros(len(y_bn))
    shape = losses.shape[:-1]
    return Law(*(part.reshape(shape)[()] for part in (floor_b, scale_b * middle ** exponent_b, exponent_b)))


def _start(u_n: np.ndarray, y_n: np.ndarray, share: float) -> list[float]:
    """(log A, a, log E) of E = share of the least loss: the line through what is left above it."""
    least = y_n.min()
    floor = least + math.log(max(share, 1e-3))
    slope, height = np.polyfit(u_n, np.log(np.maximum(np.exp(y_n) - math.exp(floor), 1e-3 * math.exp(least))), 1)
    return [height, -slope, floor]


def _nearest(u_n: np.ndarray, y_n: np.ndarray, starts: Sequence[Sequence[float]]) -> np.ndarray:
    """The (log A, a, log E) of least squares that is found from any of the starts."""
    def parts(theta: np.ndarray) -> tuple[np.ndarray, float]:
        return np.exp(np.clip(theta[0] - theta[1] * u_n, -300, 300)), math.exp(min(max(theta[2], -300), 300))

    def rest(theta: np.ndarray) -> np.ndarray:
        return np.log(np.add(*parts(theta))) - y_n

    def slopes(theta: np.ndarray) -> np.ndarray:
        power_n, least = parts(theta)
        part_n = power_n / (power_n + least)
        return np.stack([part_n, -u_n * part_n, 1 - part_n], axis=1)

    return min((optimize.least_squares(rest, start, slopes, method='lm') for start in starts),
               key=lambda found: found.cost).x


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A law, what seeds might have made of its exponent, and how far the losses stray from it."""

    law: Law
    draws: np.ndarray  # (samples,), exponents
    misfit: float  # root of the mean square of log (mean loss / law), over places x: 0.1 is 10 %
    seeds: int  # the least number of losses at a place
    places: int
    level: float = 0.95

    @property
    def exponent(self) -> Interval:
        """The exponent and its interval."""
        return _percentiles(self.law.exponent, self.draws, self.level, self.seeds)


def estimate(points: dict[float, Sequence[float]], floor: bool = True, samples: int = 1000, seed: int = 0,
             level: float = 0.95) -> Estimate:
    """The law of losses at several x, and a bootstrap over seeds: at each x losses are drawn anew from those there.

    Draws from m losses vary by (m - 1) / m of what they should, and a spread that is known from few losses is larger
    than it seems: their distances from the mean are stretched by sqrt(m / (m - 1)), and all of them by the ratio of
    Student's quantile to the normal one. The interval is about seeds: losses that follow no such law have one too, so
    look at the misfit.

    Args:
      points: for each x, its losses, one a seed. With a single loss anywhere there is no interval.
    """
    x = np.array(sorted(points), np.float64)
    logs = [np.log(np.asarray(points[place], np.float64)) for place in sorted(points)]
    means_n = np.array([part.mean() for part in logs])
    law = fit(x, np.exp(means_n), floor)
    seeds = min(len(part) for part in logs)
    misfit = float(np.sqrt(np.mean((means_n - np.log(law(x))) ** 2)))
    draws = np.full(samples, np.nan)
    if seeds > 1:
        rng = np.random.default_rng(seed)
        freedom, tail = sum(len(part) - 1 for part in logs), (1 + level) / 2
        stretch = float(stdtrit(freedom, tail) / ndtri(tail))
        moved_bn = np.stack([mean + stretch * math.sqrt(len(part) / (len(part) - 1)) * rng.choice(
            part - mean, (samples, len(part))).mean(1) for part, mean in zip(logs, means_n)], axis=1)
        draws = fit(x, np.exp(moved_bn), floor, law).exponent
    return Estimate(law, draws, misfit, seeds, len(x), level)


def steeper(ours: Estimate, theirs: Estimate) -> Interval:
    """By how much our exponent is the greater; the two were measured by runs of their own."""
    return _percentiles(ours.law.exponent - theirs.law.exponent,
                        ours.draws - np.random.default_rng(1).permutation(theirs.draws), ours.level,
                        min(ours.seeds, theirs.seeds))


def _percentiles(value: float, draws: np.ndarray, level: float, seeds: int) -> Interval:
    if not np.isfinite(draws).all():
        return Interval(float(value), math.nan, math.nan, math.nan, seeds)
    low, high = np.percentile(draws, [50 * (1 - level), 50 * (1 + level)])
    return Interval(float(value), float(low), float(high), float(draws.std(ddof=1)), seeds)


def points_of(table: Table, x: str, y: str) -> dict[float, list[float]]:
    """The values of `y` at each `x`, as `estimate` takes them."""
    there = table.where(lambda row: x in row and y in row)
    return {place: part.column(y) for (place,), part in there.groups(x).items()}


def frontier(curves: Sequence[tuple[Sequence[float], Sequence[float]]], at: Sequence[float]) -> np.ndarray:
    """The least loss that any curve has at each place, NaN where none goes; between points by a power law.

    Args:
      curves: x, increasing, and the losses there. at: places.
    """
    logs = [np.interp(np.log(at), np.log(x), np.log(y), left=np.inf, right=np.inf) for x, y in curves]
    least = np.min(logs, axis=0)
    return np.exp(np.where(np.isfinite(least), least, np.nan))
