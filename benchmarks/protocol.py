"""Workers that stay alive and are asked in turn: a JSON object a line, on stdin and stdout. Both ends, stdlib alone.

A request is {"do": NAME, ...arguments}, a reply {"result": ...} or {"error": "..."}. The environments of the two ends
need have nothing in common but Python and numpy.
"""

import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Call = Callable[[int], float]  # so many repetitions -> the work done in them; returns when the last is finished


class Failed(Exception):
    """A worker answered with an error, died, or took too long; its last words are in the message."""


class Worker:
    """The asking end: a process that is started at once."""

    def __init__(self, command: Sequence[str], **kwargs: Any):
        self.log = tempfile.TemporaryFile('w+')  # noqa: SIM115, closed by close()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                        text=True, **kwargs)

    def ask(self, do: str, timeout: float = 600.0, **arguments: Any) -> Any:
        """What the worker answers.

        Raises:
          Failed: it answered with an error, or did not answer within `timeout` seconds, and is dead now.
        """
        timer = threading.Timer(timeout, self.process.kill)
        timer.start()
        try:
            print(json.dumps({'do': do} | arguments), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ''
        finally:
            late = timer.finished.is_set()
            timer.cancel()
        if not line:
            self.process.wait(10)  # its end of the pipe closes a moment before it is gone
            raise Failed(f'took more than {timeout:.0f} s' if late else f'died: {self.last_words()}')
        reply = json.loads(line)
        if 'error' in reply:
            raise Failed(reply['error'])
        return reply['result']

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.process.poll() is None

    def last_words(self) -> str:
        """The last line that it wrote to stderr."""
        self.process.wait(10)
        self.log.seek(0)
        return (self.log.read().strip().splitlines() or ['without a word'])[-1]

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self.process.stdin, self.process.stdout, self.log):
            with contextlib.suppress(BrokenPipeError):  # what was asked of one that had died
                pipe.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def serve(makers: Mapping[str, Callable[..., tuple[Call, dict]]], about: Callable[[], dict]) -> None:
    """The answering end, until stdin closes.

    Args:
      makers: kind -> (shape's fields -> a call that is compiled and warm, and what is to be told of it).
      about: versions, devices and threads.
    """
    out = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print goes to stderr, and not at the very end, behind the last words
    sys.stdout.reconfigure(line_buffering=True)
    calls: dict[str, Call] = {}

    def make(key: str, kind: str, shape: dict) -> dict:
        if kind not in makers:
            raise ValueError(f'no maker of {kind}; there are {", ".join(makers)}')
        calls[key], told = makers[kind](**shape)
        return told

    def run(key: str, times: int) -> dict:
        gc.collect()
        began, cpu = time.perf_counter(), time.process_time()
        work = calls[key](times)
        return {'seconds': time.perf_counter() - began, 'work': work, 'cpu_seconds': time.process_time() - cpu}

    def drop(key: str) -> None:
        calls.pop(key, None)
        gc.collect()

    handlers = {'make': make, 'run': run, 'drop': drop, 'about': about}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {'result': handlers[request.pop('do')](**request)}
        except Exception as error:
            traceback.print_exc()
            reply = {'error': ' '.join(f'{type(error).__name__}: {error}'.split())}
        print(json.dumps(reply), file=out, flush=True)


def finished(command: Sequence[str], threads: int, **kwargs: Any) -> str:
    """What a command of its own wrote, on so many processors.

    Raises:
      Failed: it did not end well; the last line that it wrote to stderr.
    """
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=lambda: only(threads), **kwargs)
    if done.returncode:
        raise Failed((done.stderr.strip().splitlines() or ['?'])[-1])
    return done.stdout


def only(threads: int) -> None:
    """Keeps this process on the first `threads` processors: what it starts afterwards counts no more than these."""
    if threads and hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
