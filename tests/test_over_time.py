"""Scans whose weights have their gradients made at once, against numpy's loop and against jax's own scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.layers.steps import multiply, over_time

B, T, H, D, K = 3, 5, 4, 2, 6
RNG = np.random.default_rng(0)
PARAMS = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in {
    'recurrent': (H, H), 'own': (B, H, K), 'deep': (K, H), 'input': (D, H), 'carry': (B, H)}.items()}
KERNELS = 'recurrent', 'own', 'deep'
X, MASK = RNG.normal(size=(B, T, D)).astype(np.float32), np.arange(T) < np.array([[5], [3], [0]])


def run(params, x_BTD, reverse=False, scan=over_time):
    """Three products a step, each on what the one before has made, that in the middle with a weight for each row; the
    input's weight is closed over, and so are scales."""
    scale_H = jnp.arange(1.0, H + 1)  # of no gradient, and yet traced

    def step(carry_BH, now, kernels):
        x_BD, mask_B = now
        inner_BH = jnp.tanh(multiply(carry_BH, kernels['recurrent']) * scale_H + x_BD @ params['input'])
        own_B1K = multiply(inner_BH[:, None], kernels['own'])
        new_BH = jnp.where(mask_B[:, None], jnp.sin(multiply(own_B1K, kernels['deep'])[:, 0]), carry_BH)
        return new_BH, (new_BH, inner_BH.sum(axis=1))

    kernels = {name: params[name] for name in KERNELS}
    return scan(step, params['carry'], (x_BTD, jnp.asarray(MASK)), kernels, reverse)


def plain(step, carry, inputs, kernels, reverse):
    """jax's own."""
    def swap(tree):
        return jax.tree.map(lambda x: x.swapaxes(0, 1), tree)

    carry, outputs = jax.lax.scan(lambda carry, now: step(carry, now, kernels), carry, swap(inputs), reverse=reverse)
    return carry, swap(outputs)


def total(params, x_BTD, reverse, scan):
    carry, (outputs, sums) = run(params, x_BTD, reverse, scan)
    return (carry ** 2).sum() + jnp.cos(outputs).sum() + (sums ** 3).sum()


@pytest.mark.parametrize('reverse', [False, True])
def test_gradients_of_everything_equal_those_of_a_plain_scan(reverse):
    ours, theirs = (jax.jit(jax.value_and_grad(total, (0, 1)), static_argnums=(2, 3))(PARAMS, X, reverse, scan)
                    for scan in (over_time, plain))
    for path, leaf in jax.tree_util.tree_leaves_with_path(theirs):
        assert np.abs(leaf).max() > 1e-2, path
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), ours, theirs)


def test_values_are_those_of_a_loop():
    _, (outputs, _) = run(PARAMS, X)
    p, state = {name: value.astype(float) for name, value in PARAMS.items()}, PARAMS['carry'].astype(float)
    for t in range(T):
        inner = np.tanh(state @ p['recurrent'] * np.arange(1, H + 1) + X[:, t].astype(float) @ p['input'])
        own = np.einsum('bh,bhk->bk', inner, p['own'])
        state = np.where(MASK[:, t, None], np.sin(own @ p['deep']), state)
        np.testing.assert_allclose(outputs[:, t], state, rtol=1e-4, atol=1e-5)


def test_jacobians_and_a_gradient_of_few():
    """Row by row, as `jax.jacrev` does it, and with weights that have no gradient."""
    def states(kernel, scan):
        return run(PARAMS | {'recurrent': kernel}, X, scan=scan)[0]

    ours, theirs = (jax.jit(jax.jacrev(states), static_argnums=1)(PARAMS['recurrent'], scan)
                    for scan in (over_time, plain))
    assert np.abs(theirs).max() > 1e-2
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-5)


def test_bfloat16_kernels_have_gradients_of_their_own_type():
    def loss(params):
        return run(params, X)[0].sum()

    params = PARAMS | {name: jnp.asarray(PARAMS[name], jnp.bfloat16) for name in KERNELS}
    assert jax.tree.map(lambda x: x.dtype.name, jax.grad(loss)(params)) == {
        **dict.fromkeys(KERNELS, 'bfloat16'), 'input': 'float32', 'carry': 'float32'}


def test_a_backward_pass_has_one_product_for_each_kernel_outside_of_its_loop():
    """The kernels' gradients: products of (K, T B) and (T B, N), and of (B, K, T) and (B, T, N)."""
    text = jax.jit(jax.grad(total), static_argnums=(2, 3)).lower(PARAMS, X, False, over_time).as_text()
    for shapes in (((H, T * B), (T * B, H), (H, H)), ((K, T * B), (T * B, H), (K, H)),
                   ((B, H, T), (B, T, K), (B, H, K))):
        left, right, result = (f'tensor<{"x".join(map(str, shape))}xf32>' for shape in shapes)
        assert text.count(f'{left}, {right}) -> {result}') == 1


@pytest.mark.parametrize(('times', 'told'), [(0, 'no step multiplies by W'), (2, 'multiplies twice by W')])
def test_each_kernel_is_used_once(times, told):
    def step(carry, now, kernels):
        for _ in range(times):
            carry = multiply(carry, kernels['W'])
        return carry, now

    with pytest.raises(ValueError, match=told):
        over_time(step, PARAMS['carry'], X, {'W': PARAMS['recurrent']})
