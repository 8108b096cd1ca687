"""Recurrent layers, which scan the cells of `layers/cells.py` over time, and stacks of them."""


import jax
import jax.numpy as jnp
from flax import linen as nn

from seqjax.layers.cells import GATES, Carry, Cell, Weights
from seqjax.layers.dropout import Dropout
from seqjax.layers.normalisation import Norm
from seqjax.layers.products import Dense, matmul
from seqjax.layers.steps import Kernel, multiply, over_time
from seqjax.layers.unpadding import Unpadding, pad


def gatewise(init: nn.initializers.Initializer, gates: int) -> nn.initializers.Initializer:
    """An initializer for the kernels of several gates side by side, each drawn for itself."""

    def draw(key, shape, dtype=jnp.float32):
        each = (*shape[:-1], shape[-1] // gates)
        return jnp.concatenate([init(k, each, dtype) for k in jax.random.split(key, gates)], axis=-1)

    return draw


class Recurrence(nn.Module):
    """One recurrent layer in one direction.

    Kernels are drawn gate by gate: input kernels Glorot uniform, recurrent ones orthogonal (they keep a state's norm
    over many steps at any width, where the uniform(-0.08, 0.08) of Sutskever et al. 2014 was meant for 1000 units),
    times `cell.gain`. Biases are 0, and `cell.forget_bias` for the forget gate. Gains of normalisation are 1, and 0.1
    for batch normalisation (Cooijmans et al. 2017). Its statistics of W x are over all tokens (Laurent et al. 2016),
    those of U h and c over the rows at one step, and the running ones are each step's own (Cooijmans et al. 2017).
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
        self.recurrent_kernel = self.param(
            'recurrent_kernel', gatewise(nn.initializers.orthogonal(self.cell.gain), gates), (H, G))
        self.bias = self.param('bias', self.initial_bias, (G,))
        if self.cell.kind == 'gru' and self.cell.reset == 'after':
            self.recurrent_bias = self.param('recurrent_bias', nn.initializers.zeros, (H,))
        if self.cell.time_skip:
            self.skip_kernel = self.param(
                'skip_kernel', gatewise(nn.initializers.orthogonal(self.cell.gain), gates), (H, G))
        kind = self.cell.normalisation
        if kind != 'none':  # b is the shift of W x and U h
            gain = 0.1 if kind == 'batch' else 1.0
            self.input_norm = Norm(kind, G, initial_scale=gain, parts=(2 * H, H) if self.cell.kind == 'gru' else None)
            self.recurrent_norm = Norm(kind, G, initial_scale=gain, steps=self.cell.steps)
            if self.cell.kind == 'lstm':
                self.cell_norm = Norm(kind, H, kind != 'rms', gain, self.cell.steps)

    def initial_bias(self, key, shape):
        """Zeros, but `forget_bias` where an LSTM's forget gate is."""
        H = self.cell.hidden_size
        bias_G = jnp.zeros(shape)
        return bias_G.at[H:2 * H].set(self.cell.forget_bias) if self.cell.kind == 'lstm' else bias_G

    @property
    def looking(self) -> bool:
        """Somebody wants to see the gates of this pass."""
        return self.is_mutable_collection('intermediates') and not self.is_initializing()

    def project(self, inputs: jax.Array, real: jax.Array | None = None, kernel: Kernel | None = None) -> jax.Array:
        """W x + b: (..., D) to (..., G) in float32, or in bfloat16 where that is the compute dtype.

        Normalised, N(W x) + b; batch statistics are over the `real` (...) inputs, or all. `kernel` is W in a step of
        `over_time`.
        """
        if kernel is None:
            projected = matmul(inputs.astype(self.dtype), self.input_kernel.astype(self.dtype), 'float32')
        else:
            projected = multiply(inputs, kernel)
        if self.cell.normalisation != 'none':
            projected = self.input_norm(projected, real)
        return (projected + self.bias).astype(self.dtype)

    def weights(self) -> Weights:
        """What the cell's step needs, in the compute dtype: made once, ahead of the scan."""
        H, kernel_HG = self.cell.hidden_size, self.recurrent_kernel.astype(self.dtype)
        weights: Weights = {'recurrent': kernel_HG}
        if self.cell.kind == 'gru' and self.cell.reset == 'after':
            weights['recurrent_bias'] = self.recurrent_bias
        elif self.cell.kind == 'gru':
            weights = {'recurrent': kernel_HG[:, :2 * H], 'recurrent_candidate': kernel_HG[:, 2 * H:]}
        if self.cell.time_skip:
            weights['skip'] = self.skip_kernel.astype(self.dtype)
        return weights | {f'{name}_norm': norm.weights() for name, norm in self.norms().items()}

    def kernels(self, weights: Weights) -> dict[str, jax.Array]:
        """Those of `weights` that a step multiplies by."""
        return {name: weights[name] for name in self.cell.kernels}

    def norms(self) -> dict[str, Norm]:
        """The normalisations inside the step, by the name under which the cell asks for them."""
        if self.cell.normalisation == 'none':
            return {}
        return {'recurrent': self.recurrent_norm} | ({'cell': self.cell_norm} if self.cell.kind == 'lstm' else {})

    def wanted(self, seen: Weights) -> Weights:
        """Of what a step has seen, what `show` is to get of it: the scan need not keep the rest."""
        return {name: value for name, value in seen.items() if name == 'statistics' or self.looking}

    def show(self, seen: Weights) -> None:
        """Sows gates, cell and hidden states, each (B, T, H), and what batch normalisation saw at each step."""
        for name, value in seen.items():
            if name != 'statistics':
                self.sow('intermediates', name, value)
        for name, value in seen.get('statistics', {}).items():
            self.norms()[name].note(jax.tree.map(lambda x: x[0], value))

    def __call__(self, inputs_BTD: jax.Array, mask_BT: jax.Array | None = None, carry: Carry | None = None,
                 added_BG: jax.Array | None = None, real_BT: jax.Array | None = None,
                 by: Unpadding | None = None) -> tuple[jax.Array, Carry]:
        """Runs over all of `inputs_BTD`; T = 1 with a carry is one step of decoding.

        Args:
          mask_BT: True on real tokens; None where all are. At others the state stays as it was and the output is 0, so
            that padding changes nothing in either direction.
          carry: the state before the first step (the last one when reversed); None is zeros.
          added_BG: joins W x_t + b of every step, as a context that does not change over time does.
          real_BT: tokens that count where batch statistics are taken; None is those of the mask.
          by: where the tokens are, if the inputs are without padding, (N, D). It takes no batch statistics.

        Returns:
          Hidden states (B, T, H) in the compute dtype and the carry after the last step.
        """
        real_BT = mask_BT if real_BT is None else real_BT
        # Steps are counted from where a row begins, so that for batch normalisation padding has to come last.
        turned = self.reverse and self.cell.normalisation == 'batch'
        if turned:
            inputs_BTD = turn(inputs_BTD, mask_BT)
        projected_BTG, weights = pad(self.project(inputs_BTD, real_BT), by), self.weights()
        if added_BG is not None:
            projected_BTG = projected_BTG + added_BG[:, None]

        def step(carry, now, kernels):
            projected_BG, mask_B, real_B = now
            new, seen = self.cell.step(carry, projected_BG, weights | kernels, real_B)
            hidden_BH = new[-1]
            if mask_B is not None:
                new = jax.tree.map(lambda after, before: jnp.where(
                    mask_B.reshape(-1, *(1,) * (after.ndim - 1)), after, before), new, carry)
                hidden_BH = jnp.where(mask_B[:, None], hidden_BH, 0.0)
            return new, (hidden_BH.astype(self.dtype), self.wanted(seen))

        if carry is None:
            carry = self.cell.zeros(projected_BTG.shape[0])
        counted_BT = real_BT if self.cell.normalisation == 'batch' else None
        carry, (hidden_BTH, seen) = over_time(step, carry, (projected_BTG, mask_BT, counted_BT),
                                              self.kernels(weights), self.reverse and not turned)
        if turned:
            hidden_BTH = turn(hidden_BTH, mask_BT)
            seen = {name: x if name == 'statistics' else turn(x, mask_BT) for name, x in seen.items()}
        self.show(seen)
        return hidden_BTH, carry


def turn(x_BTD: jax.Array, mask_BT: jax.Array | None) -> jax.Array:
    """The tokens of each row the other way round, padding staying where it is, behind them."""
    if mask_BT is None:
        return x_BTD[:, ::-1]
    at_T, length_B1 = jnp.arange(x_BTD.shape[1]), mask_BT.sum(axis=1, keepdims=True)
    return jnp.take_along_axis(x_BTD, jnp.where(at_T < length_B1, length_B1 - 1 - at_T, at_T)[:, :, None], axis=1)


class Bidirectional(nn.Module):
    """Two layers, one in each direction, outputs side by side (Schuster and Paliwal 1997)."""

    cell: Cell
    input_size: int
    dtype: str = 'float32'

    def setup(self) -> None:
        """Declares the parameters."""
        self.forward = Recurrence(self.cell, self.input_size, dtype=self.dtype)
        self.backward = Recurrence(self.cell, self.input_size, reverse=True, dtype=self.dtype)

    def __call__(self, inputs_BTD: jax.Array, mask_BT: jax.Array | None = None,
                 by: Unpadding | None = None) -> tuple[jax.Array, tuple[Carry, Carry]]:
        """Hidden states (B, T, 2H), forward first, and the carries after the last and after the first token."""
        forward_BTH, last = self.forward(inputs_BTD, mask_BT, by=by)
        backward_BTH, first = self.backward(inputs_BTD, mask_BT, by=by)
        return jnp.concatenate([forward_BTH, backward_BTH], axis=-1), (last, first)


class Stack(nn.Module):
    """Layers on top of each other; dropout between them, never on a recurrent connection (Zaremba et al. 2014).

    With `residual` each layer but the first, whose input has another width, adds its input to its output (Wu et al.
    2016, equation 6). States stay as they are. Layer l, from 0, has the dilation base^l.
    """

    cell: Cell
    input_size: int
    num_layers: int = 1
    bidirectional: bool = False
    reverse: bool = False
    dropout: float = 0.0
    dtype: str = 'float32'
    residual: bool = False

    def setup(self) -> None:
        """Declares the parameters."""
        layer, width = [], self.input_size
        for n in range(self.num_layers):
            if self.bidirectional:
                layer.append(Bidirectional(self.cell.at(n), width, self.dtype))
            else:
                layer.append(Recurrence(self.cell.at(n), width, self.reverse, self.dtype))
            width = self.cell.hidden_size * (1 + self.bidirectional)
        self.layer = layer
        self.drop = Dropout(self.dropout)

    def __call__(self, inputs_BTD: jax.Array, mask_BT: jax.Array | None = None, carries: tuple | None = None,
                 added_BG: jax.Array | None = None, real_BT: jax.Array | None = None,
                 by: Unpadding | None = None) -> tuple[jax.Array, tuple]:
        """Top outputs (B, T, H or 2H) and each layer's carry; `added_BG` joins the first layer's input.

        With `by` the inputs are without padding, (N, D).

        A bidirectional stack takes no carries: its backward half would have to start from the future.
        """
        if self.bidirectional:
            x_BTD, carry = self.layer[0](inputs_BTD, mask_BT, by)
        else:
            x_BTD, carry = self.layer[0](inputs_BTD, mask_BT, carries and carries[0], added_BG, real_BT, by)
        x_BTD, above = self.above(x_BTD, mask_BT, carries and carries[1:], real_BT)
        return x_BTD, (carry, *above)

    def above(self, x_BTD: jax.Array, mask_BT: jax.Array | None = None, carries: tuple | None = None,
              real_BT: jax.Array | None = None) -> tuple[jax.Array, tuple]:
        """The same from the second layer on, for who has run the first (with attention inside, say)."""
        after = []
        for n, layer in enumerate(self.layer[1:]):
            arguments = [] if self.bidirectional else [carries and carries[n], None, real_BT]
            y_BTD, carry = layer(self.drop(x_BTD), mask_BT, *arguments)
            x_BTD = x_BTD + y_BTD if self.residual else y_BTD
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
        states = self.cell.states
        projected = Dense(states * self.cell.hidden_size, dtype=self.dtype, kernel_init=gatewise(
            nn.initializers.glorot_uniform(), states), name='summary')(summary_BC)
        return self.cell.start(tuple(jnp.split(jnp.tanh(projected.astype(jnp.float32)), states, axis=-1)))


def maxout(x: jax.Array) -> jax.Array:
    """The greater of each two neighbours, (..., 2D) to (..., D): the readout of Bahdanau et al. 2015, A.2.2."""
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    return jnp.maximum(pairs[..., 0], pairs[..., 1])


def pool(outputs_BSH: jax.Array, mask_BS: jax.Array, how: str) -> jax.Array:
    """The 'mean' or 'max' over real positions, (B, H); 0 where there are none."""
    mask_BS1 = mask_BS[:, :, None]
    if how == 'mean':
        total_BH = jnp.sum(outputs_BSH * mask_BS1, axis=1, dtype=jnp.float32)
        return (total_BH / jnp.maximum(mask_BS1.sum(axis=1), 1)).astype(outputs_BSH.dtype)
    highest_BH = jnp.max(jnp.where(mask_BS1, outputs_BSH, jnp.finfo(outputs_BSH.dtype).min), axis=1)
    return jnp.where(mask_BS1.any(axis=1), highest_BH, 0)
