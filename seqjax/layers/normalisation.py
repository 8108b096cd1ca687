"""Normalisation as a switch: layer (Ba 2016), RMS (Zhang and Sennrich 2019), batch (Ioffe and Szegedy 2015), or none.

Statistics and results are float32. Batch normalisation uses the batch's own statistics exactly where the collection
'statistics' is mutable, that is in training, and writes there what it saw as (sum, count) under the paths of the
parameters 'running_mean', 'running_var' and 'running_weight', which the learner moves towards sum/count
(training/step.py). Everywhere else it uses the running ones, so that a translation does not depend on its batch. Where
a function is mapped over replicas it sees the statistics of them all; a micro-batch has its own.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

Kind = Literal['layer', 'rms', 'batch', 'none']
EPSILON = 1e-6
# Of batch normalisation. A step of a recurrence at which all rows are alike (behind EOS, read from the end) has no
# variance, and 1 / sqrt(epsilon) is what multiplies the distance by which running means lag behind the parameters.
BATCH_EPSILON = 1e-3


def layer_normalise(x: jax.Array) -> jax.Array:
    """(x - mean) / sqrt(variance + epsilon) over the last axis (Ba et al. 2016, equation 3), in float32."""
    x = x.astype(jnp.float32)
    x = x - x.mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + EPSILON)


def rms_normalise(x: jax.Array) -> jax.Array:
    """x / RMS(x) over the last axis, RMS(x)^2 = mean(x^2) + epsilon (Zhang and Sennrich 2019, equation 4), in float32.

    The paper has no epsilon; a wholly padded row needs it.
    """
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + EPSILON)


def batch_normalise(x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
    """(x - mean) / sqrt(variance + epsilon) unit by unit (Ioffe and Szegedy 2015, algorithm 1), in float32."""
    return (x.astype(jnp.float32) - mean) * jax.lax.rsqrt(var + BATCH_EPSILON)


def observe(x: jax.Array, real: jax.Array) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Mean and variance (D,) of each unit over the real rows of `x` (..., D), and the sums they are made of.

    Args:
      real: True where `x` is of a token, `x`'s shape without the last axis.

    Returns:
      mean and (biased) variance over all replicas, and this replica's {'sum', 'squares', 'count'}, of which the totals
      give the mean and the unbiased variance, m / (m - 1) of the biased one (algorithm 2). Fewer than two tokens say
      nothing of a variance: their count is 0.
    """
    # The axes that pmap or shard_map has mapped this function over; none under jit, where `x` is the whole batch.
    axes = jax.sharding.get_abstract_mesh().manual_axes
    total = (lambda tree: jax.lax.psum(tree, axes)) if axes else (lambda tree: tree)
    x, real = x.astype(jnp.float32).reshape(-1, x.shape[-1]), real.reshape(-1, 1)
    own = (jnp.where(real, x, 0.0).sum(axis=0), real.sum(dtype=jnp.float32))
    sum_D, count = total(own)
    mean_D = sum_D / jnp.maximum(count, 1.0)
    squares_D = jnp.square(jnp.where(real, x - mean_D, 0.0)).sum(axis=0)
    var_D = total(squares_D) / jnp.maximum(count, 1.0)
    enough = count > 1
    seen = {'sum': jnp.where(enough, own[0], 0.0), 'count': jnp.where(enough, own[1], 0.0),
            'squares': jnp.where(enough, squares_D * count / jnp.maximum(count - 1.0, 1.0), 0.0)}
    return mean_D, var_D, jax.lax.stop_gradient(seen)


@jax.custom_vjp
def layer_norm(x: jax.Array, scale_D: jax.Array, bias_D: jax.Array) -> jax.Array:
    """scale * (x - mean) / sqrt(variance + epsilon) + bias over the last axis (Ba et al. 2016, equation 4), in float32.

    Its backward pass stands written out, with its sums as matrix products, which the CPU makes sooner
    (docs/performance.md says what it gave).
    """
    return _layer_norm_forward(x, scale_D, bias_D)[0]


def _layer_norm_forward(x, scale_D, bias_D):
    mean = x.mean(axis=-1, keepdims=True)
    variance = jnp.maximum(jnp.square(x).mean(axis=-1, keepdims=True) - jnp.square(mean), 0.0)
    inverse = jax.lax.rsqrt(variance + EPSILON)
    return (x - mean) * inverse * scale_D + bias_D, (x, scale_D, mean, inverse)


