"""What the launcher does with a study: run it, list its trials, work on them, report."""

import dataclasses
import datetime
import inspect
import os
import pathlib
import platform
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from seqjax import catalogue, rundir
from seqjax.errors import UserError
from seqjax.options import unparse
from seqjax.studies import board, launchers, report, sweep, trials, work
from seqjax.studies.folder import Folder, write
from seqjax.studies.options import READ, Conduct
from seqjax.studies.oversee import oversee
from seqjax.studies.study import Study, Verdict
from seqjax.studies.subject import Subject
from seqjax.training.loop import Interrupted


@dataclasses.dataclass(frozen=True)
class Asked:
    """A study as somebody asked for it; study.json holds it, so that workers and reports need the folder alone."""

    name: str
    form: str = 'full'
    seeds: int | None = None
    sweep: str | None = None
    base: dict[str, Any] = dataclasses.field(default_factory=dict)
    text: str | None = None
    abroad: str = ''

    def build(self) -> Study:
        """The study."""
        if self.sweep is not None:
            return sweep.study(self.sweep, self.base, self.seeds)
        make = catalogue.load('study', self.name)
        given = ({} if self.text is None else {'text': self.text}) | ({'abroad': self.abroad} if self.abroad else {})
        for name in given.keys() - inspect.signature(make).parameters.keys():
            why = 'makes its own text and reads no other' if name == 'text' else 'is tested on its own text alone'
            raise UserError(f'--{name}={given[name]}: {self.name} {why}; drop the flag')
        study = make(self.form, **given)
        return study if self.seeds is None else dataclasses.replace(study, seeds=self.seeds)

    @property
    def title(self) -> str:
        """What its report is called."""
        return f'sweep of {self.name}' if self.sweep is not None else self.name + ('' if self.text is None else '-text')

    def default_workdir(self) -> pathlib.Path:
        """Where it goes when nobody says: runs/studies/NAME, runs/quick/NAME, runs/smoke/NAME or runs/sweeps/NAME."""
        if self.sweep is not None:
            return pathlib.Path('runs') / 'sweeps' / self.name
        return pathlib.Path('runs') / ('studies' if self.form == 'full' else self.form) / self.title


def asked(conduct: Conduct, experiment: str | None, model: str | None, argv: Sequence[str],
          others: Sequence[Any]) -> Asked:
    """What the flags ask for.

    Raises:
      UserError: flags that exclude each other, or a study or a name that is not there.
    """
    if conduct.study is not None and conduct.sweep is not None:
        raise UserError(f'--study={conduct.study} and --sweep={conduct.sweep} exclude each other; give one')
    if conduct.quick and conduct.smoke:
        raise UserError('--quick and --smoke exclude each other; give one')
    if conduct.abroad and conduct.text is None:
        raise UserError(f'--abroad={conduct.abroad} is tested on beside --text, which is not given; give both')
    if conduct.sweep is not None:
        if conduct.text is not None:
            raise UserError(f'--text={conduct.text} is read by a study, not by --sweep; give --task.path')
        if conduct.form != 'full':
            raise UserError(f'--{conduct.form}: a sweep has no such form; set --training.steps and the like instead')
        base = sweep.base(experiment, model, argv, conduct.sweep, others)
        return Asked(base['experiment'], 'full', conduct.seeds, conduct.sweep, base)
    if experiment is not None or model is not None:
        name = 'model' if experiment is None else 'experiment'
        raise UserError(f'--study={conduct.study} and --{name}={experiment or model} exclude each other: a study names '
                        'its runs itself; --sweep varies the flags of an experiment')
    catalogue.load('study', conduct.study)
    try:
        sweep.chosen(argv, {}, others)
    except UserError as error:
        raise UserError(f'{error}; a study sets the flags of its trials itself, and --sweep varies those of an '
                        'experiment') from None
    return Asked(conduct.study, conduct.form, conduct.seeds, text=conduct.text, abroad=conduct.abroad)


