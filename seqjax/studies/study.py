"""What a study is: a claim, the trials that test it, what is measured, and how the answer is read off the results."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from seqjax import catalogue
from seqjax.errors import UserError
from seqjax.options import unparse
from seqjax.studies.axes import SEED, Settings, cross, seeds
from seqjax.studies.table import Interval, Row, Table

Form = Literal['full', 'quick', 'smoke']  # an hour or so on two cores; two minutes; 15 seconds, for the tests
LONGEST = 160  # bytes of a trial's name: a file system takes 255
Answer = Literal['supported', 'not supported', 'undecided']


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer to a claim: an effect, its interval over seeds, and a sentence that says both in words.

    Args:
      raised: the error for which nothing was decided, where the study's function could not read its results.
    """

    answer: Answer
    sentence: str
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    unit: str = ''
    raised: Exception | None = None


def decide(effect: Interval, above: float, sentence: str, unit: str = '') -> Verdict:
    """Supported where the whole interval is above `above`, not supported where none of it is, else undecided.

    What makes no difference at all, as two searches with the same results, does not support that it makes one above 0.
    With fewer than two independent values there is no interval, and nothing is decided.
    """
    if math.isnan(effect.low):
        answer = 'undecided'
    elif effect.low > above:
        answer = 'supported'
    elif effect.high <= above:
        answer = 'not supported'
    else:
        answer = 'undecided'
    return Verdict(answer, sentence, effect.mean, effect.low, effect.high, unit)


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """A claim of several parts holds when all of them do, and falls with any; the effect is that of the first part."""
    answers = [verdict.answer for verdict in verdicts]
    answer = ('not supported' if 'not supported' in answers else
              'undecided' if 'undecided' in answers else 'supported')
    first = verdicts[0]
    return dataclasses.replace(first, answer=answer, sentence=' '.join(
        f'{verdict.sentence} ({verdict.answer})' for verdict in verdicts))


@dataclasses.dataclass(frozen=True)
class Study:
    """A claim and how it is tested.

    Args:
      claim: one sentence, as the literature has it. source: who says so, with section or equation.
      expect: what was expected before anything was run.
      base: settings of every trial; 'experiment' and 'model' among them, or on an axis.
      axes: settings of each trial, from the functions of `axes`; seeds come on top.
      seeds: how many seeds each setting is run with, from 0, or which.
      measure: what a trial is worth, as rows; see `subject.Subject`. Each row gets the trial's settings as well.
      verdict: results -> answer. Pure; it must be able to come out each way.
      figures: results -> {name: matplotlib figure}. Pure.
      trains: whether trials are trained first; else `measure` sees fresh parameters (timings, initial gradients).
      floors: rows of what trivial methods reach, with a column 'floor' that names the method; computed once a study,
        from the subject of its first trial.
      published: rows of figures that others have published, with a column 'published' that names them.
      shown: columns of the report's table: what tells its lines apart, then what was measured.
      workers: the most trials that may run side by side; 1 where they measure time.
    """

    claim: str
    source: str
    expect: str
    base: Settings
    axes: Sequence[Settings]
    measure: Callable[[Any], list[Row]]
    verdict: Callable[[Table], Verdict] | None
    figures: Callable[[Table], dict[str, Any]] = lambda table: {}
    seeds: int | Sequence[int] = 3
    trains: bool = True
    floors: Callable[[Any], list[Row]] = lambda subject: []
    published: Sequence[Row] = ()
    shown: tuple[Sequence[str], Sequence[str]] = ((), ())
    workers: int | None = None

    def trials(self) -> list['Trial']:
        """The trials, in the order in which they are run: all settings with seed 0 first, so that early results tell
        something of each."""
        settings = [both for seed in seeds(self.seeds) for both in cross([self.base], self.axes, [seed])]
        found = [Trial(setting['experiment'], setting.get('model') or usual_model(setting['experiment']), {
            name: value for name, value in setting.items() if name not in ('experiment', 'model')},
            self._varying()) for setting in settings]
        names = [trial.name for trial in found]
        if not found:
            raise UserError('the study has no trial: its axes are empty; give each at least one value')
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f'two trials are the same: {twice[0]}; let their settings differ')
        return found

    def answer(self, results: Table) -> Verdict | None:
        """The verdict on results that may lack trials; None where the study claims nothing."""
        if self.verdict is None:
            return None
        try:
            return self.verdict(results)
        except Exception as error:  # what it reads is not there: trials failed, or have not been run
            return Verdict('undecided', f'These results do not decide it ({type(error).__name__}: {error}).',
                           raised=error)

    def columns(self, results: Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What tells lines of the results apart, and what was measured: `shown`, or all that varies and all numbers."""
        names = tuple(self.shown[0]) or self._varying()
        settings = {name for trial in self.trials() for name in trial.row()}
        numbers = [name for name in results.columns() if name not in settings and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in results.column(name))]
        return names, tuple(self.shown[1]) or tuple(numbers)

    def _varying(self) -> tuple[str, ...]:
        """The names that tell trials apart: those of `shown` where they do, else all on the axes."""
        every = dict.fromkeys(name for settings in self.axes for name in settings if name != SEED)
        few = tuple(name for name in self.shown[0] if name in every)
        told = {tuple(settings.get(name) for name in few) for settings in self.axes}
        return few if few and len(told) == len({str(settings) for settings in self.axes}) else tuple(every)


def usual_model(experiment: str) -> str:
    """The model that an experiment takes when nobody says."""
    return catalogue.load('experiment', experiment).__defaults__[0]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a study: an experiment, a model, and the flags that differ from the recipe."""

    experiment: str
    model: str
    settings: Settings
    varying: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its folder, such as 'gru,hidden_size=64,seed=0': what varies, and the seed."""
        parts = []
        for name in (*self.varying, SEED):
            if name == 'model':
                parts.append(self.model)
            elif name == 'experiment':
                parts.append(self.experiment)
            elif name in self.settings:
                value = unparse(self.settings[name]).replace('/', '_').replace(' ', '')
                parts.append(f'{name.rpartition(".")[2]}={value}')
        name = ','.join(parts)
        if len(name.encode()) <= LONGEST:
            return name
        return f'{name[:LONGEST // 4]}…{hashlib.sha256(name.encode()).hexdigest()[:12]}'

    def row(self) -> Row:
        """Its settings as columns of the results: experiment, model, and each flag by its dotted name."""
        return {'experiment': self.experiment, 'model': self.model, **self.settings}
