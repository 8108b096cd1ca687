"""Results as rows, and what is read off them: groups, means, intervals over seeds."""

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit  # scipy.stats, which asks it too, takes half a second to import

from seqjax.studies.axes import SEED

Row = dict[str, Any]


class Interval(NamedTuple):
    """A mean and its confidence interval over `count` independent values; NaN bounds where there are fewer than two."""

    mean: float
    low: float
    high: float
    std: float
    count: int

    def __str__(self) -> str:
        if self.count < 2:
            return f'{self.mean:.4g}'
        return f'{self.mean:.4g} ± {self.std:.2g}'


def interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent values; `std` is the sample's (divisor n - 1)."""
    x = np.asarray([value for value in values if value is not None], np.float64)
    x = x[np.isfinite(x)]
    if not len(x):
        return Interval(math.nan, math.nan, math.nan, math.nan, 0)
    mean = float(x.mean())
    if len(x) < 2:
        return Interval(mean, math.nan, math.nan, math.nan, 1)
    std = float(x.std(ddof=1))
    half = float(stdtrit(len(x) - 1, (1 + level) / 2)) * std / math.sqrt(len(x))
    return Interval(mean, mean - half, mean + half, std, len(x))


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows, each a dict: a trial's settings, its seed, and numbers that were measured.

    A trial may give several rows, told apart by further columns such as 'length' or 'position'.
    """

    rows: tuple[Row, ...]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> 'Table':
        """A table of any iterable of rows."""
        return cls(tuple(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, conditions: Row | Callable[[Row], bool]) -> 'Table':
        """The rows that have these values, or that a function accepts."""
        if callable(conditions):
            return Table.of(row for row in self.rows if conditions(row))
        missing = object()
        return Table.of(row for row in self.rows
                        if all(row.get(name, missing) == value for name, value in conditions.items()))

    def column(self, name: str) -> list[Any]:
        """The values of a column, of the rows that have it."""
        return [row[name] for row in self.rows if name in row]

    def values(self, name: str) -> list[Any]:
        """The different values of a column, in order of first appearance."""
        return list(dict.fromkeys(self.column(name)))

    def groups(self, *names: str) -> dict[tuple, 'Table']:
        """The rows by their values of some columns (None where a row has none), in order of first appearance."""
        found: dict[tuple, list[Row]] = {}
        for row in self.rows:
            found.setdefault(tuple(row.get(name) for name in names), []).append(row)
        return {key: Table.of(rows) for key, rows in found.items()}

    def per_seed(self, name: str) -> dict[int, float]:
        """The mean of a column for each seed: seeds are the independent repetitions, not rows."""
        return {seed: float(np.mean(part.column(name))) for (seed,), part in self.groups(SEED).items()
                if part.column(name)}

    def interval(self, name: str) -> Interval:
        """Mean and interval of a column over seeds."""
        return interval(self.per_seed(name).values())

    def columns(self) -> list[str]:
        """All columns, in order of first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def text(self, names: Sequence[str], measures: Sequence[str]) -> str:
        """A line for each combination of values of `names`, with mean ± std over seeds of each of the `measures`."""
        lines = [[*names, *measures, 'seeds']]
        for key, part in self.groups(*names).items():
            count = len(part.values(SEED))
            lines.append([*map(str, key), *(str(part.interval(name)) for name in measures), str(count)])
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)

    def csv(self) -> str:
        """The rows as comma-separated values, with a header."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns(), lineterminator='\n')
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def difference(ours: Table, theirs: Table, name: str) -> Interval:
    """`ours` minus `theirs` in a column: paired by seed where both have the same seeds, else Welch's interval."""
    a, b = ours.per_seed(name), theirs.per_seed(name)
    if set(a) == set(b):
        return interval([a[seed] - b[seed] for seed in a])
    return welch(list(a.values()), list(b.values()))


def log_ratio(ours: Table, theirs: Table, name: str, unit: float = 1.0) -> Interval:
    """log(ours / theirs) of a column, paired by the seeds that both have, in a `unit`: log 2 counts doublings, and 0.01
    log points, which are about percent and as far up as down."""
    a, b = ours.per_seed(name), theirs.per_seed(name)
    return interval([math.log(a[seed] / b[seed]) / unit for seed in a if seed in b])


def welch(ours: Sequence[float], theirs: Sequence[float], level: float = 0.95) -> Interval:
    """The difference of two means of independent samples, unequal variances (Welch 1947)."""
    a, b = interval(ours), interval(theirs)
    mean = a.mean - b.mean
    if min(a.count, b.count) < 2:
        return Interval(mean, math.nan, math.nan, math.nan, min(a.count, b.count))
    va, vb = a.std ** 2 / a.count, b.std ** 2 / b.count
    error = math.sqrt(va + vb)
    freedom = (va + vb) ** 2 / max(va ** 2 / (a.count - 1) + vb ** 2 / (b.count - 1), 1e-300) if error else 1.0
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    return Interval(mean, mean - half, mean + half, error, min(a.count, b.count))
