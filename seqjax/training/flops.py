"""Floating point operations of a function, counted in its jaxpr: matrix products and convolutions, and nothing else."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval


def count(fn: Callable, *args: Any) -> int:
    """The FLOPs of one call of `fn`, at 2 a multiplication and addition.

    The body of a scan counts once for each of its steps, a branch counts if it is the largest, and the body of a while
    loop, whose length nobody knows, once. What rematerialisation computes again is counted again: for a model's useful
    FLOPs, count it without. Work whose result nobody uses is not counted, as XLA drops it; nor is element-wise work.

    Args:
      args: arrays, or jax.ShapeDtypeStructs in their place; nothing is computed.
    """
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    return _jaxpr(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def _jaxpr(jaxpr: core.Jaxpr) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: core.JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    if name == 'dot_general':
        lhs, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        (contracted, _), _ = params['dimension_numbers']
        return 2 * math.prod(out) * math.prod(lhs[i] for i in contracted)
    if name == 'conv_general_dilated':
        kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
        # Each output sums over the kernel's window and over its input features, which are already those of one group.
        # In a gradient, batch groups share one kernel's outputs out among the groups.
        features = kernel[params['dimension_numbers'].rhs_spec[0]]
        return 2 * math.prod(out) * math.prod(kernel) // features
    if name == 'cond':
        return max(_jaxpr(branch.jaxpr) for branch in params['branches'])
    if name == 'while':
        return _jaxpr(params['cond_jaxpr'].jaxpr) + _jaxpr(params['body_jaxpr'].jaxpr)
    times = params['length'] if name == 'scan' else 1
    if name == 'shard_map':  # its body sees one device's part
        times = params['mesh'].size
    return times * sum(_jaxpr(inner) for inner in _inner(equation))


def _inner(equation: core.JaxprEqn) -> list[core.Jaxpr]:
    """The jaxpr that jit, remat, scan, shard_map or a custom derivative holds; the derivatives' own are functions."""
    held = [getattr(value, 'jaxpr', value) for value in equation.params.values()]  # ClosedJaxpr or Jaxpr
    return [jaxpr for jaxpr in held if isinstance(jaxpr, core.Jaxpr)]
