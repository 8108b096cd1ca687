"""Figures of studies in one house style: lines with bands over seeds, bars, panels.

The same model has the same colour and marker in every study. Colours keep 4.5:1 against white (the report lightens
them for its dark page), and none is told apart by hue alone: markers and labels beside the lines say the same.
Nothing here is global: figures are made without pyplot, and need no screen and no closing.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from seqjax.studies.table import Interval, Table

INK, FAINT = '#20242b', '#c9ccd1'  # text and axes; grid. The report turns both into the page's own colours
STYLE = {
    'font.size': 9, 'font.family': 'sans-serif', 'text.color': INK, 'axes.labelcolor': INK, 'axes.edgecolor': INK,
    'xtick.color': INK, 'ytick.color': INK, 'axes.spines.top': False, 'axes.spines.right': False,
    'axes.linewidth': 0.7, 'xtick.major.width': 0.7, 'ytick.major.width': 0.7, 'axes.titlesize': 9,
    'axes.titlelocation': 'left', 'axes.titleweight': 'bold', 'axes.grid': True, 'grid.color': FAINT,
    'grid.linewidth': 0.5, 'axes.axisbelow': True, 'lines.linewidth': 1.6, 'lines.markersize': 4.5,
    'legend.frameon': False, 'legend.handlelength': 2.8, 'savefig.bbox': 'tight', 'savefig.transparent': True,
    'svg.fonttype': 'none', 'image.interpolation': 'nearest', 'text.parse_math': False}


class Look(NamedTuple):
    """How a series is drawn."""

    colour: str
    marker: str
    dash: str = '-'


MODELS = {
    'rnn': Look('#6f60d0', 'o'), 'lstm': Look('#174a9c', 's'), 'gru': Look('#0a7b91', '^'),
    'bahdanau': Look('#6b5000', 'D'), 'luong': Look('#c6450a', 'v'), 'transformer': Look('#8a1253', 'P'),
    'smt': Look('#6c6f75', 'X'), 'rctm': Look('#527a16', '<'), 'convs2s': Look('#067a50', '>'),
    'decoderonly': Look('#985c3c', 'p')}
OTHERS = tuple(MODELS[name] for name in ('lstm', 'luong', 'convs2s', 'transformer', 'bahdanau', 'rnn', 'gru', 'rctm',
                                         'decoderonly', 'smt'))


def looks(names: Sequence[Any]) -> list[Look]:
    """How each of several series is drawn: models always alike; numbers from light to dark; others by their order."""
    numbers = [name for name in names if isinstance(name, (int, float)) and not isinstance(name, bool)]
    if len(names) > 1 and len(numbers) == len(names):
        ranks = {name: rank for rank, name in enumerate(sorted(set(numbers)))}
        return [Look(_shade(ranks[name] / max(1, len(ranks) - 1)), OTHERS[ranks[name] % len(OTHERS)].marker)
                for name in names]
    free = (look for look in OTHERS if look not in [MODELS.get(name) for name in names])
    made: dict[Any, Look] = {}
    for number, name in enumerate(names):
        if name in made:
            continue
        if name in MODELS:
            made[name] = MODELS[name]
        else:  # past the last colour they come again, dashed
            made[name] = next(free, OTHERS[number % len(OTHERS)]._replace(dash='--'))
    return [made[name] for name in names]


def _shade(share: float) -> str:
    """From blue (0) over violet to red (1), in sixteen steps."""
    share = round(share * STEPS) / STEPS
    stops = np.array([(32, 124, 160), (78, 104, 208), (141, 79, 196), (181, 61, 134), (184, 58, 58)])
    red, green, blue = (round(float(np.interp(share, np.linspace(0, 1, len(stops)), stop))) for stop in stops.T)
    return f'#{red:02x}{green:02x}{blue:02x}'


STEPS = 16
COLOURS = (*(look.colour for look in MODELS.values()), *(_shade(step / STEPS) for step in range(STEPS + 1)))
# The models on a dark page, where the colours above would not be seen.
DARK = {'rnn': '#a79bff', 'lstm': '#4a8cf0', 'gru': '#3fd0e6', 'bahdanau': '#b8912a', 'luong': '#ff9a5c',
        'transformer': '#e0559c', 'smt': '#a9acb3', 'rctm': '#9ccc4a', 'convs2s': '#3fcf95', 'decoderonly': '#c99a7c'}
DASHES = ('-', '--', ':', '-.')


def looks_of(keys: Sequence[tuple], names: Sequence[str]) -> list[Look]:
    """How series are drawn that are told apart by several columns: the model's colour, dashed by the rest."""
    if len(names) == 1:
        return looks([key[0] for key in keys])
    if 'model' not in names:
        return looks(titles(keys, names))
    at = list(names).index('model')
    rests = list(dict.fromkeys(key[:at] + key[at + 1:] for key in keys))
    return [look._replace(dash=DASHES[rests.index(key[:at] + key[at + 1:]) % len(DASHES)])
            for key, look in zip(keys, looks([key[at] for key in keys]))]


