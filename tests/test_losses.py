"""Cross entropy in float64 numpy, joeynmt's numbers, and what must not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.tasks import losses

cross_entropy = jax.jit(losses.cross_entropy, static_argnums=(3, 4))

TARGET_BT = np.array([[4, 2, 5, 2], [3, 2, 0, 0], [2, 0, 0, 0]])
WEIGHT_B = np.array([1.0, 1.0, 0.0])


def example(V=7, seed=0, scale=2.0):
    return np.random.default_rng(seed).normal(0, scale, (3, 4, V)).astype(np.float32)


def smoothed_targets(target_BT, V, eps, spread):
    """The target distribution in full, zeros at padding."""
    q = np.zeros((*target_BT.shape, V))
    for index, token in np.ndenumerate(target_BT):
        if token == 0:
            continue
        if spread == 'all':
            q[index] = eps / V
            q[(*index, token)] += 1 - eps
        else:
            q[index] = eps / (V - 2)
            q[(*index, 0)] = 0
            q[(*index, token)] = 1 - eps
    return q


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


@pytest.mark.parametrize('spread', ['all', 'others'])
@pytest.mark.parametrize('eps', [0.0, 0.1, 0.4])
def test_sums_and_gradient_are_the_definition(eps, spread):
    logits_BTV = example()
    q = smoothed_targets(TARGET_BT, 7, eps, spread) * WEIGHT_B[:, None, None]
    log_p = log_softmax(logits_BTV)

    def loss(logits_BTV):
        objective, report = cross_entropy(logits_BTV, TARGET_BT, WEIGHT_B, eps, spread)
        return objective['loss'][0], (objective, report)

    gradient, (objective, report) = jax.jit(jax.grad(loss, has_aux=True))(logits_BTV)
    assert set(objective) == {'loss'}
    assert set(report) == {'nll', 'accuracy'}
    assert {float(count) for sums in (objective, report) for _, count in sums.values()} == {6.0}
    assert all(x.dtype == jnp.float32 and x.shape == () for sums in (objective, report) for x in jax.tree.leaves(sums))
    np.testing.assert_allclose(objective['loss'][0], -(q * log_p).sum(), rtol=1e-5)
    hard = smoothed_targets(TARGET_BT, 7, 0.0, 'all') * WEIGHT_B[:, None, None]
    np.testing.assert_allclose(report['nll'][0], -(hard * log_p).sum(), rtol=1e-5)
    right = ((log_p.argmax(-1) == TARGET_BT) & (TARGET_BT != 0))[:2].sum()
    assert report['accuracy'][0] == right
    # d/dlogits of -sum q log softmax is (sum q) softmax - q.
    np.testing.assert_allclose(gradient, q.sum(-1, keepdims=True) * np.exp(log_p) - q, atol=1e-6)


def test_accuracy_counts_right_tokens():
    logits_BTV = 3.0 * np.eye(7, dtype=np.float32)[np.array([[4, 2, 1, 2], [3, 3, 0, 0], [2, 0, 0, 0]])]
    _, report = cross_entropy(logits_BTV, TARGET_BT, WEIGHT_B)
    assert report['accuracy'] == (4, 6)


def test_label_smoothing_joeynmt():
    # joeynmt test/unit/test_loss.py. Its loss is a divergence: ours less the entropy of the smoothed targets.
    logits_BTV = np.log(np.broadcast_to(np.float32([0.1, 0.1, 0.6, 0.1, 0.1]), (3, 2, 5)))
    target_BT = np.array([[2, 1], [2, 0], [1, 0]])
    objective, report = cross_entropy(logits_BTV, target_BT, np.ones(3), 0.4, 'others')
    entropy = -(0.6 * np.log(0.6) + 0.4 * np.log(0.4 / 3))
    np.testing.assert_allclose(objective['loss'][0] - 4 * entropy, 2.1326, atol=5e-5)
    assert objective['loss'][1] == 4
    np.testing.assert_allclose(report['nll'][0], 5.6268, atol=5e-5)
    np.testing.assert_allclose(cross_entropy(logits_BTV, target_BT, np.ones(3))[0]['loss'][0], 5.6268, atol=5e-5)


@pytest.mark.parametrize('eps', [0.0, 0.1])
@pytest.mark.parametrize('spread', ['all', 'others'])
def test_padding_contributes_exactly_nothing(eps, spread):
    logits_BTV = example()
    there_BT = (TARGET_BT != 0) & (WEIGHT_B[:, None] > 0)

    def loss(logits_BTV):
        objective, report = cross_entropy(logits_BTV, TARGET_BT, WEIGHT_B, eps, spread)
        return objective['loss'][0], (objective, report)

    clean, sums = jax.grad(loss, has_aux=True)(logits_BTV)
    for junk in (1e30, np.inf, np.nan):
        spoilt = np.where(there_BT[:, :, None], logits_BTV, np.float32(junk))
        gradient, others = jax.grad(loss, has_aux=True)(spoilt)
        np.testing.assert_array_equal(gradient, clean)
        jax.tree.map(np.testing.assert_array_equal, others, sums)
    assert (np.asarray(clean)[~there_BT] == 0).all()
    assert (np.asarray(clean)[there_BT] != 0).all()

    # A batch of nothing but filler: sums and counts 0, a gradient of zeros.
    def filler(logits_BTV):
        objective, report = cross_entropy(logits_BTV, np.zeros_like(TARGET_BT), np.zeros(3), eps, spread)
        return objective['loss'][0], (objective, report)

    gradient, others = jax.grad(filler, has_aux=True)(logits_BTV)
    assert not any(np.any(x) for x in jax.tree.leaves((gradient, others)))


def test_sums_add_over_parts_of_a_batch():
    logits_BTV = example(seed=3)
    whole = cross_entropy(logits_BTV, TARGET_BT, np.ones(3), 0.1)
    parts = [cross_entropy(logits_BTV[i:i + 1], TARGET_BT[i:i + 1], np.ones(1), 0.1) for i in range(3)]
    total = jax.tree.map(lambda *x: sum(x), *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), total, whole)


@pytest.mark.parametrize('spread', ['all', 'others'])
def test_large_logits_and_low_precision_are_stable(spread):
    logits_BTV = example(seed=4) * 1e4
    objective, _ = cross_entropy(logits_BTV, TARGET_BT, WEIGHT_B, 0.1, spread)
    q = smoothed_targets(TARGET_BT, 7, 0.1, spread) * WEIGHT_B[:, None, None]
    np.testing.assert_allclose(objective['loss'][0], -(q * log_softmax(logits_BTV)).sum(), rtol=1e-5)
    shifted, _ = cross_entropy(example() + 1e3, TARGET_BT, WEIGHT_B, 0.1, spread)
    plain, _ = cross_entropy(example(), TARGET_BT, WEIGHT_B, 0.1, spread)
    np.testing.assert_allclose(shifted['loss'][0], plain['loss'][0], rtol=1e-4)
    low = jnp.asarray(example(), jnp.bfloat16)
    objective, _ = cross_entropy(low, TARGET_BT, WEIGHT_B, 0.1, spread)
    assert objective['loss'][0].dtype == jnp.float32
    np.testing.assert_allclose(objective['loss'][0], -(q * log_softmax(low.astype(np.float32))).sum(), rtol=1e-5)


def test_nothing_reported_has_a_gradient():
    gradient = jax.grad(lambda x: cross_entropy(x, TARGET_BT, WEIGHT_B)[1]['nll'][0])(example())
    assert not np.any(gradient)


def test_no_array_of_the_vocabulary_is_kept_beside_the_logits():
    B, T, V = 4, 16, 4096
    grad = jax.jit(jax.grad(lambda x, y: cross_entropy(x, y, jnp.ones(B), 0.1)[0]['loss'][0]))
    memory = grad.lower(jax.ShapeDtypeStruct((B, T, V), jnp.float32),
                        jax.ShapeDtypeStruct((B, T), jnp.int32)).compile().memory_analysis()
    # Besides its input and its output, the gradient, at most one more array of logits.
    assert memory.temp_size_in_bytes <= 1.1 * B * T * V * 4


def test_divergence_and_its_gradient_are_the_definition():
    """Liang et al. 2021, equation 2: sum and slopes in float64 numpy."""
    logits_BTV, others_BTV = example(), example(seed=1)
    log_p, log_q = log_softmax(logits_BTV), log_softmax(others_BTV)
    p, q = np.exp(log_p), np.exp(log_q)
    there = ((TARGET_BT != 0) * WEIGHT_B[:, None])[:, :, None]
    own, other = ((a * (log_a - log_b)).sum(-1, keepdims=True) for a, log_a, log_b in ((p, log_p, log_q),
                                                                                     (q, log_q, log_p)))

    def half(logits_BTV, others_BTV):
        return losses.divergence(logits_BTV, others_BTV, TARGET_BT, WEIGHT_B)

    (total, count), gradients = jax.jit(jax.value_and_grad(half, (0, 1), has_aux=True))(logits_BTV, others_BTV)
    assert count == 6
    np.testing.assert_allclose(total, ((own + other) / 2 * there).sum(), rtol=1e-5)
    # d KL(p || q) by the logits of p is p (log p / q - KL), and by those of q it is q - p.
    np.testing.assert_allclose(gradients[0], there / 2 * (p * (log_p - log_q - own) + p - q), atol=1e-6)
    np.testing.assert_allclose(gradients[1], there / 2 * (q * (log_q - log_p - other) + q - p), atol=1e-6)
    assert half(logits_BTV, logits_BTV)[0] == 0


def test_divergence_reads_no_padding_and_holds_large_logits():
    logits_BTV, others_BTV = 200 * example(), 200 * example(seed=1)
    log_p, log_q = log_softmax(logits_BTV[:2]), log_softmax(others_BTV[:2])
    logits_BTV[TARGET_BT == 0], others_BTV[2] = np.inf, np.nan

    def half(logits_BTV, others_BTV):
        return losses.divergence(logits_BTV, others_BTV, TARGET_BT, WEIGHT_B)[0]

    total, gradients = jax.jit(jax.value_and_grad(half, (0, 1)))(logits_BTV, others_BTV)
    apart = ((np.exp(log_p) - np.exp(log_q)) * (log_p - log_q)).sum(-1) / 2
    np.testing.assert_allclose(total, apart[TARGET_BT[:2] != 0].sum(), rtol=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert all((gradient[(TARGET_BT == 0) | (WEIGHT_B == 0)[:, None]] == 0).all() for gradient in gradients)
