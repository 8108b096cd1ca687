"""What every recurrent or convolutional translator is checked for, on rows of different lengths, one all padding."""

import functools
import types
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np

Batch = namedtuple('Batch', 'source target')

SOURCE = np.array([[4, 5, 6, 7, 8, 2], [9, 4, 2, 0, 0, 0], [2, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], np.int32)
TOKENS = np.array([[1, 4, 5, 6, 7], [1, 9, 8, 7, 6], [1, 3, 4, 10, 12], [1, 5, 5, 5, 5]], np.int32)
SIZES = dict(source_size=11, target_size=13, source_length=6)
LENGTHS = (SOURCE != 0).sum(axis=1)


@functools.cache
def compiled(model):
    """The model, sizes added, with random parameters (biases too, or a lost one would not show) and jitted methods."""
    model = model.clone(**{field: size for field, size in SIZES.items() if getattr(model, field) is None})
    shapes = jax.eval_shape(model.init, jax.random.key(0), SOURCE, TOKENS)['params']
    rng = np.random.default_rng(0)
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.asarray(possible(path[-1].key, rng.normal(0, 0.6, x.shape)), jnp.float32), shapes)

    def jit(method):
        return jax.jit(lambda params, *args: model.apply({'params': params}, *args, method=method))

    return types.SimpleNamespace(
        model=model, params=params, capture=jax.jit(model.capture), full=jit('__call__'),
        encode=jit('encode'), decode=jit('decode'),
        start=jax.jit(lambda params, memory: model.apply({'params': params}, memory, 5, method='start')))


def possible(name, value):
    """`value`, or where it is a running variance or weight one that can be: training has seen steps 0 to 3 alone."""
    if name == 'running_weight':
        return np.where(np.arange(len(value)) < 4, 0.3 + np.abs(value), 0.0) if value.ndim else 0.6
    return 0.1 + np.abs(value) if name == 'running_var' else value


def name(model):
    """A test's id: the options that differ from the defaults."""
    defaults = type(model)()
    return ','.join(f'{f}={getattr(model, f)}' for f in model.__dataclass_fields__
                    if f not in ('parent', 'name', 'hidden_size', 'embedding_size', 'dropout')
                    and getattr(model, f) != getattr(defaults, f)) or 'default'


def agrees_with_numpy(model, reference):
    """Logits of every row, padding included, against `reference(model, params, source, tokens)` of the row alone."""
    run = compiled(model)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), run.params)
    logits = run.full(run.params, SOURCE, TOKENS)
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    for row in range(3):
        expected = reference(model, params, SOURCE[row, :LENGTHS[row]], TOKENS[row])
        np.testing.assert_allclose(logits[row], expected[0], rtol=2e-4, atol=2e-5)


def steps_equal_all_at_once(model):
    run = compiled(model)
    full = run.full(run.params, SOURCE, TOKENS)
    memory = run.encode(run.params, SOURCE)
    carry, logits = run.start(run.params, memory), []
    for t in range(TOKENS.shape[1]):
        one, carry = run.decode(run.params, TOKENS[:, t:t + 1], memory, carry)
        logits.append(one)
    np.testing.assert_allclose(np.concatenate(logits, axis=1), full, rtol=1e-4, atol=1e-5)
    assert np.ptp(full, axis=1).min() > 1e-4, 'logits that do not change with the prefix prove nothing'


def neighbours_and_padding_change_nothing(model):
    run = compiled(model)
    full = run.full(run.params, SOURCE, TOKENS)
    other = SOURCE.copy()
    other[1:] = SOURCE[0]
    np.testing.assert_array_equal(run.full(run.params, other, TOKENS)[0], full[0])
    np.testing.assert_allclose(run.full(run.params, SOURCE[::-1], TOKENS[::-1])[::-1], full, rtol=1e-5, atol=1e-6)
    wider = np.pad(SOURCE, ((0, 0), (0, 3)))
    np.testing.assert_allclose(run.full(run.params, wider, TOKENS), full, rtol=1e-4, atol=1e-5)
    assert np.abs(full[1] - run.full(run.params, SOURCE, np.roll(TOKENS, 1, axis=0))[1]).max() > 1e-3
    changed = SOURCE.copy()
    changed[1, 0] = 5
    assert np.abs(full[1] - run.full(run.params, changed, TOKENS)[1]).max() > 1e-3


def future_has_no_gradient(model):
    """d logits_t / d embedding of input u is 0 for u > t and not for u <= t; the tokens of row 0 are all different."""
    run = compiled(model)
    mix_V = jnp.asarray(np.random.default_rng(1).normal(size=13), jnp.float32)

    def outputs(table_VE):
        params = {**run.params, 'target_embedding': table_VE}
        return run.full(params, SOURCE[:1], TOKENS[:1])[0] @ mix_V

    jacobian_TVE = jax.jit(jax.jacrev(outputs))(run.params['target_embedding'])
    size_TT = np.abs(np.asarray(jacobian_TVE)).sum(axis=-1)[:, TOKENS[0]]
    assert (size_TT[np.triu_indices(5, 1)] == 0).all()
    assert (size_TT[np.tril_indices(5)] > 0).all()


def dropout_needs_a_key(model, plain):
    """`model` drops units, `plain` is the same without dropout."""
    run, without = compiled(model), compiled(plain)
    np.testing.assert_array_equal(run.full(run.params, SOURCE, TOKENS), without.full(run.params, SOURCE, TOKENS))
    noisy = jax.jit(lambda k: run.model.apply({'params': run.params}, SOURCE, TOKENS, rngs={'dropout': k}))
    one, again, two = noisy(jax.random.key(0)), noisy(jax.random.key(0)), noisy(jax.random.key(1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - two).max() > 1e-3
    assert np.abs(one - without.full(run.params, SOURCE, TOKENS)).max() > 1e-3


def captured(model, source=SOURCE, tokens=TOKENS):
    """What `capture` shows of the batch whose decoder inputs are `tokens`, and the compiled model."""
    run = compiled(model)
    target = np.concatenate([tokens[:, 1:], np.full_like(tokens[:, :1], 2)], axis=1)
    return run.capture(run.params, Batch(source, target)), run


def attention_is_a_distribution(model):
    weights = np.asarray(captured(model)[0]['decoder/cross_attention'])
    assert weights.shape == (1, 4, 1, 5, 6)
    assert np.isfinite(weights).all()
    for row in range(4):
        np.testing.assert_allclose(weights[0, row, 0].sum(axis=-1), float(row < 3), atol=1e-6)
        assert (weights[0, row, 0, :, LENGTHS[row]:] == 0).all()
        assert (weights[0, row, 0, :, :LENGTHS[row]] > 0).all()


def attention_agrees_with_numpy(model, reference):
    shown, run = captured(model)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), run.params)
    for row in range(3):
        _, weights_TS = reference(model, params, SOURCE[row, :LENGTHS[row]], TOKENS[row])
        np.testing.assert_allclose(shown['decoder/cross_attention'][0, row, 0, :, :LENGTHS[row]], weights_TS,
                                   rtol=2e-4, atol=1e-6)
