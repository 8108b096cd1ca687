"""The table of a report: means over seeds, floors, published figures, and the trials that gave nothing, a line each."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from seqjax.studies import charts
from seqjax.studies.axes import SEED
from seqjax.studies.findings import Findings
from seqjax.studies.table import Interval, Row, Table

Kind = Literal['result', 'floor', 'published', 'failed']
NONE = '–'


@dataclasses.dataclass(frozen=True)
class Line:
    """A line: what it is about, its cells (as text), the number of seeds, or the reason why there are no cells."""

    kind: Kind
    about: tuple[str, ...]
    cells: tuple[str, ...] = ()
    seeds: int = 0
    reason: str = ''


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table ready to be written: names of its columns, and its lines."""

    keys: tuple[str, ...]
    measures: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def header(self) -> list[str]:
        """The columns' names as people read them."""
        return [*map(charts.label, self.keys or ('',)), *map(charts.label, self.measures), 'seeds']

    def of(self, *kinds: Kind) -> list[Line]:
        """The lines of some kinds."""
        return [line for line in self.lines if line.kind in kinds]


def sheet(findings: Findings) -> Sheet:
    """The study's table, by the columns that it wants shown; by its axes and all that was measured if it names none."""
    keys, measures = map(tuple, findings.study.shown)
    settings = {name for found in findings.trials for name in found.trial.row()} | {SEED}
    varying = dict.fromkeys(name for found in findings.trials for name in found.trial.varying)
    keys = keys or tuple(name for name in varying if name != SEED)
    measures = measures or tuple(name for name in findings.results.columns() if name not in settings
                                 and any(_numeric(value) for value in findings.results.column(name)))
    groups = {key: part for key, part in findings.results.groups(*keys).items()
              if any(name in row for row in part.rows for name in measures)}
    if keys:
        groups = {key: groups[key] for key in sorted(groups, key=_order(groups))}
    beside = [*findings.floors.rows, *findings.study.published]
    digits = {name: 0 if _counts(groups.values(), name) else decimals(_sizes(groups.values(), beside, name))
              for name in measures}
    lines = [_line('result', key, part, measures, digits) for key, part in groups.items()]
    for kind, table in (('floor', findings.floors), ('published', Table.of(findings.study.published))):
        for key, part in table.groups(kind, *keys).items():
            if any(name in row for row in part.rows for name in measures):
                about = _about(key[0], key[1:], keys)
                lines.append(dataclasses.replace(_line(kind, about, part, measures, digits), seeds=0))
    lines += _missing(findings, keys)
    return Sheet(keys, measures, tuple(lines))


def _missing(findings: Findings, keys: Sequence[str]) -> list[Line]:
    """A line for each trial without results: its seed and the reason, or its name where its settings and seed are not
    told apart by what is shown."""
    trials = [found for found in findings.trials if found.state != 'finished']
    shown = [tuple(charts.shown(found.trial.row().get(name)) for name in (*keys, SEED)) for found in trials]
    lines = []
    for found, (*about, seed) in zip(trials, shown):
        alike = keys and shown.count((*about, seed)) > 1
        reason = f'{found.trial.name if alike else f"seed {seed}"}: {found.reason or found.state}'
        lines.append(Line('failed', tuple(about) or (found.trial.name,), reason=reason))
    return lines


def _about(name: Any, key: tuple, keys: Sequence[str]) -> tuple:
    """The first cells of a floor or published row: its name, and what it has of the keys."""
    if not keys or key[0] is None:
        return (name, *key[1:])
    return (f'{name} ({charts.shown(key[0])})', *key[1:])


def _order(groups: dict[tuple, Table]) -> Any:
    """Lines stay together by their first column, then the second, each in its order of first appearance; numbers by
    size."""
    ranks: list[dict[Any, int]] = []
    for values in zip(*groups):
        different = list(dict.fromkeys(values))
        if all(_numeric(value) or value is None for value in different):
            different.sort(key=lambda value: (value is None, value if value is not None else 0))
        ranks.append({value: rank for rank, value in enumerate(different)})
    return lambda key: tuple(rank[value] for rank, value in zip(ranks, key))


