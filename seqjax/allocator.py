"""What glibc's allocator is told before anything is computed: to ask the kernel for large pages.

A step's arrays are freed at its end and taken anew by the next. In pages of 4 KiB a Transformer's step of 1.5 GiB waits
for some 200,000 page faults, in pages of 2 MiB for hardly any (docs/performance.md says what it gave). The allocator
reads its settings when a process starts, hence the new start.
"""

import os
import sys
from collections.abc import Mapping

NAME, LARGE_PAGES = 'GLIBC_TUNABLES', 'glibc.malloc.hugetlb=1'


def told(environment: Mapping[str, str], libc: str) -> dict[str, str] | None:
    """The environment to start in; None where this one will do: another libc, an older one, or settings of one's own.

    Args:
      libc: name and version, as 'glibc 2.36'.
    """
    name, _, version = libc.partition(' ')
    known = name == 'glibc' and tuple(int(part) for part in version.split('.')[:2]) >= (2, 35)
    return {**environment, NAME: LARGE_PAGES} if known and NAME not in environment else None


def start_again() -> None:
    """Replaces this process by the same command with the allocator told; returns where there is nothing to tell."""
    libc = os.confstr('CS_GNU_LIBC_VERSION') if 'CS_GNU_LIBC_VERSION' in getattr(os, 'confstr_names', {}) else None
    environment = told(os.environ, libc or '')
    if environment is not None:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