def command(conduct: Conduct, given: Sequence[str], mode: str, experiment: str | None, model: str | None,
            workdir: str | None, cache: str | None, argv: Sequence[str], others: Sequence[Any]) -> int:
    """Does what the launcher's flags say about studies; returns the exit code.

    Args:
      given: the names of the flags of `conduct` that were set.
      cache: --compilation_cache, where it was given.
      argv: the whole command line. others: the launcher's own flags, which may stand in it.

    Returns:
      0: done. 1: some trials failed; the report says why. 130, 143: stopped by a signal, after saving.
    """
    if mode not in READ:
        raise UserError(f'--mode={mode} is of one run, not of a study; give --workdir=RUN, or one of --mode='
                        f'{"|".join(READ)}')
    wrong = [name for name in given if name not in READ[mode]]
    if wrong:
        modes = '|'.join(name for name, read in READ.items() if wrong[0] in read)
        raise UserError(f'--{wrong[0]}={unparse(getattr(conduct, wrong[0]))} is not read with --mode={mode}; drop it, '
                        f'or set --mode={modes}')
    if mode == 'report':
        return again(conduct, workdir)
    if mode == 'work':
        return join(conduct, workdir)
    wanted = asked(conduct, experiment, model, argv, others)
    study = wanted.build()
    jobs = trials.jobs(study)
    folder = Folder(pathlib.Path(workdir or wanted.default_workdir()))
    if mode == 'plan':
        return plan(study, jobs, folder)
    count = min(conduct.workers, study.workers or conduct.workers)
    start = launchers.launcher(conduct.launcher, conduct.resources, count, folder.path)
    folder.claim(describe(wanted, study, jobs, argv))
    for job in jobs if conduct.retry else ():
        folder.forgive(job.name)
    try:
        with stopping(), board.shown(jobs, folder) as say:
            if count < conduct.workers:
                say(f'{count} of --workers={conduct.workers}: {wanted.name} measures time and takes no more')
            if count == 1 and conduct.launcher == 'local':
                work.work(study, jobs, folder)
            else:
                more = () if cache is None else (f'--compilation_cache={cache}',)
                oversee(start, launchers.command(folder.path, *more), count, jobs, folder, say=say)
    except Interrupted as interruption:
        print(f'{interruption}; saved in {folder.path}: the same command goes on from there', file=sys.stderr)
        return interruption.status
    return conclude(wanted, study, jobs, folder)


def describe(wanted: Asked, study: Study, jobs: Sequence[trials.Job], argv: Sequence[str]) -> dict[str, Any]:
    """What study.json says."""
    return {'study': wanted.title, 'asked': dataclasses.asdict(wanted), 'form': wanted.form, 'claim': study.claim,
            'source': study.source, 'expect': study.expect,
            'seeds': study.seeds if isinstance(study.seeds, int) else len(study.seeds),
            'trials': {job.name: list(job.words) for job in jobs},
            'argv': list(argv), 'git_commit': rundir.git_commit(), 'python': platform.python_version(),
            'versions': {package: metadata.version(package) for package in rundir.PACKAGES},
            'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')}


