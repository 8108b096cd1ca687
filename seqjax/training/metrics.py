"""Where numbers go: sums added up on the host, and writers that can take back what a resumed run will write again.

A record is {'step': 20, 'split': 'train', name: number, ..., 'time': {clock values}}: what lies under 'time' differs
from run to run, and the rest may be compared.
"""

import json
import os
import pathlib
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol


class Totals:
    """Sums and counts by name, added in float64: a float32 total stops growing at 2^24 tokens."""

    def __init__(self, sums: Mapping[str, tuple[float, float]] | None = None):
        self._sums = {name: (float(total), float(count)) for name, (total, count) in (sums or {}).items()}

    def add(self, sums: Mapping[str, tuple[Any, Any]]) -> None:
        """Adds {name: (sum, count)} of one batch or step."""
        for name, (total, count) in sums.items():
            before = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = before[0] + float(total), before[1] + float(count)

    def sums(self) -> dict[str, tuple[float, float]]:
        """{name: (sum, count)}, from which Totals can be made again."""
        return dict(self._sums)

    def means(self) -> dict[str, float]:
        """{name: sum / count}; what was never counted is left out."""
        return {name: total / count for name, (total, count) in self._sums.items() if count}

    def clear(self) -> None:
        """Starts again from nothing."""
        self._sums.clear()


class Writer(Protocol):
    """What the loop knows of a place where records go."""

    def cut(self, step: int, evaluated: int | None = None) -> None:
        """Takes back the records after `step`, and those of evaluations after `evaluated`."""

    def write(self, record: dict) -> None:
        """Takes one record."""

    def flush(self) -> None:
        """Returns when all records are with the operating system."""

    def close(self) -> None:
        """Flushes, and takes no more."""


class JsonLines:
    """One JSON object a line, flushed line by line; numbers that are not finite are written as null."""

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)
        self._file = None

    def cut(self, step: int, evaluated: int | None = None) -> None:
        """Takes back what a run that goes on after `step` writes again, and a last line torn by a kill.

        That is every record after `step`, and those of evaluations after `evaluated` (`step` if None), the last that
        the checkpoint knows. The file is replaced whole.
        """
        evaluated = step if evaluated is None else evaluated
        self.close()
        if not self.path.exists():
            return
        kept = []
        for number, line in enumerate(lines := self.path.read_bytes().splitlines(keepends=True)):
            try:
                record = json.loads(line)
                whole = line.endswith(b'\n')
            except ValueError:
                if number + 1 < len(lines):
                    raise
                whole = False
            if whole and record['step'] <= (step if record['split'] == 'train' else evaluated):
                kept.append(line)
        _replace(self.path, b''.join(kept))

    def write(self, record: dict) -> None:
        """Appends one line."""
        if self._file is None:
            self._file = open(self.path, 'a', encoding='utf-8')  # noqa: SIM115
        self._file.write(json.dumps(_finite(record), ensure_ascii=False) + '\n')
        self._file.flush()

    def flush(self) -> None:
        """Asks the disk too."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flushes and closes; a later write opens the file again."""
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None


class TensorBoard:
    """The same records as TensorBoard scalars named 'split/name', clock values as 'split/time/name'.

    With tensorboardX's messages and checksums, but not with its writer, whose thread may still hold what was flushed.
    """

    def __init__(self, directory: str | pathlib.Path):
        self.directory = pathlib.Path(directory)
        self._file = None

    def cut(self, step: int, evaluated: int | None = None) -> None:
        """Takes back the same events: each file is replaced by one without them, or removed if none is left."""
        from tensorboardX.proto.event_pb2 import Event
        evaluated = step if evaluated is None else evaluated
        self.close()
        for path in sorted(self.directory.glob('events.out.tfevents.*')):
            kept, values = [], 0
            for frame, data in _frames(path.read_bytes()):
                event = Event.FromString(data)
                if not event.HasField('summary') or event.step <= (step if _of_training(event) else evaluated):
                    kept.append(frame)
                    values += event.HasField('summary')
            if values:
                _replace(path, b''.join(kept))
            else:
                path.unlink()

    def write(self, record: dict) -> None:
        """Adds one event with a scalar for each number; the operating system has it when this returns."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        if self._file is None:
            name = f'events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{time.time_ns()}'
            self._file = open(self.directory / name, 'ab')  # noqa: SIM115
            self._file.write(_frame(Event(wall_time=time.time(), file_version='brain.Event:2').SerializeToString()))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in _scalars(record)]
        event = Event(wall_time=time.time(), step=record['step'], summary=Summary(value=values))
        self._file.write(_frame(event.SerializeToString()))
        self._file.flush()

    def flush(self) -> None:
        """Asks the disk too."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flushes and closes; a later write opens another file, which TensorBoard shows as the same curve."""
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None


class WandB:
    """The same records at Weights & Biases. `run` names the run that a resumption continues."""

    def __init__(self, project: str, run: str, config: dict):
        try:
            import wandb
        except ImportError as error:
            from seqjax.errors import UserError
            raise UserError('wandb is not installed; pip install wandb, or leave the project empty') from error
        self._run = wandb.init(project=project, id=run, config=config, resume='allow')

    def cut(self, step: int, evaluated: int | None = None) -> None:
        """What was sent cannot be taken back: the service keeps the first record of a step."""

    def write(self, record: dict) -> None:
        """Sends one record."""
        self._run.log(dict(_scalars(record)), step=record['step'])

    def flush(self) -> None:
        """Does nothing: the service sends in the background."""

    def close(self) -> None:
        """Waits until all is sent."""
        self._run.finish()


def _of_training(event: Any) -> bool:
    """Whether an event belongs to a record of the training split: its split is named first."""
    return all(value.tag.startswith('train/') for value in event.summary.value)


def _scalars(record: dict) -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if name == 'time':
            yield from ((f'{record["split"]}/time/{key}', clock) for key, clock in value.items())
        elif name not in ('step', 'split') and isinstance(value, int | float):
            yield f'{record["split"]}/{name}', value


def _finite(value: Any) -> Any:
    """JSON has no NaN: readers other than Python's refuse it."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and value - value != 0:
        return None
    return value


def _replace(path: pathlib.Path, content: bytes) -> None:
    """The file has its old content or the new, never a part."""
    aside = path.with_name(f'.{path.name}.aside')
    with open(aside, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _masked_crc(data: bytes) -> bytes:
    from tensorboardX.record_writer import masked_crc32c
    return struct.pack('<I', masked_crc32c(data))


def _frame(data: bytes) -> bytes:
    """A record of a TFRECORD file: the length (8 bytes), its masked CRC-32C, the data, their masked CRC-32C."""
    head = struct.pack('<Q', len(data))
    return head + _masked_crc(head) + data + _masked_crc(data)


def _frames(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of a TFRECORD file as (frame, data). A torn or damaged end is left out."""
    at = 0
    while at + 16 <= len(content):
        end = at + 16 + struct.unpack('<Q', content[at:at + 8])[0]
        frame, data = content[at:end], content[at + 12:end - 4]
        if frame != _frame(data):
            return
        yield frame, data
        at = end
