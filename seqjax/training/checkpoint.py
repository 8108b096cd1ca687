"""Checkpoints: the one seam over orbax.

A checkpoint is a tree of arrays with the SHA-256 of each, and a dictionary of the host's own values. Orbax writes
arrays in the background and puts a checkpoint in place only when it is whole; it restores a flipped bit without a word,
so the digests are checked here, and a damaged checkpoint gives way to the one before.
"""

import concurrent.futures
import contextlib
import errno
import functools
import hashlib
import json
import logging
import math
import pathlib
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from seqjax.errors import UserError

TMP_DIR_SUFFIX = '.orbax-checkpoint-tmp'  # of what orbax is still writing


def paths(tree: Any) -> dict[str, Any]:
    """The leaves of a tree under paths like 'params/encoder/kernel'."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def digests(tree: Any) -> dict[str, str]:
    """The SHA-256 of every leaf: its type, its shape and its bytes in row order."""
    def sha256(item: tuple[str, Any]) -> tuple[str, str]:
        host = item[1]
        sha = hashlib.sha256(f'{host.dtype.name}{host.shape}'.encode())
        sha.update(np.ascontiguousarray(host).reshape(-1).view(np.uint8))
        return item[0], sha.hexdigest()

    leaves = {path: _whole(leaf) for path, leaf in paths(tree).items()}
    with concurrent.futures.ThreadPoolExecutor() as pool:  # hashing lets go of Python's lock
        return dict(pool.map(sha256, leaves.items()))


def digest(tree: Any) -> str:
    """One SHA-256 of a whole tree: its paths and what lies there."""
    return _sha256(digests(tree))


class Checkpoints:
    """The checkpoints of one run. Opening them changes nothing on disk: a run that is still writing may be read.

    Args:
      directory: where they lie, one folder a step.
      keep: how many of the newest are kept. The best by score is kept too.
      average: how many scheduled ones are kept for `averaged`.
      every: steps from one scheduled checkpoint to the next; 0: each is scheduled.
    """

    def __init__(self, directory: str | pathlib.Path, keep: int, average: int = 0, every: int = 0):
        self.directory = pathlib.Path(directory).absolute()
        self.keep, self.average, self.every = max(keep, 1), average, every
        self._damaged: set[int] = set()
        self._written = False

    @functools.cached_property
    def _manager(self) -> Any:
        ocp = _orbax()
        return ocp.CheckpointManager(self.directory, options=ocp.CheckpointManagerOptions(
            best_fn=lambda metrics: metrics['score'], preservation_policy=_Preservation(self)))

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        return sorted(self._manager.all_steps()) if self.directory.is_dir() else []

    def best(self) -> int | None:
        """The step of the highest score, the newest of equals; None where none has a score."""
        return self._manager.best_step() if self.steps() else None

    def ranked(self) -> list[int]:
        """All steps: those with a score, the best first, of equals the newest; then the others, the newest first."""
        scores = {step: (self._manager.metrics(step) or {}).get('score') for step in self.steps()}
        return sorted(scores, key=lambda step: (scores[step] is not None, scores[step] or 0.0, step), reverse=True)

    def save(self, step: int, state: Any, host: dict, score: float | None = None) -> None:
        """Saves in the background; `state` may be donated as soon as this returns. A step is saved once, and
        once more where its score came later.

        Args:
          step: of the state.
          state: a tree of arrays.
          host: what else a resumption needs, as JSON values.
          score: higher is better; the best checkpoint is kept.

        Raises:
          UserError: this save, or the one before it, found the disk full.
        """
        if not self._written:
            self._clean()
        scored = score is not None and math.isfinite(score)
        if step in self.steps():
            if not scored or self._manager.metrics(step):
                return
            # A signal during the evaluation of this step saved it without its score, which decides what is best.
            self.wait()
            self._manager.delete(step)
        leaves = paths(state)
        manifest = {path: [str(leaf.dtype), list(leaf.shape), sha] for (path, leaf), sha
                    in zip(leaves.items(), digests(state).values())}
        record, args = {'host': host, 'state': manifest}, _orbax().args
        with self._explain():
            # Nested dictionaries only: the file does not depend on the classes that the optimizer keeps its state in.
            self._manager.save(step, force=True, metrics={'score': float(score)} if scored else None,
                               args=args.Composite(state=args.PyTreeSave(_nested(leaves)),
                                                   record=args.JsonSave(record | {'sha256': _sha256(record)})))

    def restore(self, abstract: Any, steps: Sequence[int] | None = None) -> tuple[int, Any, dict] | None:
        """The first intact checkpoint of `steps`, or the newest of all.

        Args:
          abstract: a tree of jax.ShapeDtypeStruct with the shardings that the arrays are to have; the number of devices
            may be another than when they were saved. {'params': ...} reads a part of what was saved.
          steps: those to try, in turn.

        Returns:
          (step, state, host), or None where there are no checkpoints.

        Raises:
          UserError: all are damaged, one is not there, or what was saved does not fit `abstract`.
        """
        self.wait()
        tried = []
        for candidate in self.steps()[::-1] if steps is None else steps:
            if candidate not in self.steps():
                raise UserError(f'no checkpoint of step {candidate} in {self.directory}; there are those of '
                                f'{", ".join(map(str, self.steps())) or "no step"}')
            found = self._load(candidate, abstract)
            if found:
                return candidate, *found
            tried.append(candidate)
        if not tried:
            return None
        raise UserError(f'every checkpoint in {self.directory} that could be used is damaged '
                        f'({", ".join(map(str, tried))}); restore the files or start in another workdir')

    def averaged(self, abstract_params: Any) -> tuple[Any, int]:
        """The mean of the parameters of the last `average` scheduled checkpoints, the newest of all among them; and of
        how many it is.

        Means are taken in float64. Damaged checkpoints are named and the one before is taken.
        """
        self.wait()
        count, total, used = max(self.average, 1), None, 0
        steps = self.steps()[::-1]
        for step in (step for step in steps if self._scheduled(step) or step == steps[0]):
            found = self._load(step, {'params': abstract_params}) if used < count else None
            if found:
                params = [_whole(leaf).astype(np.float64) for leaf in jax.tree.leaves(found[0]['params'])]
                total = params if total is None else [a + b for a, b in zip(total, params)]
                used += 1
        if total is None:
            raise UserError(f'no intact checkpoint in {self.directory} to average')

        def place(spec: jax.ShapeDtypeStruct, mean: np.ndarray) -> jax.Array:
            mean = mean.astype(spec.dtype)
            sharding = spec.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            return jax.make_array_from_callback(spec.shape, sharding, lambda index: mean[index])

        leaves, structure = jax.tree.flatten(abstract_params)
        return structure.unflatten([place(spec, leaf / used) for spec, leaf in zip(leaves, total)]), used

    def wait(self) -> None:
        """Returns when the last save is on disk. Raises UserError if the disk is full."""
        if '_manager' in self.__dict__:
            with self._explain():
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends the background threads."""
        if '_manager' in self.__dict__:
            with self._explain():
                self._manager.close()

    def _scheduled(self, step: int) -> bool:
        """Whether a step is on the schedule: where a killed run happened to stop is not."""
        return not self.every or step % self.every == 0

    def _load(self, step: int, abstract: Any) -> tuple[Any, dict] | None:
        """(state, host) of one step; None, and a line on stderr, where its files are damaged."""
        ocp = _orbax()
        try:
            record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore())).record
            if record.pop('sha256') != _sha256(record):
                raise ValueError('its record does not match its SHA-256')
            self._fit(step, abstract, record['state'])
            leaves = paths(abstract)
            target = _nested(leaves)
            restored = paths(self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.PyTreeRestore(
                target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True))).state)
            for path, sha in digests(restored).items():
                if sha != record['state'][path][2]:
                    raise ValueError(f'{path} does not match its SHA-256')
        except (UserError, MemoryError, jax.errors.JaxRuntimeError):  # the last: no room on the device
            raise
        except Exception as error:  # a damaged file may raise anything else
            reason = (str(error).splitlines() or [''])[0][:200] or type(error).__name__
            if jax.process_index() == 0:
                print(f'checkpoint {step} in {self.directory} is damaged and not used: {reason}', file=sys.stderr)
            self._damaged.add(step)
            return None
        return jax.tree.structure(abstract).unflatten([restored[path] for path in leaves]), record['host']

    def _fit(self, step: int, abstract: Any, manifest: Mapping[str, list]) -> None:
        """Raises UserError at the first leaf that is not the same there and here."""
        parts = set(abstract if isinstance(abstract, dict) else getattr(abstract, '_fields', ()))
        ours = {path: (str(leaf.dtype), tuple(leaf.shape)) for path, leaf in paths(abstract).items()}
        saved = {path: (dtype, tuple(shape)) for path, (dtype, shape, _) in manifest.items()
                 if path in ours or not parts or path.split('/')[0] in parts}
        for path in ours | saved:
            if ours.get(path) != saved.get(path):
                there, here = (f'{x[path][1]} {x[path][0]}' if path in x else 'missing' for x in (saved, ours))
                raise UserError(f'checkpoint {step} in {self.directory} does not fit: {path} is {there} there and '
                                f'{here} here; use the model and optimizer that it was saved with, or another workdir')

    def _clean(self) -> None:
        """Before the first save: removes what a killed save left half written, moves aside what was found damaged."""
        if jax.process_index() == 0 and self.directory.is_dir():
            for partial in self.directory.glob('*' + TMP_DIR_SUFFIX + '*'):
                shutil.rmtree(partial, ignore_errors=True)
            for step in self._damaged:
                (self.directory / str(step)).rename(self.directory / f'damaged-{step}-{time.time_ns()}')
        if self._damaged:
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices('moved damaged checkpoints aside')
            self._manager.reload()
        self._damaged.clear()
        self._written = True

    @contextlib.contextmanager
    def _explain(self) -> Iterator[None]:
        """Turns a full disk, however orbax wraps it, into a UserError that names the last step that is safe."""
        try:
            yield
        except Exception as error:
            if not _disk_full(error):
                raise
            # The manager counts a step from when its save begins: only what is on disk is safe.
            safe = [info.step for info in _orbax().path.step.standard_name_format().find_all(self.directory)]
            last = f'the last good one is that of step {max(safe)}' if safe else 'there is none yet'
            raise UserError(f'no space left for a checkpoint on the disk of {self.directory}; {last}; '
                            'free some space and start again to resume') from error


