"""Attention with a single head, as recurrent decoders use it: scores of queries against keys, and the context.

The keys are the source's hidden states already projected: what a score needs of them (U h_j, W_a h_s) does not change
while decoding, so it is made once and kept in memory. Queries are (B, T, ...); inside a scan over time, T is 1. Scores
are float32.
"""

import jax
import jax.numpy as jnp

from seqjax.layers.attention import masked_softmax


# The tanh is made again in the backward pass: kept for every step of a scan it would be the largest array of all.
# (Gradient of Bahdanau, H 512, B 128, S = T = 20, 2 cores: 442 MiB and 1.07 s; kept, 632 MiB and 1.18 s.)
@jax.checkpoint
def additive_scores(query_BTA: jax.Array, keys_BSA: jax.Array, v_A: jax.Array) -> jax.Array:
    """v^T tanh(W s + U h) (Bahdanau et al. 2015, A.1.2; the 'concat' of Luong et al. 2015, equation 8): (B, T, S).

    Args:
      query_BTA: W s. keys_BSA: U h. For 'concat', W_a [h_t; h_s] is the sum of the two halves of W_a.
    """
    hidden_BTSA = jnp.tanh(query_BTA.astype(keys_BSA.dtype)[:, :, None] + keys_BSA[:, None])
    return jnp.einsum('BTSA,A->BTS', hidden_BTSA, v_A.astype(keys_BSA.dtype), preferred_element_type=jnp.float32)


def dot_scores(query_BTH: jax.Array, keys_BSH: jax.Array) -> jax.Array:
    """h_t^T h_s, or with keys W_a h_s the 'general' h_t^T W_a h_s (Luong et al. 2015, equation 8): (B, T, S)."""
    return jnp.einsum('BTH,BSH->BTS', query_BTH.astype(keys_BSH.dtype), keys_BSH, preferred_element_type=jnp.float32)


def location_scores(query_BTH: jax.Array, kernel_HL: jax.Array, length: int) -> jax.Array:
    """W_a h_t (Luong et al. 2015, equation 9), from the decoder's state alone: (B, T, length).

    W_a has a row for each of L source positions. Further positions score 0 and have to be masked (`reachable`).
    """
    scores_BTL = jnp.matmul(query_BTH.astype(kernel_HL.dtype), kernel_HL[:, :length],
                            preferred_element_type=jnp.float32)
    return jnp.pad(scores_BTL, ((0, 0), (0, 0), (0, length - scores_BTL.shape[-1])))


def reachable(mask_BS: jax.Array, length: int) -> jax.Array:
    """The mask without positions from `length` on, which location scores know nothing of."""
    return mask_BS & (jnp.arange(mask_BS.shape[1]) < length)


def attend(scores_BTS: jax.Array, values_BSD: jax.Array, mask_BS: jax.Array) -> tuple[jax.Array, jax.Array]:
    """c_i = sum_j a_ij h_j, a = softmax(e) over real positions (Bahdanau et al. 2015, equations 5 and 6).

    Returns:
      The context (B, T, D) in the dtype of `values_BSD` and the weights (B, T, S) in float32. Both are 0 where
      everything is padding.
    """
    weights_BTS = masked_softmax(scores_BTS, mask_BS[:, None, :])
    context_BTD = jnp.einsum('BTS,BSD->BTD', weights_BTS.astype(values_BSD.dtype), values_BSD)
    return context_BTD, weights_BTS
