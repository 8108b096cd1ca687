"""What every stack of attention is checked for, on a small batch of rows of different lengths, one all padding."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.decoding.options import Decoding
from seqjax.decoding.search import search
from seqjax.models.transformer import Transformer

# Two layers, a vocabulary that both sides may share.
SIZES = dict(source_size=13, target_size=13, source_length=9, target_length=7, num_layers=2, hidden_size=8, num_heads=2,
             feedforward_size=12, dropout=0.0)
SOURCE = np.array([[4, 5, 6, 7, 8, 2], [9, 4, 2, 0, 0, 0], [2, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], np.int32)
TOKENS = np.array([[1, 4, 5, 6, 7], [1, 9, 8, 7, 6], [1, 3, 4, 10, 12], [1, 5, 5, 5, 5]], np.int32)
TARGET = np.concatenate([TOKENS[:, 1:], np.full((4, 1), 2)], axis=1).astype(np.int32)
LENGTHS = (SOURCE != 0).sum(axis=1)
MOVED = SOURCE[:1, [3, 0, 4, 1, 2, 5]]  # the first row in another order


@functools.cache
def shapes_of(kind=Transformer, **fields):
    """The parameters' shapes."""
    model = kind(**(SIZES | fields))
    return jax.eval_shape(model.init, jax.random.key(0), SOURCE, TOKENS)['params']


