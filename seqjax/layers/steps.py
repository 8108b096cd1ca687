"""Steps over time, and the products with weights inside them, whose gradients are made after all steps.

A weight's gradient is the sum over time of x_t^T s_t, where x_t is what step t multiplies by it and s_t the slope of
the result. Left to a scan, every step makes its own term, a product with as few rows as a batch has, and reads and
writes the whole sum for it. With all steps at once it is one product. What attention reads is such a weight too, if
one that each row of a batch has of its own.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from seqjax.layers.products import has_to_lie, product, transposed, turned

Kernel = jax.Array | Callable[[jax.Array], jax.Array]


def multiply(x: jax.Array, kernel: Kernel) -> jax.Array:
    """x @ kernel in the dtype of `kernel`, added up in float32; a kernel of `over_time` does it itself."""
    return kernel(x) if callable(kernel) else product(x.astype(kernel.dtype), kernel, 'float32')


def _multiply(x_BK: jax.Array, kernel: jax.Array) -> jax.Array:
    """x @ kernel in float32, (B, N); of a kernel (B, K, N), each row with its own."""
    return product(x_BK, kernel, 'float32') if kernel.ndim == 2 else product(x_BK[:, None], kernel, 'float32')[:, 0]


@jax.custom_vjp
def _multiply_turned(x_BK: jax.Array, kernel: jax.Array, turned_kernel: jax.Array) -> jax.Array:
    """`_multiply`, with the kernel turned ahead of all steps for the way back, and no gradient by the kernel."""
    return _multiply(x_BK, kernel)


_multiply_turned.defvjp(lambda x_BK, kernel, turned_kernel: (_multiply(x_BK, kernel), turned_kernel),
                        lambda kernel, slope: (_multiply(slope.astype(kernel.dtype), kernel).astype(kernel.dtype),
                                               None, None))


@jax.custom_vjp
def _with_slope(result: jax.Array, other: jax.Array) -> jax.Array:
    """The result as it is. Its slope is also given out as that of `other`, which is not read."""
    return result


_with_slope.defvjp(lambda result, other: (result, None), lambda _, slope: (slope, slope))


def over_time(step: Callable, carry: Any, inputs: Any, kernels: dict[str, jax.Array],
              reverse: bool = False) -> tuple[Any, Any]:
    """`lax.scan` of step(carry, inputs of one time, kernels) -> (carry, outputs of one time), over axis 1 of each leaf.

    Args:
      step: multiplies by each of the `kernels` it gets, by `multiply`, once.
      carry: arrays whose first axis is the batch.
      kernels: {name: (K, N), or (B, K, N)}. Other weights, over which the step closes, have their gradients added up
        step by step.

    Raises:
      ValueError: a step that multiplies by a kernel twice, or not at all.
    """
    def swap(tree):
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)

    inputs = swap(inputs)
    rows, steps = jax.tree.leaves(carry)[0].shape[0], jax.tree.leaves(inputs)[0].shape[0]
    zeros = {name: jnp.zeros((rows, kernel.shape[-1]), jnp.float32) for name, kernel in kernels.items()}

    def noted(carry, now, kernels, others):
        """The step, with what it multiplies by each kernel; the slope of each result is that of an other."""
        seen = {}

        def multiplied(name, x):
            if name in seen:
                raise ValueError(f'a step multiplies twice by {name}')
            kernel, turned_kernel = jax.lax.stop_gradient(kernels[name])
            seen[name] = x.reshape(-1, x.shape[-1]).astype(kernel.dtype)
            result_BN = (_multiply(seen[name], kernel) if turned_kernel is None else
                         _multiply_turned(seen[name], kernel, turned_kernel))
            return _with_slope(result_BN, others[name]).reshape(*x.shape[:-1], -1)

        carry, outputs = step(carry, now, {name: functools.partial(multiplied, name) for name in kernels})
        if missing := kernels.keys() - seen.keys():
            raise ValueError(f'no step multiplies by {", ".join(sorted(missing))}')
        return carry, (outputs, seen)

    def paired(kernels):
        """Each kernel, and turned where the way back has no fast product but with that."""
        return {name: (kernel, turned(kernel) if has_to_lie(kernel) else None) for name, kernel in kernels.items()}

    noted, closed = closed_over(noted, carry, jax.tree.map(lambda x: x[0], inputs), paired(kernels), zeros)

    # Not unrolled: an LSTM layer's gradient (H 512, B 128, T 20, 2 cores) took 213 ms; 229, 268, 349 at unroll 2, 4, 8.
    scan = functools.partial(jax.lax.scan, reverse=reverse)

    @jax.custom_vjp
    def run(kernels, carry, inputs, closed):
        pairs = paired(kernels)
        carry, (outputs, _) = scan(lambda carry, now: noted(closed, carry, now, pairs, zeros), carry, inputs)
        return carry, outputs

    def forward(kernels, carry, inputs, closed):
        pairs = paired(kernels)

        def with_others(carry, inputs, closed, others):
            def one(carry, now):
                return noted(closed, carry, now[0], pairs, now[1])

            carry, (outputs, seen) = scan(one, carry, (inputs, others))
            return (carry, outputs), seen

        others = {name: jnp.zeros((steps, *zero.shape), zero.dtype) for name, zero in zeros.items()}
        found, pull, seen = jax.vjp(with_others, carry, inputs, closed, others, has_aux=True)
        return found, (pull, seen)

    def backward(kept, slopes):
        pull, seen = kept
        *rest, others = pull(slopes)
        return {name: _by_kernel(kernels[name].ndim == 3, x_TBK, others[name]) for name, x_TBK in seen.items()}, *rest

    run.defvjp(forward, backward)
    carry, outputs = run(kernels, carry, inputs, closed)
    return carry, swap(outputs)


def _by_kernel(own: bool, x_TBK: jax.Array, slope_TBN: jax.Array) -> jax.Array:
    """The gradient of a kernel, or where rows have their own of those, of products of all steps."""
    if own:
        x, slope = x_TBK.swapaxes(0, 1), slope_TBN.swapaxes(0, 1)
    else:
        x, slope = (y.reshape(-1, y.shape[-1]) for y in (x_TBK, slope_TBN))
    return product(transposed(x), slope.astype(x.dtype))


def closed_over(function: Callable, *like: Any) -> tuple[Callable, list[jax.Array]]:
    """`function` with what it closes over as its first argument, and that: arguments are `like` these.

    A function with a backward pass of its own may close over nothing that is being traced. (`jax.closure_convert` takes
    out what has a gradient, and leaves the rest.)
    """
    traced, result = jax.make_jaxpr(function, return_shape=True)(*like)

    def opened(closed, *arguments):
        leaves = jaxpr_as_fun(ClosedJaxpr(traced.jaxpr, closed))(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(result), leaves)

    return opened, traced.consts
