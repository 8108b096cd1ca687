"""What a Transformer's training step spends its time on, and what padding left out, backward passes written out, its
layers side by side and its own random bits give it: the items `steps` of `benchmarks/translation.py`.

    python -m benchmarks.steps [--width=256] [--repeats=5] [--ways='as it is,with padding'] [--kinds]

The gradient of the loss is compiled as it is, without each of these, and without them all; they take turns in one
process. With --kinds jax's profiler says then what kinds of operations the first and the last consist of. The kinds are
XLA's own names for operations on the CPU; operations run side by side, so shares are of the time of all. Prints JSON,
{way: what was measured of it}.
"""

import argparse
import collections
import contextlib
import glob
import gzip
import itertools
import json
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
WAYS = {'as it is': [], **{name: [name] for name in OTHERWISE}, 'without all of these': [*OTHERWISE]}


@contextlib.contextmanager
def changed(names: list[str]):
    """These done otherwise, while a program is traced."""
    with contextlib.ExitStack() as stack:
        for place, name, other in itertools.chain(*(OTHERWISE[name] for name in names)):
            stack.enter_context(mock.patch.object(place, name, other))
        yield


def gradients(width: int, ways: list[str]) -> dict[str, tuple]:
    """{way: (compiled gradient, its arguments, seconds that compiling took)} of the same step."""
    shape = items.transformer(width, rows=128, source_length=16, target_length=16, dropout=0.1)
    experiment = experiment_of('transformer', shape['words'], fields_of('transformer', shape, 'float32'), 0.1, None)
    (source, target), = items.batches(128, 16, 16, shape['words'], 1)
    batch = batch_of(source, target)
    params = initialise(experiment.model, 0)

    def loss(params, key, batch):
        total, count = experiment.task.loss(experiment.model, params, batch, key, 1)[0]['loss']
        return total / count

    found = {}
    for name in ways:
        given = batch._replace(room=None) if 'with padding' in WAYS[name] else batch
        with changed(WAYS[name]):  # a function of its own each, for jax remembers what it has traced
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


def measure(width: int, repeats: int, ways: list[str], profiled: bool = False) -> dict[str, dict]:
    """{way: 'values', the quartiles and the median of its seconds; 'compile_seconds'; 'temporary_bytes' of its arrays},
    and of the first 'faults' of pages, and how far gradients of the same draws are 'apart', beside the 'greatest' of
    all; where it is `profiled`, 'kinds' of the first and the last."""
    runs = gradients(width, ways)
    times = alternating({name: lambda run=run, arguments=arguments: run(*arguments)
                         for name, (run, arguments, _) in runs.items()}, repeats=repeats, budget=300)
    found: dict[str, dict] = {name: {
        'values': [times[name].low, times[name].median, times[name].high], 'compile_seconds': compiling,
        'temporary_bytes': run.memory_analysis().temp_size_in_bytes} for name, (run, _, compiling) in runs.items()}
    first = found[ways[0]]
    first['faults'] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    ours, *others = (jax.tree.leaves(runs[name][0](*runs[name][1])) for name in ways
                     if name == ways[0] or name.endswith(('XLA', 'loop')))  # whose units are dropped alike
    first['apart'] = max((float(jnp.abs(a - b).max()) for other in others for a, b in zip(ours, other)), default=0.0)
    first['greatest'] = max(float(jnp.abs(a).max()) for a in ours)
    for name in {ways[0], ways[-1]} if profiled else ():
        found[name]['kinds'] = kinds(*runs[name][:2])
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--width', type=int, default=256)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--ways', default=','.join(WAYS), help='which, with commas')
    parser.add_argument('--kinds', action='store_true', help='profile the first and the last')
    options = parser.parse_args()
    ways = options.ways.split(',')
    if not WAYS.keys() >= set(ways):
        parser.error(f'--ways={options.ways}: choose of {", ".join(WAYS)}')
    print(json.dumps(measure(options.width, options.repeats, ways, options.kinds)))


if __name__ == '__main__':
    allocator.start_again()
    main()
