"""What a run would do, without doing it: parameters, memory, FLOPs, and one batch read back as text."""

from collections.abc import Callable

import jax
import numpy as np

from seqjax.data.vocabulary import PAD
from seqjax.experiment import Experiment, flat
from seqjax.options import unparse
from seqjax.prepared import plan_batches, prepare
from seqjax.training import flops


def plan(experiment: Experiment, say: Callable[[str], None] = print) -> dict[str, int]:
    """Prints config, parameter table, bytes a device, FLOPs a step and one decoded batch; trains nothing.

    Returns:
      'parameters', 'parameter_bytes' (a device), 'state_bytes' (with the optimizer's), 'peak_bytes' (the most that a
      training step of the largest batch has on a device at a time: arguments, results and temporary arrays as XLA lays
      them out), 'flops' (a step).
    """
    data = experiment.task.prepare()
    ready = prepare(experiment, data.codec)
    batches = plan_batches(experiment, data, ready.placement)
    steps = experiment.training.total_steps(batches.batches_per_epoch)
    learner, placement = ready.learner(steps, batches.batches_per_epoch), ready.placement
    state = ready.abstract_state(learner)
    for name, value in flat(ready.experiment).items():
        say(f'--{name}={unparse(value)}')
    say(f'\n{placement.describe()}')
    for note in data.notes:
        say(note)
    say('vocabularies: {} source and {} target pieces; shapes (source x target tokens): {}'.format(
        data.codec.source.size, data.codec.target.size, ', '.join(f'{s}x{t}' for s, t in batches.shapes)))
    say(f'{data.ids["train"][0].count():,} training pairs, {batches.batches_per_epoch:,} batches an epoch, '
        f'{steps:,} steps\n')

    def held(leaf: jax.ShapeDtypeStruct) -> int:
        """Bytes of a leaf on one device."""
        return int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * leaf.dtype.itemsize

    rows = [(jax.tree_util.keystr(path, simple=True, separator='/'), leaf)
            for path, leaf in jax.tree_util.tree_flatten_with_path(state.params)[0]]
    width = max(len(name) for name, _ in rows)
    for name, leaf in rows:
        split = ', '.join(map(str, leaf.sharding.spec)) if any(leaf.sharding.spec) else ''
        say(f'{name:<{width}}  {leaf.shape!s:>22}  {leaf.size:>12,}' + (f'  split over ({split})' if split else ''))
    counts = {'parameters': sum(leaf.size for _, leaf in rows), 'parameter_bytes': sum(held(leaf) for _, leaf in rows),
              'state_bytes': sum(held(leaf) for leaf in jax.tree.leaves(state))}
    largest = max(range(batches.batches_per_epoch), key=lambda n: sum(batches.shape(n)))
    batch = batches.batch(largest)
    counts['flops'] = flops.count(learner.step, state, batch)
    step = placement.step(learner.step)
    analysis = placement.memory(step, state, batch)
    counts['peak_bytes'] = (analysis.argument_size_in_bytes + analysis.output_size_in_bytes
                            + analysis.temp_size_in_bytes - analysis.alias_size_in_bytes)
    say(f'\n{counts["parameters"]:,} parameters; on each device {megabytes(counts["parameter_bytes"])} of parameters, '
        f'{megabytes(counts["state_bytes"])} with the optimizer, {megabytes(counts["peak_bytes"])} at the peak of a '
        'step')
    say(f'{counts["flops"]:,} FLOPs in the matrix products of a step of {batch.source.shape[0]} sentences, '
        f'{batch.source.shape[1]} x {batch.target.shape[1]} tokens')
    first = batches.batch(0)
    say(f'\nbatch 0, {first.source.shape[0]} pairs of {first.source.shape[1]} x {first.target.shape[1]} tokens; the '
        'first three:')
    for source, target in list(zip(first.source, first.target))[:3]:
        say('  source  ' + ' '.join(data.codec.source.pieces(source[source != PAD])))
        say('  target  ' + ' '.join(data.codec.target.pieces(target[target != PAD])))
    return counts


def megabytes(size: int) -> str:
    """Bytes as a person reads them."""
    return f'{size / 2**20:,.1f} MiB'
