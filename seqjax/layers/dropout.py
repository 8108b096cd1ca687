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
        # 16 random bits an element: the rate is exact to 1 / 65536.
        bits = jax.random.bits(self.make_rng('dropout'), x.shape, jnp.uint16)
        threshold = min(round(self.rate * 65536), 65535)  # 65536 would wrap to 0
        return jnp.where(bits >= threshold, x / (1.0 - self.rate), jnp.zeros_like(x))
