"""Losses over sequences, as sums and counts: whoever has all of a batch divides, once."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from seqjax.data.vocabulary import PAD

Sums = dict[str, tuple[jax.Array, jax.Array]]


def cross_entropy(logits_BTV: jax.Array, target_BT: jax.Array, weight_B: jax.Array, label_smoothing: float = 0.0,
                  spread: Literal['all', 'others'] = 'all') -> tuple[Sums, Sums]:
    """Cross entropy with label smoothing (Szegedy et al. 2016, section 7), in float32 and natural logarithms.

    `label_smoothing` eps is spread over the vocabulary in one of two ways, between which published numbers differ:
      'all': the target distribution is (1 - eps) one-hot + eps / V on each of the V pieces, the target among them. It
        is Szegedy's, PyTorch's, and our default.
      'others': 1 - eps on the target and eps / (V - 2) on each piece that is neither the target nor PAD (joeynmt, whose
        loss is smaller by the entropy of that distribution: a constant, without gradient).

    Args:
      logits_BTV: any float dtype; those at padding are never read, be they infinite.
      target_BT: int, PAD where there is nothing to predict.
      weight_B: weight of each row; 0 for filler.
      label_smoothing: eps, in [0, 1).
      spread: where eps goes.

    Returns:
      (objective, report): terms to optimise and terms only to write down, each {term: (sum, count)}, the count being
      the weighted number of target tokens, EOS included.
      objective: 'loss', smoothed. report: 'nll', never smoothed, the one for perplexity; 'accuracy', tokens than
      whose logit there is no higher one (of equally high ones each is right).
    """
    V = logits_BTV.shape[-1]
    there_BT = (target_BT != PAD) & (weight_B[:, None] != 0)
    weight_BT = jnp.where(there_BT, weight_B[:, None], 0.0).astype(jnp.float32)
    # Logits at padding are replaced, not only multiplied by 0, or what is not finite there would make gradients NaN.
    logits_BTV = jnp.where(there_BT[:, :, None], logits_BTV.astype(jnp.float32), 0.0)
    log_normaliser_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    # A comparison within a sum fuses: no one-hot array and, backwards, no scatter, also where the vocabulary is split.
    is_target_BTV = jnp.arange(V) == target_BT[:, :, None]
    target_logit_BT = jnp.where(is_target_BTV, logits_BTV, 0.0).sum(axis=-1)
    nll_BT = log_normaliser_BT - target_logit_BT

    loss_BT = nll_BT
    if label_smoothing and spread == 'all':
        uniform_BT = log_normaliser_BT - logits_BTV.mean(axis=-1)
        loss_BT = (1.0 - label_smoothing) * nll_BT + label_smoothing * uniform_BT
    elif label_smoothing:
        # The others' mean logit is centred first: V * log_normaliser - sum(logits) would cancel in float32.
        others_BTV = logits_BTV - log_normaliser_BT[:, :, None]
        others_BTV = jnp.where(is_target_BTV | (jnp.arange(V) == PAD), 0.0, others_BTV)
        loss_BT = (1.0 - label_smoothing) * nll_BT - label_smoothing / (V - 2) * others_BTV.sum(axis=-1)

    count = weight_BT.sum()
    # The maximum is one that the normaliser takes anyway; an argmax would cost as much again as the loss.
    right_BT = target_logit_BT >= jax.lax.stop_gradient(logits_BTV.max(axis=-1))
    objective = {'loss': ((loss_BT * weight_BT).sum(), count)}
    report = {'nll': (jax.lax.stop_gradient(nll_BT * weight_BT).sum(), count),
              'accuracy': ((right_BT * weight_BT).sum(), count)}
    return objective, report


def observed(collections: Any) -> Sums:
    """What a model saw of a batch for its running means, its collection 'statistics', as report terms.

    Returns:
      {path of the parameter: (sum, count)}, arrays of the parameter's shape; the learner knows them by their names.
    """
    leaves = jax.tree_util.tree_flatten_with_path(collections.get('statistics', {}), is_leaf=lambda x: type(x) is tuple)
    return {jax.tree_util.keystr(path, simple=True, separator='/'): pair for path, pair in leaves[0]}
