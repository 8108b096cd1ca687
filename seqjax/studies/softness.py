"""How soft a softmax of attention is, and what gradient it lets through."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.studies.table import Row


def entropy(weights_BTS: np.ndarray) -> np.ndarray:
    """-sum w log w over the last axis, in nats."""
    w = np.asarray(weights_BTS, np.float64)
    return -np.sum(w * np.log(np.where(w > 0, w, 1.0)), axis=-1)


def slope(weights_BTS: np.ndarray) -> np.ndarray:
    """The Frobenius norm of d weights / d scores = diag(w) - w w^T, over the last axis: zero where one weight is 1."""
    w = np.asarray(weights_BTS, np.float64)
    square, cube = (w**2).sum(-1), (w**3).sum(-1)
    return np.sqrt(np.maximum(square - 2 * cube + square**2, 0.0))


def softness(model: Any, batch: Any) -> Callable[[Any], Row]:
    """What parameters make of the encoder's self-attention on real words, over all layers and heads; compiled once.

    'entropy': a share of the greatest there can be, log S of a source of S words (1: all are weighted alike).
    'slope': of the softmax, the same way as a share of that of equal weights. 'gradient': the norm of the loss's
    gradient by what makes these scores, the query and key projections, in nats a target token.
    """
    run = jax.jit(lambda params: (model.capture(params, batch)['encoder/self_attention/self_attention'],
                                  score_gradient(model, params, batch)))

    def look(params: Any) -> Row:
        weights_NBHTS, gradient = map(np.asarray, run(params))
        found: dict[str, list] = {'entropy': [], 'slope': []}
        for b, S in enumerate((np.asarray(batch.source) != 0).sum(axis=1)):
            if S > 1:
                weights, even = weights_NBHTS[:, b, :, :S, :S], np.full(S, 1 / S)
                found['entropy'].append(entropy(weights).mean() / entropy(even))
                found['slope'].append(slope(weights).mean() / slope(even))
        return {name: float(np.mean(values)) for name, values in found.items()} | {'gradient': float(gradient)}

    return look


def score_gradient(model: Any, params: Any, batch: Any) -> jax.Array:
    """The norm of the gradient of the mean negative log likelihood by what makes the encoder's scores: W_q and W_k."""
    tokens_BT = jnp.pad(batch.target[:, :-1], ((0, 0), (1, 0)), constant_values=1)
    there_BT = batch.target != 0

    def nll(params):
        log_probs = jax.nn.log_softmax(model.apply({'params': params}, batch.source, tokens_BT))
        picked_BT = jnp.take_along_axis(log_probs, batch.target[:, :, None], axis=-1)[:, :, 0]
        return -jnp.where(there_BT, picked_BT, 0.0).sum() / there_BT.sum()

    kernel_ND3D = jax.grad(nll)(params)['encoder']['self_attention']['query_key_value']
    return jnp.linalg.norm(kernel_ND3D[:, :, :2])
