"""Position encodings against their papers' formulas, by hand and in float64 numpy, and against published values."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_positions
import numpy_transformer as reference
import pytest

from seqjax.layers.attention import SelfAttention
from seqjax.layers.positions import MAX_DISTANCE, RelativePositions, alibi_slopes, buckets, rotate, sinusoids, turn


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


# Rotary.


def test_rotary_is_the_papers_turn_of_complex_numbers():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 8)).astype(np.float32)
    position = np.array([[0, 1, 2, 3, 4], [7, 30, 2, 500, 1]])
    turned = jax.jit(lambda x: rotate(x, turn(position, 8)))(x)
    for b in range(2):
        for head in range(3):
            np.testing.assert_allclose(turned[b, head], numpy_positions.rotary(
                x[b, head].astype(np.float64), position[b]), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(turned[0, :, 0], x[0, :, 0])


def test_rotary_by_hand():
    """Width 4: theta is 1 and 1/100; at position pi/2 the first pair (1, 2) becomes (-2, 1)."""
    turned = rotate(jnp.array([1.0, 2.0, 3.0, 4.0])[None, None, None], turn(jnp.array([[np.pi / 2]]), 4))
    c, s = np.cos(np.pi / 200), np.sin(np.pi / 200)
    np.testing.assert_allclose(turned.ravel(), [-2, 1, 3 * c - 4 * s, 4 * c + 3 * s], rtol=1e-5)


def test_a_rotary_score_depends_on_the_distance_alone():
    """Su et al. 2021, equation 16; and lengths do not change."""
    q, k = np.random.default_rng(1).normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

    def score(m, n):
        return float((rotate(q, turn(np.array([[m]]), 8)) * rotate(k, turn(np.array([[n]]), 8))).sum())

    for distance in (-3, 0, 4):
        np.testing.assert_allclose([score(m, m + distance) for m in (3, 10, 40)], score(20, 20 + distance), atol=1e-4)
    assert len({round(score(20, n), 4) for n in range(16, 25)}) == 9
    turned = rotate(q, turn(np.array([[17]]), 8))
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(q), rel=1e-5)


def test_rotary_in_half_precision_is_turned_in_float32():
    """At position 250, bfloat16 angles would be off by more than a radian."""
    x = jnp.ones((1, 1, 1, 2), jnp.bfloat16)
    turned = rotate(x, turn(np.array([[251]]), 2))
    assert turned.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(turned, np.float32).ravel(), [
        np.cos(251) - np.sin(251), np.cos(251) + np.sin(251)], atol=0.01)


# ALiBi.


def test_alibi_slopes_are_the_published_ones():
    """Press et al. 2022, section 3: 8 heads 1/2 ... 1/256; 16 heads 2^-0.5, 2^-1, ... 2^-8."""
    np.testing.assert_allclose(alibi_slopes(8), [1 / 2 ** n for n in range(1, 9)], rtol=1e-6)
    np.testing.assert_allclose(alibi_slopes(16), [2 ** (-n / 2) for n in range(1, 17)], rtol=1e-6)
    # 12 heads, as the authors' program prints them: those of 8, then every other one of 16.
    np.testing.assert_allclose(alibi_slopes(12), [
        0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625, 0.70710678, 0.35355339, 0.1767767,
        0.08838835], rtol=1e-6)
    for heads in range(1, 20):
        assert alibi_slopes(heads).shape == (heads,)
        np.testing.assert_allclose(alibi_slopes(heads), numpy_positions.slopes(heads), rtol=1e-6)


def relative_bias(kind, query, key, bidirectional=False, heads=4):
    """(B, H, T, S), and the parameters."""
    module = RelativePositions(kind, heads, 2, bidirectional)
    query, key = np.atleast_2d(query), np.atleast_2d(key)
    shapes = jax.eval_shape(module.init, jax.random.key(0), query, key).get('params', {})
    params = jax.tree.map(lambda x: np.random.default_rng(0).normal(size=x.shape).astype(np.float32), shapes)
    relative = module.apply({'params': params}, query, key)
    assert relative.turn is None
    return np.asarray(relative.bias_BHTS), params


@pytest.mark.parametrize('bidirectional', [False, True])
def test_alibi_is_a_slope_times_the_distance(bidirectional):
    bias, params = relative_bias('alibi', np.arange(3), np.arange(4), bidirectional)
    assert params == {}
    distance = np.array([[0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1]])
    np.testing.assert_allclose(bias[0], [-slope * distance for slope in (1 / 4, 1 / 16, 1 / 64, 1 / 256)])


# T5.


@pytest.mark.parametrize(('bidirectional', 'expected'), [
    (True, [15, 15, 14, 10, 8, 1, 0, 17, 24, 26, 30, 31, 31]), (False, [31, 31, 26, 16, 8, 1, 0, 0, 0, 0, 0, 0, 0])])
def test_t5_buckets_are_the_published_ones(bidirectional, expected):
    """The values that T5's own program gives, for 32 buckets and a maximum distance of 128."""
    relative = np.array([-200, -128, -64, -16, -8, -1, 0, 1, 8, 16, 64, 128, 200])
    table = buckets(bidirectional)
    np.testing.assert_array_equal(table[np.clip(relative, -MAX_DISTANCE, MAX_DISTANCE) + MAX_DISTANCE], expected)
    np.testing.assert_array_equal(table, [numpy_positions.bucket(r, bidirectional) for r in range(-128, 129)])


@pytest.mark.parametrize('bidirectional', [False, True])
def test_t5_is_a_number_for_each_bucket_and_head(bidirectional):
    """Rows of a batch stand at different positions, some further apart than the last bucket begins."""
    query, key = np.array([[0, 150], [9, 10]]), np.array([[0, 5, 160], [3, 300, 9]])
    bias, params = relative_bias('t5', query, key, bidirectional)
    assert params['relative_bias'].shape == (32, 4)
    for b in range(2):
        for t in range(2):
            for s in range(3):
                bucket = numpy_positions.bucket(key[b, s] - query[b, t], bidirectional)
                np.testing.assert_array_equal(bias[b, :, t, s], params['relative_bias'][bucket])


@pytest.mark.parametrize('kind', ['rotary', 'alibi', 't5'])
def test_a_shift_of_all_positions_changes_nothing(kind):
    """Self-attention knows the distances; and, without any, an order it does not see."""
    x = np.random.default_rng(2).normal(size=(1, 6, 8)).astype(np.float32)
    attention, positions = SelfAttention(2), RelativePositions(kind, 2, 4, True)
    everything, where = np.ones((1, 1, 6), bool), np.arange(6)[None]
    rng = np.random.default_rng(3)

    def random(module, *args):
        shapes = jax.eval_shape(module.init, jax.random.key(0), *args).get('params', {})
        return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.7, x.shape), jnp.float32), shapes)

    params, told = random(attention, x, everything), random(positions, where, where)

    @jax.jit
    def out(x, where):
        relative = positions.apply({'params': told}, where, where)
        return attention.apply({'params': params}, x, everything, relative=relative)[0]

    one, order = out(x, where), np.array([3, 0, 4, 1, 5, 2])
    np.testing.assert_allclose(out(x, where + 23), one, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(out(x[:, order], where[:, order]), one[:, order], rtol=1e-4, atol=1e-4)
    assert np.abs(out(x[:, order], where) - one[:, order]).max() > 1e-2, 'the order is seen'
