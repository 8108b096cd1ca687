"""Puts a table of plain runs into a Markdown document, as their folders tell it:

    python -m seqjax.studies.runs docs/results.md NAME RUN... [--measures=bleu_lowercase,chrf]

It stands between <!-- runs:NAME --> and <!-- end runs:NAME -->; what was there is replaced, and a table that has no
such place yet comes to the end. A line is a model and the flags in which its runs differ from the recipe; runs that
differ in their seed alone are one line. Flags that all runs share stand in the command above the table. Trials of a
study are runs too.
"""

import argparse
import itertools
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from seqjax import files, rundir
from seqjax.compose import recipe
from seqjax.errors import UserError
from seqjax.experiment import flat
from seqjax.options import options, unparse
from seqjax.studies import docs, report
from seqjax.studies.axes import SEED
from seqjax.studies.findings import Findings, Found
from seqjax.studies.folder import read
from seqjax.studies.markup import block
from seqjax.studies.sheet import sheet
from seqjax.studies.study import Study, Trial
from seqjax.studies.sweep import scored
from seqjax.studies.table import Table


def insert(document: pathlib.Path, name: str, folders: Sequence[pathlib.Path], measures: Sequence[str] = ()) -> None:
    """Writes the table of the runs in `folders` into a document.

    Raises:
      UserError: a folder holds no run, or the same as another; a measure is of none of them; the experiment of one is
        no longer there; or the document is not there or marks the beginning of the table and no end.
    """
    text = docs.put(docs.read(document), f'runs:{name}', section(folders, measures), document)
    files.write(document, text)


def section(folders: Sequence[pathlib.Path], measures: Sequence[str] = ()) -> str:
    """The command, the table, and when, where and by which commit it was measured, as Markdown.

    Args:
      measures: columns of the table; none: every number that was measured.
    """
    configs = [rundir.read(folder) for folder in folders]
    flags = [flags_of(config) for config in configs]
    shared = [flag for flag in flags[0] if all(flag in others for others in flags)]
    found = tuple(run(folder, config, [flag for flag in own if flag not in shared])
                  for folder, config, own in zip(folders, configs, flags))
    for one, other in itertools.combinations(found, 2):
        if one.trial == other.trial:
            raise UserError(f'{one.folder} and {other.folder} are the same run, and would count as one seed; name one '
                            'of them')
    rows = [row.keys() - one.trial.row().keys() for one in found for row in one.rows]
    strange = [name for name in measures if not any(name in row for row in rows)]
    if strange:
        raise UserError(f'--measures={",".join(measures)}: no run has {strange[0]}; choose of '
                        f'{", ".join(sorted(set().union(*rows)))}')
    varying = [name for name in ('experiment', 'model', 'flags') if len({one.trial.row()[name] for one in found}) > 1]
    words = {name: f'--{name}={name.upper() if name in varying else configs[0][name]}'
             for name in ('experiment', 'model')}
    study = Study(claim='', source='', expect='', base={}, axes=(), measure=lambda subject: [], verdict=None,
                  shown=(varying or ('model',), measures))
    findings = Findings('', study, pathlib.Path(), {}, found, Table.of(()))
    table = sheet(findings)
    command = ' '.join(['python launch.py', *words.values(), *shared, *(['FLAGS'] if 'flags' in varying else [])])
    return '\n'.join([block(command), report.results(table), report.below(findings, table, 'runs')])


def flags_of(config: dict[str, Any]) -> list[str]:
    """The flags in which a run differs from today's recipe, but for its seed and for options of training that change no
    result."""
    experiment = recipe(config['experiment'], config['model']).experiment
    usual = json.loads(json.dumps(flat(experiment)))
    free = (option.name for option in options(experiment.training) if option.metadata['free'])
    left_out = {SEED, *(f'training.{name}' for name in free)}
    origin = [f'--init_from={config["init_from"]}'] if config['init_from'] else []
    return origin + [f'--{name}={unparse(tuple(value) if isinstance(value, list) else value)}'
            for name, value in config['fields'].items()
            if name not in left_out and not (name in usual and usual[name] == value)]


def run(folder: pathlib.Path, config: dict[str, Any], flags: Sequence[str]) -> Found:
    """A run as a trial whose only settings are its seed and the text of its flags."""
    settings = {'flags': ' '.join(flags) or '(none)', SEED: config['fields'][SEED]}
    trial = Trial(config['experiment'], config['model'], settings)
    path = folder / 'summary.json'
    summary = read(path, {})
    if not summary:
        return Found(trial, folder, 'not run', config=config)
    return Found(trial, folder, 'finished', rows=(trial.row() | scored(summary),), config=config, summary=summary,
                 seconds=summary['time']['seconds_in_all'], finished=path.stat().st_mtime)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog='python -m seqjax.studies.runs', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('document', type=pathlib.Path)
    parser.add_argument('name')
    parser.add_argument('runs', type=pathlib.Path, nargs='+')
    parser.add_argument('--measures', default='', help='columns, with commas; all numbers where it is not given')
    options = parser.parse_args(argv)
    try:
        insert(options.document, options.name, options.runs, tuple(filter(None, options.measures.split(','))))
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'{options.document}: {options.name}, {len(options.runs)} runs')
    return 0


if __name__ == '__main__':
    sys.exit(main())
