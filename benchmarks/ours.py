"""Our side of `benchmarks/translation.py`: the steps and searches that a run uses, on batches that everybody gets."""

import functools
import sys
from typing import Any

import numpy as np

from benchmarks import items, packed, protocol


def experiment_of(model: str, words: int, fields: dict[str, Any], smoothing: float, clip: float | None,
                  optimizer: str = 'adam') -> Any:
    """An experiment whose model knows its sizes; its task brings the loss, and no data."""
    from seqjax.catalogue import load
    from seqjax.experiment import Experiment
    from seqjax.tasks.translation import Translation
    from seqjax.training.optimizer import Optimizer
    found = Experiment(task=Translation(label_smoothing=smoothing), model=load('model', model)(**fields),
                       optimizer=Optimizer(name=optimizer, learning_rate=1e-3, clip_norm=clip))
    return found.sized(source_size=words, target_size=words, source_length=64, target_length=64, length_ratio=1.0)


def fields_of(model: str, shape: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The options of a model of these sizes."""
    if model == 'transformer':
        return dict(num_layers=shape['layers'], hidden_size=shape['width'], num_heads=shape['heads'],
                    feedforward_size=shape['feedforward'], dropout=shape.get('dropout', 0.0), tie='all', dtype=dtype)
    common = dict(hidden_size=shape['width'], embedding_size=shape.get('embedding'), dropout=shape['dropout'],
                  dtype=dtype)
    if model == 'bahdanau':
        return common | dict(cell='lstm')
    return common | dict(cell='lstm', num_layers=1, bidirectional=True, score='general', input_feeding=True)


def batch_of(source: Any, target: Any) -> Any:
    """The batch of these arrays, with the room that a run would give to sentences of their lengths."""
    from seqjax.data.batches import Batch
    from seqjax.data.room import Room, room_for
    room = Room(*(room_for((side != items.PAD).sum(axis=1), *side.shape) for side in (source, target)))
    return Batch(source, target, np.ones(len(source), np.float32), np.arange(len(source), dtype=np.int32), room)


def train(model: str, dtype: str = 'float32', **shape: Any) -> tuple[protocol.Call, dict]:
    """Training steps as the loop takes them: placed on the device one by one, metrics fetched a step later."""
    import jax

    from seqjax.prepared import Prepared, parameter_count
    from seqjax.training import flops
    from seqjax.training.parallel import Placement
    recipe = dict(smoothing=0.1, clip=None) if model != 'luong' else dict(smoothing=0.0, clip=1.0, optimizer='adamw')
    experiment = experiment_of(model, shape['words'], fields_of(model, shape, dtype), **recipe)
    ready = Prepared(experiment, Placement('pmap', devices=jax.devices()[:1]))  # as many as the others use
    learner = ready.learner(1000)
    step = ready.step(learner)
    state = ready.placement.place_state(ready.begin(learner))
    pairs = items.batches(shape['rows'], shape['source_length'], shape['target_length'], shape['words'])
    ours = [batch_of(source, target) for source, target in pairs]
    told = {'parameters': parameter_count(state.params), 'tokens': items.tokens_of(pairs),
            'counted_flops': flops.count(learner.step, state, ours[0])}

    def call(times: int) -> float:
        nonlocal state
        pending = None
        for i in range(times):
            state, sums = step(state, ready.placement.place_batch(ours[i % len(ours)]))
            if pending is not None:
                jax.device_get(pending)
            pending = sums
        total, count = jax.device_get(pending)['nll']
        told['loss'] = float(total / count)
        jax.block_until_ready(state)
        return times * items.tokens_of(pairs)

    call(3)  # compiled, and what the allocator has to learn
    return call, told


def decode(beam: int, dtype: str = 'float32', **shape: Any) -> tuple[protocol.Call, dict]:
    """The search of `decoding/search.py`, with parameters that never end a sentence."""
    import jax

    from seqjax.decoding.options import Decoding
    from seqjax.decoding.search import search
    from seqjax.models.transformer import Transformer
    from seqjax.prepared import initialise, parameter_count

    sizes = dict(source_size=shape['words'], target_size=shape['words'], source_length=64, target_length=64)
    model = Transformer(**fields_of('transformer', shape, dtype) | dict(norm='after'), **sizes)
    (source, _), = items.batches(shape['rows'], shape['source_length'], 2, shape['words'], 1)
    params = initialise(model, 0)
    # Every top state is large in one unit, where the end's embedding is all of its length, and negative.
    norm = params['decoder']['feedforward_residual']['norm']
    norm['bias'] = norm['bias'].at[-1, 0].set(20.0)
    end = -1000.0 * jax.nn.one_hot(0, shape['width'])
    params['target_embedding'] = params['target_embedding'].at[items.EOS].set(end)
    decoding = Decoding(method='beam', beam_size=beam) if beam > 1 else Decoding()
    run = jax.jit(functools.partial(search, model, decoding=decoding, max_length=shape['target_length']))

    def call(times: int) -> float:
        for _ in range(times):
            tokens_BKT = np.asarray(run(params, source).tokens_BKT)
        return times * shape['rows'] if (tokens_BKT != items.PAD).all() else 0

    call(2)
    return call, {'parameters': parameter_count(params)}


def translate(run: str, rows: int, beam: int, penalty: float) -> tuple[protocol.Call, dict]:
    """The validation split of a trained run, as an evaluation decodes it; packs it for the others.

    Raises:
      ValueError: the run's model is another than the others have.
    """
    from seqjax.layers.positions import sinusoids
    from seqjax.models.transformer import Transformer
    from seqjax.prepared import parameter_count
    from seqjax.training.checkpoint import paths

    _, source, experiment, evaluator, params = trained(run, rows, beam, penalty)
    model = experiment.model
    wanted = dict(norm='before', normalisation='layer', positions='sinusoidal', tie='all', dtype='float32')
    if not isinstance(model, Transformer) or any(getattr(model, name) != value for name, value in wanted.items()):
        raise ValueError(f'{run} is no Transformer with {wanted}, which is what the others have')
    length = evaluator.codec.max_length
    packed.Packed(run, {path: np.asarray(value) for path, value in paths(params).items()},
                  sinusoids(length, model.hidden_size), [source.row(i) for i in range(source.count())],
                  dict(width=model.hidden_size, layers=model.num_layers, heads=model.num_heads,
                       feedforward=model.feedforward_size, words=evaluator.codec.target.size,
                       length=length)).write()
    found = []

    def call(times: int) -> float:
        for _ in range(times):
            found[:] = evaluator.decode(params, source, experiment.decoding)
        return times * source.count()

    call(1)
    return call, {'parameters': parameter_count(params),
                  'found': [packed.words_of(best[0].ids) for best in found]}


def scored(run: str, found: list[list[int]], **shape: Any) -> tuple[protocol.Call, dict]:
    """Lower-cased BLEU of translations of a run's validation split, as ids, whoever made them."""
    from seqjax.tasks import scores
    text, _, _, evaluator, _ = trained(run, **shape)
    lines = [evaluator.codec.target.decode(np.array(ids)) for ids in found]
    return lambda times: 0.0, {'bleu': scores.bleu(lines, text, lowercase=True).value}


@functools.cache
def trained(run: str, rows: int, beam: int, penalty: float) -> tuple:
    """References and sources of a run's validation split, its experiment with a search, an evaluator, parameters."""
    import pathlib

    from seqjax import reuse
    experiment, codec, _ = reuse.reopen(pathlib.Path(run))
    search = dict(method='beam', beam_size=beam, length_penalty=penalty) if beam > 1 else dict(method='greedy')
    experiment = experiment.replace('decoding', batch_size=rows, **search).replace('training', mesh='data=1')
    data = experiment.task.prepare(codec)
    return (data.text['valid'][1], data.ids['valid'][0], experiment,
            *reuse.opened(pathlib.Path(run), experiment, codec))


def matmul(dtype: str = 'float32', **_: Any) -> tuple[protocol.Call, dict]:
    """Products of two large square matrices, the work in FLOPs: the ceiling of this machine, as jax reaches it."""
    import jax
    import jax.numpy as jnp
    size = 2048 if jax.default_backend() == 'cpu' else 8192
    a, b = (jax.random.normal(jax.random.key(i), (size, size), jnp.dtype(dtype)) for i in range(2))
    product = jax.jit(functools.partial(jnp.dot, preferred_element_type='float32'))  # the fastest of bfloat16 on a CPU

    def call(times: int) -> float:
        for _ in range(times):
            out = product(a, b)
        out.block_until_ready()
        return 2 * size ** 3 * times

    call(3)
    return call, {'size': size, 'dtype': dtype}


def products(dtype: str = 'float32', **shape: Any) -> tuple[protocol.Call, dict]:
    """The products of `items.factors` and of their backward passes, as one program; the work in FLOPs."""
    import jax
    import jax.numpy as jnp
    sizes = items.factors(**shape)
    keys = iter(jax.random.split(jax.random.key(0), 3 * len(sizes)))
    factors = [tuple(jax.random.normal(next(keys), size, jnp.dtype(dtype)) for size in ((m, k), (k, n), (m, n)))
               for m, k, n in sizes]
    run = jax.jit(lambda factors: [(x @ w, slope @ w.T, x.T @ slope) for x, w, slope in factors])

    def call(times: int) -> float:
        for _ in range(times):
            jax.block_until_ready(run(factors))
        return times * 3 * sum(2 * m * k * n for m, k, n in sizes)

    call(3)
    return call, {}


def about() -> dict:
    """Versions and devices."""
    import importlib.metadata

    import jax
    versions = {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax', 'optax', 'numpy')}
    return {'versions': versions, 'device': jax.default_backend(), 'device_kind': jax.devices()[0].device_kind}


if __name__ == '__main__':
    protocol.only(int(sys.argv[1]))
    protocol.serve({'train': train, 'decode': decode, 'matmul': matmul, 'products': products,
                    'translate': translate, 'scored': scored}, about)
