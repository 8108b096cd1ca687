"""From the command line to a run: reads the flags, finds the experiment, and does what `--mode` says."""

import dataclasses
import errno
import inspect
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Literal

from absl import flags as absl_flags

from seqjax import catalogue, flags
from seqjax.errors import UserError
from seqjax.options import check_value, option, options, unparse
from seqjax.studies.options import Conduct


@dataclasses.dataclass(frozen=True)
class Launch:
    """The launcher's own flags: what to run, where, and how."""

    experiment: str | None = option(None, 'the experiment, see --list')
    model: str | None = option(None, "the model, see --list; none: the experiment's own choice")
    mode: Literal['train', 'evaluate', 'predict', 'plan', 'report', 'work'] = option(
        'train', "what to do; report: a study's answer again, from its --workdir; work: run trials of the study in "
                 '--workdir, beside others that do')
    workdir: str | None = option(None, "the run's folder; none: runs/EXPERIMENT-MODEL, or runs/studies/STUDY")
    init_from: str | None = option(None, 'the folder of a run whose parameters to start from',
                                   when={'mode': ('train',)})
    input: str = option('-', 'file to translate, one sentence a line; - is stdin', when={'mode': ('predict',)})
    output: str = option('-', 'file for the translations; - is stdout', when={'mode': ('predict',)})
    list: bool = option(False, 'list the experiments, models and studies')
    draw: Literal['sinusoids'] | None = option(None, 'draw a picture into --workdir')
    wandb: str | None = option(None, 'project at Weights & Biases to send the metrics to (pip install wandb)',
                               when={'mode': ('train',)})
    compilation_cache: str = option('', 'folder for compiled programs; none: keep nothing; empty: '
                                        '$JAX_COMPILATION_CACHE_DIR or ~/.cache/seqjax/compilation')
    coordinator: str | None = option(None, 'host:port of process 0, where several processes run as one')
    processes: int = option(1, 'processes that run as one', at_least=1)
    process: int = option(0, 'which of them this is, from 0', at_least=0)


# Options of a run that a later evaluation or prediction may change besides decoding: where the data and devices are.
MOVABLE = {'task': ('path', 'data_dir'), 'training': ('parallel', 'mesh')}


