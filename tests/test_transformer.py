"""The Transformer against the paper in numpy, and what must not change its outputs."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpy_transformer as reference
import pytest
import transformer_checks as checks
from transformer_checks import LENGTHS, MOVED, SIZES, SOURCE, TARGET, TOKENS, compiled, name, shapes_of

from seqjax.data.batches import Batch
from seqjax.errors import UserError
from seqjax.layers import cache
from seqjax.models.transformer import Transformer

SWITCHED = [dict(normalisation='rms'), dict(normalisation='rms', norm='after', residual=False),
            dict(normalisation='batch'), dict(normalisation='batch', norm='after'), dict(normalisation='none'),
            dict(normalisation='none', residual=False), dict(residual=False)]
NORMS, TIES, POSITIONS = ('before', 'after'), ('none', 'target', 'all'), ('sinusoidal', 'none')


@pytest.mark.parametrize('fields', [dict(norm=norm, tie=tie) for norm, tie in itertools.product(NORMS, TIES)] + [
    dict(norm='before', positions='none'), dict(norm='after', num_heads=8, num_layers=3), *SWITCHED], ids=name)
def test_logits_equal_the_papers_equations(fields):
    run = compiled(**fields)
    logits = run.full(run.params, SOURCE, TOKENS)
    assert logits.dtype == jnp.float32
    for row in range(3):
        expected, _ = reference.transformer(run.model, run.params, SOURCE[row, :LENGTHS[row]], TOKENS[row])
        np.testing.assert_allclose(logits[row], expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize('norm', NORMS)
def test_capture_shows_every_layer_and_its_weights_are_numpys(norm):
    run = compiled(norm=norm)
    shown = jax.jit(run.model.capture)(run.params, Batch(SOURCE, TARGET, np.ones(4), np.arange(4)))
    assert {key: value.shape for key, value in shown.items()} == {
        'encoder/self_attention/self_attention': (2, 4, 2, 6, 6), 'encoder/hidden': (2, 4, 6, 8),
        'decoder/self_attention/self_attention': (2, 4, 2, 5, 5), 'decoder/hidden': (2, 4, 5, 8),
        'decoder/cross_attention/cross_attention': (2, 4, 2, 5, 6)}
    shown = {key: np.asarray(value) for key, value in shown.items()}
    assert all(np.isfinite(value).all() for value in shown.values())
    cross = shown['decoder/cross_attention/cross_attention']
    for row in range(3):
        S = LENGTHS[row]
        _, seen = reference.transformer(run.model, run.params, SOURCE[row, :S], TOKENS[row])
        np.testing.assert_allclose(cross[:, row, :, :, :S], seen['cross'], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(shown['decoder/self_attention/self_attention'][:, row], seen['decoder'],
                                   rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(shown['encoder/self_attention/self_attention'][:, row, :, :S, :S], seen['encoder'],
                                   rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(cross[:, row].sum(axis=-1), 1, atol=1e-5)
        assert (cross[:, row, :, :, S:] == 0).all()
    assert (cross[:, 3] == 0).all()


@pytest.mark.parametrize('fields', [dict(zip(('norm', 'tie', 'positions', 'remat'), choice)) for choice in
                                    itertools.product(NORMS, TIES, POSITIONS, (False, True))], ids=name)
def test_cached_decoding_equals_all_at_once(fields):
    checks.cached_decoding_equals_all_at_once(compiled(**fields))


@pytest.mark.parametrize('fields', [dict(positions=positions, norm=norm, num_layers=layers) for positions, norm, layers
                                    in (('sinusoidal', 'before', 2), ('none', 'after', 3), ('learned', 'before', 2),
                                        ('rotary', 'after', 2), ('alibi', 'before', 2), ('t5', 'before', 8))], ids=name)
def test_hypotheses_that_branch_equal_their_own_past(fields):
    checks.hypotheses_that_branch_equal_their_own_past(compiled(**fields))


@pytest.mark.parametrize('positions', ['sinusoidal', 't5'])
def test_so_do_those_whose_cache_lies_in_pieces(monkeypatch, positions):
    monkeypatch.setattr(cache, 'FEWEST', 2)
    assert cache.lengths(5, 3) == [2, 2, 1]
    checks.hypotheses_that_branch_equal_their_own_past(compiled(positions=positions))


@pytest.mark.parametrize('fields', [dict(norm='before'), dict(norm='after', positions='t5', tie='all')], ids=name)
def test_beams_are_those_of_rows_of_their_own(fields):
    checks.beams_are_those_of_rows_of_their_own(compiled(**fields))


@pytest.mark.parametrize('room', [3, 7])
def test_so_are_those_of_a_cache_in_pieces(monkeypatch, room):
    monkeypatch.setattr(cache, 'FEWEST', 2)
    assert (cache.lengths(3, 3), cache.lengths(7, 3)) == ([2, 1], [4, 3])
    checks.beams_are_those_of_rows_of_their_own(compiled(), room)


def test_every_leaf_of_the_carry_has_one_batch_axis():
    run = compiled()

    def leaves(B):
        memory = jax.eval_shape(run.encode, run.params, jax.ShapeDtypeStruct((B, 6), jnp.int32))
        return jax.tree.leaves(jax.eval_shape(
            lambda memory: run.model.apply({'params': run.params}, memory, 7, method='start'), memory))

    differ = [[a for a, b in zip(x.shape, y.shape) if a != b] for x, y in zip(leaves(3), leaves(5))]
    assert differ == [[3]] * 5


@pytest.mark.parametrize('fields', [dict(norm=norm) for norm in NORMS] + SWITCHED[0:3:2], ids=name)
def test_neighbours_and_padding_change_nothing(fields):
    checks.neighbours_and_padding_change_nothing(compiled(**fields))


@pytest.mark.parametrize('norm', NORMS)
def test_the_future_has_no_gradient_and_the_past_and_the_source_have(norm):
    checks.only_the_past_and_the_source_have_a_gradient(compiled(norm=norm, tie='none'))


@pytest.mark.parametrize('positions', POSITIONS)
def test_only_positions_tell_the_order_of_the_source(positions):
    run = compiled(positions=positions)
    one, two = (np.asarray(run.full(run.params, source, TOKENS[:1])) for source in (SOURCE[:1], MOVED))
    if positions == 'none':
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)
    else:
        assert np.abs(one - two).max() > 1e-2


@pytest.mark.parametrize(('platform', 'kept'), [('cpu', 'float32'), ('gpu', 'bfloat16')])
def test_a_cache_of_bfloat16_is_float32_where_bfloat16_cannot_be_written_in_place(monkeypatch, platform, kept):
    monkeypatch.setattr(jax, 'default_backend', lambda: platform)
    run = compiled(dtype='bfloat16', positions='rotary')
    memory = run.encode(run.params, SOURCE)
    carry = run.model.apply({'params': run.params}, memory, 5, method='start')
    assert {leaf.dtype.name for leaf in jax.tree.leaves((carry['keys'], carry['values']))} == {kept}
    full, _ = run.decode(run.params, TOKENS, memory)
    for t in range(5):
        logits, carry = run.decode(run.params, TOKENS[:, t:t + 1], memory, carry)
        assert np.abs(logits[:, 0] - full[:, t]).max() < 0.02 * np.abs(full).max()


# Parameters.


@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('tie', TIES)
def test_parameters_are_as_many_as_the_formula_says(norm, tie):
    N, D, F, V = 3, 16, 40, 31
    model = Transformer(num_layers=N, hidden_size=D, num_heads=4, feedforward_size=F, norm=norm, tie=tie, source_size=V,
                        target_size=V)
    shapes = jax.eval_shape(model.init, jax.random.key(0), SOURCE, TOKENS)['params']
    feedforward = 2 * D * F + F + D
    expected = (V * D * {'none': 3, 'target': 2, 'all': 1}[tie]
                + N * (4 * D * D + feedforward + 2 * 2 * D)  # W_Q W_K W_V W_O
                + N * (8 * D * D + feedforward + 3 * 2 * D)
                + 2 * 2 * D * (norm == 'before'))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


def test_tied_embeddings_are_one_parameter_that_gets_every_gradient():
    """With equal tables, the tied gradient is the sum of the gradients that the untied tables get."""
    gradients, tables = {}, {}
    table = np.random.default_rng(2).normal(0, 0.5, (13, 8)).astype(np.float32)
    for tie in TIES:
        run = compiled(norm='before', tie=tie)
        params = compiled(norm='before', tie='none').params
        params = {key: table if 'embedding' in key else value for key, value in params.items()
                  if 'embedding' not in key or key in run.params}
        gradients[tie] = {key: np.asarray(value) for key, value in run.gradient(params).items() if 'embedding' in key}
        tables[tie] = set(gradients[tie])
    assert tables == {'none': {'source_embedding', 'target_embedding', 'output_embedding'},
                      'target': {'source_embedding', 'target_embedding'}, 'all': {'target_embedding'}}
    source, target, output = (gradients['none'][f'{key}_embedding'] for key in ('source', 'target', 'output'))
    for part in (source, target, output):
        assert np.abs(part).max() > 1e-2
    np.testing.assert_allclose(gradients['target']['target_embedding'], target + output, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(gradients['target']['source_embedding'], source, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(gradients['all']['target_embedding'], source + target + output, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('norm', NORMS)
def test_every_parameter_of_every_layer_has_a_finite_gradient(norm):
    checks.every_parameter_has_a_finite_gradient(compiled(norm=norm, tie='none'))


def test_layers_start_different_and_embeddings_at_the_scale_of_the_paper():
    model = Transformer(num_layers=2, hidden_size=64, num_heads=4, feedforward_size=96, source_size=500,
                        target_size=400)
    params = jax.jit(model.init)(jax.random.key(0), SOURCE[:1], TOKENS[:1])['params']
    for stack in ('encoder', 'decoder'):
        kernel = params[stack]['feedforward']['expand']['kernel']
        assert np.abs(kernel[0] - kernel[1]).max() > 0.01
        bound = (6 / (64 + 96)) ** 0.5
        assert 0.98 * bound < np.abs(kernel).max() <= bound
    for side in ('source', 'target'):
        assert np.std(params[f'{side}_embedding']) == pytest.approx(64 ** -0.5, rel=0.03)


def test_each_matrix_has_a_partition_rule_that_fits_it():
    model = compiled(tie='none').model
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(shapes_of(tie='none'))[0]:
        key = jax.tree_util.keystr(path, simple=True, separator='/')
        axes = next((axes for pattern, axes in model.partition_rules() if re.search(pattern, key)), ())
        assert len(axes) <= leaf.ndim, key
        found[key] = axes
    assert {key: axes for key, axes in found.items() if key.startswith(('decoder/', 'memory')) and axes} == {
        'decoder/self_attention/query_key_value': ('fsdp', None, 'tensor'),
        'decoder/self_attention/output': ('tensor', 'fsdp'),
        'decoder/cross_attention/query': ('fsdp', 'tensor'),
        'decoder/cross_attention/output': ('tensor', 'fsdp'),
        'decoder/feedforward/expand/kernel': ('fsdp', 'tensor'),
        'decoder/feedforward/contract/kernel': ('tensor', 'fsdp'),
        'memory/key_value': ('fsdp', None, None, 'tensor')}
    assert {found[f'{side}_embedding'] for side in ('source', 'target', 'output')} == {('tensor', 'fsdp')}


@pytest.mark.parametrize(('fields', 'message'), [
    (dict(hidden_size=10, num_heads=4), '--model.num_heads=4 does not divide --model.hidden_size=10; choose a divisor'),
    (dict(tie='all', source_size=12), r'--model.tie=all needs one vocabulary .*source has 12 pieces, target 13')])
def test_fields_that_do_not_fit_each_other_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Transformer(**(SIZES | fields)).check()
    Transformer(**SIZES).check()


# Dropout, precision, memory.


def test_dropout_needs_a_key_and_without_one_changes_nothing():
    run, plain = compiled(dropout=0.3, attention_dropout=0.2), compiled()
    np.testing.assert_array_equal(run.full(run.params, SOURCE, TOKENS), plain.full(run.params, SOURCE, TOKENS))
    noisy = jax.jit(lambda params, key: run.model.apply({'params': params}, SOURCE, TOKENS, rngs={'dropout': key}))
    one, again, two = (noisy(run.params, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - two).max() > 1e-2
    assert np.abs(one - plain.full(run.params, SOURCE, TOKENS)).max() > 1e-2


@pytest.mark.parametrize('remat', [False, True])
def test_each_layer_of_each_stack_has_its_own_masks_at_the_rate(remat):
    """Sub-layers that put out 1 everywhere (a bias) and attention that puts out 0: what a layer adds is its mask."""
    rate, B, T = 0.25, 4, 50
    model = Transformer(**(SIZES | dict(dropout=rate, positions='none', num_layers=3, remat=remat)))
    tokens = np.full((B, T), 5, np.int32)
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes_of(num_layers=3))
    for stack in ('encoder', 'decoder'):
        params[stack]['feedforward']['contract']['bias'][:] = 1
    _, sown = jax.jit(lambda key: model.apply({'params': params}, tokens, tokens, rngs={'dropout': key},
                                              mutable=['intermediates']))(jax.random.key(0))
    masks = []
    for stack in ('encoder', 'decoder'):
        hidden = np.asarray(sown['intermediates'][stack]['hidden'][0])
        added = np.diff(hidden, axis=0, prepend=0) * (1 - rate)
        np.testing.assert_allclose(added, np.round(added), atol=1e-5)
        masks += list(np.round(added).astype(bool))
    assert len(masks) == 6
    for mask in masks:
        assert abs(mask.mean() - (1 - rate)) < 5 * (rate * (1 - rate) / mask.size) ** 0.5
    agreement = rate ** 2 + (1 - rate) ** 2  # of two independent masks
    for one, two in itertools.combinations(masks, 2):
        assert abs((one == two).mean() - agreement) < 0.06


def test_embeddings_are_dropped_too():
    """Layers that add nothing, and no norm to hide the scale: the encoder's states are its inputs, dropped."""
    model = Transformer(**(SIZES | dict(dropout=0.5)))
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes_of())
    params['source_embedding'] = np.full((13, 8), 3 / 8 ** 0.5, np.float32)
    _, sown = jax.jit(lambda key: model.apply({'params': params}, SOURCE[:1], TOKENS[:1], rngs={'dropout': key},
                                              mutable=['intermediates']))(jax.random.key(0))
    hidden = np.asarray(sown['intermediates']['encoder']['hidden'][0])[-1, 0]
    whole = 2 * (3 + reference.positions(6, 8))
    kept = hidden != 0
    assert 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(hidden[kept], whole[kept], rtol=1e-4)


