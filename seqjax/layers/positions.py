"""Position encodings: where a token stands, told to its embedding, to queries and keys, or to the scores.

| encoding   | where it enters                     | paper                               | beyond the training length |
|------------|-------------------------------------|-------------------------------------|----------------------------|
| sinusoidal | the embedding                       | Vaswani et al. 2017, section 3.5    | goes on                    |
| learned    | the embedding                       | Gehring et al. 2017, section 3.1    | refused                    |
| rotary     | queries and keys of self-attention  | Su et al. 2021, section 3.2         | goes on                    |
| alibi      | scores of self-attention            | Press et al. 2022, section 3        | goes on                    |
| t5         | scores of self-attention            | Raffel et al. 2020, section 2.1     | goes on                    |
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

Positions = Literal['none', 'sinusoidal', 'learned', 'rotary', 'alibi', 't5']
BUCKETS, MAX_DISTANCE = 32, 128  # of T5's relative positions


def sinusoids(length: int, width: int) -> np.ndarray:
    """The sinusoid table (length, width) of Vaswani et al. 2017, section 3.5, in float32.

    PE[pos, 2i] = sin(pos / 10000^(2i / width)) and PE[pos, 2i + 1] = cos(pos / 10000^(2i / width)): sines and cosines
    interleave, as in the paper. (tensor2tensor, Marian and BART lay them side by side.) An odd width drops the last
    cosine.
    """
    pair = np.arange((width + 1) // 2)
    angle = np.arange(length)[:, None] / 10000.0 ** (2.0 * pair / width)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(length, -1)[:, :width].astype(np.float32)


def shift(offset: int, width: int) -> np.ndarray:
    """The map M (width, width), in float64, of PE[pos + offset] = PE[pos] M at every position (`width` even).

    "For any fixed offset k, PE_{pos+k} can be represented as a linear function of PE_pos" (Vaswani et al. 2017, section
    3.5): each pair of sine and cosine is turned by offset / 10000^(2i / width), so that M is a rotation.
    """
    angle_P = offset / 10000.0 ** (2.0 * np.arange(width // 2) / width)
    sine = np.arange(0, width, 2)
    M = np.zeros((width, width))
    M[sine, sine] = M[sine + 1, sine + 1] = np.cos(angle_P)
    M[sine + 1, sine], M[sine, sine + 1] = np.sin(angle_P), -np.sin(angle_P)
    return M


class Turn(NamedTuple):
    """Cosines and sines of the angles by which rotary positions turn each pair: (B or 1, 1, T, K / 2), float32."""

    cos: jax.Array
    sin: jax.Array


def turn(position_BT: jax.Array, width: int) -> Turn:
    """The angles m theta_i of position m, theta_i = 10000^(-2 (i - 1) / width), i = 1 ... width / 2 (Su et al. 2021,
    equation 15). `width` is a head's, and even."""
    frequency_P = (10000.0 ** (-2.0 * np.arange(width // 2) / width)).astype(np.float32)
    angle_B1TP = position_BT.astype(jnp.float32)[:, None, :, None] * frequency_P
    return Turn(jnp.cos(angle_B1TP), jnp.sin(angle_B1TP))


def rotate(x_BHTK: jax.Array, by: Turn) -> jax.Array:
    """R_m x (Su et al. 2021, equations 15 and 34): the pairs (x_1, x_2), (x_3, x_4), ... turned by m theta_i.

    (R_m q)^T (R_n k) = q^T R_(n-m) k, equation 16: a score knows the distance, and no position. Computed in float32.
    (GPT-NeoX and LLaMA pair x_i with x_(i + width / 2): the same up to the order of the columns of W_q and W_k.)
    """
    x = x_BHTK.astype(jnp.float32).reshape(*x_BHTK.shape[:-1], -1, 2)
    turned = jnp.stack([x[..., 0] * by.cos - x[..., 1] * by.sin, x[..., 1] * by.cos + x[..., 0] * by.sin], axis=-1)
    return turned.reshape(x_BHTK.shape).astype(x_BHTK.dtype)


def alibi_slopes(num_heads: int) -> np.ndarray:
    """The slope m of each head (H,), in float32 (Press et al. 2022, section 3).

    For n heads, a power of 2, the geometric sequence that starts at 2^(-8/n) and has that same ratio. For other n, as
    in the authors' program: the slopes of p heads, the next lower power of 2, then every other one of 2p heads.
    """
    power = 2 ** (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * (i + 1) / power) for i in range(power)]
    between = [2.0 ** (-8.0 * (i + 1) / (2 * power)) for i in range(0, 2 * power, 2)]
    return np.array((slopes + between)[:num_heads], np.float32)


def buckets(bidirectional: bool) -> np.ndarray:
    """The bucket (2 * MAX_DISTANCE + 1,) of each key's position less its query's, from -MAX_DISTANCE to MAX_DISTANCE.

    T5's (Raffel et al. 2020, section 2.1): half of the buckets for single distances, the others for ranges that grow
    logarithmically up to 128, with all beyond in the last. A bidirectional stack gives half of the buckets to each
    side; a causal one has all of them for the past, and calls the future 0. A table made on the host, since float32
    logarithms put some distances into the bucket below.
    """
    relative = np.arange(-MAX_DISTANCE, MAX_DISTANCE + 1)
    count = BUCKETS // 2 if bidirectional else BUCKETS
    distance = np.abs(relative) if bidirectional else np.maximum(-relative, 0)
    exact = count // 2
    steps = np.log(np.maximum(distance, exact) / exact) / np.log(MAX_DISTANCE / exact) * (count - exact)
    far = np.minimum(exact + np.floor(steps + 1e-9).astype(np.int32), count - 1)
    side = count * (relative > 0) if bidirectional else 0
    return (np.where(distance < exact, distance, far) + side).astype(np.int32)


class Relative(NamedTuple):
    """What self-attention reads of positions, made once for all layers; None where an encoding has no such thing."""

    bias_BHTS: jax.Array | None = None  # joins the scores, after their scaling by 1 / sqrt(d_k); B may be 1
    turn: Turn | None = None  # of the tokens that are queries (and new keys) now


class RelativePositions(nn.Module):
    """Rotary angles and biases of one stack, from the positions of its queries and keys.

    ALiBi's bias is -m |i - j|: the paper's in a causal stack, and its symmetric form in one that looks both ways. T5's
    is a learned number a bucket and head, one table for all layers of a stack, as in the paper. (T5 itself does without
    1 / sqrt(d_k), which its initialisation takes care of; here scores are scaled whatever the positions.)
    """

    kind: Positions
    num_heads: int
    head_size: int
    bidirectional: bool

    @nn.compact
    def __call__(self, query_BT: jax.Array, key_BS: jax.Array) -> Relative:
        """From positions (B or 1, T) and (B or 1, S)."""
        if self.kind == 'rotary':
            return Relative(turn=turn(query_BT, self.head_size))
        if self.kind not in ('alibi', 't5'):
            return Relative()
        relative_BTS = key_BS[:, None, :] - query_BT[:, :, None]
        if self.kind == 'alibi':
            return Relative(-alibi_slopes(self.num_heads)[:, None, None] * jnp.abs(relative_BTS)[:, None])
        init = nn.initializers.normal((self.num_heads * self.head_size) ** -0.5)
        table_UH = self.param('relative_bias', init, (BUCKETS, self.num_heads))
        bucket_BTS = jnp.asarray(buckets(self.bidirectional))[
            jnp.clip(relative_BTS, -MAX_DISTANCE, MAX_DISTANCE) + MAX_DISTANCE]
        return Relative(jnp.moveaxis(table_UH[bucket_BTS], -1, 1))
