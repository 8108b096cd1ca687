"""What a study found, read from its folder: finished, failed and missing trials, floors, and the answer."""

import dataclasses
import functools
import pathlib
from typing import Any, Literal

from seqjax.studies.folder import Folder
from seqjax.studies.folder import read as stored
from seqjax.studies.study import Study, Trial, Verdict
from seqjax.studies.table import Row, Table

State = Literal['finished', 'failed', 'not run']


@dataclasses.dataclass(frozen=True)
class Found:
    """A trial as its folder tells it.

    Args:
      state: 'finished' where it has been measured. reason: why it failed. rows: what was measured, with its settings.
      config, summary: the run's own files; empty where there is none.
      seconds: spent on it. finished: when it was measured, seconds since 1970.
    """

    trial: Trial
    folder: pathlib.Path
    state: State
    reason: str = ''
    rows: tuple[Row, ...] = ()
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    summary: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
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
        """The answer to the claim; None where the study claims nothing."""
        if self.study.verdict is not None and not len(self.results):
            return Verdict('undecided', 'Nothing has been measured yet.')
        return self.study.answer(self.results)

    @functools.cached_property
    def drawn(self) -> tuple[dict[str, Any], str]:
        """The study's figures by what they show, and why there are none where they could not be drawn."""
        if not len(self.results):
            return {}, ''
        try:
            return self.study.figures(self.results), ''
        except Exception as error:  # what they show is not there: trials failed, or have not been run
            return {}, f'The figures cannot be drawn from these results ({type(error).__name__}: {error}).'


def read(name: str, study: Study, workdir: pathlib.Path) -> Findings:
    """What `workdir` holds of a study, finished or not."""
    folder = Folder(workdir)
    trials = tuple(_found(trial, folder) for trial in study.trials())
    known = {found.folder.name for found in trials}
    there = sorted(path.name for path in (workdir / 'trials').glob('*/') if not path.name.startswith('.'))
    return Findings(name, study, workdir, stored(workdir / 'study.json', {}), trials, Table.of(folder.floors()),
                    tuple(other for other in there if other not in known))


def _found(trial: Trial, folder: Folder) -> Found:
    home = folder.trial(trial.name)
    files = {name: stored(home / f'{name}.json', {}) for name in ('config', 'summary')}
    # The study's clock has not seen what a run took that was trained before; the run's own, nothing of its stops.
    clock = files['summary'].get('time', {})
    files['seconds'] = max(folder.seconds(trial.name), *(
        clock.get(part) or 0.0 for part in ('seconds_in_all', 'training_seconds')))
    state = folder.state(trial.name)
    if state == 'failed':
        return Found(trial, home, 'failed', ' '.join(folder.reason(trial.name).split()) or 'no reason given', **files)
    if state != 'done':
        return Found(trial, home, 'not run', **files)
    try:
        rows = tuple(trial.row() | row for row in folder.rows(trial.name))
    except ValueError as error:
        return Found(trial, home, 'failed', f'measures.json cannot be read ({error})', **files)
    return Found(trial, home, 'finished', '', rows, **files, finished=(home / 'measures.json').stat().st_mtime)
