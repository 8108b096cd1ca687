"""Recurrent layers: the cells' equations as pure functions, and layers that scan them over time.

A cell sees its input already multiplied: W x + b of all time steps is one matrix product ahead of the scan, and only
the recurrent product is left inside. A carry is a tuple of float32 (B, H) arrays whose last is the hidden state:
(hidden,), or (cell, hidden) for an LSTM. Products run in the compute dtype and add up in float32, as the state does.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqjax.layers.dropout import Dropout

Carry = tuple[jax.Array, ...]
Weights = dict[str, jax.Array]


def multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x @ kernel in the dtype of `kernel`, added up in float32."""
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)


def rnn_step(carry: Carry, projected_BG: jax.Array, weights: Weights) -> tuple[Carry, Weights]:
    """h_t = tanh(W x_t + U h_{t-1} + b) (Elman 1990). `projected_BG` is W x_t + b; G = H."""
    hidden_BH = jnp.tanh(projected_BG + multiply(carry[-1], weights['recurrent']))
    return (hidden_BH,), {'hidden': hidden_BH}


def lstm_step(carry: Carry, projected_BG: jax.Array, weights: Weights) -> tuple[Carry, Weights]:
    """The LSTM of Zaremba et al. 2014, section 3.1. `projected_BG` is W x_t + b; G = 4H, in the order i, f, g, o.

    i, f, o = sigmoid(W x_t + U h_{t-1} + b), g = tanh(W x_t + U h_{t-1} + b), c_t = f c_{t-1} + i g, h_t = o tanh(c_t).
    """
    cell_BH, hidden_BH = carry
    i, f, g, o = jnp.split(projected_BG + multiply(hidden_BH, weights['recurrent']), 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    cell_BH = f * cell_BH + i * g
    hidden_BH = o * jnp.tanh(cell_BH)
    return (cell_BH, hidden_BH), {'input_gate': i, 'forget_gate': f, 'candidate': g, 'output_gate': o,
                                  'cell': cell_BH, 'hidden': hidden_BH}


def gru_step(carry: Carry, projected_BG: jax.Array, weights: Weights) -> tuple[Carry, Weights]:
    """The gated unit of Cho et al. 2014, equations 5 to 8. `projected_BG` is W x_t + b; G = 3H, in the order r, z, n.

    r, z = sigmoid(W x_t + U h_{t-1} + b), n = tanh(W x_t + U (r h_{t-1}) + b), h_t = z h_{t-1} + (1 - z) n; n is the
    candidate. With a 'recurrent_bias' b' in `weights` the reset gate comes after the product, as in cuDNN and torch:
    n = tanh(W x_t + b + r (U h_{t-1} + b')), one recurrent product in place of two.
    """
    (hidden_BH,) = carry
    H = hidden_BH.shape[-1]
    recurrent_BG = multiply(hidden_BH, weights['recurrent'])
    r, z = jnp.split(jax.nn.sigmoid(projected_BG[:, :2 * H] + recurrent_BG[:, :2 * H]), 2, axis=-1)
    if 'recurrent_bias' in weights:
        inner_BH = r * (recurrent_BG[:, 2 * H:] + weights['recurrent_bias'])
    else:
        inner_BH = multiply(r * hidden_BH, weights['recurrent_candidate'])
    candidate_BH = jnp.tanh(projected_BG[:, 2 * H:] + inner_BH)
    hidden_BH = z * hidden_BH + (1.0 - z) * candidate_BH
    return (hidden_BH,), {'reset_gate': r, 'update_gate': z, 'candidate': candidate_BH, 'hidden': hidden_BH}


STEPS: dict[str, Callable] = {'rnn': rnn_step, 'lstm': lstm_step, 'gru': gru_step}
GATES = {'rnn': 1, 'lstm': 4, 'gru': 3}


@dataclasses.dataclass(frozen=True)
class Cell:
    """Which cell, how wide, and its variant: all that a layer needs to make its parameters and take its steps."""

    kind: Literal['rnn', 'lstm', 'gru']
    hidden_size: int
    forget_bias: float = 0.0  # LSTM: initial value of the forget gate's bias.
    reset: Literal['before', 'after'] = 'before'  # GRU: reset gate before or after the recurrent product.

    @property
    def width(self) -> int:
        """G, all gates side by side."""
        return GATES[self.kind] * self.hidden_size

    @property
    def step(self) -> Callable[[Carry, jax.Array, Weights], tuple[Carry, Weights]]:
        """The cell's equations: (carry, projected_BG, weights) -> (carry, everything there is to see)."""
        return STEPS[self.kind]

    def zeros(self, batch: int) -> Carry:
        """The carry before the first token."""
        return (jnp.zeros((batch, self.hidden_size), jnp.float32),) * (2 if self.kind == 'lstm' else 1)


def gatewise(init: nn.initializers.Initializer, gates: int) -> nn.initializers.Initializer:
    """An initializer for the kernels of several gates side by side, each drawn for itself."""

    def draw(key, shape, dtype=jnp.float32):
        each = (*shape[:-1], shape[-1] // gates)
        return jnp.concatenate([init(k, each, dtype) for k in jax.random.split(key, gates)], axis=-1)

    return draw


def over_time(step: Callable, carry: Any, inputs: Any, reverse: bool = False) -> tuple[Any, Any]:
    """`lax.scan` of step(carry, inputs of one time) -> (carry, outputs of one time), over axis 1 of each leaf."""
    def swap(tree):
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)

    # Not unrolled: an LSTM layer's gradient (H 512, B 128, T 20, 2 cores) took 213 ms; 229, 268, 349 at unroll 2, 4, 8.
    carry, outputs = jax.lax.scan(step, carry, swap(inputs), reverse=reverse)
    return carry, swap(outputs)


class Recurrence(nn.Module):
    """One recurrent layer in one direction.

    Kernels are drawn gate by gate: input kernels Glorot uniform, recurrent ones orthogonal (they keep a state's norm
    over many steps at any width, where the uniform(-0.08, 0.08) of Sutskever et al. 2014 was meant for 1000 units).
    Biases are 0, and `cell.forget_bias` for the forget gate.
    """

    cell: Cell
    input_size: int
    reverse: bool = False
    dtype: str = 'float32'

    def setup(self) -> None:
        """Declares the parameters."""
        H, G, gates = self.cell.hidden_size, self.cell.width, GATES[self.cell.kind]
        self.input_kernel = self.param('input_kernel', gatewise(nn.initializers.glorot_uniform(), gates),
                                       (self.input_size, G))
        self.recurrent_kernel = self.param('recurrent_kernel', gatewise(nn.initializers.orthogonal(), gates), (H, G))
        self.bias = self.param('bias', self.initial_bias, (G,))
        if self.cell.kind == 'gru' and self.cell.reset == 'after':
            self.recurrent_bias = self.param('recurrent_bias', nn.initializers.zeros, (H,))

    def initial_bias(self, key, shape):
        """Zeros, but `forget_bias` where an LSTM's forget gate is."""
        H = self.cell.hidden_size
        bias_G = jnp.zeros(shape)
        return bias_G.at[H:2 * H].set(self.cell.forget_bias) if self.cell.kind == 'lstm' else bias_G

    @property
    def looking(self) -> bool:
        """Somebody wants to see the gates of this pass."""
        return self.is_mutable_collection('intermediates') and not self.is_initializing()

    def project(self, inputs: jax.Array) -> jax.Array:
        """W x + b: (..., D) to (..., G) in float32, or in bfloat16 where that is the compute dtype."""
        kernel_DG = self.input_kernel.astype(self.dtype)
        return (multiply(inputs, kernel_DG) + self.bias).astype(self.dtype)

    def weights(self) -> Weights:
        """What the cell's step multiplies with, in the compute dtype: made once, ahead of the scan."""
        H, kernel_HG = self.cell.hidden_size, self.recurrent_kernel.astype(self.dtype)
        if self.cell.kind != 'gru':
            return {'recurrent': kernel_HG}
        if self.cell.reset == 'after':
            return {'recurrent': kernel_HG, 'recurrent_bias': self.recurrent_bias}
        return {'recurrent': kernel_HG[:, :2 * H], 'recurrent_candidate': kernel_HG[:, 2 * H:]}

    def show(self, seen: Weights) -> None:
        """Sows gates, cell and hidden states, each (B, T, H)."""
        for name, value in seen.items():
            self.sow('intermediates', name, value)

    def __call__(self, inputs_BTD: jax.Array, mask_BT: jax.Array | None = None, carry: Carry | None = None,
                 added_BG: jax.Array | None = None) -> tuple[jax.Array, Carry]:
        """Runs over all of `inputs_BTD`; T = 1 with a carry is one step of decoding.

        Args:
          mask_BT: True on real tokens; None where all are. At others the state stays as it was and the output is 0, so
            that padding changes nothing in either direction.
          carry: the state before the first step (the last one when reversed); None is zeros.
          added_BG: joins W x_t + b of every step, as a context that does not change over time does.

        Returns:
          Hidden states (B, T, H) in the compute dtype and the carry after the last step.
        """
        projected_BTG, weights, looking = self.project(inputs_BTD), self.weights(), self.looking
        if added_BG is not None:
            projected_BTG = projected_BTG + added_BG[:, None]

        def step(carry, now):
            projected_BG, real_B1 = now
            new, seen = self.cell.step(carry, projected_BG, weights)
            hidden_BH = new[-1]
            if real_B1 is not None:
                new = jax.tree.map(lambda after, before: jnp.where(real_B1, after, before), new, carry)
                hidden_BH = jnp.where(real_B1, hidden_BH, 0.0)
            return new, (hidden_BH.astype(self.dtype), seen if looking else {})

        if carry is None:
            carry = self.cell.zeros(inputs_BTD.shape[0])
        real_BT1 = None if mask_BT is None else mask_BT[:, :, None]
        carry, (hidden_BTH, seen) = over_time(step, carry, (projected_BTG, real_BT1), self.reverse)
        self.show(seen)
        return hidden_BTH, carry


class Bidirectional(nn.Module):
    """Two layers, one in each direction, outputs side by side (Schuster and Paliwal 1997)."""

    cell: Cell
    input_size: int
    dtype: str = 'float32'

    def setup(self) -> None:
        """Declares the parameters."""
        self.forward = Recurrence(self.cell, self.input_size, dtype=self.dtype)
        self.backward = Recurrence(self.cell, self.input_size, reverse=True, dtype=self.dtype)

    def __call__(self, inputs_BTD: jax.Array,
                 mask_BT: jax.Array | None = None) -> tuple[jax.Array, tuple[Carry, Carry]]:
        """Hidden states (B, T, 2H), forward first, and the carries after the last and after the first token."""
        forward_BTH, last = self.forward(inputs_BTD, mask_BT)
        backward_BTH, first = self.backward(inputs_BTD, mask_BT)
        return jnp.concatenate([forward_BTH, backward_BTH], axis=-1), (last, first)


class Stack(nn.Module):
    """Layers on top of each other; dropout between them, never on a recurrent connection (Zaremba et al. 2014)."""

    cell: Cell
    input_size: int
    num_layers: int = 1
    bidirectional: bool = False
    reverse: bool = False
    dropout: float = 0.0
    dtype: str = 'float32'

    def setup(self) -> None:
        """Declares the parameters."""
        layer, width = [], self.input_size
        for _ in range(self.num_layers):
            if self.bidirectional:
                layer.append(Bidirectional(self.cell, width, self.dtype))
            else:
                layer.append(Recurrence(self.cell, width, self.reverse, self.dtype))
            width = self.cell.hidden_size * (1 + self.bidirectional)
        self.layer = layer
        self.drop = Dropout(self.dropout)

    def __call__(self, inputs_BTD: jax.Array, mask_BT: jax.Array | None = None, carries: tuple | None = None,
                 added_BG: jax.Array | None = None) -> tuple[jax.Array, tuple]:
        """Top hidden states (B, T, H or 2H) and each layer's carry; `added_BG` joins the first layer's input.

        A bidirectional stack takes no carries: its backward half would have to start from the future.
        """
        if self.bidirectional:
            x_BTD, carry = self.layer[0](inputs_BTD, mask_BT)
        else:
            x_BTD, carry = self.layer[0](inputs_BTD, mask_BT, carries and carries[0], added_BG)
        x_BTD, above = self.above(x_BTD, mask_BT, carries and carries[1:])
        return x_BTD, (carry, *above)

    def above(self, x_BTD: jax.Array, mask_BT: jax.Array | None = None,
              carries: tuple | None = None) -> tuple[jax.Array, tuple]:
        """The same from the second layer on, for who has run the first (with attention inside, say)."""
        after = []
        for n, layer in enumerate(self.layer[1:]):
            x_BTD, carry = layer(self.drop(x_BTD), mask_BT, *([carries[n]] if carries else []))
            after.append(carry)
        return x_BTD, tuple(after)

    def masks(self, shape: tuple[int, int]) -> list[jax.Array | None]:
        """Dropout between layers as factors (B, T, H), for who steps through the layers inside a scan of its own.

        No key can be asked for in there. None where nothing is dropped.
        """
        if self.dropout == 0.0 or not self.has_rng('dropout'):
            return [None] * (self.num_layers - 1)
        return [self.drop(jnp.ones((*shape, self.cell.hidden_size), self.dtype)) for _ in self.layer[1:]]


class Bridge(nn.Module):
    """A decoder's initial state from what the encoder knows: s_0 = tanh(V c) (Cho et al. 2014; Bahdanau et al. 2015).

    An LSTM's cell gets a V of its own. One bridge serves one layer.
    """

    cell: Cell
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, summary_BC: jax.Array) -> Carry:
        """Maps (B, C) to a carry."""
        states = len(self.cell.zeros(1))
        projected = nn.Dense(states * self.cell.hidden_size, dtype=self.dtype, kernel_init=gatewise(
            nn.initializers.glorot_uniform(), states), name='summary')(summary_BC)
        return tuple(jnp.split(jnp.tanh(projected.astype(jnp.float32)), states, axis=-1))


def pool(outputs_BSH: jax.Array, mask_BS: jax.Array, how: str) -> jax.Array:
    """The 'mean' or 'max' over real positions, (B, H); 0 where there are none."""
    mask_BS1 = mask_BS[:, :, None]
    if how == 'mean':
        total_BH = jnp.sum(outputs_BSH * mask_BS1, axis=1, dtype=jnp.float32)
        return (total_BH / jnp.maximum(mask_BS1.sum(axis=1), 1)).astype(outputs_BSH.dtype)
    highest_BH = jnp.max(jnp.where(mask_BS1, outputs_BSH, jnp.finfo(outputs_BSH.dtype).min), axis=1)
    return jnp.where(mask_BS1.any(axis=1), highest_BH, 0)
