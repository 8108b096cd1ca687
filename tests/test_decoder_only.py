"""Decoder-only translation against one pass over source and target in numpy, and what must not change its outputs."""

import itertools
import re

import jax
import numpy as np
import numpy_transformer as reference
import pytest
import transformer_checks as checks
from transformer_checks import LENGTHS, MOVED, SIZES, SOURCE, TARGET, TOKENS, compiled, name, shapes_of

from seqjax.data.batches import Batch
from seqjax.decoding.options import Decoding
from seqjax.decoding.search import score, search
from seqjax.errors import UserError
from seqjax.models.decoder_only import DecoderOnly

MASKS, POSITIONS = ('causal', 'prefix'), ('none', 'sinusoidal', 'learned', 'rotary', 'alibi', 't5')
EACH = [dict(prefix_mask=mask, positions=positions, norm='after' if positions in ('learned', 't5') else 'before')
        for mask, positions in itertools.product(MASKS, POSITIONS)]
SOME = [fields for fields in EACH  # each encoding once
        if fields['prefix_mask'] == ('prefix' if fields['positions'] in ('learned', 'alibi', 't5') else 'causal')]


def run_of(**fields):
    return compiled(DecoderOnly, **fields)


@pytest.mark.parametrize('fields', [*EACH, dict(tie='all'), dict(tie='none'), dict(num_layers=3, num_heads=4)],
                         ids=name)
def test_logits_are_those_of_one_pass_over_source_and_target(fields):
    """In numpy nothing is padded, cached or apart: the source, BOS and the target are one sequence."""
    run = run_of(**fields)
    logits = run.full(run.params, SOURCE, TOKENS)
    for row in range(3):
        expected, _ = reference.decoder_only(run.model, run.params, SOURCE[row, :LENGTHS[row]], TOKENS[row])
        np.testing.assert_allclose(logits[row], expected, rtol=5e-4, atol=5e-4)


@pytest.mark.parametrize('fields', SOME, ids=name)
def test_cached_decoding_equals_all_at_once(fields):
    checks.cached_decoding_equals_all_at_once(run_of(**fields))


@pytest.mark.parametrize('fields', SOME, ids=name)
def test_hypotheses_that_branch_equal_their_own_past(fields):
    checks.hypotheses_that_branch_equal_their_own_past(run_of(**fields))


@pytest.mark.parametrize('fields', SOME, ids=name)
def test_neighbours_and_padding_change_nothing(fields):
    """A target's positions go on after its own source, however wide the batch is."""
    checks.neighbours_and_padding_change_nothing(run_of(**fields))


@pytest.mark.parametrize('mask', MASKS)
def test_the_future_has_no_gradient_and_the_past_and_the_source_have(mask):
    run = run_of(prefix_mask=mask, tie='none')
    checks.only_the_past_and_the_source_have_a_gradient(run)
    checks.every_parameter_has_a_finite_gradient(run)


@pytest.mark.parametrize('mask', MASKS)
def test_the_source_is_seen_both_ways_with_the_prefix_mask_only(mask):
    """What the stack keeps of the first source tokens, when the last one is another."""
    run, changed = run_of(prefix_mask=mask), SOURCE.copy()
    changed[0, 5] = 11
    one, two = (run.encode(run.params, source)['values'][1, 0] for source in (SOURCE, changed))
    early = np.abs(np.asarray(one - two))[:, :5].max()
    assert early > 1e-3 if mask == 'prefix' else early == 0
    assert np.abs(one - two)[:, 5].max() > 1e-2


@pytest.mark.parametrize(('mask', 'positions', 'seen'), [
    ('prefix', 'none', False), ('causal', 'none', True), ('prefix', 'alibi', True), ('causal', 't5', True)])
