"""Writes what `benchmarks/translation.py` measured into a document: python -m benchmarks.tables DOCUMENT RESULTS

A table stands between <!-- table:NAME --> and <!-- end table:NAME -->, and one that has no such place yet comes to the
end. Lines of items that were not measured anew stay; `steps` and `kinds`, whose columns are items, are replaced whole.
NAME: training, decoding, translating, bfloat16, ceiling, products, start, plan, steps, kinds, allocator, workers,
conditions.
"""

import itertools
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import results
from seqjax import files
from seqjax.errors import UserError
from seqjax.studies.docs import between, put


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    ruled = ['---', *['---:'] * (len(head) - 1)]
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in (head, ruled, *rows))


def by_item(table: str, told_by: int = 1) -> dict[str, list[str]]:
    """The lines of each item of a table.

    Args:
      told_by: how many cells say of which item a line is; one whose first is empty is of the same as that above it.
    """
    found, name = {}, ''
    for line in table.splitlines()[2:]:
        if not line.startswith('|  |'):
            cells = line.removeprefix('| ').split(' | ')[:told_by]
            name = ' | '.join(cells).partition('<br>')[0].partition(', ')[0]
        found.setdefault(name, []).append(line)
    return found


def with_others(table: str, before: str, told_by: int = 1) -> str:
    """A table with those lines of the table `before` that are of other items (`by_item`), each where it was."""
    head = table.splitlines()[:2]
    if before.splitlines()[:2] != head:  # it had other columns, or was no table
        return table
    return '\n'.join([*head, *itertools.chain(*(by_item(before, told_by) | by_item(table, told_by)).values())])


def number(value: float) -> str:
    """Three figures, or whole from a hundred on."""
    return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'


def spread(found: results.Middle, unit: str = '') -> str:
    """A median with its range."""
    return f'{number(found.median)}{unit} ({number(found.low)} to {number(found.high)})'


def compared(chosen: Mapping[str, Any]) -> str:
    """A row for each side of each item: its rate, ours over it, and how good its translations are, if scored."""
    rows, scored = [], any('bleu' in side for item in chosen.values() for side in item['sides'].values())
    for name, item in chosen.items():
        best, peers = results.fastest(item), results.peers(item)
        for side, entry in item['sides'].items():
            if side.startswith('matmul'):
                continue
            first = f'{name}<br>parameters: {results.same_parameters(item)}' if side == 'ours' else ''
            if 'error' in entry:
                rows.append([first, side, 'failed', entry['error'].replace('|', '/'), '', *[''] * scored])
                continue
            against, wanted = '', ''
            if side in peers:
                found = results.ratio(item['sides']['ours']['values'], entry['values'])
                against = ('**{}**' if side == best else '{}').format(spread(found))
                goal = results.goal(name, side)
                wanted = '' if goal is None or entry['device'] != 'cpu' else (
                    f'{goal:g}: ' + ('met' if found.median >= goal else 'missed'))
            quality = [f'{entry["bleu"]:.2f}'] if scored else []
            rows.append([first, side, spread(results.middle(entry['values'])), against, wanted, *quality])
    units = sorted({item['unit'] for item in chosen.values()})
    head = ['item', 'side', f'{" or ".join(units)} a second', 'ours over it', 'goal', *['lower-cased BLEU'] * scored]
    return grid(head, rows)


def ceiling(chosen: Mapping[str, Any]) -> str:
    """The share of the matmul ceiling, a row for each width, dropout and dtype."""
    rows = []
    for item in chosen.values():
        found = results.share(item)
        if found is None:
            continue
        peak = results.middle(item['sides']['matmul']['values'])
        device, shape = item['sides']['ours']['device_kind'], item['shape']
        dtype = shape.get('dtype', 'float32')
        goal = '' if (shape['width'], device, dtype) != (512, 'cpu', 'float32') else '60 %: ' + (
            'met' if found.median >= 0.6 else 'missed')
        rows.append([str(shape['width']), str(shape['dropout']), dtype, device,
                     number(results.model_flops(**shape) / 1e9), spread(results.Middle(*(v / 1e9 for v in peak))),
                     spread(results.Middle(*(100 * v for v in found)), ' %'), goal])
    head = ['width', 'dropout', 'dtype', 'device', 'model GFLOPs a step', 'ceiling, GFLOP/s', 'share', 'goal']
    return grid(head, rows)


