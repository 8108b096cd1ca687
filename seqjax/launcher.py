"""From the command line to a run: reads the flags, finds the experiment, and does what `--mode` says."""

import dataclasses
import errno
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

from absl import flags as absl_flags

from seqjax import catalogue, flags
from seqjax.errors import UserError
from seqjax.options import check_value, option, options


@dataclasses.dataclass(frozen=True)
class Launch:
    """The launcher's own flags: what to run, where, and how."""

    experiment: str | None = option(None, 'the experiment, see --list')
    model: str | None = option(None, "the model, see --list; none: the experiment's own choice")
    mode: Literal['train', 'evaluate', 'predict', 'plan'] = option('train', 'what to do')
    workdir: str | None = option(None, "the run's folder; none: runs/EXPERIMENT-MODEL")
    init_from: str | None = option(None, 'the folder of a run whose parameters to start from',
                                   when={'mode': ('train',)})
    input: str = option('-', 'file to translate, one sentence a line; - is stdin', when={'mode': ('predict',)})
    output: str = option('-', 'file for the translations; - is stdout', when={'mode': ('predict',)})
    list: bool = option(False, 'list the experiments and models')
    draw: Literal['sinusoids'] | None = option(None, 'draw a picture into --workdir')
    wandb: str | None = option(None, 'project at Weights & Biases to send the metrics to (pip install wandb)',
                               when={'mode': ('train',)})
    compilation_cache: str = option('~/.cache/seqjax/compilation', 'folder for compiled programs; none keeps nothing')
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
        return command(list(argv))
    except UserError as error:
        return fail(error)
    except KeyboardInterrupt:
        print('stopped at the keyboard', file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return fail(f'the disk is full ({error}); make room and give the same command again: it goes on from the '
                        'last checkpoint')
        if error.filename is not None:
            return fail(f'{error.filename}: {error.strerror}; check the path and its permissions')
        raise


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
    first = absl_flags.FlagValues()
    flags.define(first, '', Launch())
    flags.read(argv, first, known_only=True)
    launch = flags.override('', Launch(), flags.given(first, '', Launch()))
    for field in options(launch):
        check_value(f'--{field.name}', getattr(launch, field.name), field)
    if launch.list:
        print(catalogue.listing())
        return 0
    if launch.draw:
        from seqjax import figures
        print(f'drew {figures.draw_sinusoids(pathlib.Path(launch.workdir or ".") / "sinusoids.png")}')
        return 0
    if wants_help and launch.experiment is None:
        print(HELP + '\n\n' + flags.help_text('launcher', '', Launch()))
        return 0
    start(launch)
    if launch.mode in ('train', 'plan') or wants_help:
        return compose(argv, launch, wants_help)
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


def parsed(argv: list[str], launch: Launch, parts: dict[str, Any]) -> dict[str, Any]:
    """The values given on the command line for each group of `parts`; refuses flags that do not exist."""
    values = absl_flags.FlagValues()
    flags.define(values, '', Launch())
    for group, part in parts.items():
        flags.define(values, f'{group}.', part)
    flags.read(argv, values)
    return {group: flags.given(values, f'{group}.', part) for group, part in parts.items()}


def compose(argv: list[str], launch: Launch, wants_help: bool) -> int:
    """Trains or plans: the experiment's function, with the flags' values in place of its own."""
    from seqjax.experiment import GROUPS, flat
    if launch.experiment is None:
        known = catalogue.experiments()
        raise UserError(f'--experiment is missing; choose one of {", ".join(known)}')
    function = catalogue.load('experiment', launch.experiment)
    model = launch.model or function.__defaults__[0]
    catalogue.load('model', model)
    experiment = function(model)
    parts = {group: getattr(experiment, group) for group in GROUPS}
    if wants_help:
        print(f'{function.__doc__.strip()}\n\n' + flags.help_text('launcher', '', launch))
        for group, part in parts.items():
            print('\n' + flags.help_text(f'{group}: {type(part).__doc__.partition(chr(10))[0]}', f'{group}.', part))
        return 0
    for group, chosen in parsed(argv, launch, parts).items():
        parts[group] = flags.override(f'{group}.', parts[group], chosen)
    experiment = type(experiment)(**parts)
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


def revisit(argv: list[str], launch: Launch) -> int:
    """Evaluates or predicts with a run that is there; what it is, its config.json says."""
    from seqjax import rundir
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
    chosen = parsed(argv, launch, parts)
    for group, values in chosen.items():
        fixed = [name for name in values if group != 'decoding' and name not in MOVABLE.get(group, ())
                 and values[name] != getattr(parts[group], name)]
        if fixed:
            raise UserError(f'--{group}.{fixed[0]}={values[fixed[0]]}: --mode={launch.mode} reads it from '
                            f'{workdir}/config.json ({getattr(parts[group], fixed[0])}); leave the flag out')
    changed = Experiment(**{group: flags.override(f'{group}.', part, chosen[group]) for group, part in parts.items()})

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

  python launch.py --list                         experiments and models
  python launch.py --experiment=NAME --help       every option of an experiment
  python launch.py --experiment=NAME --mode=plan  what it would do: parameters, memory, FLOPs, one batch
  python launch.py --mode=evaluate --workdir=RUN  score a run
  python launch.py --mode=predict --workdir=RUN   translate stdin, one line in, one line out
  python launch.py --draw=sinusoids               draw the table of sinusoidal positions"""
