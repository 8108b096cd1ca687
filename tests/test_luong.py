"""Luong et al. 2015, equation by equation in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_recurrence as np_
import pytest
import recurrent_checks as checks

from seqjax import flags
from seqjax.decoding.options import Decoding
from seqjax.decoding.search import score as score_of
from seqjax.decoding.search import search
from seqjax.errors import UserError
from seqjax.models.luong import Luong

SMALL = dict(hidden_size=5, embedding_size=4)
MODELS = [Luong(score=score, input_feeding=feeding, num_layers=1 + feeding, bidirectional=both, **SMALL)
          for score in ('dot', 'general', 'concat', 'location') for feeding, both in ((True, False), (False, True))]
MODELS += [Luong(score='dot', reverse_source=True, **SMALL), Luong(cell='gru', bidirectional=True, **SMALL),
           Luong(cell='gru', reset='after', input_feeding=False, score='concat', **SMALL)]
# Windows of 3 and 5 positions: sources of 6, 3, 1 and 0 tokens and targets of 5 are cut by them, and outlast them.
LOCAL = [Luong(attention=attention, score=score, input_feeding=feeding, num_layers=1 + feeding, window=2 - feeding,
               **SMALL)
         for attention in ('monotonic', 'predictive') for score in ('dot', 'general', 'concat', 'location')
         for feeding in (True, False)]
LOCAL += [Luong(attention='monotonic', window=1, reverse_source=True, **SMALL),
          Luong(attention='predictive', window=1, score='dot', bidirectional=True, cell='gru', **SMALL)]
MODELS += [Luong(normalisation='rms', residual=True, **SMALL), Luong(dilation=2, **SMALL),
           Luong(cell='gru', time_skip=2, bidirectional=True, **SMALL),
           Luong(normalisation='batch', residual=True, input_feeding=False, **SMALL)]
BEFORE = [Luong(state='previous', cell='gru', score='concat', **SMALL),
          Luong(state='previous', input_feeding=False, **SMALL), Luong(state='previous', residual=True, **SMALL),
          Luong(state='previous', attention='predictive', window=2, score='location', num_layers=1, **SMALL)]
every = pytest.mark.parametrize('model', MODELS + LOCAL + BEFORE, ids=checks.name)
some = pytest.mark.parametrize('model', [*(MODELS[n] for n in (1, 6, 8, 12, 13, 14)), BEFORE[1]], ids=checks.name)
local = pytest.mark.parametrize('model', [LOCAL[2], LOCAL[5], LOCAL[10], LOCAL[15]], ids=checks.name)


def score(kind, p, h_t, h_s, s):
    """The scores of section 3.1, or of equation 8 for the source position s."""
    if kind == 'dot':
        return h_t @ h_s
    if kind == 'general':
        return h_t @ (h_s @ p['alignment_keys']['kernel'])
    if kind == 'concat':
        W_a = np.concatenate([p['query_kernel'], p['alignment_keys']['kernel']])
        return p['alignment_v'] @ np.tanh(np.concatenate([h_t, h_s]) @ W_a)
    return h_t @ p['location_kernel'][:, s]


def align(model, p, state, values, t):
    """Weights (S,) of step t, from 1: equation 7 over all of the source, or over the window times equation 10."""
    e = np.array([score(model.score, p, state, h_s, s) for s, h_s in enumerate(values)])
    if model.attention == 'global':
        return np_.softmax(e)
    S, D, a = len(values), model.window, np.zeros(len(values))
    p_t = t
    if model.attention == 'predictive':
        p_t = S * np_.sigmoid(p['centre_v'] @ np.tanh(state @ p['centre_kernel']))  # equation 9
    inside = [s for s in range(1, S + 1) if p_t - D <= s <= p_t + D]
    if inside:
        a[np.array(inside) - 1] = np_.softmax(e[np.array(inside) - 1])
    if model.attention == 'predictive':
        a *= np.exp(-(np.arange(1, S + 1) - p_t) ** 2 / (2 * (D / 2) ** 2))  # equation 10
    return a


def reference(model, p, source, tokens, query=None):
    """Logits (T, V) and weights (T, S) of one sentence. `query`: which decoder state the alignment is made from."""
    kind, states = model.cell, 2 if model.cell == 'lstm' else 1
    x = p['source_embedding'][source]
    values, carries = np_.stack(kind, p['encoder'], x[::-1] if model.reverse_source else x,
                                 reset=model.reset, options=model)
    values = values[::-1] if model.reverse_source else values
    if model.bidirectional:
        carries = [np_.bridge(p[f'bridge_{n}'], np.concatenate([*last, *first]), states)
                   for n, (last, first) in enumerate(carries)]
        values = values @ p['values']['kernel'] if model.score == 'dot' else values
    carries, fed, logits, weights = [np_.handed(carry) for carry in carries], np.zeros(model.hidden_size), [], []
    for t, y in enumerate(p['target_embedding'][tokens], 1):
        before = sum(carry[-1] for carry in carries) if model.residual else carries[-1][-1]
        more = fed @ p['feed_kernel'] if model.input_feeding else 0.0
        for n in range(model.num_layers):
            carries[n], seen = np_.step(kind, p['decoder'][f'layer_{n}'], carries[n], y, more, model.reset, model, n)
            y, more = seen['hidden'] + (y if n and model.residual else 0.0), 0.0
        h = y
        state = h if (query or model.state) == 'current' else before
        a = align(model, p, state, values, t)
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


@pytest.mark.parametrize('model', [MODELS[0], MODELS[3], *BEFORE[:2]], ids=checks.name)
def test_alignment_reads_the_state_that_it_should(model):
    shown, run = checks.captured(model)
    weights_TS = np.asarray(shown['decoder/cross_attention'])[0, 0, 0]
    p = np_.float64(run.params)
    current, previous = (reference(model, p, checks.SOURCE[0], checks.TOKENS[0], query)[1]
                         for query in ('current', 'previous'))
    right, wrong = (current, previous) if model.state == 'current' else (previous, current)
    np.testing.assert_allclose(weights_TS, right, rtol=1e-4, atol=1e-6)
    assert np.abs(weights_TS - wrong).max() > 3e-3


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


@local
def test_neighbours_padding_and_future_change_nothing_of_a_window(model):
    checks.neighbours_and_padding_change_nothing(model)
    checks.future_has_no_gradient(model)


@local
def test_windows_are_captured(model):
    """The weights of the equations, 0 outside of the window, and its edges and centre to be drawn."""
    checks.attention_agrees_with_numpy(model, reference)
    shown, _ = checks.captured(model)
    weights_BTS, window_BTE = np.asarray(shown['decoder/cross_attention'])[0, :, 0], np.asarray(shown['decoder/window'])
    assert window_BTE.shape == (4, 5, 3)
    np.testing.assert_allclose(np.diff(window_BTE), model.window, rtol=1e-5)
    centre_BT = window_BTE[:, :, 1]
    if model.attention == 'monotonic':
        np.testing.assert_array_equal(centre_BT, np.tile(np.arange(1, 6), (4, 1)))
    else:
        assert (centre_BT[:3] > 0).all()
        assert (centre_BT <= checks.LENGTHS[:, None]).all()
        assert np.ptp(centre_BT[0]) > 0.1, 'the centre moves with the state'
    there_BTS = (np.arange(1, 7) >= window_BTE[:, :, :1]) & (np.arange(1, 7) <= window_BTE[:, :, 2:]) & (
        np.arange(1, 7) <= checks.LENGTHS[:, None, None])
    np.testing.assert_array_equal(weights_BTS > 0, there_BTS)
    assert 0 < there_BTS[0].mean() < 1, 'the window cuts something'


def test_a_monotonic_window_past_the_end_holds_nothing_and_is_finite():
    """Source of 3 tokens, D = 1: weights and context are 0 from step 5 on, and every gradient is finite."""
    model = Luong(attention='monotonic', window=1, **SMALL)
    source, tokens = np.array([[9, 4, 2]], np.int32), np.array([[1, 5, 6, 7, 8, 9, 10, 3]], np.int32)
    shown, run = checks.captured(model, source, tokens)
    np.testing.assert_allclose(np.asarray(shown['decoder/cross_attention'])[0, 0, 0].sum(-1), [1, 1, 1, 1, 0, 0, 0, 0],
                               atol=1e-6)

    def total(params):
        return run.full(params, source, tokens)[0, 5:].sum()

    gradient = jax.grad(total)(run.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient['combine_kernel'][5:]).max() > 0, 'the word is still predicted, from the state'


@pytest.mark.parametrize('feeding', [True, False])
@pytest.mark.parametrize('score', ['dot', 'general', 'concat', 'location'])
def test_a_window_wider_than_the_sentence(score, feeding):
    """Monotonic is global attention, number for number; predictive is global attention times the Gaussian."""
    fields = dict(score=score, input_feeding=feeding, **SMALL)
    run = checks.compiled(Luong(**fields))
    wide = checks.compiled(Luong(attention='monotonic', window=6, **fields))
    rows = slice(0, 3)
    expected = run.full(run.params, checks.SOURCE[rows], checks.TOKENS[rows])
    np.testing.assert_array_equal(wide.full(run.params, checks.SOURCE[rows], checks.TOKENS[rows]), expected)
    if not feeding:  # states do not depend on the attention, and weights can be compared step by step
        model = Luong(attention='predictive', window=12, **fields)
        shown, predicted = checks.captured(model)
        all_of_it = run.capture({name: predicted.params[name] for name in run.params},
                                checks.Batch(checks.SOURCE, np.pad(checks.TOKENS[:, 1:], ((0, 0), (0, 1)))))
        centre_BT1 = np.asarray(shown['decoder/window'], np.float64)[:, :, 1:2]
        factor_BTS = np.exp(-(np.arange(1, 7) - centre_BT1) ** 2 / (2 * 6.0 ** 2))
        np.testing.assert_allclose(shown['decoder/cross_attention'][0, :, 0],
                                   factor_BTS * all_of_it['decoder/cross_attention'][0, :, 0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('feeding', [True, False])
def test_the_centre_learns(feeding):
    """W_p and v_p have the gradient of a small step, through the Gaussian."""
    model = Luong(attention='predictive', window=3, input_feeding=feeding, **SMALL)
    run = checks.compiled(model)
    mix_TV = np.random.default_rng(2).normal(size=(5, 13))

    def total(params):
        return (run.full(params, checks.SOURCE[:2], checks.TOKENS[:2])[0] * mix_TV).sum()

    gradient, p = jax.grad(total)(run.params), np_.float64(run.params)
    for name in ('centre_kernel', 'centre_v'):
        direction = np.random.default_rng(3).normal(size=p[name].shape)
        ends = [(reference(model, p | {name: p[name] + sign * 1e-5 * direction}, checks.SOURCE[0], checks.TOKENS[0])[0]
                 * mix_TV).sum() for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-5
        assert abs(slope) > 1e-2
        np.testing.assert_allclose((np.asarray(gradient[name]) * direction).sum(), slope, rtol=2e-3)


@pytest.mark.parametrize('model', [LOCAL[2], LOCAL[10]], ids=checks.name)
def test_a_beam_carries_the_window_along(model):
    """What it says of its hypotheses is what one teacher-forced pass says of them."""
    run, decoding = checks.compiled(model), Decoding(method='beam', beam_size=3, nbest=3)
    found = jax.jit(lambda params: search(run.model, params, checks.SOURCE, decoding, 5))(run.params)
    assert len({str(tokens) for tokens in found.tokens_BKT[:3].reshape(9, 5)}) > 6, 'hypotheses differ'
    source, target = np.repeat(checks.SOURCE[:3], 3, axis=0), found.tokens_BKT[:3].reshape(9, 5)
    expected = jax.jit(lambda params: score_of(run.model, params, source, target))(run.params)
    np.testing.assert_allclose(found.log_probs_BK[:3].reshape(9), expected, rtol=1e-4)


def test_a_window_is_read_with_local_attention_only():
    with pytest.raises(UserError, match=r'--model\.window=3 is not read with --model\.attention=global'):
        flags.override('model.', Luong(), {'window': 3})
    assert flags.override('model.', Luong(), {'window': 3, 'attention': 'predictive'}).window == 3
