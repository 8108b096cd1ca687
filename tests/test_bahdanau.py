"""Bahdanau et al. 2015, equation by equation in float64."""

import jax.numpy as jnp
import numpy as np
import numpy_recurrence as np_
import pytest
import recurrent_checks as checks

from seqjax.models.bahdanau import Bahdanau

SMALL = dict(hidden_size=5, embedding_size=4, attention_size=7)
MODELS = [Bahdanau(**SMALL), Bahdanau(reset='after', readout='linear', **SMALL), Bahdanau(cell='lstm', **SMALL),
          Bahdanau(num_layers=2, **SMALL), Bahdanau(cell='lstm', num_layers=2, readout='linear', hidden_size=5),
          Bahdanau(normalisation='layer', residual=True, num_layers=2, **SMALL),
          Bahdanau(cell='lstm', normalisation='batch', num_layers=2, **SMALL), Bahdanau(time_skip=2, **SMALL),
          Bahdanau(cell='lstm', dilation=2, num_layers=2, **SMALL)]
every = pytest.mark.parametrize('model', MODELS, ids=checks.name)
some = pytest.mark.parametrize('model', [MODELS[0], MODELS[4], MODELS[6], MODELS[8]], ids=checks.name)


def reference(model, p, source, tokens, query='previous'):
    """Logits (T, V) and weights (T, S) of one sentence. `query`: which decoder state the alignment is made from."""
    kind, states = model.cell, 2 if model.cell == 'lstm' else 1
    h, _ = np_.stack(kind, p['encoder'], p['source_embedding'][source], reset=model.reset, options=model)
    keys = h @ p['alignment_keys']['kernel'] + p['alignment_keys']['bias']
    carries = [np_.bridge(p[f'bridge_{n}'], h[0, model.hidden_size:], states) for n in range(model.num_layers)]
    first, logits, weights = p['decoder']['layer_0'], [], []
    for y in p['target_embedding'][tokens]:
        state = carries[0][-1]
        if query == 'current':
            state = np_.step(kind, first, carries[0], y, reset=model.reset, options=model)[0][-1]
        a = np_.softmax(np.array([p['alignment_v'] @ np.tanh(state @ p['query_kernel'] + key) for key in keys]))
        c = a @ h
        carries[0], seen = np_.step(kind, first, carries[0], y, c @ p['context_kernel'], model.reset, model)
        s = seen['hidden']
        for n in range(1, model.num_layers):
            carries[n], seen = np_.step(kind, p['decoder'][f'layer_{n}'], carries[n], s, 0.0, model.reset, model, n)
            s = seen['hidden'] + (s if model.residual else 0.0)
        t = np.concatenate([s, y, c])
        if model.readout == 'maxout':
            t = np_.maxout(t @ p['readout_layer']['kernel'] + p['readout_layer']['bias'])
        logits.append(p['output_embedding'] @ t + p['output_bias'])
        weights.append(a)
    return np.array(logits), np.array(weights)


@every
def test_logits_follow_the_equations(model):
    checks.agrees_with_numpy(model, reference)


@every
def test_one_token_at_a_time_equals_all_at_once(model):
    checks.steps_equal_all_at_once(model)


@some
def test_neighbours_and_padding_change_nothing(model):
    checks.neighbours_and_padding_change_nothing(model)


@some
def test_future_tokens_have_no_gradient(model):
    checks.future_has_no_gradient(model)


@some
def test_captured_attention_is_a_distribution_and_the_one_of_the_equations(model):
    checks.attention_is_a_distribution(model)
    checks.attention_agrees_with_numpy(model, reference)


def test_alignment_reads_the_previous_state():
    shown, run = checks.captured(MODELS[0])
    weights_TS = np.asarray(shown['decoder/cross_attention'])[0, 0, 0]
    p = np_.float64(run.params)
    previous, current = (reference(MODELS[0], p, checks.SOURCE[0], checks.TOKENS[0], query)[1]
                         for query in ('previous', 'current'))
    np.testing.assert_allclose(weights_TS, previous, rtol=1e-4, atol=1e-6)
    assert np.abs(weights_TS - current).max() > 1e-2
    # The token read at step 1 has no part in the alignment of step 1, and has one in that of step 2.
    tokens = checks.TOKENS.copy()
    tokens[0, 1] = 9
    other_TS = np.asarray(checks.captured(MODELS[0], tokens=tokens)[0]['decoder/cross_attention'])[0, 0, 0]
    np.testing.assert_array_equal(other_TS[:2], weights_TS[:2])
    assert np.abs(other_TS[2] - weights_TS[2]).max() > 1e-3


def test_start_comes_from_the_backward_state_at_the_first_token():
    shown, run = checks.captured(MODELS[0])
    (hidden,), = run.start(run.params, run.encode(run.params, checks.SOURCE))
    first_BH = np.asarray(shown['encoder/layer_0/backward/hidden'], np.float64)[:, 0]
    for row in range(3):
        np.testing.assert_allclose(hidden[row], np_.bridge(np_.float64(run.params)['bridge_0'], first_BH[row], 1)[0],
                                   rtol=1e-4, atol=1e-6)


def test_capture_shows_gates_and_states():
    shown, run = checks.captured(MODELS[3])
    gates = {'reset_gate', 'update_gate', 'candidate', 'hidden'}
    sides = [f'encoder/layer_{n}/{way}' for n in range(2) for way in ('forward', 'backward')]
    sides += ['decoder/layer_0', 'decoder/layer_1']
    assert set(shown) == {f'{side}/{gate}' for side in sides for gate in gates} | {'decoder/cross_attention'}
    assert all(shown[f'{side}/{gate}'].shape == (4, 6 if side.startswith('encoder') else 5, 5)
               for side in sides for gate in gates)
    full = run.full(run.params, checks.SOURCE, checks.TOKENS)
    h, y = shown['decoder/layer_1/hidden'], run.params['target_embedding'][checks.TOKENS]
    values = run.encode(run.params, checks.SOURCE)['values']
    c = jnp.einsum('BTS,BSD->BTD', shown['decoder/cross_attention'][0, :, 0], values)
    p = np_.float64(run.params)
    t = np_.maxout(np.concatenate([h, y, c], axis=-1) @ p['readout_layer']['kernel'] + p['readout_layer']['bias'])
    np.testing.assert_allclose(full, t @ p['output_embedding'].T + p['output_bias'], rtol=1e-3, atol=1e-4)


def test_dropout_needs_a_key():
    checks.dropout_needs_a_key(Bahdanau(dropout=0.5, **SMALL), MODELS[0].clone(dropout=0.0))


def test_bfloat16_computes_near_float32():
    run, exact = checks.compiled(Bahdanau(dtype='bfloat16', **SMALL)), checks.compiled(MODELS[0])
    logits = run.full(run.params, checks.SOURCE, checks.TOKENS)
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - exact.full(run.params, checks.SOURCE, checks.TOKENS)).max() < 0.3
