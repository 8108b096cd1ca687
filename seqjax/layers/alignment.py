"""Attention with a single head, as recurrent decoders use it: scores of queries against keys, and the context.

The keys are the source's hidden states already projected: what a score needs of them (U h_j, W_a h_s) does not change
while decoding, so it is made once and kept in memory. Queries are (B, T, ...); inside a scan over time, T is 1, and
kernels, keys and values may be what `layers/steps.py` gives to a step, functions that multiply by them. Scores are
float32.
"""

import jax
import jax.numpy as jnp

from seqjax.layers.attention import masked_softmax
from seqjax.layers.products import mixtures, similarities
from seqjax.layers.steps import Kernel, multiply


# The tanh is made again in the backward pass: kept for every step of a scan it would be the largest array of all.
# (Gradient of Bahdanau, H 512, B 128, S = T = 20, 2 cores: 442 MiB and 1.07 s; kept, 632 MiB and 1.18 s.)
@jax.checkpoint
def additive_scores(query_BTA: jax.Array, keys_BSA: jax.Array, v_A: jax.Array) -> jax.Array:
    """v^T tanh(W s + U h) (Bahdanau et al. 2015, A.1.2; the 'concat' of Luong et al. 2015, section 3.1): (B, T, S).

    Args:
      query_BTA: W s. keys_BSA: U h. For 'concat', W_a [h_t; h_s] is the sum of the two halves of W_a.
    """
    hidden_BTSA = jnp.tanh(query_BTA.astype(keys_BSA.dtype)[:, :, None] + keys_BSA[:, None])
    return jnp.einsum('BTSA,A->BTS', hidden_BTSA, v_A.astype(keys_BSA.dtype), preferred_element_type=jnp.float32)


def dot_scores(query_BTH: jax.Array, keys_BSH: Kernel) -> jax.Array:
    """h_t^T h_s, or with keys W_a h_s the 'general' h_t^T W_a h_s (Luong et al. 2015, section 3.1): (B, T, S).

    A function of keys multiplies by them turned, (B, H, S).
    """
    if callable(keys_BSH):
        return keys_BSH(query_BTH)
    return similarities(query_BTH.astype(keys_BSH.dtype), keys_BSH)


def location_scores(query_BTH: jax.Array, kernel_HL: Kernel, length: int) -> jax.Array:
    """W_a h_t (Luong et al. 2015, equation 8), from the decoder's state alone: (B, T, length).

    W_a has a row for each of L source positions. Further positions score 0 and have to be masked (`reachable`).
    """
    scores_BTL = multiply(query_BTH, kernel_HL)[:, :, :length]
    return jnp.pad(scores_BTL, ((0, 0), (0, 0), (0, length - scores_BTL.shape[-1])))


def reachable(mask_BS: jax.Array, length: int) -> jax.Array:
    """The mask without positions from `length` on, which location scores know nothing of."""
    return mask_BS & (jnp.arange(mask_BS.shape[1]) < length)


def predicted_centre(hidden_BTH: jax.Array, kernel_HA: Kernel, v_A: jax.Array, length_B: jax.Array) -> jax.Array:
    """p_t = S sigmoid(v_p^T tanh(W_p h_t)), S the length of each row's own source (Luong et al. 2015, equation 9).

    Returns:
      (B, T) float32, between 0 and S; positions are counted from 1.
    """
    return length_B[:, None] * jax.nn.sigmoid(jnp.tanh(multiply(hidden_BTH, kernel_HA)) @ v_A)


def window(centre_BT: jax.Array, half: int, length: int) -> jax.Array:
    """True at the source positions s within [p_t - D, p_t + D], D = `half` (Luong et al. 2015, section 3.2).

    Positions count from 1. What lies outside of the source is left to the source's mask: the paper ignores it.

    Returns:
      (B, T, S) bool, S = `length`.
    """
    distance_BTS = jnp.arange(1, length + 1) - centre_BT[:, :, None]
    return jnp.abs(distance_BTS) <= half


def gaussian(centre_BT: jax.Array, half: int, length: int) -> jax.Array:
    """exp(-(s - p_t)^2 / (2 sigma^2)) with sigma = D / 2, D = `half` (Luong et al. 2015, equation 10): (B, T, S)."""
    distance_BTS = jnp.arange(1, length + 1) - centre_BT[:, :, None]
    return jnp.exp(-distance_BTS ** 2 / (2 * (half / 2) ** 2))


def attend(scores_BTS: jax.Array, values_BSD: Kernel, mask_BS: jax.Array, window_BTS: jax.Array | None = None,
           factor_BTS: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """c_i = sum_j a_ij h_j, a = softmax(e) over real positions (Bahdanau et al. 2015, equations 5 and 6).

    Args:
      mask_BS: True at real source positions.
      window_BTS: where each target position may look; the softmax is over the real positions among these.
      factor_BTS: multiplies the weights after the softmax; they are not normalised again.

    Returns:
      The context (B, T, D) in the dtype of `values_BSD`, of a function what that gives, and the weights (B, T, S) in
      float32. Both are 0 where nothing real may be looked at.
    """
    mask_BTS = mask_BS[:, None, :] if window_BTS is None else mask_BS[:, None, :] & window_BTS
    weights_BTS = masked_softmax(scores_BTS, mask_BTS)
    if factor_BTS is not None:
        weights_BTS = weights_BTS * factor_BTS
    if callable(values_BSD):
        return values_BSD(weights_BTS), weights_BTS
    return mixtures(weights_BTS.astype(values_BSD.dtype), values_BSD), weights_BTS
