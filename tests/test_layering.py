"""The house plan, read off the imports of every file: arrows go down only."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted([ROOT / 'launch.py', *(ROOT / 'seqjax').rglob('*.py'), *(ROOT / 'experiments').rglob('*.py')])

# What each room may import, besides itself. Rooms are the folders and files of seqjax/, and experiments and launch.
ARROWS = {
    'errors': '',
    'options': 'errors',
    'files': 'errors',
    'compilation': '',
    'allocator': '',
    'catalogue': 'errors',
    'flags': 'errors options',
    'layers': '',
    'data': 'errors options files',
    'statistical': 'errors data',
    'models': 'errors options layers statistical',
    'decoding': 'errors options',
    'tasks': 'errors options data layers decoding',
    'training': 'errors options files',
    'experiment': 'errors options decoding training',
}
# The files that join them, in this order: each may import all rooms above and the files before it.
JOINTS = ['figures', 'rundir', 'prepared', 'reuse', 'run', 'plan']
for number, joint in enumerate(JOINTS):
    rooms = [room for room in ARROWS if room not in ('models', 'statistical', *JOINTS)]
    ARROWS[joint] = ' '.join([*rooms, *JOINTS[:number]])
ARROWS |= {
    'compose': 'errors catalogue flags experiment',
    'studies': 'errors options files catalogue flags compose experiment prepared rundir run reuse layers data tasks '
               'decoding training',
    'experiments': 'errors options catalogue experiment tasks models decoding training studies',
    'launcher': 'errors options files compilation catalogue flags data training experiment compose studies ' + ' '.join(
        JOINTS),
    'launch': 'allocator launcher',
}


def imports(path):
    """The modules that a file imports anywhere in it, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: a relative import'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def room(module):
    """'tasks' for seqjax.tasks.losses.cross_entropy, 'run' for seqjax.run, None for what is not ours."""
    first, *rest = module.split('.')
    return rest[0] if first == 'seqjax' and rest else first if first in ('experiments', 'launch', 'seqjax') else None


def home(path):
    """The room that a file stands in."""
    return room('.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'))


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_go_down_only(path):
    mine = home(path)
    if mine == 'seqjax':
        assert not list(imports(path))
        return
    assert mine in ARROWS, f'a new room: say in {__name__}.ARROWS what it may import'
    allowed = {mine, None, *ARROWS[mine].split()}
    wrong = [module for module in imports(path) if room(module) not in allowed]
    assert not wrong, f'{mine} may import {ARROWS[mine] or "nothing of ours"}'


def test_the_table_itself_has_no_circle():
    placed = set()
    while len(placed) < len(ARROWS):
        ready = {name for name, below in ARROWS.items() if name not in placed and set(below.split()) <= placed}
        assert ready, f'a circle among {set(ARROWS) - placed}'
        placed |= ready
    assert 'models' not in ARROWS['tasks'].split()
    assert 'tasks' not in ARROWS['models'].split()


def test_only_layers_and_models_know_flax():
    users = {home(path) for path in FILES if any(module.split('.')[0] == 'flax' for module in imports(path))}
    assert users == {'layers', 'models'}


@pytest.mark.parametrize('library', ['tensorflow', 'torch', 'torchtext', 'keras'])
def test_nobody_imports(library):
    assert not [path for path in FILES if any(module.split('.')[0] == library for module in imports(path))]


def test_no_drawers():
    names = {part for path in FILES for part in path.relative_to(ROOT).with_suffix('').parts}
    assert not [name for name in names if any(word in name for word in ('util', 'helper', 'misc', 'common'))]


def test_files_are_one_room_each():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding='utf-8').splitlines()) for path in FILES}
    assert not {name: length for name, length in lengths.items() if length > 420}
    assert lengths['launch.py'] < 40


def test_packages_export_nothing():
    for path in FILES:
        if path.name == '__init__.py':
            docstring, = ast.parse(path.read_text(encoding='utf-8')).body
            assert isinstance(docstring.value, ast.Constant), path


@pytest.mark.parametrize('argv', [['--list'], ['--help'], []])
def test_listing_and_help_import_no_jax(argv):
    """A subprocess, for this one has jax already."""
    script = ('import sys\nfrom seqjax.launcher import main\n'
              f'code = main({argv!r})\n'
              'heavy = {"jax", "flax", "numpy", "optax", "orbax", "matplotlib", "experiments", "seqjax.models"}\n'
              'print("imported", sorted(heavy & set(sys.modules)), "exit", code)')
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == 'imported [] exit 0', done.stderr
    if argv == ['--list']:
        assert 'transformer' in done.stdout
        assert 'multi30k' in done.stdout


def test_a_first_step_waits_for_no_library_that_it_does_not_need():
    """Orbax and grain, a second together, are read while or after the first step runs."""
    script = ('import sys\nfrom seqjax import run\nfrom seqjax.data.batches import Batches\n'
              'from seqjax.training.checkpoint import Checkpoints\n'
              'assert Checkpoints("/nowhere/at/all", keep=1).restore({}) is None\n'
              'print("imported", sorted({"orbax", "grain", "matplotlib"} & set(sys.modules)))')
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ['imported []'], done.stderr
