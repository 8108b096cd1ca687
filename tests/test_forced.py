"""Teacher-forced passes: token by token against the model itself, greedy search, and a memory that was changed."""

import jax
import numpy as np
import pytest
from tiny import at_random, bigrams

from seqjax.data.vocabulary import Ragged
from seqjax.tasks.forced import forced, forced_logits


@pytest.fixture(scope='module')
def small():
    return at_random(bigrams())


def bigram_log_probs(params, source, target):
    """The tiny model by hand: log p of every word after each token of `target`'s inputs, (T, V)."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(params))
    mean = p['source']['embedding'][source].mean(0)
    x = p['target']['embedding'][[1, *target[:-1]]] + mean
    logits = x @ p['out']['kernel'] + p['out']['bias']
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_each_token_is_judged_after_the_reference(small):
    evaluator, params, (source, target), decoding = small
    best = [hypotheses[0].ids for hypotheses in evaluator.decode(params, source, decoding)]
    target = Ragged.of([best[i] if i % 2 else target.row(i) for i in range(source.count())])
    found = forced(evaluator, params, source, target, decoding)
    judged = []
    for i, one in enumerate(found):
        log_probs = bigram_log_probs(params, source.row(i), target.row(i))
        np.testing.assert_allclose(one.log_prob, log_probs[np.arange(len(log_probs)), target.row(i)], rtol=1e-4)
        log_probs[:, :2] = -np.inf
        np.testing.assert_array_equal(one.right, log_probs.argmax(1) == target.row(i))
        judged += list(one.right)
    assert 0 < np.mean(judged) < 1, 'tokens all right or all wrong prove nothing'


def test_what_greedy_decoding_finds_is_right_at_every_token_and_a_changed_word_is_not(small):
    evaluator, params, (source, _), decoding = small
    ids = [hypotheses[0].ids for hypotheses in evaluator.decode(params, source, decoding)]
    assert all(one.right.all() for one in forced(evaluator, params, source, Ragged.of(ids), decoding))
    other = [np.concatenate([[4 + (i[0] == 4)], i[1:]]) for i in ids]
    found = forced(evaluator, params, source, Ragged.of(other), decoding)
    assert not any(one.right[0] for one in found)


def test_a_change_of_memory_reaches_the_decoder(small):
    evaluator, params, (source, target), decoding = small
    plain = forced(evaluator, params, source, target, decoding)
    same = forced(evaluator, params, source, target, decoding, lambda memory, batch: memory * 1.0)
    other = forced(evaluator, params, source, target, decoding, lambda memory, batch: memory * 0.0)
    for a, b, c in zip(plain, same, other):
        np.testing.assert_allclose(a.log_prob, b.log_prob, rtol=1e-5)
        assert np.abs(a.log_prob - c.log_prob).max() > 1e-3


def test_the_carry_is_that_of_the_memory_as_it_was():
    """A model whose start reads the memory, whose decode adds carry and memory."""
    class Sums:
        def apply(self, variables, *args, method):
            return {'encode': lambda source: source[:, 0], 'start': lambda memory, length: memory * 10,
                    'decode': lambda tokens, memory, carry=None: (
                        ((carry if carry is not None else memory * 10) + memory)[:, None, None]
                        + tokens[:, :, None], carry)}[method](*args)

    batch = type('Batch', (), {'source': np.array([[3]]), 'target': np.array([[7, 2]])})
    assert forced_logits(Sums(), {}, batch).tolist() == [[[34], [40]]]
    assert forced_logits(Sums(), {}, batch, lambda memory, batch: memory + 100).tolist() == [[[134], [140]]]
