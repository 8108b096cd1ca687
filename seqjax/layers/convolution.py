"""Gated convolutional blocks with attention in every layer (Gehring et al. 2017), written to be scanned over layers."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqjax.layers.attention import masked_softmax
from seqjax.layers.dropout import Dropout
from seqjax.layers.products import matmul, mixtures, similarities

# The sum of two things of one variance has twice that variance (section 3.4).
HALF_VARIANCE = 0.5 ** 0.5


def convolve(x_BTD: jax.Array, kernel_KDE: jax.Array) -> jax.Array:
    """y_t = sum_k x_{t+k} W_k for every window that lies inside: (B, T, D) to (B, T - K + 1, E), in the kernel's dtype.

    What a position sees is the caller's padding: K - 1 in front make it causal, half of them at each end centre it.
    """
    # A matrix product for each place of the window, not lax.conv: inside a scan over layers XLA's convolution on the
    # CPU falls back to a plain loop, a hundred times slower.
    length = x_BTD.shape[1] - kernel_KDE.shape[0] + 1
    x_BTD = x_BTD.astype(kernel_KDE.dtype)
    return sum(matmul(x_BTD[:, k:k + length], kernel_DE) for k, kernel_DE in enumerate(kernel_KDE))


def gated(x_BT2D: jax.Array) -> jax.Array:
    """The gated linear unit v([A B]) = A sigmoid(B) (Dauphin et al. 2016), section 3.2: halves the last axis."""
    a_BTD, b_BTD = jnp.split(x_BT2D, 2, axis=-1)
    return a_BTD * jax.nn.sigmoid(b_BTD)


def scaled_gradient(x: jax.Array, factor: float) -> jax.Array:
    """`x`, whose gradient is multiplied by `factor`."""
    return factor * x + jax.lax.stop_gradient((1.0 - factor) * x)


class Convolution(nn.Module):
    """W * x + b, on windows of `size` positions; of one, it is a linear map.

    Weights start as normal of variance gain * (1 - dropout) / (size * D), where `dropout` is what their input goes
    through, and biases as 0 (section 3.5 and appendix A): gain 4 keeps the variance through a gated linear unit, 1
    where there is none. With `normalise`, W = scale * V / ||V|| for each output (Salimans and Kingma 2016, equation 2),
    and the scale starts as ||V||, so that it changes nothing at first.
    """

    features: int
    size: int = 1
    gain: float = 1.0
    dropout: float = 0.0
    normalise: bool = True
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """Maps (B, T, D) to (B, T - size + 1, features)."""
        shape = (self.size, x_BTD.shape[-1], self.features)
        deviation = (self.gain * (1 - self.dropout) / (self.size * x_BTD.shape[-1])) ** 0.5
        kernel_KDE = self.param('kernel', nn.initializers.normal(deviation), shape)
        bias_E = self.param('bias', nn.initializers.zeros, (self.features,))
        if self.normalise:
            length_E = jnp.sqrt(jnp.sum(kernel_KDE ** 2, axis=(0, 1)))
            scale_E = self.param('scale', lambda key: length_E)
            kernel_KDE = kernel_KDE * (scale_E / length_E)
        return convolve(x_BTD, kernel_KDE.astype(self.dtype)) + bias_E.astype(self.dtype)


class EncoderBlock(nn.Module):
    """h^l = v(W^l [h^{l-1}_{i-k/2}, ..., h^{l-1}_{i+k/2}] + b^l) + h^{l-1}, section 3.2. A scan's body."""

    kernel_size: int
    dropout: float
    normalise: bool
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x_BSD: jax.Array, mask_BS: jax.Array) -> tuple[jax.Array, None]:
        """Maps (B, S, D) to (B, S, D); what stands at padding is never read."""
        beside = self.kernel_size // 2
        inside_BSD = jnp.where(mask_BS[:, :, None], Dropout(self.dropout)(x_BSD), 0)
        padded = jnp.pad(inside_BSD, ((0, 0), (beside, beside), (0, 0)))
        y_BSD = gated(Convolution(2 * x_BSD.shape[-1], self.kernel_size, 4.0, self.dropout, self.normalise, self.dtype,
                                  name='convolution')(padded))
        x_BSD = (y_BSD + x_BSD) * HALF_VARIANCE
        self.sow('intermediates', 'hidden', x_BSD)
        return x_BSD, None


class DecoderBlock(nn.Module):
    """A causal convolution, attention on the source, and a residual connection around both. A scan's body.

    All sums of two are scaled as section 3.4 has it for residual blocks, that is d of equation 1 and h + c as well, as
    in the authors' program.
    """

    kernel_size: int
    dropout: float
    normalise: bool
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x_BTD: jax.Array, before_BKD: jax.Array, embedded_BTE: jax.Array, memory) -> tuple:
        """One layer.

        Args:
          before_BKD: the layer's last kernel_size - 1 inputs, zeros before the first token.
          embedded_BTE: g, the embeddings of the target tokens with their positions.
          memory: 'keys' z and 'values' z + e, each (B, S, E), and the 'mask' (B, S) of real tokens.

        Returns:
          (B, T, D), and the layer's last kernel_size - 1 inputs.
        """
        width = x_BTD.shape[-1]

        def linear(features, name):
            return Convolution(features, normalise=self.normalise, dtype=self.dtype, name=name)

        window = jnp.concatenate([before_BKD, Dropout(self.dropout)(x_BTD)], axis=1)
        h_BTD = gated(Convolution(2 * width, self.kernel_size, 4.0, self.dropout, self.normalise, self.dtype,
                                  name='convolution')(window))
        # Equation 1 for d; equation 2 for c, which section 3.4 scales by m sqrt(1/m), m source tokens.
        d_BTE = (linear(embedded_BTE.shape[-1], 'query')(h_BTD) + embedded_BTE) * HALF_VARIANCE
        scores_BTS = similarities(d_BTE, memory['keys'])
        weights_BTS = masked_softmax(scores_BTS, memory['mask'][:, None])
        self.sow('intermediates', 'cross_attention', weights_BTS[:, None])
        c_BTE = mixtures(weights_BTS.astype(self.dtype), memory['values'])
        c_BTE = c_BTE * jnp.sqrt(memory['mask'].sum(axis=1)).astype(self.dtype)[:, None, None]
        y_BTD = (linear(width, 'context')(c_BTE) + h_BTD) * HALF_VARIANCE
        x_BTD = (y_BTD + x_BTD) * HALF_VARIANCE
        self.sow('intermediates', 'hidden', x_BTD)
        return x_BTD, window[:, x_BTD.shape[1]:]
