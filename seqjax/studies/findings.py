"""What a study found, read from its folder: finished, failed and missing trials, floors, and the answer."""

import dataclasses
import functools
import json
import pathlib
from typing import Any, Literal

from seqjax.studies.study import Study, Trial, Verdict
from seqjax.studies.table import Row, Table

State = Literal['finished', 'failed', 'not run']


@dataclasses.dataclass(frozen=True)
class Found:
    """A trial as its folder tells it.

    Args:
      state: 'finished' where it has been measured. reason: why it failed. rows: what was measured, with its settings.
      config, summary: the run's own files; empty where there is none.
      finished: when it was measured, seconds since 1970.
    """

    trial: Trial
    folder: pathlib.Path
    state: State
    reason: str = ''
    rows: tuple[Row, ...] = ()
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    summary: dict[str, Any] = dataclasses.field(default_factory=dict)
    finished: float | None = None


@dataclasses.dataclass(frozen=True)
class Findings:
    """A study, and all that its folder holds about it.

    Args:
      record: study.json. trials: in the study's order. strangers: folders of trials that are none of the study's.
    """

    name: str
    study: Study
    workdir: pathlib.Path
    record: dict[str, Any]
    trials: tuple[Found, ...]
    floors: Table
    strangers: tuple[str, ...] = ()

    @functools.cached_property
    def results(self) -> Table:
        """The rows of all finished trials."""
        return Table.of(row for found in self.trials for row in found.rows)

    @property
    def everything(self) -> Table:
        """All rows: results, floors, published figures, and a row for each trial that gave none, with its reason."""
        return Table.of([*self.results.rows, *self.floors.rows, *self.study.published, *(
            found.trial.row() | {'failure': found.reason or found.state}
            for found in self.trials if found.state != 'finished')])

    def of(self, state: State) -> list[Found]:
        """The trials in a state."""
        return [found for found in self.trials if found.state == state]

    @property
    def whole(self) -> bool:
        """Whether every trial was finished."""
        return len(self.of('finished')) == len(self.trials)

    @functools.cached_property
    def verdict(self) -> Verdict | None:
        """The answer to the claim; none where the study claims nothing."""
        if self.study.verdict is None:
            return None
        try:
            return self.study.verdict(self.results)
        except Exception as error:
            if self.whole:  # a defect of the study's, which nobody should take for an answer
                raise
            return Verdict('undecided', 'The trials that are missing leave no answer to be read off '
                                        f'({type(error).__name__}: {error}).')

    @functools.cached_property
    def figures(self) -> dict[str, Any]:
        """The study's figures by what they show; those that missing trials make impossible are left out."""
        try:
            return self.study.figures(Table.of([*self.results.rows, *self.floors.rows]))
        except Exception:
            if self.whole:
                raise
            return {}


def read(name: str, study: Study, workdir: pathlib.Path) -> Findings:
    """What `workdir` holds of a study, finished or not."""
    trials = tuple(_found(trial, workdir / 'trials' / trial.name) for trial in study.trials())
    known = {trial.folder.name for trial in trials}
    there = sorted(path.name for path in (workdir / 'trials').glob('*/') if not path.name.startswith('.'))
    return Findings(name, study, workdir, _read(workdir / 'study.json') or {}, trials,
                    Table.of(_read(workdir / 'floors.json') or ()), tuple(set(there) - known))


def _found(trial: Trial, folder: pathlib.Path) -> Found:
    files = {'config': _read(folder / 'config.json') or {}, 'summary': _read(folder / 'summary.json') or {}}
    try:
        rows = _read(folder / 'measures.json')
    except ValueError as error:
        return Found(trial, folder, 'failed', f'measures.json cannot be read ({error})', **files)
    if rows is not None:
        return Found(trial, folder, 'finished', '', tuple(trial.row() | row for row in rows), **files,
                     finished=(folder / 'measures.json').stat().st_mtime)
    failure = _read(folder / 'failure.json')
    if failure is not None:
        reason = ' '.join(str(failure.get('reason') or 'no reason given').split())
        return Found(trial, folder, 'failed', reason, **files)
    return Found(trial, folder, 'not run', **files)


def _read(path: pathlib.Path) -> Any:
    """A JSON file's content; None where there is no file."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