def random_params(shapes):
    """Every parameter random, biases and scales (around 1) too, or a lost one would not show."""
    rng = np.random.default_rng(0)

    def draw(path, x):
        value = (path[-1].key == 'scale') + rng.normal(0, 0.5, x.shape)
        return jnp.asarray(0.3 + np.abs(value) if path[-1].key in ('running_var', 'running_weight') else value,
                           jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def compiled(kind=Transformer, **fields):
    """A model with random parameters and its jitted methods."""
    model = kind(**(SIZES | fields))
    params = random_params(shapes_of(kind, **{key: value for key, value in fields.items() if key not in (
        'dropout', 'attention_dropout', 'dtype', 'remat')}))

    def jit(method):
        return jax.jit(lambda params, *args: model.apply({'params': params}, *args, method=method))

    @jax.jit
    def weighted(params, key=None):
        """A scalar of all logits of real rows, for gradients."""
        logits = model.apply({'params': params}, SOURCE, TOKENS, rngs=None if key is None else {'dropout': key})
        mix = np.random.default_rng(1).normal(size=logits.shape)
        return (logits[:3] * mix[:3]).sum()

    return types.SimpleNamespace(model=model, params=params, full=jit('__call__'), encode=jit('encode'),
                                 decode=jit('decode'), gradient=jax.jit(jax.grad(weighted)))


def name(fields):
    """A test's id."""
    return ','.join(f'{key}={value}' for key, value in fields.items())


def cached_decoding_equals_all_at_once(run):
    """One token at a time; in chunks of two; and from rows that stand at different positions."""
    memory = run.encode(run.params, SOURCE)
    full, nothing = run.decode(run.params, TOKENS, memory)
    assert nothing is None
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(
        lambda: run.model.apply({'params': run.params}, memory, 7, method='start')))

    def check(carry, position_B, T):
        """Decodes the T tokens after each row's position and compares them with `full`."""
        rows = np.arange(4)[:, None]
        where = position_B[:, None] + np.arange(T)
        logits, carry = run.decode(run.params, TOKENS[rows, where], memory, carry)
        np.testing.assert_allclose(logits, full[rows, where], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(carry['position'], position_B + T)
        return carry

    carries = [start]
    for t in range(5):
        carries.append(check(carries[-1], np.full(4, t), 1))
    chunked = check(check(start, np.full(4, 0), 2), np.full(4, 2), 2)
    check(chunked, np.full(4, 4), 1)
    position_B = np.array([3, 0, 1, 2])
    mixed = jax.tree.map(lambda *leaves: jnp.stack([leaves[p][row] for row, p in enumerate(position_B)]), *carries)
    check(check(mixed, position_B, 1), position_B + 1, 1)
    check(mixed, position_B, 2)
    assert np.ptp(full, axis=1).min() > 1e-4, 'logits that do not change with the prefix prove nothing'


def neighbours_and_padding_change_nothing(run):
    """Other rows, another order of rows, wider padding on both sides; and what should change the logits does."""
    full = np.asarray(run.full(run.params, SOURCE, TOKENS))
    assert np.isfinite(full).all()
    other, other_tokens = SOURCE.copy(), TOKENS.copy()
    other[1:], other_tokens[1:] = SOURCE[0], TOKENS[2]
    np.testing.assert_allclose(run.full(run.params, other, other_tokens)[0], full[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run.full(run.params, SOURCE[::-1], TOKENS[::-1])[::-1], full, rtol=1e-5, atol=1e-5)
    wider, longer = np.pad(SOURCE, ((0, 0), (0, 3))), np.pad(TOKENS, ((0, 0), (0, 2)))
    np.testing.assert_allclose(run.full(run.params, wider, longer)[:, :5], full, rtol=1e-4, atol=1e-4)
    changed = SOURCE.copy()
    changed[1, 0] = 5
    assert np.abs(full[1] - run.full(run.params, changed, TOKENS)[1]).max() > 1e-2
    changed = TOKENS.copy()
    changed[1, 1] = 5
    assert np.abs(full[1] - run.full(run.params, SOURCE, changed)[1]).max() > 1e-2


def only_the_past_and_the_source_have_a_gradient(run):
    """With tie='none'. The tokens of row 0 are all different, so that a row of an embedding table is a position."""
    mix = np.random.default_rng(1).normal(size=13)

    def outputs(target, source):
        params = {**run.params, 'target_embedding': target, 'source_embedding': source}
        return run.model.apply({'params': params}, SOURCE[:1], TOKENS[:1])[0] @ mix

    jacobians = jax.jit(jax.jacrev(outputs, (0, 1)))(run.params['target_embedding'], run.params['source_embedding'])
    of_target_TV, of_source_TV = (np.abs(np.asarray(jacobian)).sum(axis=-1) for jacobian in jacobians)
    of_target_TT = of_target_TV[:, TOKENS[0]]
    assert (of_target_TT[np.triu_indices(5, 1)] == 0).all()
    assert (of_target_TT[np.tril_indices(5)] > 1e-4).all()
    assert (of_source_TV[:, SOURCE[0]] > 1e-4).all()
    assert (of_source_TV[:, 0] == 0).all()


def every_parameter_has_a_finite_gradient(run):
    """With tie='none', in each layer; even though a row of the batch is all padding."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(run.gradient(run.params))[0]:
        assert np.isfinite(leaf).all(), path
        stacked = path[0].key in ('encoder', 'decoder')
        for layer in leaf if stacked else [leaf]:
            assert np.abs(layer).max() > 0, path


def hypotheses_that_branch_equal_their_own_past(run, places=3):
    """Hypotheses of a row go on from one another at random; each one's logits are those of its own words so far."""
    rng = np.random.default_rng(0)
    memory, L = run.encode(run.params, SOURCE), 5
    carry = run.model.apply({'params': run.params}, memory, L, places, method='start')
    follow = jax.jit(run.model.follow)
    prefix = np.ones((4, places, 1), np.int32)
    crossed = False
    for step in range(L):
        tokens = prefix[:, :, -1] if step else prefix[:, :1, -1]  # at first they are one, and one token is for all
        logits, carry = run.decode(run.params, tokens, memory, carry)
        full = [run.decode(run.params, np.pad(prefix[:, place], ((0, 0), (0, L - 1 - step))), memory)[0]
                for place in range(places)]
        expected = np.stack(full, axis=1)[:, :, step]
        np.testing.assert_allclose(np.broadcast_to(logits, expected.shape)[:3], expected[:3], rtol=1e-4, atol=1e-4)
        assert np.ptp(expected[:3], axis=1).min() > 1e-6 or step == 0, 'hypotheses that are alike prove nothing'
        parent = rng.integers(0, places, (4, places))
        crossed |= step > 0 and (parent != np.arange(places)).any()
        carry = follow(carry, parent)
        prefix = np.take_along_axis(prefix, parent[:, :, None], axis=1)
        prefix = np.concatenate([prefix, rng.permuted(np.tile(np.arange(3, 13), (4, 1)), axis=1)[:, :places, None]], 2)
    assert crossed


def beams_are_those_of_rows_of_their_own(run, room=None):
    """The beam whose hypotheses share the cache of their row finds what one finds that copies rows."""
    alone = type('Alone', (type(run.model),), {'branches': False})(**(SIZES | {
        name: getattr(run.model, name) for name in ('norm', 'positions', 'tie')}))
    decoding = Decoding(method='beam', beam_size=3, nbest=3, length_penalty=0.6)
    ours, theirs = (jax.jit(functools.partial(search, model, decoding=decoding, max_length=7, room=room))(
        run.params, SOURCE) for model, room in ((run.model, room), (alone, None)))
    np.testing.assert_array_equal(ours.tokens_BKT, theirs.tokens_BKT)
    np.testing.assert_allclose(ours.log_probs_BK, theirs.log_probs_BK, rtol=1e-4, atol=1e-4)
    for row_KT in np.asarray(ours.tokens_BKT)[:3]:
        assert len(np.unique(row_KT, axis=0)) == 3
        assert (row_KT != 0).sum() > 6
