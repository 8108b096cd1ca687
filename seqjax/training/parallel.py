"""Where arrays lie and how a pure function runs on many devices: by pmap, by shard_map, or by jit over a mesh.

pmap and shard_map give each replica its rows and a name for the axis of replicas; the function sums over it. jit sees
the whole batch, has no such name, and may split parameters too ('fsdp', 'tensor') and span processes. State and sums
come out as whole arrays in every mode: no leading device axis, so that checkpoints do not know the mode.
"""

import contextlib
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from seqjax.errors import UserError, did_you_mean

AXES = ('data', 'fsdp', 'tensor')
Mode = Literal['pmap', 'shard_map', 'jit']


def mesh_sizes(mesh: str, devices: int) -> dict[str, int]:
    """Reads 'data=2,fsdp=4'. An axis that is not named is 1, except data, which takes the devices that are left."""
    sizes: dict[str, int] = {}
    for part in filter(None, mesh.replace(' ', '').split(',')):
        name, _, size = part.partition('=')
        if name not in AXES:
            raise UserError(f'--training.mesh={mesh}: unknown axis {name!r}{did_you_mean(name, AXES)}')
        if name in sizes:
            raise UserError(f'--training.mesh={mesh}: axis {name!r} is given twice')
        if not size.isdecimal() or int(size) < 1:
            raise UserError(f'--training.mesh={mesh}: {part!r} is no axis and size; write for example data=2,fsdp=4')
        sizes[name] = int(size)
    named = math.prod(sizes.values())
    if named > devices:
        raise UserError(f'--training.mesh={mesh} takes {named} devices and there are {devices}; make it smaller')
    if 'data' not in sizes and devices % named:
        raise UserError(f'--training.mesh={mesh}: {named} does not divide the {devices} devices; name data too')
    return {axis: sizes.get(axis, devices // named if axis == 'data' else 1) for axis in AXES}


class Placement:
    """A mode and a mesh of devices.

    Args:
      mode: pmap or shard_map (one process, parameters whole on each device) or jit.
      mesh: 'data=2,fsdp=4'; '' puts all devices on data.
      rules: (regex on a parameter's path 'a/b/kernel', axis or None for each trailing dimension); the first match wins.
      devices: those to use, all by default.

    Raises:
      UserError: the mesh is misspelt, larger than the machine, or not for this mode.
    """

    def __init__(self, mode: Mode = 'pmap', mesh: str = '', rules: Sequence[tuple[str, tuple[str | None, ...]]] = (),
                 devices: Sequence[jax.Device] | None = None):
        devices = list(jax.devices() if devices is None else devices)
        sizes = mesh_sizes(mesh, len(devices))
        used = math.prod(sizes.values())
        processes = len({device.process_index for device in devices})
        if mode != 'jit':
            if processes > 1:
                raise UserError(f'--training.parallel={mode} runs in one process and there are {processes}; use jit')
            if used > sizes['data']:
                raise UserError(f'--training.mesh={mesh} splits parameters, which {mode} cannot; use jit, or only data')
        elif processes > 1:
            if used < len(devices):
                raise UserError(f'--training.mesh={mesh} leaves out {len(devices) - used} of {len(devices)} devices of '
                                f'{processes} processes; several processes use all')
            if (len(devices) // processes) % sizes['tensor']:
                raise UserError(f'--training.mesh={mesh}: tensor={sizes["tensor"]} does not divide the '
                                f'{len(devices) // processes} devices of a process')
        self.mode, self.rules, self.processes = mode, tuple(rules), processes
        # Axes that pmap would make itself: on another mesh, equal but for its axes, the second step compiles again.
        axes = AXES if mode == 'jit' else ('data',)
        # In the order of processes, so that rows lie in that order too; make_mesh may permute, and makes Explicit axes.
        self.mesh = Mesh(np.array(devices[:used]).reshape([sizes[axis] for axis in axes]), axes,
                         axis_types=(AxisType.Auto,) * len(axes))
        self.axis = None if mode == 'jit' else 'data'
        self.batch_shards = sizes['data'] * sizes['fsdp']
        # A function sees the rows of one device alone, and can count their tokens without asking another.
        self.rows_at_home = mode != 'jit' or used == 1
        self._whole = NamedSharding(self.mesh, P())
        self._split = NamedSharding(self.mesh, P(axes[:2]))

    def describe(self) -> str:
        """One line: mode, mesh, devices."""
        axes = ', '.join(f'{axis}={size}' for axis, size in self.mesh.shape.items() if size > 1 or axis == 'data')
        kind = self.mesh.devices.flat[0].device_kind
        where = f' in {self.processes} processes' if self.processes > 1 else ''
        return f'{self.mode} over {axes} on {self.mesh.size} x {kind}{where}'

    def check_batch(self, name: str, size: int, accumulate: int = 1) -> None:
        """Raises UserError unless `size` rows, the option `name`, split evenly over replicas and micro-batches."""
        parts = self.batch_shards * accumulate
        if size % parts:
            micro = f' of {accumulate} micro-batches each' if accumulate > 1 else ''
            near = max(round(size / parts), 1) * parts
            raise UserError(f'{name}={size} does not split over {self.batch_shards} replicas{micro}; '
                            f'make it a multiple of {parts}, for example {near}')

    def shardings(self, tree: Any) -> Any:
        """The sharding of each leaf of a State, or of params: for placing, and for restoring straight into place.

        What the optimizer keeps for a parameter has a path that ends in the parameter's, and is split as that is.
        """
        flat = jax.tree_util.tree_flatten_with_path
        params = {names(path): leaf.shape for path, leaf in flat(getattr(tree, 'params', tree))[0]}

        def sharding(path: tuple, leaf: Any) -> NamedSharding:
            ends = (names(path[i:]) for i in range(len(path)))
            owner = next((end for end in ends if params.get(end) == leaf.shape), None)
            return self._whole if owner is None else NamedSharding(self.mesh, self._spec(owner, leaf.shape))

        return jax.tree_util.tree_map_with_path(sharding, tree)

    def abstract(self, shapes: Any) -> Any:
        """A tree of shapes (from jax.eval_shape) with their shardings: what `Checkpoints.restore` reads into."""
        return jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                            shapes, self.shardings(shapes))

    def _spec(self, path: str, shape: tuple[int, ...]) -> P:
        """The first rule that matches, on trailing dimensions; a dimension that its axis does not divide is whole."""
        if self.mode != 'jit':
            return P()
        axes = next((axes for regex, axes in self.rules if re.search(regex, path)), ())
        axes = ((None,) * len(shape) + tuple(axes))[-len(shape):] if shape else ()
        return P(*(axis if axis and size % self.mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape)))

    def place_state(self, state: Any) -> Any:
        """Puts a state, or params, where `step` wants it. Arrays already there are not copied: a step uses them up."""
        return jax.tree.map(self._put, state, self.shardings(state))

    def _put(self, x: Any, sharding: NamedSharding) -> jax.Array:
        if self.processes == 1:
            return jax.device_put(x, sharding)
        x = np.asarray(x)  # the same in every process, which takes its own parts
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    def place_batch(self, batch: Any) -> Any:
        """Puts a batch of numpy arrays, this process's rows of it, on the devices; under pmap with a device axis."""
        if self.processes > 1:
            return jax.tree.map(functools.partial(jax.make_array_from_process_local_data, self._split), batch)
        if self.mode == 'pmap':
            batch = jax.tree.map(lambda x: x.reshape(self.batch_shards, -1, *x.shape[1:]), batch)
        return jax.device_put(batch, self._split)

    def step(self, fn: Callable[..., tuple[Any, Any]], *constants: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
        """Compiles fn(state, batch, axis, *constants) -> (state, sums), which sums over `axis` itself.

        The old state is used up. `constants` are arrays that stay the same, and are no part of the program.
        """
        def update(state: Any, batch: Any, *constants: Any) -> tuple[Any, Any]:
            return fn(state, batch, self.axis, *constants)

        def place(out: tuple[Any, Any]) -> tuple[Any, Any]:  # else the compiler may move the state, and compile again
            return jax.lax.with_sharding_constraint(out, (self.shardings(out[0]), self._whole))

        run = self._compile(update, place, donate=True)
        if not constants:
            return run
        placed = self.place_state(constants)

        def step(state: Any, batch: Any) -> tuple[Any, Any]:
            return run(state, batch, *placed)

        step.lower = lambda state, batch: run.lower(state, batch, *placed)
        return step

    def compiling(self, compiled: Callable, state: Any, batch: Any) -> Callable[[], None]:
        """Traces what `step` returned. The function that comes back compiles it, in whichever thread, and the
        next call finds the program.

        Args:
          state: its shapes, with shardings.
          batch: one on the devices.
        """
        lowered = compiled.lower(state, batch)

        def finish() -> None:
            with self._uncached():
                lowered.compile()

        return finish

    def memory(self, compiled: Callable, state: Any, batch: Any) -> Any:
        """What a device will need, by XLA's `memory_analysis`, to run what `step` or `sums` returned; nothing is run.

        Args:
          state: its shapes, with shardings.
          batch: all rows of one.
        """
        def shape(x: Any) -> jax.ShapeDtypeStruct:
            split = (self.batch_shards, x.shape[0] // self.batch_shards) if self.mode == 'pmap' else x.shape[:1]
            return jax.ShapeDtypeStruct((*split, *x.shape[1:]), x.dtype, sharding=self._split)

        with self._uncached():
            return compiled.lower(state, jax.tree.map(shape, batch)).compile().memory_analysis()

    def sums(self, fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Compiles fn(params, batch) -> sums, totalled over the replicas."""
        def total(params: Any, batch: Any) -> Any:
            return jax.lax.psum(fn(params, batch), self.axis) if self.axis else fn(params, batch)

        return self._compile(total, lambda out: jax.lax.with_sharding_constraint(out, self._whole))

    def rows(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles fn(params, batch, *extra) -> pytree of arrays that lead with rows.

        The result comes back as numpy, with all rows of the batch in order, in every process. `extra` is the same on
        every replica: a random key must be folded with `batch.row` to differ between rows.
        """
        run = self._compile(fn, lambda out: jax.lax.with_sharding_constraint(out, self._split), rows=True)

        def gather(params: Any, batch: Any, *extra: Any) -> Any:
            out = run(params, batch, *extra)
            if self.processes > 1:
                return multihost_utils.process_allgather(out, tiled=True)
            out = jax.device_get(out)
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out) if self.mode == 'pmap' else out

        return gather

    def _compile(self, fn: Callable, place: Callable, donate: bool = False, rows: bool = False) -> Callable:
        """fn(state or params, batch, *extra) over the replicas; `place` says where jit leaves the results."""
        donated = (0,) if donate else ()

        @functools.cache
        def mapped(arguments: int) -> Callable:
            rest = arguments - 2
            if self.mode == 'jit':
                return jax.jit(lambda *args: place(fn(*args)), donate_argnums=donated)
            if self.mode == 'pmap':
                return jax.pmap(fn, axis_name='data', in_axes=(None, 0) + (None,) * rest, out_axes=0 if rows else None,
                                donate_argnums=donated, devices=list(self.mesh.devices.flat))
            # With check_vma=True shard_map would sum the gradients once more than the step does.
            return jax.jit(jax.shard_map(fn, mesh=self.mesh, in_specs=(P(), P('data')) + (P(),) * rest,
                                         out_specs=P('data') if rows else P(), check_vma=False), donate_argnums=donated)

        def run(*args: Any) -> Any:
            with self._uncached():
                return mapped(len(args))(*args)

        run.lower = lambda *args: mapped(len(args)).lower(*args)
        return run

    @contextlib.contextmanager
    def _uncached(self) -> Iterator[None]:
        """Keeps what is compiled for several CPU devices out of jax's cache on disk.

        A program that comes back from there has forgotten the order of its collectives (jax 0.10.2): two devices wait
        for each other, and after 40 seconds XLA aborts the process.
        """
        if self.mesh.size == 1 or self.mesh.devices.flat[0].platform != 'cpu':
            yield
            return
        name = 'jax_persistent_cache_min_compile_time_secs'
        before = getattr(jax.config, name)
        jax.config.update(name, math.inf)
        try:
            yield
        finally:
            jax.config.update(name, before)


def names(path: tuple) -> str:
    """A leaf's path as 'a/b/kernel'."""
    return jax.tree_util.keystr(path, simple=True, separator='/')
