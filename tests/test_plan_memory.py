"""What --mode=plan says of memory, against what processes then take."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = ('--experiment=numerals', '--task.train_size=1000', '--task.valid_size=10', '--task.test_size=10',
         '--model.hidden_size=128', '--model.num_layers=3', '--training.batch_size=256')
ONE_DEVICE = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
pytestmark = pytest.mark.skipif(not os.access('/proc/self/clear_refs', os.W_OK), reason='only Linux counts from anew')


def test_a_step_takes_what_was_planned():
    """In a fresh process, for it is the process's memory that is read."""
    done = subprocess.run([sys.executable, '-m', 'benchmarks.memory', *FLAGS], cwd=ROOT, env=ONE_DEVICE,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told['parameter_bytes'] == told['plan_parameter_bytes'] == 4 * told['parameters']
    assert told['plan_bytes'] > 100 << 20, 'else what the process does besides is not small'
    assert told['peak_bytes'] == pytest.approx(told['plan_bytes'], rel=0.2)

