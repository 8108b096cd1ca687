"""Puts a table of plain runs into a Markdown document, as their folders tell it:

    python -m seqjax.studies.runs docs/results.md NAME RUN... [--measures=bleu_lowercase,chrf] [--keep=FILE]

It stands between <!-- runs:NAME --> and <!-- end runs:NAME -->; what was there is replaced, and a table that has no
such place yet comes to the end. A line is a model and the flags in which its runs differ from the recipe; runs that
differ in their seed alone are one line. Flags that all runs share stand in the command above the table. Trials of a
study are runs too.

Folders get lost, and machines are many. With --keep what the table is made of, the configuration and the scores of
each run, is kept in FILE (JSON, one object a line), and the runs that are kept there already are in the table too; one
that is named again takes the place of the one before.
"""

import argparse
import itertools
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

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


class Run(NamedTuple):
    """What a table says of a run."""

    folder: str
    config: dict[str, Any]
    summary: dict[str, Any]  # empty where it has not ended
    finished: float | None = None  # when it ended, seconds since 1970

    @property
    def identity(self) -> tuple:
        """What runs that are the same have in common."""
        return (self.config['experiment'], self.config['model'], self.config['fields'][SEED], *flags_of(self.config))


def insert(document: pathlib.Path, name: str, folders: Sequence[pathlib.Path], measures: Sequence[str] = (),
           keep: pathlib.Path | None = None) -> int:
    """Writes the table of the runs in `folders`, and of those in `keep`, into a document, and then all that have ended
    into `keep`; returns how many the table is of.

    Raises:
      UserError: no run was named or kept; a folder holds none, or the same as another; a measure is of none of them;
        the experiment of one is no longer there; what was kept cannot be read; or the document is not there or marks
        the beginning of the table and no end.
    """
    runs = [found_in(folder) for folder in folders]
    named = {run.identity for run in runs}
    runs = [run for run in kept(keep) if run.identity not in named] + runs
    if not runs:
        raise UserError('no run was named, and none is kept; name the folders of some')
    files.write(document, docs.put(docs.read(document), f'runs:{name}', section(runs, measures), document))
    if keep is not None:
        files.write(keep, ''.join(f'{json.dumps(elsewhere(run)._asdict())}\n' for run in runs if run.summary))
    return len(runs)


def found_in(folder: pathlib.Path) -> Run:
    """The run in a folder."""
    path = folder / 'summary.json'
    return Run(str(folder), rundir.read(folder), read(path, {}), path.stat().st_mtime if path.exists() else None)


def elsewhere(run: Run) -> Run:
    """The run without where it lay, which is nothing to another machine."""
    config = {name: value for name, value in run.config.items() if name != 'argv'}
    return run._replace(folder=pathlib.Path(run.folder).name, config=config)


def kept(path: pathlib.Path | None) -> list[Run]:
    """The runs of a file that `insert` has written; none where there is no file yet."""
    if path is None or not path.exists():
        return []
    try:
        return [Run(**json.loads(line)) for line in path.read_text(encoding='utf-8').splitlines()]
    except (ValueError, TypeError) as error:
        raise UserError(f'--keep={path} is no file of kept runs ({error}); restore it, or name another') from None


def section(runs: Sequence[Run], measures: Sequence[str] = ()) -> str:
    """The command, the table, and when, where and by which commit it was measured, as Markdown.

    Args:
      measures: columns of the table; none: every number that was measured.
    """
    flags = [flags_of(run.config) for run in runs]
    shared = [flag for flag in flags[0] if all(flag in others for others in flags)]
    found = tuple(trial_of(run, [flag for flag in own if flag not in shared]) for run, own in zip(runs, flags))
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
    words = {name: f'--{name}={name.upper() if name in varying else runs[0].config[name]}'
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


def trial_of(run: Run, flags: Sequence[str]) -> Found:
    """A run as a trial whose only settings are its seed and the text of its flags."""
    settings = {'flags': ' '.join(flags) or '(none)', SEED: run.config['fields'][SEED]}
    trial = Trial(run.config['experiment'], run.config['model'], settings)
    folder = pathlib.Path(run.folder)
    if not run.summary:
        return Found(trial, folder, 'not run', config=run.config)
    return Found(trial, folder, 'finished', rows=(trial.row() | scored(run.summary),), config=run.config,
                 summary=run.summary, seconds=run.summary['time']['seconds_in_all'], finished=run.finished)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog='python -m seqjax.studies.runs', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('document', type=pathlib.Path)
    parser.add_argument('name')
    parser.add_argument('runs', type=pathlib.Path, nargs='*')
    parser.add_argument('--measures', default='', help='columns, with commas; all numbers where it is not given')
    parser.add_argument('--keep', type=pathlib.Path, help='a file of runs that are in the table too, and then of all')
    options = parser.parse_args(argv)
    try:
        count = insert(options.document, options.name, options.runs,
                       tuple(filter(None, options.measures.split(','))), options.keep)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'{options.document}: {options.name}, {count} runs')
    return 0


if __name__ == '__main__':
    sys.exit(main())