def main(argv: Sequence[str]) -> int:
    """Runs a command line (without the program's name) and returns the exit code.

    0: done. 2: a user's mistake, told in one line on stderr. 130, 143: stopped by SIGINT, SIGTERM, after saving.
    """
    try:
        status = command(list(argv))
        sys.stdout.flush()
        return status
    except UserError as error:
        return fail(error)
    except KeyboardInterrupt:
        print('stopped at the keyboard', file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has gone
        give_up_output()
        return 141
    except OSError as error:
        give_up_output()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return fail(f'the disk is full ({error}); make room and give the same command again: it goes on from the '
                        'last checkpoint')
        if error.filename is not None:
            return fail(f'{error.filename}: {error.strerror}; check the path and its permissions')
        raise


def give_up_output() -> None:
    """Throws away what stdout does not take, which Python would try once more at exit, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(error: object) -> int:
    """Tells a mistake in one line on stderr; returns the exit code for it."""
    print('error: ' + ' '.join(str(error).split()), file=sys.stderr)
    return 2


def command(argv: list[str]) -> int:
    """Does what the flags say."""
    if not argv:
        print(HELP)
        return 0
    wants_help = any(word in ('--help', '-help', '-h', '--helpfull', '--helpshort') for word in argv)
    argv = [word for word in argv if word not in ('--help', '-help', '-h', '--helpfull', '--helpshort')]
    launch, conduct = Launch(), Conduct()
    chosen: dict[str, list[str]] = {'launch': [], 'conduct': []}
    for words in flags.stages(argv):
        values = absl_flags.FlagValues()
        flags.define(values, '', launch)
        flags.define(values, '', conduct)
        flags.read(words, values, known_only=True)
        given, about_studies = flags.given(values, '', launch), flags.given(values, '', conduct)
        launch, conduct = flags.override('', launch, given), flags.override('', conduct, about_studies)
        chosen['launch'] += given
        chosen['conduct'] += about_studies
    for part in (launch, conduct):
        for field in options(part):
            check_value(f'--{field.name}', getattr(part, field.name), field)
    if launch.list:
        print(catalogue.listing())
        return 0
    if launch.draw:
        from seqjax import figures
        print(f'drew {figures.draw_sinusoids(pathlib.Path(launch.workdir or ".") / "sinusoids.png")}')
        return 0
    if wants_help and launch.experiment is None and conduct.study is None:
        print(HELP + '\n\n' + flags.help_text('launcher', '', Launch()) + '\n\n' + flags.help_text(
            'studies', '', Conduct()))
        return 0
    if launch.mode in ('report', 'work') or conduct.study is not None or conduct.sweep is not None:
        return study(argv, launch, conduct, chosen, wants_help)
    if chosen['conduct']:
        name = chosen['conduct'][0]
        raise UserError(f'--{name}={unparse(getattr(conduct, name))} is read with --study or --sweep; drop it, or give '
                        'one of them')
    start(launch)
    if launch.mode in ('train', 'plan') or wants_help:
        return begin(argv, launch, wants_help)
    return revisit(argv, launch)


def start(launch: Launch) -> None:
    """Sets jax up, before its first use: the compilation cache, and other processes."""
    if (launch.coordinator is None) != (launch.processes == 1):
        raise UserError(f'--processes={launch.processes} and --coordinator={launch.coordinator}: several processes '
                        'need both')
    if launch.process >= launch.processes:
        raise UserError(f'--process={launch.process} is not one of --processes={launch.processes}, counted from 0')
    from seqjax import compilation
    compilation.keep(launch.compilation_cache)
    if launch.coordinator is not None:
        import jax
        if (jax.config.jax_platforms or '').startswith('cpu') or not _has_accelerator():
            jax.config.update('jax_cpu_collectives_implementation', 'gloo')
        jax.distributed.initialize(launch.coordinator, launch.processes, launch.process)


def _has_accelerator() -> bool:
    return any(pathlib.Path(path).exists() for path in ('/dev/nvidia0', '/dev/accel0', '/dev/vfio'))


def begin(argv: list[str], launch: Launch, wants_help: bool) -> int:
    """Trains or plans: the experiment's function, with the flags' values in place of its own."""
    from seqjax.compose import compose, recipe
    from seqjax.experiment import GROUPS, flat
    if wants_help:
        found = recipe(launch.experiment, launch.model)
        print(f'{found.doc.strip()}\n\n' + flags.help_text('launcher', '', launch))
        for group in GROUPS:
            part = getattr(found.experiment, group)
            print('\n' + flags.help_text(f'{group}: {type(part).__doc__.partition(chr(10))[0]}', f'{group}.', part))
        return 0
    _, model, experiment, _ = compose(launch.experiment, launch.model, argv, (Launch(),))
    if launch.mode == 'plan':
        from seqjax.plan import plan
        plan(experiment)
        return 0
    from seqjax import rundir
    from seqjax.run import train
    from seqjax.training.loop import Interrupted
    workdir = pathlib.Path(launch.workdir or rundir.default_workdir(launch.experiment, model))
    writers = []
    if launch.wandb:
        from seqjax.training.metrics import WandB
        writers.append(WandB(launch.wandb, workdir.name, flat(experiment)))
    try:
        train(experiment, workdir, name=launch.experiment, model=model, argv=argv, init_from=launch.init_from,
              writers=writers)
    except Interrupted as interruption:
        print(f'{interruption}; saved in {workdir}: the same command goes on from there', file=sys.stderr)
        return interruption.status
    print(f'the run is in {workdir}')
    return 0


def study(argv: list[str], launch: Launch, conduct: Conduct, chosen: dict[str, list[str]], wants_help: bool) -> int:
    """Runs, lists or reports a study, or shows what it is."""
    if wants_help:
        from seqjax.catalogue import load
        shown = inspect.getdoc(load('study', conduct.study)) if conduct.study is not None else HELP
        print(f'{shown}\n\n' + flags.help_text('studies', '', conduct))
        return 0
    unread = [name for name in chosen['launch'] if name not in (
        'experiment', 'model', 'mode', 'workdir', 'compilation_cache') and launch.mode not in ('evaluate', 'predict')]
    if unread:
        raise UserError(f'--{unread[0]}={unparse(getattr(launch, unread[0]))} is not read by a study; drop it')
    start(launch)
    from seqjax.studies.command import command
    return command(conduct, chosen['conduct'], launch.mode, launch.experiment, launch.model, launch.workdir,
                   launch.compilation_cache if 'compilation_cache' in chosen['launch'] else None, argv,
                   (Launch(), Conduct()))


def revisit(argv: list[str], launch: Launch) -> int:
    """Evaluates or predicts with a run that is there; what it is, its config.json says."""
    from seqjax import rundir
    from seqjax.compose import overridden
    from seqjax.experiment import GROUPS, Experiment
    if launch.workdir is None:
        if launch.experiment is None:
            raise UserError(f'--mode={launch.mode} needs --workdir=RUN, the folder of a trained run')
        model = launch.model or catalogue.load('experiment', launch.experiment).__defaults__[0]
        launch = dataclasses.replace(launch, workdir=str(rundir.default_workdir(launch.experiment, model)))
    workdir = pathlib.Path(launch.workdir)
    config = rundir.read(workdir)
    for key in ('experiment', 'model'):
        if getattr(launch, key) not in (None, config[key]):
            raise UserError(f'--{key}={getattr(launch, key)}: {workdir} holds a run of {config[key]}; leave the flag '
                            'out')
    experiment = rundir.experiment_of(config)
    parts = {group: getattr(experiment, group) for group in GROUPS}
    changed = overridden(argv, parts, (Launch(),))
    for group in GROUPS:
        fixed = [field.name for field in options(parts[group]) if group != 'decoding'
                 and field.name not in MOVABLE.get(group, ())
                 and getattr(changed[group], field.name) != getattr(parts[group], field.name)]
        if fixed:
            theirs, ours = (unparse(getattr(part[group], fixed[0])) for part in (parts, changed))
            raise UserError(f'--{group}.{fixed[0]}={ours}: --mode={launch.mode} reads it from {workdir}/config.json '
                            f'({theirs}); leave the flag out')
    changed = Experiment(**changed)

    def change(_: Experiment) -> Experiment:
        return changed

    if launch.mode == 'evaluate':
        from seqjax.reuse import evaluate
        evaluate(workdir, change)
        return 0
    return translate(workdir, launch, change)


def translate(workdir: pathlib.Path, launch: Launch, change: Callable) -> int:
    """Predicts: one line in, one line out."""
    from seqjax import files
    from seqjax.data.parallel import read_lines
    from seqjax.reuse import predict
    text = ''.join(f'{line}\n' for line in predict(workdir, read_lines(launch.input), change))
    if launch.output == '-':
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        path = pathlib.Path(launch.output)
        if path.exists() and not path.is_file():  # a pipe or a device is written to, not replaced
            path.write_text(text, encoding='utf-8')
        else:
            files.write(path, text)
    return 0


HELP = """seqjax: python launch.py --experiment=NAME [--model=NAME] [--GROUP.OPTION=VALUE ...]

  python launch.py --list                         experiments, models and studies
  python launch.py --experiment=NAME --help       every option of an experiment
  python launch.py --experiment=NAME --mode=plan  what it would do: parameters, memory, FLOPs, one batch
  python launch.py --mode=evaluate --workdir=RUN  score a run
  python launch.py --mode=predict --workdir=RUN   translate stdin, one line in, one line out
  python launch.py --study=NAME                   run a study: many runs, one answer (--quick: in two minutes)
  python launch.py --experiment=NAME --sweep='model.num_layers=1,2,4 training.seed=0..2'
                                                  a study of one's own
  python launch.py --mode=report --workdir=STUDY  its answer again, from what is on disk
  python launch.py --draw=sinusoids               draw the table of sinusoidal positions"""
