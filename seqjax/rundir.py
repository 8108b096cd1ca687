"""The run directory: what a run is (config.json, flags.txt), and whether a command may go on with it."""

import functools
import importlib
import json
import os
import pathlib
import platform
import subprocess
import zipfile
import zlib
from importlib import metadata
from typing import Any

from seqjax import files, flags
from seqjax.errors import UserError
from seqjax.experiment import GROUPS, Experiment, flat
from seqjax.options import options, unparse

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'tokenizers', 'sacrebleu', 'num2words',
            'numpy')


DATA = 'the data (SHA-256)'
LOG = 'log.txt'  # what a run says, where it is kept in the run's own folder: there before the run is
TABLES = 'tables.npz'  # what a learner made of its final parameters


def record(experiment: Experiment, data_sha256: str | None, name: str = '', model: str = '', argv: tuple[str, ...] = (),
           origin: str | None = None) -> dict[str, Any]:
    """All that config.json says: every field, the data's digest, and where and how the run was started."""
    import jax
    return {
        'experiment': name, 'model': model, 'fields': flat(experiment), 'data_sha256': data_sha256, 'init_from': origin,
        'classes': {group: f'{type(part).__module__}:{type(part).__qualname__}'
                    for group in GROUPS for part in [getattr(experiment, group)]},
        'argv': list(argv), 'git_commit': git_commit(), 'python': platform.python_version(),
        'versions': {package: metadata.version(package) for package in PACKAGES},
        'devices': [f'{device.platform} {device.device_kind}' for device in jax.devices()], 'machine': machine()}


def machine() -> str:
    """The processor, and how many of its cores this process may use."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    name = names[0] if names else platform.processor() or platform.machine()
    return f'{name}, {cores} core' + ('s' if cores != 1 else '')


@functools.cache
def git_commit() -> str | None:
    """The commit of the code, '+' where files differ from it; None outside a repository. Asked once: what a process
    runs it read at its start, whatever becomes of the files.
    """
    def git(*words):
        return subprocess.run(['git', *words], cwd=pathlib.Path(__file__).parent, capture_output=True, text=True)

    try:
        head = git('rev-parse', 'HEAD')
        return head.stdout.strip() + ('+' if git('status', '--porcelain', '-uno').stdout else '') or None
    except OSError:
        return None


def identity(config: dict[str, Any], experiment: Experiment) -> dict[str, Any]:
    """What makes two runs the same run: the fields that are not free, the classes, the data, the initial parameters."""
    free = {f'{group}.{field.name}' for group in GROUPS for field in options(getattr(experiment, group))
            if field.metadata['free']}
    if not experiment.optimizer.depends_on_steps:  # a longer run then goes on where the shorter one ended
        free |= {'training.steps', 'training.epochs'}
    # A run from before a field existed has its default.
    defaults = {f'{group}.{field.name}': field.default for group in GROUPS
                for field in options(getattr(experiment, group))}
    fields = {name: value for name, value in (defaults | config['fields']).items() if name not in free}
    classes = {f'{group} class': name for group, name in config['classes'].items()}
    data = {DATA: config['data_sha256'], 'init_from': config['init_from']}
    return json.loads(json.dumps(fields | data | classes))


def check(workdir: pathlib.Path, config: dict[str, Any], experiment: Experiment) -> None:
    """Whether `workdir` is free, or this run's; data whose digest is None are not compared.

    Raises:
      UserError: the folder holds another run (the differing fields are named), or files that are no run.
    """
    if (workdir / 'config.json').exists():
        theirs, ours = identity(read(workdir), experiment), identity(config, experiment)
        differ = [name for name in ours | theirs if theirs.get(name) != ours.get(name)
                  and not (name == DATA and ours[name] is None)]
        if differ:
            shown = '; '.join(f'{name} was {show(theirs.get(name))} and is now {show(ours.get(name))}'
                              for name in differ[:5])
            more = f' (and {len(differ) - 5} more)' if len(differ) > 5 else ''
            raise UserError(f'--workdir={workdir} holds another run: {shown}{more}; choose another folder')
    elif workdir.exists() and not all(entry.name.startswith('.') or entry.name == LOG for entry in workdir.iterdir()):
        raise UserError(f'--workdir={workdir} is not empty and holds no run (no config.json); choose another folder')


def claim(workdir: pathlib.Path, config: dict[str, Any], experiment: Experiment) -> None:
    """Makes `workdir` this run's, or goes on with the same run in it."""
    files.write(workdir / 'config.json', json.dumps(config, indent=1) + '\n')
    prefixes = {f'{group}.': getattr(experiment, group) for group in GROUPS}
    named = [f'--{key}={config[key]}\n' for key in ('experiment', 'model', 'init_from') if config[key]]
    files.write(workdir / 'flags.txt', ''.join(named) + flags.flagfile(prefixes))


def show(value: Any) -> str:
    """A field's value as a flag has it; digests cut short."""
    text = unparse(value)
    return text[:12] + '…' if len(text) == 64 else text


def read(workdir: pathlib.Path) -> dict[str, Any]:
    """The config.json of a run. UserError where there is none."""
    path = pathlib.Path(workdir) / 'config.json'
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise UserError(f'--workdir={workdir} holds no run (no config.json); train one there first, or name its folder'
                        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f'{path} cannot be read ({error}); restore it, or train into another folder') from None


def experiment_of(config: dict[str, Any]) -> Experiment:
    """The experiment that a config.json describes."""
    def build(group: str) -> Any:
        module, _, name = config['classes'][group].partition(':')
        kind = getattr(importlib.import_module(module), name)
        fields = {field.name for field in options(kind)}
        values = {key.partition('.')[2]: tuple(value) if isinstance(value, list) else value
                  for key, value in config['fields'].items() if key.startswith(group + '.')}
        unknown = sorted(set(values) - fields)
        if unknown:
            raise UserError(f'the run has {group}.{unknown[0]}, which this version of {name} has not; use the version '
                            f'that trained it (git commit {config["git_commit"]})')
        return kind(**values)

    return Experiment(**{group: build(group) for group in GROUPS})


def save_codec(workdir: pathlib.Path, codec: Any) -> None:
    """Stores vocabularies and shapes beside the run."""
    files.write(workdir / 'vocabulary.json', json.dumps(codec.to_json(), ensure_ascii=False) + '\n')


def load_codec(workdir: pathlib.Path) -> Any:
    """The vocabularies and shapes that the run was trained with."""
    from seqjax.tasks.translation import Codec
    path = workdir / 'vocabulary.json'
    try:
        return Codec.from_json(json.loads(path.read_text(encoding='utf-8')))
    except FileNotFoundError:
        raise UserError(f'{path} is missing: the run never began, or the file was removed; train again') from None


def save_tables(workdir: pathlib.Path, tables: dict[str, Any]) -> None:
    """Stores what a learner made of its final parameters, arrays by name."""
    import numpy as np
    with files.whole(workdir / TABLES, 'wb') as file:
        np.savez_compressed(file, **tables)


def load_tables(workdir: pathlib.Path) -> dict[str, Any]:
    """What `save_tables` stored; nothing where nothing was, or training has not ended."""
    import numpy as np
    path = workdir / TABLES
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f'{path} cannot be read ({error}); give the command of the run again, which makes it anew'
                        ) from None


def default_workdir(name: str, model: str) -> pathlib.Path:
    """Where a run goes when nobody says: runs/EXPERIMENT-MODEL."""
    return pathlib.Path('runs') / f'{name}-{model}'


def command(config: dict[str, Any]) -> str:
    """The command line that started a run."""
    return ' '.join(['python launch.py', *config['argv']])


