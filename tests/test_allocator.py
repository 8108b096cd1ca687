"""The allocator is told once, on the way into the command, and nobody's own settings are touched."""

import os
import subprocess
import sys

import pytest
from tiny import ROOT

from seqjax import allocator


@pytest.mark.parametrize(('environment', 'libc', 'expected'), [
    ({'A': '1'}, 'glibc 2.36', {'A': '1', 'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}),
    ({}, 'glibc 3.0', {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}),
    ({'GLIBC_TUNABLES': 'glibc.malloc.check=3'}, 'glibc 2.36', None),
    ({'GLIBC_TUNABLES': ''}, 'glibc 2.36', None),
    ({}, 'glibc 2.34', None), ({}, 'musl 1.2', None), ({}, '', None)])
def test_who_is_told(environment, libc, expected):
    assert allocator.told(environment, libc) == expected


def test_the_command_is_the_same_after_it(tmp_path):
    """Arguments, input and process id stay; the second start finds its settings there."""
    script = tmp_path / 'command.py'
    script.write_text('import os, sys\nfrom seqjax import allocator\nprint(os.getpid(), flush=True)\n'
                      'allocator.start_again()\nprint(sys.argv[1:], sys.stdin.read(), os.environ["GLIBC_TUNABLES"])\n')
    environment = {key: value for key, value in os.environ.items() if key != allocator.NAME} | {'PYTHONPATH': str(ROOT)}
    if allocator.told(environment, os.confstr('CS_GNU_LIBC_VERSION') or '') is None:
        pytest.skip('needs glibc 2.35 or later')
    done = subprocess.run([sys.executable, '-u', script, '--a=b c', ''], input='text', env=environment, cwd=tmp_path,
                          capture_output=True, text=True, timeout=60, check=True)
    first, second, last = done.stdout.splitlines()
    assert first == second
    assert last == "['--a=b c', ''] text glibc.malloc.hugetlb=1"