def multiplied(chosen: Mapping[str, Any]) -> str:
    """Each side's rate of the products alone."""
    rows = []
    for name, item in chosen.items():
        sides, peers = results.measured(item), results.peers(item)
        for side, entry in sides.items():
            rate = spread(results.Middle(*(v / 1e9 for v in results.middle(entry['values']))))
            against = spread(results.ratio(sides['ours']['values'], entry['values'])) if side in peers else ''
            rows.append([name if side == 'ours' else '', side, rate, against])
    return grid(['item', 'side', 'GFLOP/s', 'ours over it'], rows)


def started(chosen: Mapping[str, Any]) -> str:
    """Seconds to the first step, and memory."""
    rows = []
    for name, item in chosen.items():
        sides = results.measured(item)
        base = sides['import jax']['values']
        for side, entry in sides.items():
            more, goal = '', ''
            if side != 'import jax':
                found = results.middle([a - b for a, b in zip(entry['values'], base)])
                more = spread(found)
                goal = '' if side == 'cold' else '3: ' + ('met' if found.median < 3 else 'missed')
            peak = f'{entry["peak_bytes"] / 2 ** 20:,.0f} MiB' if entry.get('peak_bytes') else ''
            rows.append([f'{name}, {side}', spread(results.middle(entry['values'])), more, goal, peak])
    return grid(['', 'seconds', 'more than `import jax`', 'goal', 'most memory'], rows)


def planned(chosen: Mapping[str, Any]) -> str:
    """The plan's bytes and the measured ones."""
    rows = []
    for name, item in chosen.items():
        entry = item['sides']['ours']
        off = entry['peak_bytes'] / entry['plan_bytes'] - 1
        equal = 'equal' if entry['parameter_bytes'] == entry['plan_parameter_bytes'] else 'differ'
        rows.append([name, f'{entry["parameter_bytes"]:,}, {equal}', f'{entry["plan_bytes"] / 2 ** 20:,.0f} MiB',
                     f'{entry["peak_bytes"] / 2 ** 20:,.0f} MiB', f'{100 * off:+.0f} %',
                     '20 %: ' + ('met' if abs(off) <= 0.2 else 'missed')])
    return grid(['', 'parameter bytes', 'planned peak of a step', 'measured', 'off by', 'goal'], rows)


def milliseconds(value: float) -> str:
    """Of seconds."""
    return f'{1000 * value:,.0f} ms'


def stepped(chosen: Mapping[str, Any]) -> str:
    """The gradient of a step, as it is and done otherwise: a row for each way, columns for each item."""
    sides = {name: results.measured(item) for name, item in chosen.items()}
    rows = []
    for way in dict.fromkeys(way for measured in sides.values() for way in measured):
        cells = [way]
        for measured in sides.values():
            entry, last = measured[way], list(measured.values())[-1]
            median = results.middle(entry['values']).median
            cells += [milliseconds(median), f'{median / results.middle(last["values"]).median:.2f}',
                      f'{entry["temporary_bytes"] / 2 ** 20:,.0f} MiB', f'{entry["compile_seconds"]:.1f} s']
        rows.append(cells)
    return grid(['gradient', *(cell for name in chosen for cell in (
        name, 'of the last', 'temporary arrays', 'compiled in'))], rows)


def consisting(chosen: Mapping[str, Any]) -> str:
    """What kinds of operations a step consists of, and how far gradients of the same draws differ."""
    found = {(name, way): entry for name, item in chosen.items() for way, entry in results.measured(item).items()}
    shares = {key: entry['kinds'] for key, entry in found.items() if 'kinds' in entry}
    names = list(dict.fromkeys(kind for kinds in shares.values() for kind in kinds))
    rows = [[f'{name}, {way}', *(f'{kinds.get(kind, 0):.0f} %' for kind in names)]
            for (name, way), kinds in shares.items()]
    apart = max((entry['apart'] for entry in found.values() if 'apart' in entry), default=0.0)
    greatest = max((entry['greatest'] for entry in found.values() if 'apart' in entry), default=0.0)
    return (f'{grid(["gradient", *names], rows)}\n\nGradients of the same draws differ by at most {apart:.1e}, of at '
            f'most {greatest:.1e}.')


def allotted(chosen: Mapping[str, Any]) -> str:
    """The gradient of a step, and page faults of the whole command, by what the allocator is told."""
    rows = [[f'{name}, {side}', *(f'{milliseconds(found.median)} ({1000 * found.low:,.0f} to {1000 * found.high:,.0f})'
                                  for found in map(results.middle, (entry['values'], entry['without']))),
             f'{results.middle(entry["faults"]).median:,.0f}']
            for name, item in chosen.items() for side, entry in results.measured(item).items()]
    return grid(['', 'as it is', 'without all of these', 'page faults'], rows)


