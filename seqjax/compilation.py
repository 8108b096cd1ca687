"""Compilations: counted and timed, and kept on disk between runs."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator


@dataclasses.dataclass
class Compiled:
    """What was compiled while counting."""

    count: int = 0
    seconds: float = 0.0


@contextlib.contextmanager
def counted() -> Iterator[Compiled]:
    """Counts what XLA compiles, or reads from the cache, inside the block."""
    import jax
    compiled = Compiled()

    def listen(event: str, seconds: float, **_) -> None:
        if event == '/jax/core/compile/backend_compile_duration':
            compiled.count += 1
            compiled.seconds += seconds

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def keep(folder: str) -> None:
    """Keeps compiled programs in `folder` for later runs; 'none' keeps nothing, '' keeps them where jax is told to.

    jax is told by JAX_COMPILATION_CACHE_DIR; where that is not set, '' is ~/.cache/seqjax/compilation.
    """
    if folder == 'none' or (not folder and os.environ.get('JAX_COMPILATION_CACHE_DIR')):
        return
    import jax
    folder = folder or '~/.cache/seqjax/compilation'
    path = pathlib.Path(os.path.expanduser(folder))
    jax.config.update('jax_compilation_cache_dir', str(path))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
