"""RNN, LSTM and GRU without attention against Sutskever et al. 2014 and Cho et al. 2014, row by row in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_recurrence as np_
import pytest
import recurrent_checks as checks

from seqjax.models.recurrent import GRU, LSTM, RNN
from seqjax.options import options

SMALL = dict(hidden_size=6, embedding_size=5, num_layers=2)
MODELS = [
    RNN(**SMALL), LSTM(**SMALL), GRU(**SMALL), GRU(reset='after', **SMALL), LSTM(reverse_source=True, **SMALL),
    LSTM(bidirectional=True, **SMALL), GRU(context='mean', **SMALL), RNN(context='max', bidirectional=True, **SMALL),
    GRU(feed='every', **SMALL), LSTM(feed='every', bidirectional=True, context='mean', **SMALL),
    LSTM(tie_embeddings=True, **SMALL), GRU(tie_embeddings=True, feed='every', **SMALL),
    GRU(tie_embeddings=True, num_layers=1, hidden_size=6),
    # Normalised, and reaching back in time or down a layer.
    LSTM(normalisation='layer', **SMALL), GRU(normalisation='layer', reset='after', feed='every', **SMALL),
    RNN(normalisation='rms', residual=True, **SMALL), GRU(normalisation='rms', bidirectional=True, **SMALL),
    LSTM(normalisation='batch', reverse_source=True, residual=True, **SMALL),
    GRU(normalisation='batch', bidirectional=True, **SMALL), RNN(normalisation='batch', time_skip=2, **SMALL),
    LSTM(time_skip=3, **SMALL), GRU(time_skip=2, bidirectional=True, residual=True, **SMALL),
    RNN(dilation=3, **SMALL), LSTM(dilation=2, reverse_source=True, num_layers=3, hidden_size=4),
    GRU(dilation=2, bidirectional=True, normalisation='layer', **SMALL),
]
every = pytest.mark.parametrize('model', MODELS, ids=lambda m: f'{type(m).__name__}-{checks.name(m)}')
some = pytest.mark.parametrize('model', [MODELS[4], MODELS[7], MODELS[8], MODELS[17], MODELS[18], MODELS[21],
                                                          MODELS[23]],
                               ids=lambda m: f'{type(m).__name__}-{checks.name(m)}')


def reference(model, p, source, tokens):
    """Logits (T, V) of one sentence."""
    kind, reset = model.cell.kind, model.cell.reset
    x = p['source_embedding'][source[::-1] if model.reverse_source else source]
    outputs, carries = np_.stack(kind, p['encoder'], x, reset=reset, options=model)
    y = p['target_embedding'][tokens]
    if model.context == 'last':
        ends = carries[-1] if model.bidirectional else (carries[-1],)
        context = np.concatenate([end[-1] for end in ends])
    else:
        context = outputs.mean(axis=0) if model.context == 'mean' else outputs.max(axis=0)
    if not (model.context == 'last' and not model.bidirectional and model.feed == 'once'):
        carries = [np_.bridge(p[f'bridge_{n}'], context, 2 if kind == 'lstm' else 1) for n in range(model.num_layers)]
    else:
        carries = [np_.handed(carry) for carry in carries]
    more = context @ p['context_input']['kernel'] if model.feed == 'every' else 0.0
    h, _ = np_.stack(kind, p['decoder'], y, carries, more, reset, model)
    if model.feed == 'every':
        h = np_.maxout(h @ p['readout_hidden']['kernel'] + p['readout_hidden']['bias']
                       + y @ p['readout_embedding']['kernel'] + context @ p['readout_context']['kernel'])
    elif model.tie_embeddings and model.embedding_size:
        h = h @ p['readout_hidden']['kernel'] + p['readout_hidden']['bias']
    output = p['target_embedding'] if model.tie_embeddings else p['output_embedding']
    return h @ output.T + p['output_bias'], None


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


def test_decoder_starts_exactly_where_the_encoder_ended():
    run = checks.compiled(MODELS[1])
    memory = run.encode(run.params, checks.SOURCE)
    shown, _ = checks.captured(MODELS[1])
    for n, (cell, hidden) in enumerate(run.start(run.params, memory)):
        for row, length in enumerate(checks.LENGTHS[:3]):
            np.testing.assert_allclose(hidden[row], shown[f'encoder/layer_{n}/hidden'][row, length - 1], rtol=1e-6)
            np.testing.assert_allclose(cell[row], shown[f'encoder/layer_{n}/cell'][row, length - 1], rtol=1e-6)
        assert not np.asarray(hidden[3]).any()


def test_reversed_source_is_the_source_flipped_within_its_length():
    plain, reverse = checks.compiled(MODELS[1]), checks.compiled(MODELS[4])
    flipped = np.array([[2, 8, 7, 6, 5, 4], [2, 4, 9, 0, 0, 0], [2, 0, 0, 0, 0, 0], [0] * 6], np.int32)
    ours = reverse.full(plain.params, checks.SOURCE, checks.TOKENS)
    np.testing.assert_allclose(ours, plain.full(plain.params, flipped, checks.TOKENS), rtol=1e-5, atol=1e-6)
    assert np.abs(ours[:2] - plain.full(plain.params, checks.SOURCE, checks.TOKENS)[:2]).max() > 1e-2


def test_capture_shows_gates_and_states():
    shown, _ = checks.captured(MODELS[5])
    gates = {'input_gate', 'forget_gate', 'output_gate', 'candidate', 'cell', 'hidden'}
    sides = [f'encoder/layer_{n}/{way}' for n in range(2) for way in ('forward', 'backward')]
    assert set(shown) == {f'{side}/{gate}' for side in [*sides, 'decoder/layer_0', 'decoder/layer_1'] for gate in gates}
    assert {key: value.shape for key, value in shown.items()} == {
        key: (4, 6 if key.startswith('encoder') else 5, 6) for key in shown}


def test_dropout_needs_a_key():
    for fields in (dict(num_layers=2), dict(num_layers=1, feed='every')):
        fields = dict(hidden_size=6, **fields)
        checks.dropout_needs_a_key(GRU(dropout=0.5, **fields), GRU(dropout=0.0, **fields))


def test_each_model_has_the_options_it_reads():
    names = {model: {field.name for field in options(model())} for model in (RNN, LSTM, GRU)}
    assert names[LSTM] - names[RNN] == {'forget_bias', 'gate_activation', 'without', 'cut'}
    assert names[GRU] - names[RNN] == {'reset', 'gate_activation', 'without'}
    assert names[RNN] < names[LSTM]
    assert names[RNN] < names[GRU]


def test_forget_bias_is_an_initial_value():
    model = LSTM(forget_bias=2.0, **SMALL).clone(**checks.SIZES)
    params = jax.jit(model.init)(jax.random.key(0), checks.SOURCE, checks.TOKENS)['params']
    for side in ('encoder', 'decoder'):
        for n in range(2):
            np.testing.assert_array_equal(params[side][f'layer_{n}']['bias'], np.repeat([0, 2.0, 0, 0], 6))


def test_bfloat16_computes_near_float32():
    run = checks.compiled(LSTM(dtype='bfloat16', feed='every', **SMALL))
    exact = checks.compiled(LSTM(feed='every', **SMALL))
    logits = run.full(run.params, checks.SOURCE, checks.TOKENS)
    difference = np.abs(logits - exact.full(run.params, checks.SOURCE, checks.TOKENS)).max()
    assert logits.dtype == jnp.float32
    assert 0 < difference < 0.2
