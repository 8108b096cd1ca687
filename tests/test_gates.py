"""Gates that are removed, paths that are cut and other activations, against the equations in float64 numpy."""

import jax
import numpy as np
import pytest
from tiny import flags, launch

from seqjax.layers.cells import Cell
from seqjax.layers.recurrence import Recurrence
from seqjax.models.recurrent import GRU, LSTM

D, H, T = 3, 4, 5
SQUASH = {'sigmoid': lambda x: 1 / (1 + np.exp(-x)), 'hard_sigmoid': lambda x: np.clip(x + 3, 0, 6) / 6,
          'relu': lambda x: np.maximum(x, 0)}


def lstm(p, x, state, activation, without, cut):
    c, h = (np.zeros(H) if cut == name else s for s, name in zip(state, ('cell', 'hidden')))
    a = x @ p['input_kernel'] + h @ p['recurrent_kernel'] + p['bias']
    i, f, o = (np.ones(H) if name == without else SQUASH[activation](a[at * H:][:H])
               for name, at in (('input', 0), ('forget', 1), ('output', 3)))
    c = f * c + i * np.tanh(a[2 * H:3 * H])
    return c, o * np.tanh(c)


def gru(p, x, state, activation, without, cut):
    h, U = state[0], p['recurrent_kernel']
    a = x @ p['input_kernel'] + p['bias']
    r, z = (SQUASH[activation](a[at:at + H] + h @ U[:, at:at + H]) for at in (0, H))
    r, z = np.ones(H) if without == 'reset' else r, np.zeros(H) if without == 'update' else z
    n = np.tanh(a[2 * H:] + (r * h) @ U[:, 2 * H:])
    return (z * h + (1 - z) * n,)


@pytest.mark.parametrize(('kind', 'activation', 'without', 'cut'), [
    ('lstm', 'sigmoid', 'none', 'none'), ('lstm', 'sigmoid', 'input', 'none'), ('lstm', 'sigmoid', 'forget', 'none'),
    ('lstm', 'sigmoid', 'output', 'none'), ('lstm', 'sigmoid', 'none', 'cell'), ('lstm', 'sigmoid', 'none', 'hidden'),
    ('lstm', 'hard_sigmoid', 'none', 'none'), ('lstm', 'relu', 'forget', 'none'), ('gru', 'sigmoid', 'reset', 'none'),
    ('gru', 'sigmoid', 'update', 'none'), ('gru', 'hard_sigmoid', 'none', 'none')])
def test_states_are_those_of_the_equations(kind, activation, without, cut):
    layer = Recurrence(Cell(kind, H, activation=activation, without=without, cut=cut), D)
    rng = np.random.default_rng(0)
    x_BTD = rng.normal(size=(1, T, D)).astype(np.float32)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x_BTD)['params']
    params = jax.tree.map(lambda x: rng.normal(0, 0.9, x.shape).astype(np.float32), shapes)
    (outputs, carry), sown = jax.jit(lambda p: layer.apply({'params': p}, x_BTD, mutable=['intermediates']))(params)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    state = (np.zeros(H),) * (2 if kind == 'lstm' else 1)
    for t in range(T):
        state = {'lstm': lstm, 'gru': gru}[kind](p, x_BTD[0, t].astype(np.float64), state, activation, without, cut)
        np.testing.assert_allclose(outputs[0, t], state[-1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(carry[0][0], state[0], rtol=1e-4, atol=1e-6)
    if without != 'none':
        shown = sown['intermediates'][f'{without}_gate'][0]
        assert (np.asarray(shown) == (0 if without == 'update' else 1)).all()


def test_models_hand_their_options_on():
    lstm = LSTM(without='forget', cut='hidden', gate_activation='relu', recurrent_gain=2.0).cell
    assert (lstm.without, lstm.cut, lstm.activation, lstm.gain) == ('forget', 'hidden', 'relu', 2.0)
    gru = GRU(without='update', gate_activation='hard_sigmoid', recurrent_gain=0.5).cell
    assert (gru.without, gru.activation, gru.gain) == ('update', 'hard_sigmoid', 0.5)


@pytest.mark.parametrize(('model', 'flag', 'choices'), [
    ('gru', 'without=forget', 'none, reset, update'), ('lstm', 'without=reset', 'none, input, forget, output'),
    ('lstm', 'cut=gate', 'none, cell, hidden')])
def test_a_gate_that_a_cell_has_not_is_refused(model, flag, choices, tmp_path, capsys):
    assert launch(*flags(tmp_path, f'--model.{flag}', model=model)) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    assert choices in error
