"""What a Transformer's training step spends its time on, and what padding left out, backward passes written out, its
layers side by side and its own random bits give it:

    python -m benchmarks.steps [--width=256] [--repeats=9]
    GLIBC_TUNABLES= python -m benchmarks.steps      # and with memory as glibc has it, left alone

The gradient of the loss is compiled as it is, without each of these, and without them all; they take turns in one
process. Then jax's profiler says what kinds of operations the first and the last consist of. The kinds are XLA's own
names for operations on the CPU; operations run side by side, so shares are of the time of all.
"""

import argparse
import collections
import contextlib
import glob
import gzip
import itertools
import json
import os
import re
import resource
import tempfile
import time
from unittest import mock

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks import items
from benchmarks.ours import batch_of, experiment_of, fields_of
from seqjax import allocator
from seqjax.layers import attention, dropout, normalisation, products, transformer
from seqjax.models import transformer as model
from seqjax.prepared import initialise
from seqjax.studies.timing import alternating
from seqjax.tasks import losses

KINDS = (('matrix products', r'ynn_|dot'), ('copies into another order', r'copy|transpose'),
         ('copies in and out of a loop', r'dynamic-(update-)?slice'), ('fills', r'wrapped_broadcast'))
# {what is done otherwise: [(where, its name there, what stands in its place)]}
OTHERWISE = {
    'with padding': [],
    'random bits by Threefry': [(dropout, 'random_bits', jax.random.bits)],
    'loss left to XLA': [(losses, 'of_tokens', losses.of_tokens.__wrapped__)],
    'normalisation left to XLA': [(normalisation, 'layer_norm', normalisation.layer_norm.__wrapped__)],
    'products left to XLA': [(attention, 'matmul', jnp.matmul), (transformer, 'Dense', nn.Dense),
                             (products, 'logits', lambda x, table: jnp.einsum('...D,VD->...V', x, table))],
    'attention left to XLA': [(attention, name, getattr(products, name).__wrapped__)
                              for name in ('similarities', 'mixtures')],
    'layers in a loop': [(model, 'UNROLLED', 1)]}


@contextlib.contextmanager
def changed(names: list[str]):
    """These done otherwise, while a program is traced."""
    with contextlib.ExitStack() as stack:
        for place, name, other in itertools.chain(*(OTHERWISE[name] for name in names)):
            stack.enter_context(mock.patch.object(place, name, other))
        yield


def gradients(width: int) -> dict[str, tuple]:
    """{name: (compiled gradient, its arguments, seconds that compiling took)} of the same step."""
    shape = items.transformer(width, rows=128, source_length=16, target_length=16, dropout=0.1)
    experiment = experiment_of('transformer', shape['words'], fields_of('transformer', shape, 'float32'), 0.1, None)
    (source, target), = items.batches(128, 16, 16, shape['words'], 1)
    batch = batch_of(source, target)
    params = initialise(experiment.model, 0)

    def loss(params, key, batch):
        total, count = experiment.task.loss(experiment.model, params, batch, key, 1)[0]['loss']
        return total / count

    found = {}
    for name, names in {'as it is': [], **{name: [name] for name in OTHERWISE}, 'all': [*OTHERWISE]}.items():
        given = batch._replace(room=None) if 'with padding' in names else batch
        with changed(names):  # a function of its own each, for jax remembers what it has traced
            run = jax.jit(jax.grad(lambda params, key, batch=given: loss(params, key, batch)))
            arguments, began = (params, jax.random.key(1)), time.perf_counter()
            found[name] = run.lower(*arguments).compile(), arguments, time.perf_counter() - began
    return found


def kinds(run, arguments: tuple) -> dict[str, float]:
    """The share of each kind of operation, in percent."""
    jax.block_until_ready(run(*arguments))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run(*arguments))
        with gzip.open(glob.glob(f'{folder}/**/*.trace.json.gz', recursive=True)[0]) as file:
            events = json.load(file)['traceEvents']
    known = set(re.findall(r'^ *(?:ROOT )?%([\w.\-]+) = ', run.as_text(), re.MULTILINE))
    spent: collections.Counter = collections.Counter()
    for event in events:
        # Loops and calls hold other operations, which have events of their own.
        if event.get('ph') == 'X' and event['name'] in known and not re.match('while|call', event['name']):
            kind = next((kind for kind, names in KINDS if re.search(names, event['name'])), 'element-wise and sums')
            spent[kind] += event['dur']
    return {kind: 100 * part / spent.total() for kind, part in spent.most_common()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--width', type=int, default=256)
    parser.add_argument('--repeats', type=int, default=9)
    options = parser.parse_args()
    runs, load = gradients(options.width), os.getloadavg()[0]
    times = alternating({name: lambda run=run, arguments=arguments: run(*arguments)
                         for name, (run, arguments, _) in runs.items()}, repeats=options.repeats, budget=300)
    base = times['all'].median
    print(f'width {options.width}, {os.cpu_count()} processors, load {load:.1f}; medians of {options.repeats}; '
          f'{resource.getrusage(resource.RUSAGE_SELF).ru_minflt:,} page faults')
    for name, (_, _, compiling) in runs.items():
        print(f'{name:26s} {1000 * times[name].median:8.1f} ms {times[name].median / base:6.2f} of all, '
              f'compiled in {compiling:.1f} s')
    ours, *others = (jax.tree.leaves(runs[name][0](*runs[name][1])) for name in runs if name == 'as it is' or
                     name.endswith(('XLA', 'loop')))  # whose units are dropped alike
    apart = max(float(jnp.abs(a - b).max()) for other in others for a, b in zip(ours, other))
    print(f'gradients differ by at most {apart:.1e}, of at most {max(float(jnp.abs(a).max()) for a in ours):.1e}')
    for name in ('as it is', 'all'):
        print(f'{name}: ' + ', '.join(f'{kind} {share:.0f} %' for kind, share in kinds(*runs[name][:2]).items()))


if __name__ == '__main__':
    allocator.start_again()
    main()