@pytest.mark.parametrize('norm', NORMS)
def test_bfloat16_computes_in_half_precision_and_keeps_parameters_and_logits_in_float32(norm):
    half, single = compiled(norm=norm, dtype='bfloat16'), compiled(norm=norm)
    shapes = jax.eval_shape(half.model.init, jax.random.key(0), SOURCE, TOKENS)['params']
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}
    memory = half.encode(half.params, SOURCE)
    assert memory['keys'].dtype == memory['values'].dtype == jnp.bfloat16
    logits, exact = half.full(half.params, SOURCE, TOKENS), single.full(half.params, SOURCE, TOKENS)
    assert logits.dtype == jnp.float32
    error = np.abs(logits - exact)[:3].max() / np.abs(exact).max()
    assert 1e-5 < error < 0.05
    shown = jax.eval_shape(half.model.capture, half.params, Batch(SOURCE, TARGET, np.ones(4), np.arange(4)))
    assert {value.dtype for key, value in shown.items() if 'attention' in key} == {jnp.dtype('float32')}
    gradient = jax.eval_shape(half.gradient, half.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype('float32')}


def test_remat_recomputes_and_gives_the_same_gradients():
    """With dropout: what is recomputed must be dropped by the same masks."""
    plain, remat = (compiled(dropout=0.2, remat=remat) for remat in (False, True))
    one, two = (run.gradient(run.params, jax.random.key(3)) for run in (plain, remat))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), one, two)
    texts = [str(jax.make_jaxpr(lambda params, run=run: run.full(params, SOURCE, TOKENS))(plain.params))
             for run in (plain, remat)]
    assert ['remat' in text or 'checkpoint' in text for text in texts] == [False, True]


def test_a_deeper_stack_is_no_longer_a_program():
    """Layers are scanned: the traced program of 9 layers has as many operations as that of 3."""
    sizes = []
    for depth in (3, 9):
        model = Transformer(**(SIZES | dict(num_layers=depth)))
        shapes = jax.eval_shape(model.init, jax.random.key(0), SOURCE, TOKENS)
        sizes.append(str(jax.make_jaxpr(model.apply)(shapes, SOURCE, TOKENS)).count('dot_general'))
    assert sizes[0] == sizes[1] > 10
