"""Luong et al. 2015, equation by equation in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_recurrence as np_
import pytest
import recurrent_checks as checks

from seqjax.errors import UserError
from seqjax.models.luong import Luong

SMALL = dict(hidden_size=5, embedding_size=4)
MODELS = [Luong(score=score, input_feeding=feeding, num_layers=1 + feeding, bidirectional=both, **SMALL)
          for score in ('dot', 'general', 'concat', 'location') for feeding, both in ((True, False), (False, True))]
MODELS += [Luong(score='dot', reverse_source=True, **SMALL), Luong(cell='gru', bidirectional=True, **SMALL),
           Luong(cell='gru', reset='after', input_feeding=False, score='concat', **SMALL)]
every = pytest.mark.parametrize('model', MODELS, ids=checks.name)
some = pytest.mark.parametrize('model', [MODELS[1], MODELS[6], MODELS[8]], ids=checks.name)


def score(kind, p, h_t, h_s, s):
    """Equation 8, or 9 for the source position s."""
    if kind == 'dot':
        return h_t @ h_s
    if kind == 'general':
        return h_t @ (h_s @ p['alignment_keys']['kernel'])
    if kind == 'concat':
        W_a = np.concatenate([p['query_kernel'], p['alignment_keys']['kernel']])
        return p['alignment_v'] @ np.tanh(np.concatenate([h_t, h_s]) @ W_a)
    return h_t @ p['location_kernel'][:, s]


def reference(model, p, source, tokens, query='current'):
    """Logits (T, V) and weights (T, S) of one sentence. `query`: which decoder state the alignment is made from."""
    kind, states = model.cell, 2 if model.cell == 'lstm' else 1
    x = p['source_embedding'][source]
    values, carries = np_.stack(kind, p['encoder'], x[::-1] if model.reverse_source else x, reset=model.reset)
    values = values[::-1] if model.reverse_source else values
    if model.bidirectional:
        carries = [np_.bridge(p[f'bridge_{n}'], np.concatenate([*last, *first]), states)
                   for n, (last, first) in enumerate(carries)]
        values = values @ p['values']['kernel'] if model.score == 'dot' else values
    carries, fed, logits, weights = list(carries), np.zeros(model.hidden_size), [], []
    for y in p['target_embedding'][tokens]:
        before, more = carries[-1][-1], fed @ p['feed_kernel'] if model.input_feeding else 0.0
        for n in range(model.num_layers):
            carries[n], seen = np_.step(kind, p['decoder'][f'layer_{n}'], carries[n], y, more, model.reset)
            y, more = seen['hidden'], 0.0
        h = carries[-1][-1]
        state = h if query == 'current' else before
        a = np_.softmax(np.array([score(model.score, p, state, h_s, s) for s, h_s in enumerate(values)]))
        fed = np.tanh(np.concatenate([a @ values, h]) @ p['combine_kernel'])
        logits.append(p['output_embedding'] @ fed + p['output_bias'])
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


@pytest.mark.parametrize('model', [MODELS[0], MODELS[3]], ids=checks.name)
def test_alignment_reads_the_current_state(model):
    shown, run = checks.captured(model)
    weights_TS = np.asarray(shown['decoder/cross_attention'])[0, 0, 0]
    p = np_.float64(run.params)
    current, previous = (reference(model, p, checks.SOURCE[0], checks.TOKENS[0], query)[1]
                         for query in ('current', 'previous'))
    np.testing.assert_allclose(weights_TS, current, rtol=1e-4, atol=1e-6)
    assert np.abs(weights_TS - previous).max() > 3e-3


def test_without_feeding_the_decoder_knows_nothing_of_the_attention():
    """The states of a plain decoder, then attention computed outside, equations 5 and 6 for all steps at once."""
    model = MODELS[10]
    run = checks.compiled(model)
    p, memory = np_.float64(run.params), run.encode(run.params, checks.SOURCE)
    carries = jax.tree.map(lambda x: np.asarray(x[0], np.float64), memory['states'])
    h_TH, _ = np_.stack('gru', p['decoder'], p['target_embedding'][checks.TOKENS[0]], carries, reset='after')
    scores_TS = np.tanh((h_TH @ p['query_kernel'])[:, None] + np.asarray(memory['keys'][0])) @ p['alignment_v']
    context_TD = np_.softmax(scores_TS) @ np.asarray(memory['values'][0])
    attentional_TH = np.tanh(np.concatenate([context_TD, h_TH], axis=-1) @ p['combine_kernel'])
    expected = attentional_TH @ p['output_embedding'].T + p['output_bias']
    np.testing.assert_allclose(run.full(run.params, checks.SOURCE, checks.TOKENS)[0], expected, rtol=1e-4, atol=1e-5)


def test_feeding_with_no_weight_equals_no_feeding():
    fed, plain = (checks.compiled(Luong(input_feeding=feeding, **SMALL)) for feeding in (True, False))
    without = {name: value for name, value in fed.params.items() if name != 'feed_kernel'}
    silent = {**fed.params, 'feed_kernel': jnp.zeros_like(fed.params['feed_kernel'])}
    expected = plain.full(without, checks.SOURCE, checks.TOKENS)
    np.testing.assert_allclose(fed.full(silent, checks.SOURCE, checks.TOKENS), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(fed.full(fed.params, checks.SOURCE, checks.TOKENS) - expected).max() > 1e-2


def test_attention_is_in_the_order_of_the_source_however_it_is_read():
    reverse = checks.compiled(MODELS[8])
    memory = reverse.encode(reverse.params, checks.SOURCE)
    shown, _ = checks.captured(MODELS[8])
    np.testing.assert_array_equal(memory['values'], shown['encoder/layer_1/hidden'] * (checks.SOURCE != 0)[:, :, None])
    # Read from the end, what stands before the last token cannot have touched its state.
    changed = checks.SOURCE.copy()
    changed[0, 0] = 9
    other = reverse.encode(reverse.params, changed)['values']
    np.testing.assert_array_equal(other[0, 1:], memory['values'][0, 1:])
    assert np.abs(other[0, 0] - memory['values'][0, 0]).max() > 1e-3


def test_location_does_not_look_beyond_the_longest_source_of_the_data():
    longer = np.full((1, 9), 4, np.int32)
    shown, _ = checks.captured(Luong(score='location', **SMALL), longer, checks.TOKENS[:1])
    weights_TS = np.asarray(shown['decoder/cross_attention'])[0, 0, 0]
    np.testing.assert_allclose(weights_TS[:, :6].sum(axis=-1), 1.0, rtol=1e-6)
    assert (weights_TS[:, 6:] == 0).all()
    with pytest.raises(UserError, match='location needs'):
        Luong(score='location', source_size=5, target_size=5).init(jax.random.key(0), longer, longer)


@pytest.mark.parametrize('feeding', [True, False])
def test_dropout_needs_a_key(feeding):
    fields = dict(input_feeding=feeding, **SMALL)
    checks.dropout_needs_a_key(Luong(dropout=0.5, **fields), Luong(dropout=0.0, **fields))


def test_dropout_between_layers_of_the_feeding_scan_differs_by_step_and_is_the_stack_s():
    """With a top layer that cannot remember, equal inputs give equal states but for what is dropped below."""
    run = checks.compiled(Luong(dropout=0.5, hidden_size=16, embedding_size=4, num_layers=2))
    params = jax.tree.map(lambda x: x, run.params)
    params['decoder'] = {
        'layer_0': {'input_kernel': jnp.zeros((4, 64)), 'recurrent_kernel': jnp.zeros((16, 64)),
                    'bias': jnp.asarray(np.repeat([9.0, -9.0, 9.0, 9.0], 16), jnp.float32)},
        'layer_1': params['decoder']['layer_1'] | {'recurrent_kernel': jnp.zeros((16, 64))}}
    params['feed_kernel'] = jnp.zeros_like(params['feed_kernel'])

    def look(params, rngs):
        return run.model.apply({'params': params}, checks.SOURCE, checks.TOKENS, rngs=rngs, mutable=['intermediates'])

    _, sown = jax.jit(look)(params, {'dropout': jax.random.key(0)})
    below = sown['intermediates']['decoder']['layer_0']['hidden'][0]
    np.testing.assert_allclose(below, np.tanh(1.0), atol=1e-2)
    gate = sown['intermediates']['decoder']['layer_1']['output_gate'][0]
    assert np.abs(gate[:, 1] - gate[:, 2]).max() > 1e-2
    assert np.abs(gate[0] - gate[1]).max() > 1e-2
    _, sown = jax.jit(look)(params, None)
    gate = sown['intermediates']['decoder']['layer_1']['output_gate'][0]
    np.testing.assert_allclose(gate[:, 1], gate[:, 2], atol=1e-3)


def test_bfloat16_computes_near_float32():
    fields = dict(score='general', **SMALL)
    run, exact = checks.compiled(Luong(dtype='bfloat16', **fields)), checks.compiled(Luong(**fields))
    logits = run.full(run.params, checks.SOURCE, checks.TOKENS)
    assert logits.dtype == jnp.float32
    assert 0 < np.abs(logits - exact.full(run.params, checks.SOURCE, checks.TOKENS)).max() < 0.5
