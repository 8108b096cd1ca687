"""Files that appear whole or not at all: written aside, then renamed."""

import contextlib
import fcntl
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import IO

from seqjax.errors import UserError


@contextlib.contextmanager
def whole(path: str | os.PathLike, mode: str = 'w') -> Iterator[IO]:
    """Opens a file to write; it takes its name when the block ends without an error. A link to a file stays one."""
    path = pathlib.Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}')  # of several machines' processes too
    try:
        with open(aside, mode, **({} if 'b' in mode else {'encoding': 'utf-8', 'newline': '\n'})) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write(path: str | os.PathLike, text: str) -> None:
    """Writes `text` to `path`, whole or not at all."""
    with whole(path) as file:
        file.write(text)


class Held(UserError):
    """A folder is held by another process."""


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds a folder for one process; the lock goes with the process, however it ends.

    Raises:
      Held: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / '.lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(f'--workdir={folder}: another process is training there; wait for it, or choose another '
                       'folder') from None
        yield