def shared_out(chosen: Mapping[str, Any]) -> str:
    """Seconds of a sweep by its workers, and what each of its trials compiled."""
    rows = [[f'{name}, {side}', spread(results.middle(entry['values'])),
             ', '.join(f'{seconds:.1f}' for seconds in entry['compiling'])]
            for name, item in chosen.items() for side, entry in results.measured(item).items()]
    return grid(['', 'seconds', 'seconds compiling, by trial'], rows)


def conditions(chosen: Mapping[str, Any], before: str = '') -> str:
    """When, where and under which load each item was measured; what `before` says of others stays."""
    def line(item: Mapping[str, Any]) -> str:
        return f'{item["machine"]}, {item["threads"]} threads a side; {item["system"]}'

    where = {line(item) for item in chosen.values()}
    versions = {f'{name} {version}' for item in chosen.values() for name, version in item['versions'].items()}
    rows = [[
        name, item['when'], ', '.join(commit[:9] for commit in str(item['commit']).split(', ')), str(item['repeats']),
        f'{item["load"][0]:.1f} to {item["load"][1]:.1f}', f'{item["seconds"]:.0f}',
        ' '.join(f'{key}={value}' for key, value in item['shape'].items())] for name, item in chosen.items()]
    table = grid(['item', 'when', 'commit', 'repeats', 'load', 'seconds', 'shape'], rows)
    if before.count('\n\n') == 2:  # written by this function
        old_where, old_versions, old_table = before.split('\n\n')
        table = with_others(table, old_table)
        if by_item(old_table).keys() - chosen.keys():
            where, versions = where | set(old_where.splitlines()), versions | set(old_versions.split(', '))
    return '\n\n'.join(['\n'.join(sorted(where)), ', '.join(sorted(versions)), table])


# The beginnings of the names of the items that each table has, what writes it, and how many cells tell items apart; 0
# where lines are not of items.
TABLES = {'training': ('training.', compared, 1), 'decoding': ('decoding.', compared, 1),
          'translating': ('translating.', compared, 1), 'bfloat16': ('bfloat16.', compared, 1),
          'ceiling': (('training.transformer.', 'bfloat16.training.transformer.'), ceiling, 4),
          'products': ('products.', multiplied, 1), 'start': ('start.', started, 1), 'plan': ('plan.', planned, 1),
          'steps': ('steps.', stepped, 0), 'kinds': ('steps.', consisting, 0), 'allocator': ('allocator.', allotted, 1),
          'workers': ('workers.', shared_out, 1), 'conditions': ('', conditions, 0)}


def write(document: pathlib.Path, measured: Mapping[str, Any]) -> list[str]:
    """Puts every table that there are results for into a document; returns their names."""
    try:
        text = document.read_text(encoding='utf-8')
    except FileNotFoundError:
        raise UserError(f'{document} is not there; name the document that takes the tables') from None
    names = []
    for name, (beginning, table, told_by) in TABLES.items():
        chosen = {key: item for key, item in measured.items() if key.startswith(beginning)}
        if chosen:
            # An item of which nothing was measured has no row, but a line below with its reason.
            whole = {key: item for key, item in chosen.items() if results.measured(item)}
            failed = [f'{key} failed: {side["error"]}' for key, item in chosen.items() if key not in whole
                      for side in item['sides'].values()]
            before = between(text, f'table:{name}')
            if table is conditions:
                parts = [conditions(chosen, before)]
            else:
                parts = [*([table(whole)] if whole else []), *failed]
                if told_by and whole and before:
                    parts[0] = with_others(parts[0], before.partition('\n\n')[0], told_by)
            text = put(text, f'table:{name}', '\n\n'.join(parts), document)
            names.append(name)
    files.write(document, text)
    return names


def main(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    if len(argv) != 2:
        print(__doc__)
        return 2
    try:
        measured = json.loads(pathlib.Path(argv[1]).read_text(encoding='utf-8'))
        print(f'{argv[0]}: {", ".join(write(pathlib.Path(argv[0]), measured))}')
        return 0
    except FileNotFoundError:
        print(f'error: {argv[1]} is not there; measure by python -m benchmarks.translation', file=sys.stderr)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
    return 2


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
