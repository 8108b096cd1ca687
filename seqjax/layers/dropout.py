"""Dropout (Srivastava et al. 2014), on exactly when a 'dropout' key is given to `apply`."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class Dropout(nn.Module):
    """Zeroes each element with probability `rate` and scales the others by 1 / (1 - rate)."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `x` with elements dropped, or `x` itself where no 'dropout' key was given."""
        if self.rate == 0.0 or not self.has_rng('dropout'):
            return x
        threshold = min(round(self.rate * 2 ** 32), 2 ** 32 - 1)  # 2 ** 32 would wrap to 0
        kept = random_bits(self.make_rng('dropout'), x.shape) >= jnp.uint32(threshold)
        return jnp.where(kept, x / (1.0 - self.rate), jnp.zeros_like(x))


def random_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """32 random bits for each element, uint32: a hash of its number and the key, good enough to drop by, and cheap.

    Like jax.random's, they are a function of key and counter (Salmon et al. 2011, "Parallel random numbers: as easy as
    1, 2, 3"), the same wherever an array is split. Its Threefry takes 20 rounds, arrays of their own and a loop; this
    one, three products of 32 bits in the style of the finaliser of MurmurHash3 (constants: Wellons 2018, "Prospecting
    for hash functions", triple32), fuses into what reads it. For a fixed key it is one to one, and after 2^32 elements
    it repeats.
    """
    first, second = jax.random.key_data(key)[:2]
    number, stride = jnp.uint32(0), 1
    for axis in reversed(range(len(shape))):
        number += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2 ** 32)
        stride *= shape[axis]
    bits = number + first
    bits = (bits ^ bits >> 17) * jnp.uint32(0xed5ad4bb)
    bits ^= second  # in between, or the bits of one key would be another's in another order
    bits = (bits ^ bits >> 11) * jnp.uint32(0xac4c1b51)
    bits = (bits ^ bits >> 15) * jnp.uint32(0x31848bab)
    return bits ^ bits >> 14
