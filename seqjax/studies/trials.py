"""A trial, from its settings to its rows: composed by the launcher's rules, trained as any run, measured, noted."""

import contextlib
import dataclasses
import errno
import gc
import pathlib
import time
import traceback
from collections.abc import Callable
from typing import Any

import jax

from seqjax import files, rundir
from seqjax.compose import Recipe, compose
from seqjax.errors import UserError
from seqjax.options import unparse
from seqjax.run import train
from seqjax.studies.folder import Folder
from seqjax.studies.study import Study, Trial
from seqjax.studies.subject import Subject
from seqjax.training.loop import Interrupted

Read = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """A trial that was found sound: its flags were read and its experiment composed.

    Args:
      words: the flags that repeat it, --workdir apart.
    """

    trial: Trial
    recipe: Recipe
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.trial.name


def jobs(study: Study) -> list[Job]:
    """All trials of a study, composed before the first of them runs.

    Raises:
      UserError: an axis names no flag, has no such value, or is not read; as the launcher says it of a plain run.
    """
    found = []
    for trial in study.trials():
        flags = [f'--{name}={unparse(value)}' for name, value in trial.settings.items()]
        recipe = compose(trial.experiment, trial.model, flags)
        found.append(Job(trial, recipe, (f'--experiment={recipe.name}', f'--model={recipe.model}', *flags)))
    return found


def run(job: Job, study: Study, folder: Folder, read: Read) -> str:
    """Trains a trial's run (or goes on with it) and measures it; notes why where that fails.

    What it says goes to log.txt in its folder.

    Returns:
      'done' or 'failed'.

    Raises:
      Interrupted: a signal came; the run's state has been saved.
      files.Held: another process is training in the trial's folder.
    """
    workdir = folder.trial(job.name)
    workdir.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (open(workdir / rundir.LOG, 'a', encoding='utf-8', buffering=1) as log, contextlib.redirect_stdout(log),
          contextlib.redirect_stderr(log)):
        try:
            rows = study.measure(ready(job, study, workdir, read))
            folder.finish(job.name, [job.trial.row() | row for row in rows])
            return 'done'
        except (Interrupted, files.Held):
            raise
        except UserError as error:
            reason = str(error)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # no trial's fault, and no room to note one
                raise
            reason = f'{type(error).__name__}: {error}'
            traceback.print_exc()
        except Exception as error:
            reason = f'{type(error).__name__}: {error}'
            traceback.print_exc()
        finally:
            folder.spend(job.name, time.monotonic() - began)
        print(f'failed: {reason}')
        folder.fail(job.name, reason)
        return 'failed'


def ready(job: Job, study: Study, workdir: pathlib.Path, read: Read) -> Subject:
    """The subject of a trial, trained where the study trains."""
    subject = Subject(workdir, job.recipe.experiment, study.trains, read)
    naming = dict(name=job.recipe.name, model=job.recipe.model, argv=(*job.words, f'--workdir={workdir}'))
    if study.trains and (workdir / 'summary.json').exists():  # trained, and not yet measured
        rundir.check(workdir, rundir.record(job.recipe.experiment, None, **naming), job.recipe.experiment)
    elif study.trains:
        train(job.recipe.experiment, workdir, read=read, **naming)
    else:
        rundir.claim(workdir, rundir.record(job.recipe.experiment, subject.data.sha256, **naming),
                     job.recipe.experiment)
        rundir.save_codec(workdir, subject.codec)
    return subject


def once() -> Read:
    """A reader of data that keeps what it has read: trials of equal task in one process share them.

    The data of a trial are those of its own vocabularies; trials that learned equal ones share them too.
    """
    known: dict[Any, Any] = {}

    def read(task: Any, codec: Any) -> Any:
        key = (task, codec and repr(codec.to_json()))
        if key not in known:
            data = task.prepare(codec)
            if len(known) >= 8:  # a study over many corpora
                known.clear()
            known[key] = known[task, repr(data.codec.to_json())] = data
        return known[key]

    return read


def forget() -> None:
    """Unloads compiled programs: each holds memory maps, of which a process may have only so many."""
    jax.clear_caches()
    gc.collect()
