"""What there is to choose from: experiments, models and studies, found by reading files, without importing them (or
jax).
"""

import ast
import functools
import importlib
import pathlib
from typing import NamedTuple

from seqjax.errors import UserError, did_you_mean

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Entry(NamedTuple):
    """A name that can be chosen, where it is defined, and the first line of its docstring."""

    name: str
    module: str
    attribute: str
    summary: str


def entries(folder: str) -> dict[str, Entry]:
    """All that the files of a folder ('experiments', 'seqjax/models') list in `__all__`, by name in lower case."""
    found = {}
    for path in sorted((ROOT / folder).glob('*.py')):
        state = path.stat()
        module = f'{folder.replace("/", ".")}.{path.stem}'
        found |= {entry.name: entry for entry in _listed(path, module, state.st_mtime_ns, state.st_size)}
    return found


@functools.cache
def _listed(path: pathlib.Path, module: str, changed: int, size: int) -> tuple[Entry, ...]:
    """Those of one file as it stands: a study of many trials asks for each of them, and to parse a file takes 3 ms."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    listed = [ast.literal_eval(node.value) for node in tree.body
              if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__']
    definitions = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    return tuple(Entry(name.lower(), module, name, (ast.get_docstring(definitions[name]) or '').partition('\n')[0])
                 for name in (listed[0] if listed else ()))


def experiments() -> dict[str, Entry]:
    """The named experiments: functions of a model's name."""
    return entries('experiments')


def models() -> dict[str, Entry]:
    """The models: Linen modules, by class name in lower case."""
    return entries('seqjax/models')


def studies() -> dict[str, Entry]:
    """The studies: functions of a form, 'full', 'quick' or 'smoke'."""
    return entries('experiments/studies')


KINDS = {'experiment': experiments, 'model': models, 'study': studies}


def load(kind: str, name: str):
    """Imports and returns the experiment, model or study called `name`; `kind` is 'experiment', 'model' or 'study'."""
    known = KINDS[kind]()
    if name not in known:
        raise UserError(f'--{kind}={name}: there is no such {kind}{did_you_mean(name, known)}')
    return getattr(importlib.import_module(known[name].module), known[name].attribute)


def listing() -> str:
    """Experiments, models and studies, a line each."""
    lines = []
    for title, known in (('experiments (--experiment=NAME)', experiments()), ('models (--model=NAME)', models()),
                         ('studies (--study=NAME)', studies())):
        lines += [title] + [f'  {entry.name:<12} {entry.summary}' for entry in known.values()] + ['']
    return '\n'.join(lines[:-1])
