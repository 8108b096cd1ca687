"""Attention with a part of it off: the scaling of scores, the causal mask, the padding mask."""

import re

import jax
import numpy as np
import numpy_transformer as reference
import pytest
from transformer_checks import LENGTHS, SOURCE, TOKENS, compiled, name

from seqjax.errors import UserError
from seqjax.models.decoder_only import DecoderOnly
from seqjax.models.transformer import Transformer

BOTH = {Transformer: reference.transformer, DecoderOnly: reference.decoder_only}
kinds = pytest.mark.parametrize('kind', BOTH, ids=lambda kind: kind.__name__)


@kinds
def test_scores_that_are_not_divided_are_those_of_queries_that_are_longer(kind):
    """softmax(Q K^T) is softmax(sqrt(d_k) Q K^T / sqrt(d_k)), in self-attention and in attention on the source."""
    plain, longer = compiled(kind, scale_scores=False), compiled(kind)

    def scaled(path, x):
        if path[-1].key == 'query':
            return x * 2
        return x.at[..., 0, :].multiply(2) if path[-1].key == 'query_key_value' else x  # d_k is 4

    params = jax.tree_util.tree_map_with_path(scaled, plain.params)
    logits = plain.full(plain.params, SOURCE, TOKENS)
    np.testing.assert_allclose(logits, longer.full(params, SOURCE, TOKENS), rtol=1e-4, atol=1e-4)
    assert np.abs(logits - longer.full(plain.params, SOURCE, TOKENS)).max() > 0.1


@pytest.mark.parametrize('positions', ['sinusoidal', 't5', 'alibi'])
@kinds
def test_without_the_causal_mask_all_of_the_target_is_seen(kind, positions):
    run = compiled(kind, causal=False, positions=positions)
    logits = run.full(run.params, SOURCE, TOKENS)
    for row in range(3):
        expected, _ = BOTH[kind](run.model, run.params, SOURCE[row, :LENGTHS[row]], TOKENS[row])
        np.testing.assert_allclose(logits[row], expected, rtol=5e-4, atol=5e-4)
    later = TOKENS.copy()
    later[:, -1] = 6
    assert np.abs(run.full(run.params, SOURCE, later)[0, 0] - logits[0, 0]).max() > 1e-3
    padded = np.pad(TOKENS, ((0, 0), (0, 2)))
    np.testing.assert_allclose(run.full(run.params, SOURCE, padded)[:, :5], logits, rtol=1e-4, atol=1e-4)


@kinds
def test_what_is_generated_has_no_future_to_see(kind):
    """With a cache the causal mask makes no difference: slots that nothing was written to are never seen."""
    run, masked = compiled(kind, causal=False), compiled(kind)
    assert not run.model.parallel_decoder
    memory = run.encode(run.params, SOURCE)
    carry = jax.jit(lambda: run.model.apply({'params': run.params}, memory, 9, method='start'))()
    full = masked.full(run.params, SOURCE, TOKENS)
    for t in range(3):
        logits, carry = run.decode(run.params, TOKENS[:, t:t + 1], memory, carry)
        np.testing.assert_allclose(logits[:, 0], full[:, t], rtol=1e-4, atol=1e-4)


@kinds
def test_without_the_padding_mask_padding_passes_for_words(kind):
    run = compiled(kind, padding_mask=False)
    logits = run.full(run.params, SOURCE, TOKENS)
    for row in range(4):
        expected, _ = BOTH[kind](run.model, run.params, SOURCE[row], TOKENS[row])
        np.testing.assert_allclose(logits[row], expected, rtol=5e-4, atol=5e-4)
    wider = run.full(run.params, np.pad(SOURCE, ((0, 0), (0, 3))), TOKENS)
    assert np.abs(wider - logits).max() > 1e-2


@pytest.mark.parametrize('fields', [dict(causal=False), dict(padding_mask=False)], ids=name)
def test_batch_statistics_need_the_masks(fields):
    with pytest.raises(UserError, match=re.escape(f'--model.{next(iter(fields))}=false does not go with')):
        Transformer(normalisation='batch', **fields).check()