def label(name: str) -> str:
    """A column's name as it stands in figures and tables: 'model.hidden_size' is 'hidden size'."""
    return shown(name.rpartition('.')[2].replace('_', ' '))


def shown(value: Any) -> str:
    """A value as it stands in figures and tables; what no page can hold is replaced."""
    text = '–' if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return ''.join(letter if letter.isprintable() else '\ufffd' for letter in text)


def titles(keys: Sequence[tuple], names: Sequence[str]) -> list[str]:
    """What series are called that are told apart by columns: 'gru', or 'gru, hidden size 64'."""
    def part(name: str, value: Any) -> str:
        return f'{label(name)} {shown(value)}' if isinstance(value, (bool, int, float)) and len(names) > 1 \
            else shown(value)
    return [', '.join(part(*both) for both in zip(names, key)) for key in keys]


def styled(function: Callable) -> Callable:
    """Runs a function under the house style."""
    @functools.wraps(function)
    def inside(*args: Any, **keywords: Any) -> Any:
        import matplotlib
        with matplotlib.rc_context(STYLE):
            return function(*args, **keywords)
    return inside


@styled
def panels(rows: int = 1, columns: int = 1, width: float = 4.4, height: float = 3.2, **keywords: Any
           ) -> tuple[Any, np.ndarray]:
    """A figure and its axes (an array rows x columns), each panel so many inches wide and high."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width * columns, height * rows), layout='constrained')
    return figure, figure.subplots(rows, columns, squeeze=False, **keywords)


def measured(table: Table, *names: str) -> Table:
    """The rows that have all these columns, numbers among them finite."""
    return table.where(lambda row: all(_there(row.get(name)) for name in names))


def _there(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def series(table: Table, x: str, y: str) -> dict[Any, Interval]:
    """`y` over seeds at each `x`, x in order."""
    groups = measured(table, x, y).groups(x)
    return {key: groups[(key,)].interval(y) for key in sorted(key for (key,) in groups)}


@styled
def lines(table: Table, x: str, y: str, by: str | Sequence[str] = 'model', *, axis: Any = None, logx: bool = False,
          logy: bool = False, xlabel: str | None = None, ylabel: str | None = None, title: str | None = None,
          ylim: tuple[float | None, float | None] | None = None, band: str = 'std',
          levels: Mapping[str, float] | None = None, legend: bool = False) -> Any:
    """Means over seeds of a column against another, a line for each value of `by`, with a band over seeds.

    Args:
      table: results; rows without x, y or `by` are left out. x, y: numeric columns.
      by: the column, or columns, whose values are the lines.
      axis: where to draw; none: a figure of its own.
      logx, logy: logarithmic axes; x in powers of two where all x are.
      band: 'std', a standard deviation to each side, or 'interval', the 95 % interval of the mean. With one seed none.
      levels: horizontal lines with a name, such as the floor of a trivial method.
      legend: a legend, in place of labels at the lines' ends (which more than eight lines never have).

    Returns:
      The figure.
    """
    figure, axis = _axis(axis)
    names = (by,) if isinstance(by, str) else tuple(by)
    groups = measured(table, x, y, *names).groups(*names)
    ends = []
    for name, look, part in zip(titles(list(groups), names), looks_of(list(groups), names), groups.values()):
        points = series(part, x, y)
        xs, means = np.array(list(points), float), np.array([point.mean for point in points.values()])
        low, high = np.array([_bounds(point, band) for point in points.values()]).reshape(-1, 2).T
        axis.plot(xs, means, color=look.colour, marker=look.marker, linestyle=look.dash, label=name)
        axis.fill_between(xs, low, high, color=look.colour, alpha=0.18, linewidth=0)
        ends.append((name, look, xs[-1], means[-1]))
    _scales(axis, logx, logy, [end[2] for end in ends], table, x)
    axis.set(xlabel=xlabel or label(x), ylabel=ylabel or label(y), title=title or '')
    if ylim is not None:
        axis.set_ylim(*ylim)
    _levels(axis, levels or {})
    if legend or len(ends) > 8:
        axis.legend(fontsize=8, loc='upper left', bbox_to_anchor=(1, 1))
    else:
        _label_ends(axis, ends)
    return figure


def _axis(axis: Any) -> tuple[Any, Any]:
    if axis is not None:
        return axis.get_figure(), axis
    figure, axes = panels(1, 1, width=4.8, height=3.1)
    return figure, axes[0, 0]


def _bounds(point: Interval, band: str) -> tuple[float, float]:
    if point.count < 2:
        return point.mean, point.mean
    return (point.low, point.high) if band == 'interval' else (point.mean - point.std, point.mean + point.std)


def _scales(axis: Any, logx: bool, logy: bool, ends: list[float], table: Table, x: str) -> None:
    """Logarithmic axes where asked for; whole numbers of few values are ticks themselves."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
    if logy:
        axis.set_yscale('log')
    values = sorted({value for value in table.column(x) if _there(value)})
    if logx and ends:
        powers = all(value > 0 and math.log2(value).is_integer() for value in values)
        axis.set_xscale('log', base=2 if powers else 10)
        if powers or len(values) <= 8:
            axis.xaxis.set_major_locator(FixedLocator(values if len(values) <= 6 else values[::2]))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(lambda value, _: f'{value:,.6g}')
    elif all(isinstance(value, int) for value in values):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _levels(axis: Any, levels: Mapping[str, float]) -> None:
    for value in levels.values():
        axis.axhline(value, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
    place = axis.transData + axis.transAxes.inverted()
    heights = [float(np.clip(place.transform((1, value))[1], 0, 1)) for value in levels.values()]
    for name, height in zip(levels, apart(heights, 0.055)):
        axis.annotate(shown(name), (0.01, height + 0.008), xycoords='axes fraction', fontsize=7.5, va='bottom',
                      in_layout=False)


def _label_ends(axis: Any, ends: list[tuple[str, Look, float, float]]) -> None:
    """Names beside the lines' ends, moved apart where they would overlap."""
    if not ends:
        return
    place = axis.transData + axis.transAxes.inverted()
    heights = [float(np.clip(place.transform((x, y))[1], 0, 1)) for _, _, x, y in ends]
    for (name, look, _, _), height in zip(ends, apart(heights, 0.072)):
        axis.annotate(name, (1.015, height), xycoords='axes fraction', color=look.colour, va='center', fontsize=8.5,
                      annotation_clip=False)


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved as little as needed so that any two are `gap` apart, in the same order."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    blocks: list[list[float]] = []  # of neighbours that touch: [sum of wished bottoms, count]
    for rank in order:
        blocks.append([heights[rank], 1])
        while len(blocks) > 1 and _top(blocks[-2], gap) + gap > _bottom(blocks[-1], gap):
            total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count]
    placed = [_bottom(block, gap) + gap * i for block in blocks for i in range(int(block[1]))]
    moved = [0.0] * len(heights)
    for rank, height in zip(order, placed):
        moved[rank] = height
    return moved


