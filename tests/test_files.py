"""Files appear whole or not at all, and a folder belongs to one process."""

import pathlib
import subprocess
import sys

import pytest

from seqjax import files
from seqjax.errors import UserError


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'file.txt'
    with files.whole(path) as file:
        file.write('é\n')
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b'\xc3\xa9\n'
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / 'file.bin'
    files.write(path, 'before')

    def fail_halfway():
        with files.whole(path, 'wb') as file:
            file.write(b'half of it')
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert path.read_text() == 'before'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path):
    script = ('import pathlib, sys\nfrom seqjax import files\n'
              'with files.locked(pathlib.Path(sys.argv[1])):\n    print("held", flush=True)\n    sys.stdin.read()')
    with subprocess.Popen([sys.executable, '-c', script, str(tmp_path)], cwd=pathlib.Path(__file__).parents[1],
                          text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == 'held\n'
        with pytest.raises(UserError, match=r'another process is training there; wait for it'), files.locked(tmp_path):
            pass
        other.kill()
    with files.locked(tmp_path):
        pass
    with files.locked(tmp_path):
        pass
