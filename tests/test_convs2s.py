"""Gehring et al. 2017, equation by equation in float64."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpy_convolution as reference
import pytest
import recurrent_checks as checks

from experiments.translation import numerals
from seqjax.errors import UserError
from seqjax.models import convs2s
from seqjax.models.convs2s import ConvS2S
from seqjax.prepared import prepare

SMALL = dict(num_layers=2, hidden_size=6, source_length=9, target_length=8)
MODELS = [ConvS2S(embedding_size=4, **SMALL), ConvS2S(weight_normalisation=False, **SMALL),
          ConvS2S(**SMALL | dict(kernel_size=5, num_layers=3))]
every = pytest.mark.parametrize('model', MODELS, ids=checks.name)


@every
def test_logits_follow_the_equations(model):
    checks.agrees_with_numpy(model, reference.convs2s)


@every
def test_one_token_at_a_time_equals_all_at_once(model):
    checks.steps_equal_all_at_once(model)


def test_rows_may_stand_at_different_positions_and_take_several_tokens():
    run = checks.compiled(MODELS[0])
    memory = run.encode(run.params, checks.SOURCE)
    full, _ = run.decode(run.params, checks.TOKENS, memory)
    carries = [run.start(run.params, memory)]
    for t in range(3):
        carries.append(run.decode(run.params, checks.TOKENS[:, t:t + 1], memory, carries[-1])[1])
    position_B = np.array([3, 0, 1, 2])
    mixed = {'before': jnp.stack([carries[p]['before'][:, row] for row, p in enumerate(position_B)], axis=1),
             'position': jnp.asarray(position_B, jnp.int32)}
    where = position_B[:, None] + np.arange(2)
    rows = np.arange(4)[:, None]
    logits, after = run.decode(run.params, checks.TOKENS[rows, where], memory, mixed)
    np.testing.assert_allclose(logits, full[rows, where], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(after['position'], position_B + 2)


@pytest.mark.parametrize('model', MODELS[::2], ids=checks.name)
def test_neighbours_and_padding_change_nothing(model):
    checks.neighbours_and_padding_change_nothing(model)


@pytest.mark.parametrize('model', MODELS[::2], ids=checks.name)
def test_future_tokens_have_no_gradient(model):
    checks.future_has_no_gradient(model)


def test_one_block_reaches_as_far_as_its_window():
    """Two tokens back and no further: what is not seen is not merely small."""
    run = checks.compiled(ConvS2S(**SMALL | dict(num_layers=1)))
    full = run.full(run.params, checks.SOURCE, checks.TOKENS)
    changed = checks.TOKENS.copy()
    changed[0, 1] = 9
    difference_T = np.abs(full - run.full(run.params, checks.SOURCE, changed))[0].max(-1)
    assert (difference_T[1:4] > 1e-3).all()
    assert difference_T[0] == difference_T[4] == 0


def test_every_layers_attention_is_shown_and_is_numpys():
    shown, run = checks.captured(MODELS[0])
    weights_NBHTS = np.asarray(shown['decoder/cross_attention'])
    assert {name: value.shape for name, value in shown.items()} == {
        'encoder/hidden': (2, 4, 6, 6), 'decoder/hidden': (2, 4, 5, 6), 'decoder/cross_attention': (2, 4, 1, 5, 6)}
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), run.params)
    for row in range(3):
        S = checks.LENGTHS[row]
        _, expected_NTS = reference.convs2s(run.model, params, checks.SOURCE[row, :S], checks.TOKENS[row])
        np.testing.assert_allclose(weights_NBHTS[:, row, 0, :, :S], expected_NTS, rtol=1e-3, atol=1e-6)
        assert (weights_NBHTS[:, row, 0, :, S:] == 0).all()
    assert (weights_NBHTS[:, 3] == 0).all()


def test_gradients_into_the_encoder_are_shared_among_the_attentions(monkeypatch):
    """A half of what they were, with two; what reaches source embeddings by the values z + e is whole."""
    run = checks.compiled(MODELS[0])
    mix = np.random.default_rng(1).normal(size=(4, 5, 13))

    def total(params):
        return (run.model.apply({'params': params}, checks.SOURCE, checks.TOKENS) * mix).sum()

    @jax.jit
    def gradient(params, factor):
        monkeypatch.setattr(convs2s, 'scaled_gradient',
                            lambda x, _: factor * x + jax.lax.stop_gradient((1 - factor) * x))
        return jax.grad(total)(params)

    ours = jax.jit(jax.grad(total))(run.params)
    none, whole = gradient(run.params, 0.0), gradient(run.params, 1.0)
    for name in ('encoder', 'encoder_input', 'encoder_output'):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b / 2, rtol=1e-3, atol=1e-4), ours[name], whole[name])
        assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(ours[name]))
    for name in ('source_embedding', 'source_positions'):
        assert np.abs(none[name]).max() > 1e-3
        np.testing.assert_allclose(ours[name], (none[name] + whole[name]) / 2, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ours['target_embedding'], whole['target_embedding'], rtol=1e-3, atol=1e-4)
    for path, leaf in jax.tree_util.tree_flatten_with_path(ours)[0]:
        assert np.isfinite(leaf).all(), path
        layers = leaf if path[0].key in ('encoder', 'decoder') else [leaf]
        assert all(np.abs(layer).max() > 1e-5 for layer in layers), path


def test_weights_start_as_in_section_three_five():
    model = ConvS2S(num_layers=2, hidden_size=64, embedding_size=48, dropout=0.2, source_size=500, target_size=400,
                    source_length=90, target_length=80)
    p = jax.jit(model.init)(jax.random.key(0), checks.SOURCE[:1], checks.TOKENS[:1])['params']
    for name in ('source_embedding', 'target_embedding', 'source_positions', 'target_positions'):
        assert np.std(p[name]) == pytest.approx(0.1, rel=0.05), name
    for kernel, variance in ((p['encoder']['convolution'], 4 * 0.8 / (3 * 64)),
                             (p['decoder']['convolution'], 4 * 0.8 / (3 * 64)), (p['encoder_input'], 0.8 / 48),
                             (p['decoder']['query'], 1 / 64), (p['decoder']['context'], 1 / 48),
                             (p['decoder_output'], 1 / 64), (p['output'], 0.8 / 48)):
        assert np.var(kernel['kernel']) == pytest.approx(variance, rel=0.06)
        assert not np.asarray(kernel['bias']).any()
    one, two = p['encoder']['convolution']['kernel']
    assert np.abs(one - two).max() > 0.01


def test_a_deeper_stack_is_no_longer_a_program():
    sizes = []
    for depth in (2, 6):
        model = ConvS2S(**SMALL | dict(num_layers=depth, source_size=11, target_size=13))
        shapes = jax.eval_shape(model.init, jax.random.key(0), checks.SOURCE, checks.TOKENS)
        sizes.append(str(jax.make_jaxpr(model.apply)(shapes, checks.SOURCE, checks.TOKENS)).count('dot_general'))
    assert sizes[0] == sizes[1] > 10


def test_dropout_needs_a_key():
    checks.dropout_needs_a_key(MODELS[1].clone(dropout=0.5), MODELS[1].clone(dropout=0.0))


def test_bfloat16_computes_near_float32():
    run, exact = (checks.compiled(MODELS[0].clone(dtype=dtype)) for dtype in ('bfloat16', 'float32'))
    logits = run.full(run.params, checks.SOURCE, checks.TOKENS)
    assert logits.dtype == jnp.float32
    full = exact.full(run.params, checks.SOURCE, checks.TOKENS)
    assert 0 < np.abs(logits - full)[:3].max() < 0.05 * np.abs(full).max()
    assert run.encode(run.params, checks.SOURCE)['keys'].dtype == jnp.bfloat16


def test_positions_that_were_not_learned_are_refused():
    model, token = checks.compiled(MODELS[0]).model, np.ones((1, 1), np.int32)

    def shapes(source, target):
        return jax.eval_shape(model.init, jax.random.key(0), np.ones((1, source), np.int32),
                              np.ones((1, target), np.int32))

    params = shapes(9, 8)
    with pytest.raises(UserError, match='source of 10 tokens is longer than the 9 positions'):
        shapes(10, 2)
    with pytest.raises(UserError, match=r'target of 9 tokens is longer than the 8 positions .* lower --decoding'):
        shapes(2, 9)
    memory = jax.eval_shape(lambda params: model.apply(params, token, method='encode'), params)
    with pytest.raises(UserError, match='target of 9 tokens'):
        jax.eval_shape(lambda params, memory: model.apply(params, memory, 9, method='start'), params, memory)
    with pytest.raises(UserError, match='needs the longest source and target'):
        jax.eval_shape(ConvS2S(source_size=5, target_size=5).init, jax.random.key(0), token, token)


def test_outputs_longer_than_the_positions_are_refused_before_training():
    experiment = numerals('convs2s').replace('task', train_size=60, valid_size=9, test_size=9, highest=999)
    codec = experiment.task.prepare().codec
    assert prepare(experiment.replace('decoding', max_length=32), codec).experiment.model.target_length == 32
    with pytest.raises(UserError, match='max_length=33: the model has positions for 32 target tokens'):
        prepare(experiment.replace('decoding', max_length=33), codec)
    task = dataclasses.replace(experiment.task, max_length=10)  # a multiple of 4 would be 12
    assert max(max(shape) for shape in task.prepare().codec.all_shapes) == 10


def test_a_window_without_a_middle_is_refused():
    with pytest.raises(UserError, match=re.escape('--model.kernel_size=4 has no middle, which the encoder needs; '
                                                  'choose 3 or 5')):
        ConvS2S(kernel_size=4).check()
    ConvS2S(kernel_size=5).check()
