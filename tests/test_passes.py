"""What is timed does what it is timed for."""

import jax
import numpy as np
import pytest
from tiny import bigrams

from seqjax.data.vocabulary import EOS
from seqjax.studies.passes import forwarding, generating, random_batch, step_flops, stepping
from seqjax.studies.subject import Subject
from seqjax.tasks.forced import forced_logits


@pytest.fixture(scope='module')
def subject(tmp_path_factory):
    experiment = bigrams()
    return Subject(tmp_path_factory.mktemp('none'), experiment.replace('model', dropout=0.0), trained=False)


def test_batches_are_full_and_end(subject):
    batch = random_batch(subject.model, 8, 7, 5)
    assert batch.source.shape == (8, 7)
    assert batch.target.shape == (8, 5)
    assert (batch.source[:, -1] == EOS).all()
    assert batch.source[:, :-1].min() > 3
    assert batch.target[:, :-1].max() < subject.model.target_size
    np.testing.assert_array_equal(batch.source, random_batch(subject.model, 8, 7, 5).source)
    assert len(np.unique(batch.source[:, 0])) > 1


def test_a_step_learns_from_where_the_last_one_ended_and_a_pass_does_not(subject):
    batch = random_batch(subject.model, 8, 7, 5)
    logits_BTV = forced_logits(subject.model, subject.params, batch)
    log_probs_BT = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits_BTV)), batch.target[:, :, None], 2)
    forward, step = forwarding(subject, batch), stepping(subject, batch)
    for _ in range(2):
        total, count = jax.device_get(forward()['loss'])
        assert total == pytest.approx(-log_probs_BT.sum(), rel=1e-4)
        assert count == 40
    losses = [float(step()['loss'][0]) for _ in range(30)]
    assert losses[0] == pytest.approx(-log_probs_BT.sum(), rel=1e-4)  # both begin at the seed 0
    assert losses[-1] < losses[10] < losses[0]


def test_generation_writes_every_word_and_never_ends(subject):
    batch = random_batch(subject.model, 8, 7, 12)
    tokens_BT = np.asarray(generating(subject, batch)())
    assert tokens_BT.shape == (8, 12)
    assert tokens_BT.min() > EOS
    expected_BT = np.zeros_like(tokens_BT)
    for t in range(12):  # greedy by full passes over what has been written
        known = batch._replace(target=np.concatenate([expected_BT[:, :t], np.zeros((8, 12 - t), np.int32)], 1))
        logits_BV = np.array(forced_logits(subject.model, subject.params, known)[:, t])
        logits_BV[:, :3] = -np.inf
        expected_BT[:, t] = logits_BV.argmax(-1)
    np.testing.assert_array_equal(tokens_BT, expected_BT)


def test_the_work_of_a_step_is_that_of_its_one_matrix_product(subject):
    """Logits of the tiny model, forwards, and backwards by either factor; embeddings are looked up."""
    batch, model = random_batch(subject.model, 8, 7, 5), subject.model
    product = 2 * 8 * 5 * model.hidden_size * model.target_size
    assert step_flops(subject, batch) == 3 * product
    assert step_flops(subject, random_batch(model, 8, 9, 10)) == 6 * product, 'by the target alone'