class _Preservation:
    """Keeps the newest few, the scheduled ones that an average needs, and the best."""

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints = checkpoints

    def should_preserve(self, infos: list, *, context: Any) -> list[bool]:
        steps = [info.step for info in infos]
        scheduled = [step for step in steps if self.checkpoints._scheduled(step)]
        scored = [(info.metrics['score'], info.step) for info in infos if info.metrics]
        kept = {*steps[::-1][:self.checkpoints.keep], *scheduled[::-1][:self.checkpoints.average],
                *(step for _, step in sorted(scored)[-1:])}
        return [step in kept for step in steps]


def _nested(leaves: Mapping[str, Any]) -> dict:
    """Paths -> nested dictionaries."""
    tree: dict = {}
    for path, leaf in leaves.items():
        *above, name = path.split('/')
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[name] = leaf
    return tree


def _sha256(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _whole(leaf: Any) -> np.ndarray:
    """A leaf on the host, gathered from all processes where they share it."""
    split = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True) if split else leaf)


def _disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that the disk or the quota is full."""
    while error is not None:
        if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(text in str(error) for text in ('No space left on device', 'Disk quota exceeded')):
            return True
        error = error.__cause__ or error.__context__
    return False


@functools.cache
def _orbax() -> ModuleType:
    """The library, read when there is something to save or to restore: a run's first step does not wait for it."""
    import orbax.checkpoint
    _hush()
    return orbax.checkpoint


def _hush() -> None:
    """Keeps orbax's own log off the user's screen: whatever goes wrong is raised, or said by `Checkpoints`.

    When one array of a damaged checkpoint cannot be read, orbax leaves its event loop with the others still being read;
    they then complain to Python's hook of last resort and to asyncio's log.
    """
    warnings.filterwarnings('ignore', module='orbax')
    logging.getLogger('absl').addFilter(lambda record: 'orbax' not in pathlib.PurePath(record.pathname).parts)
    plain = logging.Formatter()
    logging.getLogger('asyncio').addFilter(lambda record: 'orbax' not in plain.format(record))
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        text = ''.join(traceback.format_exception(unraisable.exc_value))
        if 'orbax' not in text and 'Event loop is closed' not in text:
            before(unraisable)

    sys.unraisablehook = hook
