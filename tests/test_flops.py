"""FLOPs against products written down by hand."""

import jax
import jax.numpy as jnp
import optax
import pytest

from seqjax.training.flops import count
from seqjax.training.parallel import Placement
from seqjax.training.step import GradientDescent


def shape(*dims):
    return jax.ShapeDtypeStruct(dims, jnp.float32)


def dense(w, x):
    return jnp.tanh(x @ w).sum()


def test_dense_forward_and_backward():
    b, d, f = 3, 5, 7
    assert count(dense, shape(d, f), shape(b, d)) == 2 * b * d * f
    assert count(jax.grad(dense), shape(d, f), shape(b, d)) == 2 * (2 * b * d * f), 'forward, and the gradient of w'
    assert count(jax.grad(dense, (0, 1)), shape(d, f), shape(b, d)) == 3 * (2 * b * d * f), 'and the gradient of x'


def test_batched_products():
    b, h, t, s, k = 2, 3, 5, 7, 11
    def attention(q, keys):
        return jnp.einsum('bthk,bshk->bhts', q, keys)
    assert count(attention, shape(b, t, h, k), shape(b, s, h, k)) == 2 * b * h * t * s * k
    product = jax.vmap(jnp.matmul)
    assert count(product, shape(b, t, k), shape(b, k, s)) == 2 * b * t * k * s
    assert count(jax.vmap(jnp.matmul, (0, None)), shape(b, t, k), shape(k, s)) == 2 * b * t * k * s
    assert count(jnp.vdot, shape(k), shape(k)) == 2 * k


def test_scan_forward_and_backward():
    n, b, d = 6, 3, 5

    def rnn(w, x):
        return jax.lax.scan(lambda h, x: (jnp.tanh(h @ w + x), None), jnp.zeros((b, d)), x)[0].sum()

    assert count(rnn, shape(d, d), shape(n, b, d)) == n * 2 * b * d * d
    assert count(jax.grad(rnn), shape(d, d), shape(n, b, d)) == 3 * n * 2 * b * d * d
    def nested(w, x):
        return jax.lax.map(lambda x: rnn(w, x), x)
    assert count(nested, shape(d, d), shape(4, n, b, d)) == 4 * n * 2 * b * d * d


@pytest.mark.parametrize('wrap', [jax.jit, jax.checkpoint, lambda f: jax.jit(jax.jit(f))])
def test_wrappers_are_entered(wrap):
    assert count(wrap(dense), shape(5, 7), shape(3, 5)) == 2 * 3 * 5 * 7


def test_rematerialised_products_count_again():
    def two(w, x):
        return dense(w, jnp.tanh(x @ w))
    once, plain = 2 * 3 * 5 * 5, count(jax.value_and_grad(two), shape(5, 5), shape(3, 5))
    assert plain == 5 * once, 'two forward, two for w, one for the hidden layer'
    assert count(jax.value_and_grad(jax.checkpoint(two)), shape(5, 5), shape(3, 5)) > plain


def test_custom_derivatives():
    @jax.custom_vjp
    def f(w, x):
        return dense(w, x)

    f.defvjp(lambda w, x: (dense(w, x), (w, x)), lambda kept, g: (kept[1].T @ (kept[1] @ kept[0]), kept[1]))
    assert count(f, shape(5, 7), shape(3, 5)) == 2 * 3 * 5 * 7
    assert count(jax.value_and_grad(f), shape(5, 7), shape(3, 5)) == 3 * 2 * 3 * 5 * 7

    @jax.custom_jvp
    def g(w, x):
        return dense(w, x)

    g.defjvp(lambda primals, tangents: (g(*primals), tangents[0].sum()))
    assert count(g, shape(5, 7), shape(3, 5)) == 2 * 3 * 5 * 7


def test_cond_takes_the_larger_branch_and_while_one_turn():
    x = shape(4, 4)
    once = 2 * 4 ** 3
    assert count(lambda p, x: jax.lax.cond(p, lambda x: x @ x @ x, lambda x: x @ x, x), True, x) == 2 * once
    assert count(lambda x: jax.lax.while_loop(lambda x: (x @ x).sum() < 0, lambda x: x @ x, x), x) == 2 * once


def test_convolution():
    x, w = shape(2, 9, 5), shape(3, 5, 7)  # 2 rows, 9 positions, 5 features; window 3, 7 features out
    def conv(x, w, **k):
        return jax.lax.conv_general_dilated(x, w, (1,), 'VALID', dimension_numbers=('NWC', 'WIO', 'NWC'), **k)
    assert count(conv, x, w) == 2 * (2 * 7 * 7) * (3 * 5)
    def depthwise(x, w):
        return conv(x, w, feature_group_count=5)
    assert count(depthwise, x, shape(3, 1, 5)) == 2 * (2 * 7 * 5) * 3
    weights = count(jax.value_and_grad(lambda w, x: conv(x, w).sum()), w, x) - count(conv, x, w)
    assert weights == 2 * (2 * 7 * 7) * (3 * 5), 'the gradient of the kernel costs as much'


def test_work_that_nobody_uses_is_not_counted():
    def step(accumulate):
        def loss(params, batch, rng, step):
            return {'a': (jnp.tanh(batch @ params).sum(), batch[:, 0].sum())}, {}

        return GradientDescent(loss, optax.sgd(1.0), lambda t: 1.0, 0, accumulate)

    def flops(accumulate):
        learn = step(accumulate)
        return count(learn.step, jax.eval_shape(learn.init, jnp.zeros((5, 7))), shape(12, 5))

    assert flops(1) == flops(3) == 2 * (2 * 12 * 5 * 7), 'the pass that counts first computes no product'


def test_shard_map_counts_all_devices():
    placement = Placement('shard_map')
    run = jax.shard_map(lambda x, w: x @ w, mesh=placement.mesh, check_vma=False,
                        in_specs=(jax.P('data'), jax.P()), out_specs=jax.P('data'))
    assert count(run, shape(16, 5), shape(5, 7)) == 2 * 16 * 5 * 7