@contextmanager
def stopping() -> Iterator[None]:
    """Turns SIGTERM and SIGINT into Interrupted, also where no run is there to save."""
    def stop(signum: int, frame: Any) -> None:
        raise Interrupted(signum)

    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def join(conduct: Conduct, workdir: str | None) -> int:
    """Works on the study that is in a folder, beside whoever else does."""
    if workdir is None:
        raise UserError('--mode=work needs --workdir=FOLDER, the folder of a study')
    folder = Folder(pathlib.Path(workdir))
    if conduct.attached:
        work.follow_stdin()
    for notice in (signal.SIGUSR1, signal.SIGUSR2):  # Slurm's, when the time of a job is nearly up
        signal.signal(notice, lambda signum, frame: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with stopping():
            study = Asked(**folder.study()['asked']).build()
            work.work(study, trials.jobs(study), folder, conduct.worker)
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        return interruption.status
    return 0


def conclude(wanted: Asked, study: Study, jobs: Sequence[trials.Job], folder: Folder) -> int:
    """Floors, table, verdict and report of what is on disk."""
    page = publish(study, jobs, folder)
    results = folder.results()
    if len(results):
        print(results.text(*study.columns(results)))
    failures = {job.name: folder.reason(job.name) for job in jobs if folder.state(job.name) == 'failed'}
    for name, reason in failures.items():
        print(f'{name} failed: {reason}')
    left = [job.name for job in jobs if folder.state(job.name) == 'open']
    if left:
        print(f'{len(left)} of {len(jobs)} trials are not finished ({left[0]}, …): the same command goes on with them, '
              'unless another process is at them')
    answer = study.answer(results)
    if answer is not None:
        print(f'\n{study.claim} ({study.source})\n{words(answer)}')
    print(f'the study is in {folder.path}, its report is {page}')
    return 1 if failures or left else 0


def publish(study: Study, jobs: Sequence[trials.Job], folder: Folder) -> pathlib.Path:
    """Floors where they are still missing, and the report; returns its path."""
    done = [job for job in jobs if folder.state(job.name) == 'done']
    if done and not (folder.path / 'floors.json').exists():
        subject = Subject(folder.trial(done[0].name), done[0].recipe.experiment, study.trains)
        try:
            write(folder.path / 'floors.json', study.floors(subject))
        except Exception as error:  # the trials were run nevertheless
            reason = ' '.join(str(error).split())
            print(f'the floors are missing, for they could not be computed ({type(error).__name__}: {reason})',
                  file=sys.stderr)
    return report.write(folder.study()['study'], study, folder.path)


def words(answer: Verdict) -> str:
    """A verdict in words."""
    effect = '' if answer.effect != answer.effect else f' Effect {answer.effect:.3g} {answer.unit}'.rstrip()
    bounds = '' if answer.low != answer.low else f' [{answer.low:.3g}, {answer.high:.3g}]'
    return f'{answer.answer}: {answer.sentence}{effect}{bounds}'


def plan(study: Study, jobs: Sequence[trials.Job], folder: Folder) -> int:
    """Lists the trials and their commands; runs nothing."""
    for job in jobs:
        print(shlex.join(['python', 'launch.py', *job.words, f'--workdir={folder.trial(job.name)}']))
    print(f'{len(jobs)} trials in {folder.path}' + ('' if study.trains else '; they are measured, not trained'))
    return 0


def again(conduct: Conduct, workdir: str | None) -> int:
    """The report once more, from what is on disk; of a folder of studies, each report and the index over them."""
    default = Asked(conduct.study or '', conduct.form).default_workdir()
    folder = Folder(pathlib.Path(workdir or default))
    if conduct.study is None and not (folder.path / 'study.json').exists() and any(folder.path.glob('*/study.json')):
        return story(folder.path)
    if workdir is None and conduct.study is None:
        raise UserError('--mode=report needs --study=NAME or --workdir=FOLDER, of a study or of several; '
                        f'{default} holds none')
    wanted = Asked(**folder.study()['asked'])
    if conduct.study not in (None, wanted.name):
        raise UserError(f'--study={conduct.study}: {folder.path} holds {wanted.name}; leave the flag out')
    study = wanted.build()
    return conclude(wanted, study, trials.jobs(study), folder)


def story(root: pathlib.Path) -> int:
    """The reports of all studies whose folders are in `root`, and the index over them; returns the exit code."""
    status = 0
    for path in sorted(root.glob('*/study.json')):
        folder = Folder(path.parent)
        try:
            study = Asked(**folder.study()['asked']).build()
            print(publish(study, trials.jobs(study), folder))
        except UserError as error:  # the others are told nevertheless
            print(f'{folder.path}: {error}', file=sys.stderr)
            status = 1
    print(f'the story is {report.write_index(root)}')
    return status
