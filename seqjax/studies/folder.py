"""A study's folder: what it is, and what is known of each trial, each in a file that appears whole or not at all.

    study.json              which study, its trials and the command of each, versions, devices
    floors.json             rows of what trivial methods reach
    trials/NAME/            an ordinary run directory, and besides
        measures.json       rows that were measured: the trial is finished
        failure.json        why it is not
        .clock.json         seconds spent on it
        log.txt             what it said
    workers/                what each worker is at, and what it says
    results.csv             all rows
    report.html report.md   the answer
"""

import dataclasses
import json
import pathlib
from typing import Any

from seqjax import files
from seqjax.errors import UserError
from seqjax.studies.table import Row, Table


@dataclasses.dataclass(frozen=True)
class Folder:
    """The files of a study, by name."""

    path: pathlib.Path

    def trial(self, name: str) -> pathlib.Path:
        """A trial's run directory."""
        return self.path / 'trials' / name

    def state(self, name: str) -> str:
        """'done', 'failed' or 'open'."""
        if (self.trial(name) / 'measures.json').exists():
            return 'done'
        return 'failed' if (self.trial(name) / 'failure.json').exists() else 'open'

    def study(self) -> dict[str, Any]:
        """study.json.

        Raises:
          UserError: there is none.
        """
        path = self.path / 'study.json'
        try:
            return json.loads(path.read_text(encoding='utf-8'))
        except FileNotFoundError:
            raise UserError(f'--workdir={self.path} holds no study (no study.json); run one there first, or name its '
                            'folder') from None
        except ValueError as error:
            raise UserError(f'{path} cannot be read ({error}); restore it, or use another folder') from None

    def claim(self, description: dict[str, Any]) -> None:
        """Makes the folder this study's. Trials may be added to those that it holds already, and none be missing.

        Args:
          description: what study.json shall say; 'study' names the study, 'trials' is {name: words of its command}.

        Raises:
          UserError: the folder holds another study, or files that are none.
        """
        if (self.path / 'study.json').exists():
            before = self.study()
            if before['study'] != description['study']:
                raise UserError(f'--workdir={self.path} holds the study {before["study"]}, not {description["study"]}; '
                                'choose another folder')
            ours, theirs = description['trials'], before['trials']
            other = [name for name in theirs if ours.get(name) != theirs[name]]
            if other:
                how = 'is now another' if other[0] in ours else 'is not one of these'
                raise UserError(f'--workdir={self.path} holds {len(theirs)} trials of which {len(other)} differ: '
                                f'{other[0]!r} {how}; give its form and seeds (--{before["form"]}, --seeds='
                                f'{before["seeds"]}), or choose another folder')
        elif self.path.exists() and not all(entry.name.startswith('.') for entry in self.path.iterdir()):
            raise UserError(f'--workdir={self.path} is not empty and holds no study (no study.json); choose another '
                            'folder')
        write(self.path / 'study.json', description)

    def finish(self, name: str, rows: list[Row]) -> None:
        """Writes what was measured of a trial."""
        (self.trial(name) / 'failure.json').unlink(missing_ok=True)
        write(self.trial(name) / 'measures.json', rows)

    def fail(self, name: str, reason: str) -> None:
        """Writes why a trial is not finished, in one line."""
        write(self.trial(name) / 'failure.json', {'reason': ' '.join(reason.split())[:600]})

    def forgive(self, name: str) -> None:
        """Takes a failure back, so that the trial is run again."""
        (self.trial(name) / 'failure.json').unlink(missing_ok=True)

    def rows(self, name: str) -> list[Row]:
        """What was measured of a trial, with its settings; none where it is not finished."""
        return read(self.trial(name) / 'measures.json', [])

    def reason(self, name: str) -> str:
        """Why a trial failed; '' where it did not."""
        return read(self.trial(name) / 'failure.json', {'reason': ''})['reason']

    def failures(self) -> dict[str, str]:
        """{trial: reason} of those that failed."""
        return {name: self.reason(name) for name in self.study()['trials'] if self.state(name) == 'failed'}

    def results(self) -> Table:
        """All that was measured, in the order of the trials."""
        return Table.of(row for name in self.study()['trials'] for row in self.rows(name))

    def floors(self) -> list[Row]:
        """What trivial methods reach; none before it was computed."""
        return read(self.path / 'floors.json', [])

    def seconds(self, name: str) -> float:
        """Time spent on a trial, in all attempts."""
        return read(self.trial(name) / '.clock.json', {'seconds': 0.0})['seconds']

    def spend(self, name: str, seconds: float) -> None:
        """Adds to the time spent on a trial."""
        write(self.trial(name) / '.clock.json', {'seconds': round(self.seconds(name) + seconds, 3)})


def read(path: pathlib.Path, default: Any) -> Any:
    """A JSON file's value, or `default` where there is none."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return default


def write(path: pathlib.Path, value: Any) -> None:
    """Writes JSON, whole or not at all; numpy's numbers are numbers, and NaN is written as Python reads it."""
    files.write(path, json.dumps(value, indent=1, ensure_ascii=False, default=plain) + '\n')


def plain(value: Any) -> Any:
    """A numpy or jax value as Python's own."""
    if hasattr(value, 'tolist'):
        return value.tolist()
    raise TypeError(f'{value!r} of type {type(value).__name__} is no number, text, list or dict; measure plain values')
