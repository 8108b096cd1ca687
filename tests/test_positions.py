"""The sinusoid table against the formula of section 3.5, by hand and in float64."""

import numpy as np
import numpy_transformer as reference
import pytest

from seqjax.layers.positions import sinusoids


def test_table_is_the_interleaved_formula():
    table = sinusoids(20, 512)
    assert table.dtype == np.float32
    assert table.shape == (20, 512)
    np.testing.assert_allclose(table, reference.positions(20, 512), rtol=0, atol=1e-6)


@pytest.mark.parametrize(('position', 'dimension', 'value'), [
    (0, 0, 0.0), (0, 1, 1.0), (0, 510, 0.0), (0, 511, 1.0),  # sin 0 and cos 0
    (1, 0, 0.8414710), (1, 1, 0.5403023),  # sin 1 and cos 1
    (3, 0, 0.1411200), (3, 1, -0.9899925),  # sin 3 and cos 3
    (10, 256, 0.0998334), (10, 257, 0.9950042),  # 10000^(256/512) is 100: sin 0.1 and cos 0.1
    (19, 256, 0.1888589), (19, 257, 0.9820043)])  # sin 0.19 and cos 0.19
def test_table_has_the_values_of_a_sine_table(position, dimension, value):
    assert sinusoids(20, 512)[position, dimension] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize('offset', [1, 7])
def test_a_shift_is_one_linear_map_for_every_position(offset):
    """"PE(pos+k) can be represented as a linear function of PE(pos)": each pair turns by k times its frequency."""
    table = sinusoids(40, 16).astype(np.float64)
    turn = np.zeros((16, 16))
    for pair in range(8):
        angle = offset / 10000 ** (2 * pair / 16)
        turn[2 * pair:2 * pair + 2, 2 * pair:2 * pair + 2] = [[np.cos(angle), -np.sin(angle)],
                                                            [np.sin(angle), np.cos(angle)]]
    np.testing.assert_allclose(table[:-offset] @ turn, table[offset:], atol=1e-6)


def test_an_odd_width_drops_the_last_cosine():
    angle = np.arange(4)[:, None] / 10000 ** (np.array([0, 0, 2, 2, 4]) / 5)
    expected = np.where(np.arange(5) % 2 == 0, np.sin(angle), np.cos(angle))
    np.testing.assert_allclose(sinusoids(4, 5), expected, atol=1e-6)


def test_a_longer_table_begins_with_the_shorter_one():
    np.testing.assert_array_equal(sinusoids(64, 6)[:9], sinusoids(9, 6))
