"""Eight virtual CPU devices and a persistent compilation cache for every test; set before jax is imported."""

import gc
import importlib.metadata
import os
import pathlib
import signal

import pytest

# Programs as small as those of the tests take longer to compile than to run. XLA's older way to element-wise code
# compiles a Transformer's gradient in two thirds of the time, and a recurrent one in less than half; in one
# piece, and not cut into parts that are compiled side by side, test_unpadding.py takes 0.93 of the processors' time.
QUICK = (' --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
         if importlib.metadata.version('jaxlib').startswith('0.10.') else '')
os.environ.setdefault('XLA_FLAGS', f'--xla_force_host_platform_device_count=8{QUICK}')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
CACHE = pathlib.Path(__file__).parents[1] / '.cache' / 'compilation'
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
# As launch.py does.
gc.set_threshold(100_000, 20, 20)
# A shell that starts the tests in the background makes them, and all that they start, deaf to SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope='module')
def forget_programs():
    """Unloads what a file compiled: each program holds memory maps, and a process may have only so many (65,530)."""
    yield
    import jax
    jax.clear_caches()
    gc.collect()
