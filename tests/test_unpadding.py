"""Batches without padding: the same losses and gradients, of every model that can."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TEXT

from experiments.translation import numerals
from seqjax import catalogue
from seqjax.data.batches import Batch
from seqjax.data.room import Room
from seqjax.errors import UserError
from seqjax.layers.unpadding import Sides, pad, unpad, unpadding
from seqjax.options import options
from seqjax.prepared import plan_batches, prepare
from seqjax.tasks.translation import Translation

# Rows of several lengths, one as long as the batch is wide, and the last one for filler.
SOURCE = np.array([[4, 5, 6, 7, 8, 2], [9, 4, 2, 0, 0, 0], [2, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], np.int32)
TARGET = np.array([[4, 5, 6, 7, 2], [9, 8, 2, 0, 0], [3, 4, 10, 2, 0], [0, 0, 0, 0, 0]], np.int32)
WEIGHT = np.array([1, 2, 1, 0], np.float32)
TOKENS = np.pad(TARGET[:, :-1], ((0, 0), (1, 0)), constant_values=1)
SIZES = dict(source_size=13, target_size=13, source_length=9, target_length=7, num_layers=2, hidden_size=8, num_heads=2,
             feedforward_size=12, dropout=0.0)
WITHOUT = ('convs2s', 'rctm', 'smt')
KINDS = [('transformer', {}), ('transformer', dict(positions='rotary', norm='after', tie='all')),
         ('transformer', dict(positions='learned', num_layers=7)), ('transformer', dict(positions='t5', remat=True)),
         ('decoderonly', {}), ('decoderonly', dict(prefix_mask='prefix', positions='alibi', normalisation='rms')),
         ('bahdanau', dict(cell='lstm', normalisation='layer')), ('bahdanau', dict(readout='linear')),
         ('luong', dict(input_feeding=True)), ('luong', dict(bidirectional=True, input_feeding=False, score='concat')),
         ('gru', dict(feed='every')), ('gru', dict(context='mean', tie_embeddings=True, embedding_size=6)),
         ('lstm', dict(bidirectional=True, residual=True)), ('rnn', dict(reverse_source=True))]


def system(name, **fields):
    """A model and parameters at random, biases too.

    Scales are about 1. Were they about 0, all tokens would be like the biases and alike, and the gradients of what
    tells them apart differences of large numbers, of which rounding takes more (4e-5 of a query's, against float64).
    """
    kind = catalogue.load('model', name)
    known = {option.name for option in options(kind)} | set(SIZES) - {'num_heads', 'feedforward_size'}
    model = kind(**{key: value for key, value in (SIZES | fields).items() if key in known})
    shapes = jax.eval_shape(model.init, jax.random.key(0), SOURCE, TOKENS)['params']
    rng = np.random.default_rng(1)

    def draw(path, x):
        return jnp.asarray((path[-1].key == 'scale') + rng.normal(0, 0.5, x.shape), jnp.float32)

    return model, jax.tree.map_with_path(draw, shapes)


@pytest.mark.parametrize(('name', 'fields'), KINDS, ids=[f'{name}-{number}' for number, (name, _) in enumerate(KINDS)])
def test_loss_and_gradient_are_those_with_padding(name, fields):
    model, params = system(name, **fields)
    assert model.unpads

    def loss(params, room):
        objective, report = Translation(label_smoothing=0.1).loss(
            model, params, Batch(SOURCE, TARGET, WEIGHT, np.arange(4), room), None, 0)
        return objective['loss'][0], (objective, report)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (_, terms), gradient = run(params, None)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    for room in (Room(10, 12), Room(13, 17)):  # none to spare, and some
        (_, others), other = run(params, room)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), others, terms)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max()), other,
                     gradient)


@pytest.mark.parametrize('name', ['transformer', 'bahdanau'])
def test_logits_are_those_of_the_tokens_row_by_row(name):
    model, params = system(name)
    by = Sides(unpadding(SOURCE != 0, 12), unpadding(TARGET != 0, 14))
    logits_NV = model.apply({'params': params}, SOURCE, TOKENS, by=by)
    assert logits_NV.shape == (14, 13)
    np.testing.assert_allclose(logits_NV[:12], model.apply({'params': params}, SOURCE, TOKENS)[TARGET != 0], atol=1e-5)


def test_places_by_hand():
    real_BT = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1]], bool)
    by = unpadding(real_BT, 6)
    assert by.position_N.tolist() == [0, 1, 6, 8, 9, 9]
    assert by.place_BT.tolist() == [[0, 1, 6], [6, 6, 6], [2, 6, 3]]
    x_BT2 = np.arange(18.0).reshape(3, 3, 2)
    x_N2 = unpad(x_BT2, by)
    assert x_N2.tolist() == [[0, 1], [2, 3], [12, 13], [16, 17], [0, 0], [0, 0]]
    np.testing.assert_array_equal(pad(x_N2, by), np.where(real_BT[:, :, None], x_BT2, 0))
    assert unpad(x_BT2, None) is x_BT2
    assert pad(x_BT2, None) is x_BT2


def test_each_is_the_transpose_of_the_other():
    """<unpad x, y> = <x, pad y>, and so do their gradients say."""
    rng = np.random.default_rng(0)
    by = unpadding(rng.random((4, 5)) < 0.6, 15)
    x_BT3, y_N3 = rng.normal(size=(4, 5, 3)).astype(np.float32), rng.normal(size=(15, 3)).astype(np.float32)
    np.testing.assert_allclose((unpad(x_BT3, by) * y_N3).sum(), (x_BT3 * pad(y_N3, by)).sum(), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda x: (unpad(x, by) * y_N3).sum())(x_BT3), pad(y_N3, by))
    np.testing.assert_allclose(jax.grad(lambda y: (pad(y, by) * x_BT3).sum())(y_N3), unpad(x_BT3, by))


@pytest.mark.parametrize(('name', 'fields'), [
    ('transformer', dict(causal=False)), ('transformer', dict(padding_mask=False)),
    ('transformer', dict(normalisation='batch')), ('lstm', dict(normalisation='batch')),
    *((name, {}) for name in WITHOUT)])
def test_who_needs_padding_keeps_it_and_says_so(name, fields):
    experiment = numerals(name).replace('task', **TEXT).replace('model', **fields)
    data = experiment.task.prepare()
    ready = prepare(experiment.replace('training', mesh='data=1'), data.codec)
    assert plan_batches(experiment, data, ready.placement).batch(0).room is None
    asked = experiment.replace('training', unpad=True, mesh='data=1')
    ready = prepare(asked, data.codec)  # who trains no more, and only reads a run of before, is not refused
    with pytest.raises(UserError, match=r'--training\.unpad=true: this .* keeps its padding'):
        plan_batches(asked, data, ready.placement)


def test_padding_stays_where_it_is_asked_for_and_where_rows_are_spread():
    experiment = numerals('gru').replace('task', **TEXT).replace('training', batch_size=16)
    data = experiment.task.prepare()

    def room(**training):
        spread = experiment.replace('training', **training)
        return plan_batches(spread, data, prepare(spread, data.codec).placement).batch(0).room

    assert room(mesh='data=1') is not None
    assert room(mesh='data=1', parallel='jit') is not None
    assert room(mesh='data=2', parallel='shard_map', accumulate=2) is not None
    assert room(mesh='data=2', parallel='jit') is None
    assert room(mesh='data=1', unpad=False) is None
    assert room(mesh='data=1', unpad=True) == room(mesh='data=1')
    with pytest.raises(UserError, match='under jit over several devices batches keep their padding'):
        room(mesh='data=2', parallel='jit', unpad=True)


def test_every_model_says_whether_it_can():
    for name in catalogue.models():
        assert catalogue.load('model', name)().unpads == (name not in WITHOUT), name
