"""The memory of a training step beside what --mode=plan says of it: python -m benchmarks.memory --experiment=... FLAGS

Prints a JSON object: 'parameter_bytes', of the plan and held, which are equal; 'plan_bytes', the plan's peak of a step;
'peak_bytes', the growth of this process over three steps of the largest batch, from before the state was made (on a
device that counts for itself, its own count). What is compiled is compiled before: compiling takes memory of its own.
"""

import ctypes
import json
import pathlib
import re
import sys
import time

from benchmarks.start import most_memory


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(re.search(r'VmRSS:\s+(\d+) kB', pathlib.Path('/proc/self/status').read_text())[1]) * 1024


def growth(argv: list[str]) -> dict[str, int]:
    """The numbers, of the run that `argv` describes."""
    import jax

    from seqjax import compilation
    from seqjax.compose import compose
    from seqjax.launcher import Launch
    from seqjax.plan import plan
    from seqjax.prepared import plan_batches, prepare
    compilation.keep('')  # the plan compiles the same step
    named = dict(word.removeprefix('--').split('=', 1) for word in argv if '.' not in word.partition('=')[0])
    experiment = compose(named['experiment'], named.get('model'), argv, (Launch(),)).experiment
    counts = plan(experiment, say=lambda line: None)
    data = experiment.task.prepare()
    ready = prepare(experiment, data.codec)
    batches = plan_batches(experiment, data, ready.placement)
    learner = ready.learner(100)
    batch = batches.batch(max(range(batches.batches_per_epoch), key=lambda n: sum(batches.shape(n))))
    step = ready.step(learner)

    def state():
        return ready.placement.place_state(ready.begin(learner))

    def held() -> int:
        """Bytes of parameters after three steps."""
        now = state()
        for _ in range(3):
            now, sums = step(now, ready.placement.place_batch(batch))
            jax.device_get(sums)
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(now.params))

    parameter_bytes = held()  # compiled, and all threads have been at work
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        peak = stats['peak_bytes_in_use']
    else:
        # What was freed goes back, or the next steps would take it up unseen; a step frees its own a little after
        # its results are there.
        for _ in range(10):
            time.sleep(0.1)
            ctypes.CDLL(None).malloc_trim(0)
        pathlib.Path('/proc/self/clear_refs').write_text('5')  # VmHWM begins again
        before = resident()
        held()
        peak = most_memory() - before
    return {'parameters': counts['parameters'], 'parameter_bytes': parameter_bytes,
            'plan_parameter_bytes': counts['parameter_bytes'], 'plan_bytes': counts['peak_bytes'], 'peak_bytes': peak}


if __name__ == '__main__':
    print(json.dumps(growth(sys.argv[1:])))
