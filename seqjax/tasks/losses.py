"""Losses over sequences, as sums and counts: whoever has all of a batch divides, once."""

import functools
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
    there_BT, weight_BT = _counted(target_BT, weight_B)
    # Replaced, not only multiplied by 0: what is not finite at padding would make the sums NaN.
    loss_BT, nll_BT, right_BT = (jnp.where(there_BT, x_BT, 0.0) for x_BT in of_tokens(
        logits_BTV, target_BT, label_smoothing, spread))
    count = weight_BT.sum()
    objective = {'loss': ((loss_BT * weight_BT).sum(), count)}
    report = {'nll': ((nll_BT * weight_BT).sum(), count), 'accuracy': ((right_BT * weight_BT).sum(), count)}
    return objective, report


def _counted(target_BT, weight_B):
    """Which tokens there are to predict, and what each weighs, 0 where there is none."""
    there_BT = (target_BT != PAD) & (weight_B[:, None] != 0)
    return there_BT, jnp.where(there_BT, weight_B[:, None], 0.0).astype(jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def of_tokens(logits_BTV: jax.Array, target_BT: jax.Array, label_smoothing: float,
              spread: Literal['all', 'others']) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The smoothed loss of each token, -log p without smoothing, and whether no logit is above the target's (0 or 1).

    Its backward pass stands written out, so that what is not finite at padding stays out of it without a copy of all
    logits, and so that it scatters nothing. Only the loss has a gradient.
    """
    return _of_tokens_forward(logits_BTV, target_BT, label_smoothing, spread)[0]


def _of_tokens_forward(logits_BTV, target_BT, label_smoothing, spread):
    V, read_BTV = logits_BTV.shape[-1], logits_BTV.astype(jnp.float32)
    log_normaliser_BT = jax.nn.logsumexp(read_BTV, axis=-1)
    target_logit_BT = jnp.take_along_axis(read_BTV, target_BT[:, :, None], axis=-1)[:, :, 0]
    nll_BT = log_normaliser_BT - target_logit_BT
    loss_BT = nll_BT
    if label_smoothing and spread == 'all':
        loss_BT = (1.0 - label_smoothing) * nll_BT + label_smoothing * (log_normaliser_BT - read_BTV.mean(axis=-1))
    elif label_smoothing:
        # The others' mean logit is centred first: V * log_normaliser - sum(logits) would cancel in float32.
        others_BTV = jnp.where(_others(V, target_BT), read_BTV - log_normaliser_BT[:, :, None], 0.0)
        loss_BT = (1.0 - label_smoothing) * nll_BT - label_smoothing / (V - 2) * others_BTV.sum(axis=-1)
    # The maximum is one that the normaliser takes anyway; an argmax would cost as much again as the loss.
    right_BT = (target_logit_BT >= read_BTV.max(axis=-1)).astype(jnp.float32)
    return (loss_BT, nll_BT, right_BT), (logits_BTV, target_BT, log_normaliser_BT)


def _of_tokens_backward(label_smoothing, spread, kept, slopes):
    logits_BTV, target_BT, log_normaliser_BT = kept
    V, slope_BT1 = logits_BTV.shape[-1], slopes[0][:, :, None]
    # softmax - smoothed target. A comparison, and no one-hot array or scatter: it fuses, also where the vocabulary is
    # split.
    gradient_BTV = jnp.exp(logits_BTV.astype(jnp.float32) - log_normaliser_BT[:, :, None])
    gradient_BTV -= jnp.where(_is_target(V, target_BT), 1.0 - label_smoothing, 0.0)
    if label_smoothing and spread == 'all':
        gradient_BTV -= label_smoothing / V
    elif label_smoothing:
        gradient_BTV -= jnp.where(_others(V, target_BT), label_smoothing / (V - 2), 0.0)
    return jnp.where(slope_BT1 == 0, 0.0, slope_BT1 * gradient_BTV).astype(logits_BTV.dtype), None


def _is_target(V, target_BT):
    """Which pieces (B, T, V) are the target: compared in float32, which has all integers up to 2^24. Comparing integers
    takes a CPU as long as an exponential."""
    return jnp.arange(V, dtype=jnp.float32) == target_BT[:, :, None].astype(jnp.float32)


def _others(V, target_BT):
    """The pieces (B, T, V) that are neither the target nor PAD."""
    return ~_is_target(V, target_BT) & (jnp.arange(V) != PAD)


of_tokens.defvjp(_of_tokens_forward, _of_tokens_backward)


def divergence(logits_BTV: jax.Array, others_BTV: jax.Array, target_BT: jax.Array, weight_B: jax.Array
               ) -> tuple[jax.Array, jax.Array]:
    """How far what is said twice of the same tokens lies apart: (KL(P || Q) + KL(Q || P)) / 2, as (sum, count).

    It is L_KL of Liang et al. 2021, "R-Drop: regularized dropout for neural networks", equation 2, in float32 and nats.

    Args:
      logits_BTV, others_BTV: of P and of Q; any float dtype; those at padding are never read, be they infinite.
      target_BT, weight_B: which tokens count and how much, as in `cross_entropy`.
    """
    there_BT, weight_BT = _counted(target_BT, weight_B)
    apart_BT = jnp.where(there_BT, between(logits_BTV, others_BTV), 0.0)
    return (apart_BT * weight_BT).sum(), weight_BT.sum()


@jax.custom_vjp
def between(logits_BTV: jax.Array, others_BTV: jax.Array) -> jax.Array:
    """(KL(P || Q) + KL(Q || P)) / 2 of each token, with its backward pass written out, as that of `of_tokens` is."""
    return _between_forward(logits_BTV, others_BTV)[0]


def _log_probs(logits_BTV, log_normaliser_BT):
    return logits_BTV.astype(jnp.float32) - log_normaliser_BT[:, :, None]


def _between_forward(*both):
    kept = [(logits, jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1)) for logits in both]
    log_p_BTV, log_q_BTV = (_log_probs(*one) for one in kept)
    there_BT, back_BT = ((jnp.exp(one_BTV) * (one_BTV - other_BTV)).sum(axis=-1)
                         for one_BTV, other_BTV in ((log_p_BTV, log_q_BTV), (log_q_BTV, log_p_BTV)))
    return (there_BT + back_BT) / 2, (kept, there_BT, back_BT)


def _between_backward(kept, slope_BT):
    both, there_BT, back_BT = kept
    log_p_BTV, log_q_BTV = (_log_probs(*one) for one in both)

    def slopes(one_BTV, other_BTV, divergence_BT):
        """By the logits of `one`: of their own divergence, p (log p/q - KL), and of the other's, p - q."""
        p_BTV = jnp.exp(one_BTV)
        own_BTV = p_BTV * (one_BTV - other_BTV - divergence_BT[:, :, None])
        slope_BT1 = slope_BT[:, :, None] / 2
        return jnp.where(slope_BT1 == 0, 0.0, slope_BT1 * (own_BTV + p_BTV - jnp.exp(other_BTV)))

    return (slopes(log_p_BTV, log_q_BTV, there_BT).astype(both[0][0].dtype),
            slopes(log_q_BTV, log_p_BTV, back_BT).astype(both[1][0].dtype))


between.defvjp(_between_forward, _between_backward)


def observed(collections: Any) -> Sums:
    """What a model saw of a batch for its running means, its collection 'statistics', as report terms.

    Returns:
      {path of the parameter: (sum, count)}, arrays of the parameter's shape; the learner knows them by their names.
    """
    leaves = jax.tree_util.tree_flatten_with_path(collections.get('statistics', {}), is_leaf=lambda x: type(x) is tuple)
    return {jax.tree_util.keystr(path, simple=True, separator='/'): pair for path, pair in leaves[0]}
