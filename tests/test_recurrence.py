"""Cells against their equations, layers against torch (fixtures/make_torch_recurrent.py), and padding."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import numpy_recurrence as reference
import pytest

from seqjax.layers.recurrence import Bidirectional, Bridge, Cell, Recurrence, Stack, pool

FIXTURES = pathlib.Path(__file__).parent / 'fixtures'
B, T, D, H = 3, 6, 4, 5
KINDS = [('rnn', 'before'), ('lstm', 'before'), ('gru', 'before'), ('gru', 'after')]
MASK = np.arange(T) < np.array([[6], [4], [1]])


def inputs(seed=0, width=D):
    return np.random.default_rng(seed).normal(size=(B, T, width)).astype(np.float32)


def randomised(module, *args, seed=1):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)['params']
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.7, x.shape), jnp.float32), shapes)


@pytest.mark.parametrize(('kind', 'reset'), KINDS)
@pytest.mark.parametrize('reverse', [False, True])
def test_layer_equals_the_equations_and_shows_its_gates(kind, reset, reverse):
    layer = Recurrence(Cell(kind, H, reset=reset), D, reverse=reverse)
    x_BTD = inputs()
    params = randomised(layer, x_BTD)
    (outputs, carry), sown = jax.jit(
        lambda p, x: layer.apply({'params': p}, x, MASK, mutable=['intermediates']))(params, x_BTD)
    p = reference.float64(params)
    for row, length in enumerate(MASK.sum(axis=1)):
        order = range(length)[::-1] if reverse else range(length)
        state = reference.start(kind, p)
        for t in order:
            state, seen = reference.step(kind, p, state, x_BTD[row, t].astype(np.float64), reset=reset)
            np.testing.assert_allclose(outputs[row, t], seen['hidden'], rtol=1e-4, atol=1e-6)
            for name, value in seen.items():
                np.testing.assert_allclose(sown['intermediates'][name][0][row, t], value, rtol=1e-4, atol=1e-6)
        assert set(sown['intermediates']) == set(seen)
        assert (np.asarray(outputs[row, length:]) == 0).all()
        assert len(carry) == len(state)
        for ours, expected in zip(carry, state):
            np.testing.assert_allclose(ours[row], expected, rtol=1e-4, atol=1e-6)


def torch_layer(arrays, kind, suffix):
    """torch's weights as ours: transposed, and its two biases added except inside the GRU's reset gate."""
    theirs = {name: arrays[f'{name}_{suffix}'] for name in ('weight_ih', 'weight_hh', 'bias_ih', 'bias_hh')}
    ours = {'input_kernel': theirs['weight_ih'].T, 'recurrent_kernel': theirs['weight_hh'].T,
            'bias': theirs['bias_ih'] + theirs['bias_hh']}
    if kind == 'gru':
        ours['bias'] = theirs['bias_ih'] + np.concatenate([theirs['bias_hh'][:2 * H], np.zeros(H)])
        ours['recurrent_bias'] = theirs['bias_hh'][2 * H:]
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), ours)


@pytest.mark.parametrize('kind', ['rnn', 'lstm', 'gru'])
def test_bidirectional_stack_equals_torch(kind):
    arrays = np.load(FIXTURES / f'torch_{kind}.npz')
    params = {f'layer_{n}': {'forward': torch_layer(arrays, kind, f'l{n}'),
                             'backward': torch_layer(arrays, kind, f'l{n}_reverse')} for n in range(2)}
    stack = Stack(Cell(kind, H, reset='after'), D, num_layers=2, bidirectional=True)
    mask = np.arange(T) < arrays['lengths'][:, None]
    x_BTD = arrays['inputs'].astype(np.float32)
    outputs, carries = jax.jit(lambda p, x: stack.apply({'params': p}, x, mask))(params, x_BTD)
    np.testing.assert_allclose(outputs, arrays['outputs'], rtol=1e-4, atol=1e-6)
    for n in range(2):
        for direction in range(2):
            carry = carries[n][direction]
            np.testing.assert_allclose(carry[-1], arrays['hidden'][2 * n + direction], rtol=1e-4, atol=1e-6)
            if kind == 'lstm':
                np.testing.assert_allclose(carry[0], arrays['cell'][2 * n + direction], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(('kind', 'reset'), KINDS)
def test_padding_changes_nothing_in_both_directions(kind, reset):
    stack = Stack(Cell(kind, H, reset=reset), D, num_layers=2, bidirectional=True)
    x_BTD = inputs()
    params = randomised(stack, x_BTD)
    run = jax.jit(lambda x, mask: stack.apply({'params': params}, x, mask))
    outputs, carries = run(x_BTD, MASK)
    noise = np.where(MASK[:, :, None], x_BTD, 1e3).astype(np.float32)
    for ours, expected in zip(jax.tree.leaves(run(noise, MASK)), jax.tree.leaves((outputs, carries))):
        np.testing.assert_array_equal(ours, expected)
    short = run(x_BTD[1:2, :4], np.ones((1, 4), bool))
    np.testing.assert_allclose(short[0][0], outputs[1, :4], rtol=1e-5, atol=1e-6)
    for ours, expected in zip(jax.tree.leaves(short[1]), jax.tree.leaves(carries)):
        np.testing.assert_allclose(ours[0], expected[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('kind', 'reset'), KINDS)
def test_pieces_with_the_carry_equal_the_whole(kind, reset):
    stack = Stack(Cell(kind, H, reset=reset), D, num_layers=2)
    x_BTD = inputs()
    params = randomised(stack, x_BTD)
    run = jax.jit(lambda x, carries, more: stack.apply({'params': params}, x, None, carries, more))
    more = jnp.asarray(np.random.default_rng(5).normal(size=(B, stack.cell.width)), jnp.float32)
    zeros = (stack.cell.zeros(B),) * 2
    whole, last = run(x_BTD, zeros, more)
    carries, pieces = zeros, []
    for begin, end in ((0, 1), (1, 2), (2, 6)):
        piece, carries = run(x_BTD[:, begin:end], carries, more)
        pieces.append(piece)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda ours, expected: np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6), carries, last)
    expected, _ = reference.stack(kind, reference.float64(params), x_BTD[0].astype(np.float64), None,
                                  np.asarray(more[0], np.float64), reset)
    np.testing.assert_allclose(whole[0], expected, rtol=1e-4, atol=1e-6)


def test_gradients_stay_in_the_past():
    stack = Stack(Cell('gru', H), D, num_layers=2)
    params = randomised(stack, inputs())
    jacobian = jax.jit(jax.jacrev(lambda x: stack.apply({'params': params}, x)[0].sum(axis=(0, 2))))(inputs())
    size_TT = np.abs(jacobian).sum(axis=(1, 3))
    assert (size_TT[np.triu_indices(T, 1)] == 0).all()
    assert (size_TT[np.tril_indices(T)] > 0).all()


def test_initial_values():
    def initial(cell, width):
        return jax.jit(Recurrence(cell, width).init)(jax.random.key(0), np.zeros((1, 1, width)))['params']

    params = initial(Cell('lstm', H, forget_bias=1.5), D)
    np.testing.assert_array_equal(params['bias'], np.repeat([0, 1.5, 0, 0], H))
    for gate in np.split(np.asarray(params['recurrent_kernel']), 4, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(H), atol=1e-5)
    wide = np.asarray(initial(Cell('gru', 100), 60)['input_kernel'])
    bound = (6 / (60 + 100)) ** 0.5  # Glorot and Bengio 2010, equation 16, of each gate for itself
    assert bound * 0.99 < np.abs(wide).max() <= bound
    assert not np.asarray(initial(Cell('gru', H, forget_bias=1.5), D)['bias']).any()


def test_dropout_is_between_layers_only_and_needs_a_key():
    one, two = (Stack(Cell('gru', H), D, num_layers=n, dropout=0.5) for n in (1, 2))
    x_BTD = inputs()
    params = randomised(two, x_BTD)
    bottom = {'layer_0': params['layer_0']}
    key = {'dropout': jax.random.key(0)}

    def run(stack, params, rngs=None):
        return np.asarray(jax.jit(lambda p, rngs: stack.apply({'params': p}, x_BTD, rngs=rngs)[0])(params, rngs))

    np.testing.assert_array_equal(run(one, bottom, key), run(one, bottom))
    plain = run(two.clone(dropout=0.0), params)
    np.testing.assert_array_equal(run(two, params), plain)
    assert np.abs(run(two, params, key) - plain).max() > 1e-2


def test_bfloat16_keeps_the_state_in_float32():
    stack = Stack(Cell('lstm', H), D, num_layers=2, dtype='bfloat16')
    x_BTD = inputs()
    params = randomised(stack, x_BTD)
    outputs, carries = jax.jit(stack.apply)({'params': params}, x_BTD, MASK)
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(carries)} == {jnp.dtype('float32')}
    exact, _ = jax.jit(stack.clone(dtype='float32').apply)({'params': params}, x_BTD, MASK)
    assert 0 < np.abs(outputs.astype(np.float32) - exact).max() < 0.05


def test_bridge_is_tanh_of_a_projection_for_each_state():
    bridge = Bridge(Cell('lstm', H))
    summary = inputs()[:, 0]
    params = randomised(bridge, summary)
    cell, hidden = jax.jit(bridge.apply)({'params': params}, summary)
    p = reference.float64(params)
    for row in range(B):
        expected = reference.bridge(p, summary[row], 2)
        np.testing.assert_allclose(cell[row], expected[0], rtol=1e-5)
        np.testing.assert_allclose(hidden[row], expected[1], rtol=1e-5)


def test_pooling_over_real_positions_only():
    x_BTH = inputs() - 5.0  # all negative: padding counted as 0 would be the maximum
    mask = MASK.copy()
    mask[2] = False
    for how, expected in (('mean', np.mean), ('max', np.max)):
        pooled = np.asarray(pool(jnp.asarray(x_BTH), jnp.asarray(mask), how))
        for row, length in enumerate((6, 4)):
            np.testing.assert_allclose(pooled[row], expected(x_BTH[row, :length], axis=0), rtol=1e-5)
        assert (pooled[2] == 0).all()


def test_bidirectional_puts_forward_first():
    both = Bidirectional(Cell('rnn', H), D)
    x_BTD = inputs()
    params = randomised(both, x_BTD)
    outputs, (last, first) = jax.jit(both.apply)({'params': params}, x_BTD, MASK)
    np.testing.assert_array_equal(outputs[0, -1, :H], last[-1][0])
    np.testing.assert_array_equal(outputs[:, 0, H:], first[-1])
