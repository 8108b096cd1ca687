"""Dropout: its rate, its scale, and that only a key turns it on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.layers.dropout import Dropout, random_bits

X = jnp.full((200, 100), 3.0)


def drop(rate, key, x=X):
    rngs = None if key is None else {'dropout': jax.random.key(key)}
    return np.asarray(Dropout(rate).apply({}, x, rngs=rngs))


def test_without_a_key_nothing_changes():
    assert Dropout(0.5).apply({}, X) is X
    np.testing.assert_array_equal(drop(0.0, key=0), X)


@pytest.mark.parametrize('rate', [0.1, 0.5, 0.9])
def test_drops_at_its_rate_and_keeps_the_mean(rate):
    y = drop(rate, key=0)
    dropped = y == 0
    sigma = (rate * (1 - rate) / y.size) ** 0.5
    assert abs(dropped.mean() - rate) < 5 * sigma
    np.testing.assert_allclose(y[~dropped], 3.0 / (1 - rate), rtol=1e-6)
    # Rows and columns are dropped alike: no unit, and no token, is dropped or kept as a whole.
    assert abs(dropped.mean(axis=0) - rate).max() < 6 * (rate * (1 - rate) / 200) ** 0.5
    assert abs(dropped.mean(axis=1) - rate).max() < 6 * (rate * (1 - rate) / 100) ** 0.5


def test_the_key_decides_which():
    np.testing.assert_array_equal(drop(0.5, key=0), drop(0.5, key=0))
    agree = ((drop(0.5, key=0) == 0) == (drop(0.5, key=1) == 0)).mean()
    assert abs(agree - 0.5) < 0.02


def test_gradient_goes_where_values_go():
    gradient = jax.grad(lambda x: Dropout(0.5).apply({}, x, rngs={'dropout': jax.random.key(0)}).sum())(X)
    np.testing.assert_array_equal(gradient, drop(0.5, key=0) / 3.0)


def test_dtype_is_kept():
    y = Dropout(0.3).apply({}, X.astype(jnp.bfloat16), rngs={'dropout': jax.random.key(0)})
    assert y.dtype == jnp.bfloat16


def test_a_rate_next_to_one_still_runs():
    y = drop(0.999999, key=0)
    assert np.isfinite(y).all()
    assert (y == 0).mean() > 0.99


def bits_of(number, first, second):
    """The hash of one element in Python's integers, which never wrap."""
    x = (number + first) % 2 ** 32
    x = (x ^ x >> 17) * 0xed5ad4bb % 2 ** 32 ^ second
    x = (x ^ x >> 11) * 0xac4c1b51 % 2 ** 32
    x = (x ^ x >> 15) * 0x31848bab % 2 ** 32
    return x ^ x >> 14


def test_bits_are_the_hash_of_an_elements_number():
    key = jax.random.fold_in(jax.random.key(3), 5)
    first, second = (int(part) for part in jax.random.key_data(key))
    found = np.asarray(random_bits(key, (3, 4, 5)))
    assert found.ravel().tolist() == [bits_of(number, first, second) for number in range(60)]
    assert int(random_bits(key, ())) == bits_of(0, first, second)


def test_bits_are_one_to_one():
    found = np.asarray(random_bits(jax.random.key(0), (2 ** 20,)))
    assert len(np.unique(found)) == 2 ** 20


@pytest.mark.parametrize('seed', range(4))
def test_every_bit_is_even_and_none_follows_its_neighbours(seed):
    """Each of the 32 bits, and each beside each of the next element, of the next row, and of the next key."""
    key, shape = jax.random.key(seed), (512, 512)
    here = np.unpackbits(np.asarray(random_bits(key, shape)).view(np.uint8).reshape(*shape, 4), axis=-1) * 2.0 - 1
    there = np.unpackbits(np.asarray(random_bits(jax.random.fold_in(key, 1), shape)).view(np.uint8).reshape(
        *shape, 4), axis=-1) * 2.0 - 1
    within = 5.5 / 511  # standard deviations of a mean of 512 * 511 draws, of 4 * 1,024 * 3 means
    assert abs(here.mean(axis=(0, 1))).max() < within
    for one, other in ((here[:, :-1], here[:, 1:]), (here[:-1], here[1:]), (here[:-1], there[:-1])):
        assert abs(np.einsum('abi,abj->ij', one, other) / one[..., 0].size).max() < within


def test_masks_of_two_keys_are_apart_however_one_is_shifted():
    """Also in other orders of the elements: a counter that is only moved by the key would show as one high peak."""
    keys = jax.random.split(jax.random.key(0), 6)
    spectra = [np.fft.rfft((np.asarray(random_bits(key, (2 ** 16,))) < 2 ** 32 * 0.1) - 0.1) for key in keys]
    sigma = (0.1 * 0.9) * 2 ** 8  # of a sum of 2 ** 16 products of two masks
    for i in range(6):
        for j in range(i):
            assert abs(np.fft.irfft(spectra[i] * spectra[j].conj())).max() < 6.5 * sigma


def test_arrays_split_over_devices_drop_alike():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ('data',))
    split = jax.device_put(X, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data')))
    run = jax.jit(lambda x: Dropout(0.3).apply({}, x, rngs={'dropout': jax.random.key(1)}))
    np.testing.assert_array_equal(run(split), run(X))