def _layer_norm_backward(kept, slope):
    x, scale_D, mean, inverse = kept
    D = x.shape[-1]
    product = functools.partial(jnp.matmul, precision='highest')  # sums, which accelerators would round
    normalised = (x - mean) * inverse
    slope_scale = jax.lax.optimization_barrier(slope * normalised)  # made once for the two sums over it
    ones = jnp.ones((1, x.size // D))
    mean_slope = product(slope, scale_D)[..., None] / D
    mean_slope_scale = product(slope_scale, scale_D)[..., None] / D
    return (inverse * (slope * scale_D - mean_slope - normalised * mean_slope_scale),
            product(ones, slope_scale.reshape(-1, D))[0], product(ones, slope.reshape(-1, D))[0])


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016, equation 4): statistics in float32, result in the compute dtype."""

    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array, real: jax.Array | None = None) -> jax.Array:
        """Normalises the last axis, then scales and shifts it. `real` is not read."""
        scale_D = self.param('scale', nn.initializers.ones, x.shape[-1:])
        bias_D = self.param('bias', nn.initializers.zeros, x.shape[-1:])
        return layer_norm(x.astype(jnp.float32), scale_D, bias_D).astype(self.dtype)


class Norm(nn.Module):
    """One normalisation of `size` units with its gain, and with a shift where `shift`.

    Args:
      kind: which; 'none' has no parameter and changes nothing.
      steps: None, or for batch normalisation inside a recurrence the number of steps that have statistics of their own
        (Cooijmans et al. 2017); later steps share those of the last step that training has seen.
      parts: groups of units that layer and RMS normalisation treat apart, by size; None is one group.
    """

    kind: Kind
    size: int
    shift: bool = False
    initial_scale: float = 1.0
    steps: int | None = None
    parts: tuple[int, ...] | None = None
    dtype: str = 'float32'

    def setup(self) -> None:
        """Declares the parameters."""
        if self.kind == 'none':
            return
        self.gain = self.param('scale', nn.initializers.constant(self.initial_scale), (self.size,))
        self.bias = self.param('bias', nn.initializers.zeros, (self.size,)) if self.shift else None
        if self.kind == 'batch':
            table = () if self.steps is None else (self.steps,)
            self.running_mean = self.param('running_mean', nn.initializers.zeros, (*table, self.size))
            self.running_var = self.param('running_var', nn.initializers.zeros, (*table, self.size))
            self.running_weight = self.param('running_weight', nn.initializers.zeros, table)

    @property
    def observing(self) -> bool:
        """This pass normalises by its own batch and says what it saw."""
        return self.kind == 'batch' and self.is_mutable_collection('statistics') and not self.is_initializing()

    def __call__(self, x: jax.Array, real: jax.Array | None = None) -> jax.Array:
        """Normalises `x` (..., D), all tokens at once; batch statistics are over those that are `real` (...)."""
        y, seen = normalise(self.kind, self.weights(), x, jnp.ones(x.shape[:-1], bool) if real is None else real,
                            parts=self.parts)
        if seen:
            self.sow_means(*(seen[name] for name in ('sum', 'squares', 'count')))
        return y.astype(self.dtype)

    def weights(self) -> dict[str, jax.Array]:
        """What `normalise` needs, as arrays, for who goes through time in a scan of its own.

        For batch normalisation the population's 'mean' and 'var' ((D,), or (L, D) with a row for each step), unless
        this pass is `observing`.
        """
        if self.kind == 'none':
            return {}
        weights = {'scale': self.gain} | ({} if self.bias is None else {'bias': self.bias})
        return weights | (self.population() if self.kind == 'batch' and not self.observing else {})

    def population(self) -> dict[str, jax.Array]:
        """The running statistics without the share of their start, zeros; the identity before anything was seen."""
        weight = self.running_weight[..., None]
        mean = self.running_mean / jnp.where(weight == 0, 1.0, weight)
        var = jnp.where(weight == 0, 1.0, self.running_var / jnp.where(weight == 0, 1.0, weight))
        if self.steps is not None:
            seen_L = jnp.where(self.running_weight > 0, jnp.arange(self.steps), 0)
            last_L = jax.lax.cummax(seen_L)
            mean, var = mean[last_L], var[last_L]
        return jax.lax.stop_gradient({'mean': mean, 'var': var})

    def note(self, seen: dict[str, jax.Array]) -> None:
        """Sows what the steps of a scan saw: sums and squares (T, D), 'count' and 'position' (T, 1)."""
        at_T = jnp.minimum(seen['position'][:, 0], self.steps - 1)

        def by_step(x_TD):
            return jnp.zeros((self.steps, x_TD.shape[-1]), x_TD.dtype).at[at_T].add(x_TD)

        self.sow_means(*(by_step(seen[name]) for name in ('sum', 'squares', 'count')))

    def sow_means(self, sums, squares, count) -> None:
        """(sum, count) under the name of each running parameter."""
        flat = count.reshape(self.running_weight.shape)
        count = flat[..., None]
        for name, pair in {'running_mean': (sums, count), 'running_var': (squares, count),
                           'running_weight': (flat, flat)}.items():
            self.sow('statistics', name, pair, init_fn=lambda: None, reduce_fn=lambda before, now: now)


def normalise(kind: Kind, weights: dict[str, jax.Array], x: jax.Array, real: jax.Array | None = None,
              position_B: jax.Array | None = None, units: slice = slice(None),
              parts: tuple[int, ...] | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Normalises the last axis of `x`, with the arrays of `Norm.weights`: a pure function, at home in a scan.

    Args:
      real: where `x` is of a token.
      position_B: each row's step, where the population's statistics differ by step.
      units: those of the Norm's units that `x` holds.
      parts: as `Norm.parts`.

    Returns:
      The result in float32 (`x` itself for 'none'), and what was seen of the batch ({} unless it was looked at).
    """
    if kind == 'none':
        return x, {}
    seen: dict[str, Any] = {}
    if kind == 'batch':
        if 'mean' not in weights:
            mean, var, seen = observe(x, real)
        else:
            mean, var = weights['mean'], weights['var']
            if mean.ndim == 2:
                at_B = jnp.minimum(position_B, mean.shape[0] - 1)
                mean, var = mean[at_B], var[at_B]
            mean, var = mean[..., units], var[..., units]
        y = batch_normalise(x, mean, var)
    else:
        function = layer_normalise if kind == 'layer' else rms_normalise
        ends = [sum(parts[:i + 1]) for i in range(len(parts) - 1)] if parts else []
        y = jnp.concatenate([function(part) for part in jnp.split(x, ends, axis=-1)], axis=-1)
    y = y * weights['scale'][units]
    return (y + weights['bias'][units] if 'bias' in weights else y), seen


def normaliser(kind: Kind, size: int, dtype: str, name: str | None = None) -> nn.Module:
    """The normalisation of an attention stack's activations: a module called with (x, real)."""
    if kind == 'layer':
        return LayerNorm(dtype, name=name)
    return Norm(kind, size, shift=kind == 'batch', dtype=dtype, name=name)