def _line(kind: Kind, key: tuple, part: Table, measures: Sequence[str], digits: dict[str, int]) -> Line:
    seeds = {row[SEED] for row in part.rows if SEED in row and any(name in row for name in measures)}
    cells = []
    for name in measures:
        words = [str(value) for value in part.values(name) if isinstance(value, str)]
        point = mean(part, name)
        text = ', '.join(map(charts.shown, words)) if words else number(point, digits[name])
        cells.append(text + (f' ({point.count} of {len(seeds)})' if 0 < point.count < len(seeds) else ''))
    return Line(kind, tuple(map(charts.shown, key)) or ('all',), tuple(cells), len(seeds))


def mean(part: Table, name: str) -> Interval:
    """A column over seeds, of the rows in which it is a finite number; of rows without seeds, plainly."""
    return part.where(lambda row: _finite(row.get(name))).interval(name)


def _numeric(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _counts(parts: Iterable[Table], name: str) -> bool:
    """Whether a column holds the same whole number for all seeds of each line, as a beam's width."""
    points = [point for part in parts for point in [mean(part, name)] if point.count]
    return bool(points) and all(point.mean.is_integer() and not point.std > 0 for point in points)


def _sizes(parts: Iterable[Table], beside: Sequence[Row], name: str) -> list[float]:
    """What a column has to write: the means of its lines, for a single seed may be as small as it likes."""
    points = [point for part in parts for point in [mean(part, name)] if point.count]
    return [abs(float(size)) for size in (*(point.mean for point in points), *(
        row[name] for row in beside if _finite(row.get(name))))]


def decimals(values: Sequence[float]) -> int:
    """How many decimals a column of such sizes is written with: four digits of its largest; -1 says 'as powers of ten'
    where they are too far apart for that."""
    sizes = [value for value in values if value]
    if not sizes:
        return 0
    if max(sizes) >= 1e7 or max(sizes) < 1e-3 or (min(sizes) < 1e-3 and max(sizes) / min(sizes) > 1e5):
        return -1
    whole = all(float(value).is_integer() for value in values)
    if whole and max(sizes) >= 100:
        return 0
    return 1 if 100 <= max(sizes) < 1000 and not whole else max(0, min(6, 2 - math.floor(math.log10(max(sizes)))))


def number(point: Interval, digits: int) -> str:
    """A mean, with its standard deviation where there are several seeds; of counts only where they differ."""
    if not point.count:
        return NONE
    form = (lambda x: f'{x:.2e}') if digits < 0 else (lambda x: f'{x:,.{digits}f}')
    same = point.std == 0 and digits == 0 and point.mean.is_integer()
    return form(point.mean) + (f' ± {form(point.std)}' if point.count > 1 and not same else '')


COSTS = {'parameters': ('parameters',), 'steps': ('steps',), 'training, seconds': ('time', 'training_seconds'),
         'compiling, seconds': ('time', 'compile_seconds'), 'in all, seconds': (),
         'tokens/s': ('time', 'tokens_per_second')}


def costs(findings: Findings) -> tuple[list[str], list[list[str]], int]:
    """What each setting cost, of its finished trials, from the runs' own summaries.

    Returns:
      The header, the lines (none where no cost is known), and how many columns say what a line is about.
    """
    names = [name for name in dict.fromkeys(name for found in findings.trials for name in found.trial.varying)
             if name != SEED]
    rows: list[Row] = []
    for found in findings.of('finished'):
        numbers = {name: functools.reduce(lambda part, key: part.get(key) or {}, path, found.summary)
                   for name, path in COSTS.items() if path} | {'in all, seconds': found.seconds or None}
        rows.append(found.trial.row() | {name: value for name, value in numbers.items() if _finite(value)})
    measures = [name for name in COSTS if any(name in row for row in rows)]
    table = Table.of(row for row in rows if any(name in row for name in measures))
    lines = []
    for key, part in table.groups(*names).items():
        points = [(mean(part, name), 1 if 'seconds' in name else 0) for name in measures]
        lines.append([*map(charts.shown, key or ('all',)), *(
            number(point, digits) for point, digits in points), str(len(part.values(SEED)))])
    return [*map(charts.label, names or ('',)), *measures, 'seeds'], lines, len(names) or 1


def seconds(findings: Findings) -> float:
    """What all runs took together, in seconds of theirs."""
    return sum(found.seconds for found in findings.trials)
