"""Power laws of losses, L(x) = E + A x^-a: fitted, with intervals of the exponent over seeds.

x is a number of parameters, of sentences, or of floating point operations (Hestness et al. 2017; Kaplan et al. 2020,
equations 1.1 to 1.3, where E is 0; Hoffmann et al. 2022, equation 2, where it is not). All arrays are float64, numpy.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from seqjax.errors import UserError
from seqjax.studies.table import Interval, Table

STARTS = (0.0, 0.5, 0.9)  # E that the search begins from, as shares of the least loss
STEPS = 40


class Law(NamedTuple):
    """L(x) = floor + scale x^-exponent; numbers, or arrays of as many laws."""

    floor: Any
    scale: Any
    exponent: Any

    def __call__(self, x: Any) -> Any:
        """The loss at `x`."""
        return self.floor + self.scale * np.asarray(x, np.float64) ** -self.exponent


def fit(x: Sequence[float], losses: Any, floor: bool = True) -> Law:
    """The law of least squares between logarithms of losses, since noise of a loss is a share of it.

    Levenberg and Marquardt's steps in (log A, a, log E), all problems side by side and each from several E; the best
    end wins.

    Args:
      x: (n,), positive. losses: (..., n), positive; one problem for each leading index.
      floor: whether there is an E; without, the line between logarithms (Kaplan et al. 2020).

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
        best_b, cost_b = None, None
        for share in STARTS:
            end_b3, end_cost_b = _descend(u_n, y_bn, share)
            if best_b is None:
                best_b, cost_b = end_b3, end_cost_b
            else:
                better_b = end_cost_b < cost_b
                best_b, cost_b = np.where(better_b[:, None], end_b3, best_b), np.where(better_b, end_cost_b, cost_b)
        scale_b, exponent_b, floor_b = np.exp(best_b[:, 0]), best_b[:, 1], np.exp(best_b[:, 2])
    else:
        scale_b, exponent_b = (part for part in _line(u_n, y_bn))
        scale_b, floor_b = np.exp(scale_b), np.zeros(len(y_bn))
    shape = losses.shape[:-1]
    return Law(*(part.reshape(shape)[()] for part in (floor_b, scale_b * middle ** exponent_b, exponent_b)))


def _line(u_n: np.ndarray, y_bn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log A and a of y = log A - a u; the mean of u is 0."""
    return y_bn.mean(1), -(y_bn * u_n).sum(1) / (u_n ** 2).sum()


def _descend(u_n: np.ndarray, y_bn: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """(log A, a, log E) of each problem and half its sum of squares, from E = share of the least loss."""
    least_b = y_bn.min(1)
    # log E: where the best E is 0 it goes towards minus infinity, and stops making a difference on the way.
    start_b = least_b + math.log(max(share, 1e-3))
    above_bn = np.log(np.maximum(np.exp(y_bn) - np.exp(start_b)[:, None], 1e-3 * np.exp(least_b)[:, None]))
    theta_b3 = np.stack([*_line(u_n, above_bn), start_b], axis=1)

    def look(theta_b3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        power_bn = np.exp(np.clip(theta_b3[:, :1] - theta_b3[:, 1:2] * u_n, -300, 300))
        total_bn = power_bn + np.exp(np.clip(theta_b3[:, 2:], -300, 300))
        rest_bn = np.log(total_bn) - y_bn
        return rest_bn, power_bn / total_bn, (rest_bn ** 2).sum(1) / 2, total_bn

    damp_b = np.full(len(y_bn), 1e-2)
    rest_bn, part_bn, cost_b, _ = look(theta_b3)
    for _ in range(STEPS):
        slopes_bn3 = np.stack([part_bn, -u_n * part_bn, 1 - part_bn], axis=2)
        square_b33 = np.einsum('bni,bnj->bij', slopes_bn3, slopes_bn3)
        diagonal_b3 = np.einsum('bii->bi', square_b33) + 1e-9
        step_b3 = np.linalg.solve(square_b33 + np.eye(3) * (damp_b[:, None] * diagonal_b3)[:, :, None],
                                  -np.einsum('bni,bn->bi', slopes_bn3, rest_bn)[:, :, None])[:, :, 0]
        trial_b3 = theta_b3 + np.clip(step_b3, -2, 2)
        trial_rest_bn, trial_part_bn, trial_cost_b, _ = look(trial_b3)
        good_b = trial_cost_b < cost_b
        theta_b3, cost_b = np.where(good_b[:, None], trial_b3, theta_b3), np.where(good_b, trial_cost_b, cost_b)
        rest_bn, part_bn = (np.where(good_b[:, None], new, old) for new, old in (
            (trial_rest_bn, rest_bn), (trial_part_bn, part_bn)))
        damp_b = np.clip(np.where(good_b, damp_b / 5, damp_b * 4), 1e-9, 1e9)
    return theta_b3, cost_b


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
        stretch = float(stats.t.ppf(tail, freedom) / stats.norm.ppf(tail))
        moved_bn = np.stack([mean + stretch * math.sqrt(len(part) / (len(part) - 1)) * rng.choice(
            part - mean, (samples, len(part))).mean(1) for part, mean in zip(logs, means_n)], axis=1)
        draws = fit(x, np.exp(moved_bn), floor).exponent
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
