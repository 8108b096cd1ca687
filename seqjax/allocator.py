"""What glibc's allocator is told before anything is computed: to take large pages, and to keep them.

A step's arrays are freed at its end and taken anew by the next. Left alone, glibc gives them back to the kernel and
waits for them, page by page and filled with zeros, at each step (docs/performance.md says what it gave to stop that).
The allocator reads its settings when a process starts, hence the new start.
"""

import os
import sys
from collections.abc import Mapping

NAME = 'GLIBC_TUNABLES'
# One heap, for the others come in pieces of 64 MiB that go back as soon as they are free (small models pay for the
# sharing); no memory of its own for a large array; nothing given back below 16 GiB of free memory at the heap's end.
SETTINGS = ':'.join(f'glibc.malloc.{name}={value}' for name, value in {
    'hugetlb': 1, 'arena_max': 1, 'mmap_max': 0, 'trim_threshold': 16 << 30}.items())


def told(environment: Mapping[str, str], libc: str) -> dict[str, str] | None:
    """The environment to start in; None where this one will do: another libc, an older one, or settings of one's own.

    Args:
      libc: name and version, as 'glibc 2.36'.
    """
    name, _, version = libc.partition(' ')
    known = name == 'glibc' and tuple(int(part) for part in version.split('.')[:2]) >= (2, 35)
    return {**environment, NAME: SETTINGS} if known and NAME not in environment else None


def start_again() -> None:
    """Replaces this process by the same command with the allocator told; returns where there is nothing to tell."""
    libc = os.confstr('CS_GNU_LIBC_VERSION') if 'CS_GNU_LIBC_VERSION' in getattr(os, 'confstr_names', {}) else None
    environment = told(os.environ, libc or '')
    if environment is not None:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