def test_the_order_of_the_source_is_told_by_positions_or_by_the_causal_mask(mask, positions, seen):
    run = run_of(prefix_mask=mask, positions=positions)
    one, two = (np.asarray(run.full(run.params, source, TOKENS[:1])) for source in (SOURCE[:1], MOVED))
    if seen:
        assert np.abs(one - two).max() > 1e-2
    else:
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('mask', MASKS)
def test_capture_shows_both_passes_and_a_targets_weights_sum_to_one(mask):
    run = run_of(prefix_mask=mask)
    shown = jax.jit(run.model.capture)(run.params, Batch(SOURCE, TARGET, np.ones(4), np.arange(4)))
    assert {key: value.shape for key, value in shown.items()} == {
        'source/decoder/self_attention/self_attention': (2, 4, 2, 6, 6), 'source/decoder/hidden': (2, 4, 6, 8),
        'target/decoder/self_attention/self_attention': (2, 4, 2, 5, 5), 'target/decoder/hidden': (2, 4, 5, 8),
        'target/decoder/self_attention/cross_attention': (2, 4, 2, 5, 6)}
    shown = {key: np.asarray(value) for key, value in shown.items()}
    prefix, past, cross = (shown[f'{key}_attention'] for key in (
        'source/decoder/self_attention/self', 'target/decoder/self_attention/self',
        'target/decoder/self_attention/cross'))
    for row, S in enumerate(LENGTHS[:3]):
        _, seen = reference.decoder_only(run.model, run.params, SOURCE[row, :S], TOKENS[row])
        np.testing.assert_allclose(prefix[:, row, :, :S, :S], seen[:, :, :S, :S], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(cross[:, row, :, :, :S], seen[:, :, S:, :S], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(past[:, row], seen[:, :, S:, S:], rtol=1e-3, atol=1e-5)
        assert (cross[:, row, :, :, S:] == 0).all()
    np.testing.assert_allclose(cross.sum(-1) + past.sum(-1), 1, atol=1e-5)
    assert (cross[:, 3] == 0).all()


@pytest.mark.parametrize('mask', MASKS)
def test_a_beam_is_scored_as_teacher_forcing_does(mask):
    """A beam as wide as all sequences finds the best of them; its scores are those of the full pass."""
    run = run_of(prefix_mask=mask, positions='rotary')
    found = jax.jit(lambda params: search(run.model, params, SOURCE, Decoding(method='beam', beam_size=4, nbest=4), 5))(
        run.params)
    targets = np.asarray(found.tokens_BKT[:3]).reshape(12, 5)
    own = jax.jit(lambda params, target: score(run.model, params, np.repeat(SOURCE[:3], 4, 0), target))(
        run.params, targets)
    np.testing.assert_allclose(np.asarray(found.log_probs_BK[:3]).ravel(), own, rtol=1e-4, atol=1e-4)
    assert len({str(row) for row in targets}) > 6


def test_parameters_are_a_transformers_without_attention_on_another_sequence():
    N, D, F, V = 3, 16, 40, 31
    sizes = dict(num_layers=N, hidden_size=D, num_heads=4, feedforward_size=F, source_size=V, target_size=V)
    for tie, tables in (('none', 3), ('target', 2), ('all', 1)):
        shapes = shapes_of(DecoderOnly, **sizes, tie=tie)
        expected = tables * V * D + N * (4 * D * D + 2 * D * F + F + D + 2 * 2 * D) + 2 * D
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected
    learned = shapes_of(DecoderOnly, **sizes, positions='learned')
    assert learned['position_embedding'].shape == (SIZES['source_length'] + SIZES['target_length'], D)


def test_each_matrix_has_a_partition_rule_that_fits_it():
    model, found = run_of().model, {}
    for positions in ('learned', 't5'):
        for path, leaf in jax.tree_util.tree_flatten_with_path(shapes_of(DecoderOnly, positions=positions))[0]:
            key = jax.tree_util.keystr(path, simple=True, separator='/')
            found[key] = next((axes for pattern, axes in model.partition_rules() if re.search(pattern, key)), ())
            assert len(found[key]) <= leaf.ndim, key
    assert {key: axes for key, axes in found.items() if axes} == {
        'decoder/self_attention/query_key_value': ('fsdp', None, 'tensor'),
        'decoder/self_attention/output': ('tensor', 'fsdp'),
        'decoder/feedforward/expand/kernel': ('fsdp', 'tensor'),
        'decoder/feedforward/contract/kernel': ('tensor', 'fsdp'),
        'decoder_relative/relative_bias': (None, 'tensor'), 'position_embedding': ('tensor', 'fsdp'),
        'source_embedding': ('tensor', 'fsdp'), 'target_embedding': ('tensor', 'fsdp')}


def test_source_and_target_are_dropped_by_masks_of_their_own():
    """Sub-layers that put out 1 everywhere (a bias) and attention that puts out 0: what a layer adds is its mask."""
    rate, tokens = 0.25, np.full((4, 50), 5, np.int32)
    model = DecoderOnly(**(SIZES | dict(dropout=rate, positions='none', num_layers=3)))
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes_of(DecoderOnly, num_layers=3))
    params['decoder']['feedforward']['contract']['bias'][:] = 1

    @jax.jit
    def hidden(key):
        _, sown = model.apply({'params': params}, tokens, tokens, rngs={'dropout': key}, mutable=['intermediates'])
        return sown['intermediates']['decoder']['hidden']

    both = hidden(jax.random.key(0))
    assert len(both) == 2, 'the source, then the target'
    masks = [np.round(mask).astype(bool) for states in both
             for mask in np.diff(np.asarray(states), axis=0, prepend=0) * (1 - rate)]
    for one, two in itertools.combinations(masks, 2):
        assert abs(one.mean() - (1 - rate)) < 0.06
        assert abs((one == two).mean() - (rate ** 2 + (1 - rate) ** 2)) < 0.06


def test_remat_recomputes_and_gives_the_same_gradients():
    """With dropout, in both passes; T5's table, which stands outside the scan, has its gradient too."""
    plain, remat = (run_of(positions='t5', prefix_mask='prefix', dropout=0.2, remat=remat) for remat in (False, True))
    one, two = (run.gradient(run.params, jax.random.key(3)) for run in (plain, remat))
    assert np.abs(one['decoder_relative']['relative_bias']).max() > 1e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), one, two)


def test_learned_positions_end_and_say_so():
    run = run_of(positions='learned')
    with pytest.raises(UserError, match='of 17 tokens is longer than the 16 positions'):
        run.full(run.params, np.pad(SOURCE, ((0, 0), (0, 4))), np.pad(TOKENS, ((0, 0), (0, 2))))
    assert run.model.target_limit() == SIZES['target_length']
    assert run_of(positions='rotary').model.target_limit() is None
