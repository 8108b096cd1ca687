"""What order is to attention: on models whose answer is known, and tables whose map is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.models.transformer import Transformer
from seqjax.studies import order

FIELDS = dict(source_size=13, target_size=13, source_length=9, target_length=9, num_heads=2, hidden_size=8,
              feedforward_size=16, dropout=0.0)
ONES = jnp.ones((1, 2), jnp.int32)


@functools.cache
def made(positions='none', layers=1):
    model = Transformer(positions=positions, num_layers=layers, **FIELDS)
    return model, jax.jit(model.init)(jax.random.key(1), ONES, ONES)['params']


def test_an_encoder_without_positions_follows_any_permutation_and_no_other_does():
    assert order.source_order(*made(layers=2), 6) < 1e-5
    assert order.source_order(*made('sinusoidal', 2), 6) > 0.1
    assert order.source_order(*made('rotary', 2), 6) > 0.1


def test_a_causal_decoder_is_a_bag_of_words_in_one_layer_and_not_in_two():
    """The last of one layer's queries sees a set; in the second layer what it sees has itself seen what came before."""
    assert order.prefix_order(*made(), 6) < 1e-5
    assert order.prefix_order(*made('sinusoidal'), 6) > 1e-2
    deep = order.prefix_order(*made(layers=2), 6, seed=1)
    assert deep > 1e-2
    model = made()[0]
    assert order.fresh_prefix_order(model, 2, 6, seed=1) == pytest.approx(deep, rel=1e-3)
    assert order.fresh_prefix_order(model, 1, 6) < 1e-5


@pytest.mark.parametrize('length', [2, 3, 9])
def test_everything_is_moved(length):
    for seed in range(3):
        moved = order.derangement(length, seed)
        assert sorted(moved) == list(range(length))
        assert (moved != np.arange(length)).all()


def test_differences_are_in_standard_deviations():
    assert order.apart(np.array([0.0, 2.0, 10.0]), np.array([0.0, 2.0, 4.0])) == pytest.approx(6 / np.sqrt(8 / 3))


def table(length=60, width=8):
    angle = np.arange(length)[:, None] / 10000 ** (2 * np.arange(width // 2) / width)
    return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(length, width)


def test_a_shift_turns_sinusoids_and_nothing_else():
    assert order.turned_error(table(), 5) < 1e-12
    assert order.turned_error(table()[:, ::-1], 5) > 0.1  # cosines first: turned the wrong way
    assert order.turned_error(np.array([[0.0, 1.0], [3.0, 4.0]]), 1) == pytest.approx(
        np.hypot(3 - np.sin(1), 4 - np.cos(1)) / 5)


def test_the_best_map_is_found_where_there_is_one_and_tried_where_it_was_not_fitted():
    rng = np.random.default_rng(0)
    M, rows = np.linalg.qr(rng.normal(size=(6, 6)))[0], [rng.normal(size=6)]
    for _ in range(59):
        rows.append(rows[-1] @ M)
    assert order.fitted_error(np.array(rows), 3) < 1e-8
    noise = rng.normal(size=(200, 20))
    assert 0.9 < order.fitted_error(noise, 1) < 1.6
    errors = order.shift_errors(200, 16, 4)
    assert errors['turned_error'] < 1e-6
    assert errors['fitted_error'] < 1e-5
    assert errors['random_error'] > 0.9
