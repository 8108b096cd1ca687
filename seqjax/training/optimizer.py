"""Update rules and learning-rate schedules, as options over optax."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from seqjax.errors import UserError
from seqjax.options import option


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An update rule, its learning rate over time, and clipping."""

    learner = 'gradient'

    name: Literal['adam', 'adamw', 'sgd', 'adafactor', 'adadelta'] = option('adam', 'update rule')
    learning_rate: float = option(1e-3, 'peak learning rate', above=0)
    schedule: Literal['constant', 'inverse_sqrt', 'cosine', 'linear'] = option(
        'constant', 'learning rate after the warm-up: as it is, falling with 1/sqrt(step), or falling to 0 at the end')
    warmup_steps: int = option(0, 'steps over which the learning rate grows linearly to its peak', at_least=0)
    clip_norm: float | None = option(None, 'longest gradient over all parameters; none: no clipping', above=0)
    beta1: float = option(0.9, 'decay of the mean of gradients', at_least=0, below=1, when={'name': ('adam', 'adamw')})
    beta2: float = option(0.999, 'decay of the mean of squared gradients', at_least=0, below=1,
                          when={'name': ('adam', 'adamw')})
    rho: float = option(0.95, 'decay of the means of squared gradients and updates', at_least=0, below=1,
                        when={'name': ('adadelta',)})
    epsilon: float | None = option(None, 'added to denominators; none: 1e-8, and 1e-6 for adadelta', above=0,
                                   when={'name': ('adam', 'adamw', 'adadelta')})
    weight_decay: float = option(0.01, 'decay of matrices, but of no bias and no scale, times the learning rate',
                                 at_least=0, when={'name': ('adamw',)})
    momentum: float = option(0.0, 'decay of the sum of gradients', at_least=0, below=1, when={'name': ('sgd',)})

    def check(self) -> None:
        """Raises UserError where options do not fit each other."""
        if self.schedule == 'inverse_sqrt' and self.warmup_steps == 0:
            raise UserError('--optimizer.schedule=inverse_sqrt with --optimizer.warmup_steps=0: the peak '
                            'lies at the end of the warm-up; set it to 1 or more')

    @property
    def depends_on_steps(self) -> bool:
        """Whether the learning rate reads the number of steps: a longer run is then another run from the start."""
        return self.schedule in ('cosine', 'linear')

    def build(self, total_steps: int) -> tuple[optax.GradientTransformation, Callable[[Any], jax.Array]]:
        """The optimizer and its schedule: update number, from 1 -> learning rate.

        Raises:
          UserError: the learning rate is to fall to 0 at `total_steps`, and its warm-up ends no sooner.
        """
        self.check()
        if self.depends_on_steps and self.warmup_steps >= total_steps:
            raise UserError(f'--optimizer.warmup_steps={self.warmup_steps} leaves nothing of {total_steps} steps for '
                            f'--optimizer.schedule={self.schedule} to fall in; lower warmup_steps or raise steps')

        def schedule(number: Any) -> jax.Array:
            return self.learning_rate * self._shape(jnp.asarray(number, jnp.float32), total_steps)

        clip = [optax.clip_by_global_norm(self.clip_norm)] if self.clip_norm else []
        # optax counts updates from 0.
        scale = optax.scale_by_learning_rate(lambda count: schedule(count + 1))
        return optax.chain(*clip, *self._rule(), scale), schedule

    def _shape(self, t: jax.Array, total_steps: int) -> jax.Array:
        """The learning rate of update t as a share of its peak."""
        w = self.warmup_steps
        rise = t / max(w, 1)
        left = jnp.clip((total_steps - t) / max(total_steps - w, 1), 0, 1)
        fall = {'constant': lambda: jnp.ones_like(t),
                # min(t^-0.5, t w^-1.5) of "Attention is all you need" (equation 3), times w^0.5 so that the peak is 1.
                'inverse_sqrt': lambda: jnp.sqrt(max(w, 1) / jnp.maximum(t, 1)),
                'cosine': lambda: 0.5 * (1 - jnp.cos(jnp.pi * left)),
                'linear': lambda: left}[self.schedule]()
        return jnp.where(t < w, rise, fall)

    def _rule(self) -> list[optax.GradientTransformation]:
        """The direction of the update, before the learning rate."""
        adam = optax.scale_by_adam(self.beta1, self.beta2, self.epsilon or 1e-8)
        return {'adam': lambda: [adam],
                'adamw': lambda: [adam, optax.add_decayed_weights(self.weight_decay, mask=decayed)],
                'sgd': lambda: [optax.trace(self.momentum)] if self.momentum else [],
                # Shazeer and Stern (2018), algorithm 5 without momentum: steps relative to the parameter's scale.
                'adafactor': lambda: [optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0),
                                      optax.scale_by_param_block_rms()],
                # Zeiler (2012), algorithm 1.
                'adadelta': lambda: [optax.scale_by_adadelta(self.rho, self.epsilon or 1e-6)]}[self.name]()


def decayed(params: Any) -> Any:
    """True for each leaf that weight decay shrinks: matrices, but no bias, no normalisation's scale, no running mean.

    The name decides as well as the shape, since a scanned stack's biases (N, D) look like a matrix.
    """
    def matrix(path: tuple, leaf: jax.Array) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return leaf.ndim >= 2 and not re.search('(bias|scale|running_[a-z]+)$', name)

    return jax.tree_util.tree_map_with_path(matrix, params)
