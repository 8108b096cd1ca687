"""How soft a softmax of attention is, and what gradient it lets through."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.data.vocabulary import PAD
from seqjax.studies.table import Row
from seqjax.tasks.forced import captured, forced_logits
from seqjax.tasks.losses import cross_entropy


def entropy(weights_BTS: np.ndarray) -> np.ndarray:
    """-sum w log w over the last axis, in nats."""
    w = np.asarray(weights_BTS, np.float64)
    return -np.sum(w * np.log(np.where(w > 0, w, 1.0)), axis=-1)


def slope(weights_BTS: np.ndarray) -> np.ndarray:
    """The Frobenius norm of d weights / d scores = diag(w) - w w^T, over the last axis: zero where one weight is 1."""
    w = np.asarray(weights_BTS, np.float64)
    square, cube = (w**2).sum(-1), (w**3).sum(-1)
    return np.sqrt(np.maximum(square - 2 * cube + square**2, 0.0))


def softness(model: Any, params: Any, batch: Any) -> Row:
    """What parameters make of the encoder's self-attention on real words, over all layers and heads.

    'entropy': a share of the greatest there can be, log S of a source of S words (1: all are weighted alike).
    'slope': of the softmax, the same way as a share of that of equal weights. 'gradient': the norm of the loss's
    gradient by what makes these scores, the query and key projections, in nats a target token.
    """
    weights_NBHTS = np.asarray(captured(model, params, batch)['encoder/self_attention/self_attention'])
    found: dict[str, list] = {'entropy': [], 'slope': []}
    for b, S in enumerate((np.asarray(batch.source) != PAD).sum(axis=1)):
        if S > 1:
            weights, even = weights_NBHTS[:, b, :, :S, :S], np.full(S, 1 / S)
            found['entropy'].append(entropy(weights).mean() / entropy(even))
            found['slope'].append(slope(weights).mean() / slope(even))
    return {name: float(np.mean(values)) for name, values in found.items()} | {
        'gradient': float(score_gradient(model, params, batch))}


@functools.partial(jax.jit, static_argnums=0)  # equal models share the program
def score_gradient(model: Any, params: Any, batch: Any) -> jax.Array:
    """The norm of the gradient of the mean negative log likelihood by what makes the encoder's scores: W_q and W_k."""
    def nll(params: Any) -> jax.Array:
        total, count = cross_entropy(forced_logits(model, params, batch), batch.target, batch.weight)[0]['loss']
        return total / count

    kernel_ND3D = jax.grad(nll)(params)['encoder']['self_attention']['query_key_value']
    return jnp.linalg.norm(kernel_ND3D[:, :, :2])
