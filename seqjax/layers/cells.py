"""Recurrent cells: their equations as pure functions, and what a cell remembers from step to step.

A cell sees its input already multiplied: W x + b of all time steps is one matrix product ahead of the scan, and only
the recurrent product is left inside. Products run in the compute dtype and add up in float32, as the state does.

A carry is a tuple of float32 arrays whose last is the hidden state (B, H), and whose last but one is an LSTM's cell.
Before them stand earlier states (B, P, H), the oldest first, where the cell reaches further back than one step, and
first of all, with batch normalisation, each row's number of steps (B,).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from seqjax.layers.normalisation import Kind, normalise
from seqjax.layers.steps import multiply

Carry = tuple[jax.Array, ...]
Weights = dict[str, Any]
Normalise = Callable[..., jax.Array]  # (name of a Norm, x, its units) -> x normalised


# What a gate's sum goes through. The hard one is jax.nn's, relu6(x + 3) / 6 (Courbariaux et al. 2015); relu is no gate
# at all, for it may amplify.
ACTIVATIONS: dict[str, Callable] = {'sigmoid': jax.nn.sigmoid, 'hard_sigmoid': jax.nn.hard_sigmoid, 'relu': jax.nn.relu}


# Gates are made again in the backward pass: a scan would keep them, and factors of their slopes, of every step.
again = functools.partial(jax.checkpoint, prevent_cse=False)


def rnn_step(cell: 'Cell', carry: Carry, projected_BG: jax.Array, weights: Weights,
             norm: Normalise) -> tuple[Carry, Weights]:
    """h_t = tanh(W x_t + U h_{t-1} + b) (Elman 1990). `projected_BG` is W x_t + b; G = H.

    Normalised: tanh(N(W x_t) + N(U h_{t-1}) + b), as the gates of the other cells. (Equation 4 of Ba et al. 2016, of
    the plain network, normalises the sum.)
    """
    hidden_BH = jnp.tanh(projected_BG + norm('recurrent', multiply(carry[-1], weights['recurrent'])))
    return (hidden_BH,), {'hidden': hidden_BH}


def lstm_step(cell: 'Cell', carry: Carry, projected_BG: jax.Array, weights: Weights,
              norm: Normalise) -> tuple[Carry, Weights]:
    """The LSTM of Zaremba et al. 2014, section 3.1. `projected_BG` is W x_t + b; G = 4H, in the order i, f, g, o.

    i, f, o = sigmoid(W x_t + U h_{t-1} + b), g = tanh(W x_t + U h_{t-1} + b), c_t = f c_{t-1} + i g, h_t = o tanh(c_t).
    Normalised: N(W x_t) + N(U h_{t-1}) + b, the four gates as one vector, and h_t = o tanh(N(c_t)) (Ba et al. 2016,
    supplementary material; Cooijmans et al. 2017, equations 6 to 8). The state c_t itself is handed on as it is.

    A gate that is removed is 1 (Greff et al. 2017, NIG, NFG and NOG); a path that is cut carries 0 from step to step:
    no f c_{t-1}, or no U h_{t-1}.
    """
    cell_BH, hidden_BH = (jnp.zeros_like(x) if cell.cut == name else x for x, name in zip(carry, ('cell', 'hidden')))
    recurrent_BG = norm('recurrent', multiply(hidden_BH, weights['recurrent']))

    def gated(sum_BG, cell_BH):
        i, f, g, o = jnp.split(sum_BG, 4, axis=-1)
        i, f, g, o = cell.gate('input', i), cell.gate('forget', f), jnp.tanh(g), cell.gate('output', o)
        cell_BH = f * cell_BH + i * g
        hidden_BH = o * jnp.tanh(norm('cell', cell_BH))
        return (cell_BH, hidden_BH), {'input_gate': i, 'forget_gate': f, 'candidate': g, 'output_gate': o,
                                      'cell': cell_BH, 'hidden': hidden_BH}

    if cell.normalisation == 'none':  # what `norm` notes could not leave a function that is run again
        gated = again(gated)
    return gated(projected_BG + recurrent_BG, cell_BH)


def gru_step(cell: 'Cell', carry: Carry, projected_BG: jax.Array, weights: Weights,
             norm: Normalise) -> tuple[Carry, Weights]:
    """The gated unit of Cho et al. 2014, equations 5 to 8. `projected_BG` is W x_t + b; G = 3H, in the order r, z, n.

    r, z = sigmoid(W x_t + U h_{t-1} + b), n = tanh(W x_t + U (r h_{t-1}) + b), h_t = z h_{t-1} + (1 - z) n; n is the
    candidate. With a 'recurrent_bias' b' in `weights` the reset gate comes after the product, as in cuDNN and torch:
    n = tanh(W x_t + b + r (U h_{t-1} + b')), one recurrent product in place of two.

    Normalised: N(W x_t) + N(U h_{t-1}) + b, the two gates as one vector and the candidate as another. In Ba et al. 2016
    (supplementary material) the reset gate comes after, r (N(U h_{t-1}) + b'); before, it is N(U (r h_{t-1})).

    Without its reset gate r is 1; without its update gate z is 0, and every step writes all of its state anew.
    """
    (hidden_BH,) = carry
    H = hidden_BH.shape[-1]
    gates, candidate = slice(0, 2 * H), slice(2 * H, 3 * H)
    recurrent_BG = multiply(hidden_BH, weights['recurrent'])
    reset_BH, update_BH = jnp.split(projected_BG[:, gates] + norm('recurrent', recurrent_BG[:, gates], gates), 2,
                                    axis=-1)

    @again
    def kept(reset_BH, x_BH):
        r = cell.gate('reset', reset_BH)
        return r * x_BH, r

    @again
    def gated(update_BH, sum_BH, hidden_BH):
        z, candidate_BH = cell.gate('update', update_BH, removed=0.0), jnp.tanh(sum_BH)
        return z * hidden_BH + (1.0 - z) * candidate_BH, z, candidate_BH

    if 'recurrent_bias' in weights:
        inner_BH, r = kept(reset_BH, norm('recurrent', recurrent_BG[:, candidate], candidate)
                           + weights['recurrent_bias'])
    else:
        kept_BH, r = kept(reset_BH, hidden_BH)
        inner_BH = norm('recurrent', multiply(kept_BH, weights['recurrent_candidate']), candidate)
    hidden_BH, z, candidate_BH = gated(update_BH, projected_BG[:, candidate] + inner_BH, hidden_BH)
    return (hidden_BH,), {'reset_gate': r, 'update_gate': z, 'candidate': candidate_BH, 'hidden': hidden_BH}


STEPS: dict[str, Callable] = {'rnn': rnn_step, 'lstm': lstm_step, 'gru': gru_step}
GATES = {'rnn': 1, 'lstm': 4, 'gru': 3}


@dataclasses.dataclass(frozen=True)
class Cell:
    """Which cell, how wide, and its variant: all that a layer needs to make its parameters and take its steps.

    With `time_skip` s the cell also reads h_{t-s} through a matrix of its own: V h_{t-s} joins W x_t + b of every gate,
    and is not normalised (Lin et al. 1996, NARX; Zhang et al. 2016, "Architectural complexity measures of recurrent
    neural networks"; the regular skip connection of Chang et al. 2017, equation 2). With `dilation` d, c and h of step
    t - d take the place of those of step t - 1 (Chang et al. 2017, "Dilated recurrent neural networks", equation 1): d
    networks with the same parameters take turns. What lies before the first step is the state the cell started in.
    """

    kind: Literal['rnn', 'lstm', 'gru']
    hidden_size: int
    forget_bias: float = 0.0  # LSTM: initial value of the forget gate's bias.
    reset: Literal['before', 'after'] = 'before'  # GRU: reset gate before or after the recurrent product.
    normalisation: Kind = 'none'
    time_skip: int = 0  # s, 2 or more; 0 is none.
    dilation: int = 1  # d of a layer; of a stack its base, and `at` gives the layers'.
    steps: int = 1  # Batch normalisation: steps with statistics of their own.
    gain: float = 1.0  # of the recurrent kernels' initial values.
    activation: str = 'sigmoid'  # of the gates, a name of ACTIVATIONS.
    without: str = 'none'  # LSTM: the input, forget or output gate; GRU: the reset or update gate.
    cut: str = 'none'  # LSTM: 'cell' or 'hidden', the path that carries nothing from step to step.

    def gate(self, name: str, sum_BH: jax.Array, removed: float = 1.0) -> jax.Array:
        """What a gate lets through, by its sum."""
        return jnp.full_like(sum_BH, removed) if name == self.without else ACTIVATIONS[self.activation](sum_BH)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Those of its weights that a step multiplies by."""
        return (('recurrent',) + ('recurrent_candidate',) * (self.kind == 'gru' and self.reset == 'before')
                + ('skip',) * (self.time_skip > 0))

    @property
    def width(self) -> int:
        """G, all gates side by side."""
        return GATES[self.kind] * self.hidden_size

    @property
    def states(self) -> int:
        """How many vectors are the state of one step: 2 for an LSTM."""
        return 2 if self.kind == 'lstm' else 1

    def at(self, layer: int) -> 'Cell':
        """The cell of a stack's layer, from 0: dilation base^layer (Chang et al. 2017, section 2.2)."""
        return dataclasses.replace(self, dilation=self.dilation ** layer)

    def zeros(self, batch: int) -> Carry:
        """The carry before the first token."""
        return self.start((jnp.zeros((batch, self.hidden_size), jnp.float32),) * self.states)

    def start(self, now: Carry) -> Carry:
        """The carry of who starts in the state `now`, (hidden,) or (cell, hidden): nothing else lies before it."""
        length, kept = (self.time_skip - 1, now[-1:]) if self.time_skip else (self.dilation - 1, now)
        past = tuple(jnp.repeat(x[:, None], length, axis=1) for x in kept) if length else ()
        steps = (jnp.zeros(now[0].shape[:1], jnp.int32),) if self.normalisation == 'batch' else ()
        return (*steps, *past, *now)

    def handed(self, carry: Carry) -> Carry:
        """A carry as another network goes on from it: with its past, and counting steps from 0."""
        return (jnp.zeros_like(carry[0]), *carry[1:]) if self.normalisation == 'batch' else carry

    def now(self, carry: Carry) -> Carry:
        """The state of the last step, (hidden,) or (cell, hidden)."""
        return carry[-self.states:]

    def step(self, carry: Carry, projected_BG: jax.Array, weights: Weights,
             real_B: jax.Array | None = None) -> tuple[Carry, Weights]:
        """One step of the cell's equations.

        Args:
          projected_BG: N(W x_t) + b, with what else joins every gate.
          weights: of `Recurrence.weights`, its `kernels` perhaps as `over_time` gives them to a step.
          real_B: rows that count where batch statistics are taken; None is all.

        Returns:
          The carry, and everything there is to see by name: gates and states (B, H), and under 'statistics' what batch
          normalisation saw.
        """
        now = self.now(carry)
        past = carry[:-self.states]
        position_B, past = (past[0], past[1:]) if self.normalisation == 'batch' else (None, past)
        if self.time_skip:
            projected_BG = projected_BG + multiply(past[0][:, 0], weights['skip'])
        before = tuple(x[:, 0] for x in past) if self.dilation > 1 else now
        noted: dict[str, list] = {}

        def norm(name: str, x: jax.Array, units: slice = slice(None)) -> jax.Array:
            if self.normalisation == 'none':
                return x
            real = jnp.ones(x.shape[:1], bool) if real_B is None else real_B
            y, seen = normalise(self.normalisation, weights[f'{name}_norm'], x, real, position_B, units)
            noted.setdefault(name, []).extend([seen] if seen else [])
            return y

        new, seen = STEPS[self.kind](self, before, projected_BG, weights, norm)
        past = tuple(jnp.concatenate([x[:, 1:], last[:, None]], axis=1) for x, last in zip(past, now[-len(past):]))
        if self.normalisation != 'batch':
            return (*past, *new), seen
        # Rows walk in step, so that the furthest says where all are that are still there.
        place = {'position': position_B.max()[None, None]}
        noted = {name: place | {key: jnp.concatenate([part[key] for part in parts])[None] for key in ('sum', 'squares')}
                 | {'count': parts[0]['count'][None, None]} for name, parts in noted.items() if parts}
        return (position_B + 1, *past, *new), seen | ({'statistics': noted} if noted else {})