def _bottom(block: list[float], gap: float) -> float:
    return block[0] / block[1] - gap * (block[1] - 1) / 2


def _top(block: list[float], gap: float) -> float:
    return block[0] / block[1] + gap * (block[1] - 1) / 2


@styled
def bars(table: Table, name: str | Sequence[str], y: str, by: str | None = None, *, axis: Any = None,
         log: bool = False, ylabel: str | None = None, title: str | None = None, limits: Sequence[float] | None = None,
         levels: Mapping[str, float] | None = None) -> Any:
    """Means over seeds as lying bars, with a standard deviation to each side and a dot for each seed.

    Args:
      table: results; rows without the columns are left out.
      name: the column, or columns, whose values are the bars. y: what they are as long as.
      by: a column whose values stand as bars of their own colour inside each group of `name`.
      log: a logarithmic axis. limits: its ends. levels: lines across, with a name.

    Returns:
      The figure.
    """
    names = (name,) if isinstance(name, str) else tuple(name)
    found = measured(table, y, *names, *([by] if by else []))
    groups, kinds = found.groups(*names), found.values(by) if by else [None]
    if axis is None:
        figure, axes = panels(1, 1, width=4.8, height=0.9 + 0.3 * max(2, len(groups) * len(kinds)))
        axis = axes[0, 0]
    figure = axis.get_figure()
    styles = looks(kinds) if by else looks_of(list(groups), names)
    kind_titles = titles([(kind,) for kind in kinds], [by or ''])
    thick = 0.76 / len(kinds)
    for place, group in enumerate(groups.values()):
        for rank, (kind, text) in enumerate(zip(kinds, kind_titles)):
            part = group.where({by: kind}) if by else group
            if not len(part):
                continue
            seeds = part.per_seed(y)
            value, look = part.interval(y), styles[rank if by else place]
            height = place + (rank - (len(kinds) - 1) / 2) * thick
            axis.barh(height, value.mean, thick * 0.9, color=look.colour, alpha=0.75,
                      label=text if by else None)
            if value.count > 1:
                axis.errorbar(value.mean, height, xerr=value.std, color=INK, linewidth=1, capsize=2)
                axis.plot(list(seeds.values()), [height] * len(seeds), '.', color=INK, markersize=3)
    axis.set_yticks(range(len(groups)), titles(list(groups), names))
    axis.set_ylim(len(groups) - 0.4, -0.6)
    axis.grid(False, axis='y')
    axis.set(xlabel=ylabel or label(y), title=title or '')
    if log:
        axis.set_xscale('log')
    if limits is not None:
        axis.set_xlim(*limits)
    for text, value in (levels or {}).items():
        axis.axvline(value, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        axis.annotate(text, (value, 1.0), xycoords=axis.get_xaxis_transform(), fontsize=7.5, ha='center', va='bottom')
    if by:
        handles = dict(zip(*axis.get_legend_handles_labels()[::-1]))
        axis.legend(handles.values(), handles.keys(), fontsize=8, loc='upper left', bbox_to_anchor=(1, 1))
    return figure
