"""The allocator is told once, on the way into the command, and nobody's own settings are touched."""

import os
import subprocess
import sys

import pytest
from tiny import ROOT

from seqjax import allocator


@pytest.mark.parametrize(('environment', 'libc', 'expected'), [
    ({'A': '1'}, 'glibc 2.36', {'A': '1', 'GLIBC_TUNABLES': allocator.SETTINGS}),
    ({}, 'glibc 3.0', {'GLIBC_TUNABLES': allocator.SETTINGS}),
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
    assert last == f"['--a=b c', ''] text {allocator.SETTINGS}"


def test_an_array_that_was_freed_is_taken_again_without_a_page_fault():
    """256 MiB, made and freed from a thread again and again: left to itself, glibc faults for them each time."""
    code = ('import resource, threading, numpy\n'
            'def make():\n    numpy.full(1 << 25, 1.0).sum()\n'
            'def faults():\n'
            '    thread = threading.Thread(target=make)\n    thread.start()\n    thread.join()\n'
            '    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n'
            'first = faults()\nprint(max(faults() for _ in range(4)) - first)\n')
    told = allocator.told({'PATH': os.environ['PATH']}, os.confstr('CS_GNU_LIBC_VERSION') or '')
    if told is None:
        pytest.skip('needs glibc 2.35 or later')

    def measured(environment):
        done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=60,
                              check=True)
        return int(done.stdout)

    assert measured(told) < 20
    assert measured({'PATH': os.environ['PATH'], allocator.NAME: ''}) > 400  # numpy asks for large pages itself
