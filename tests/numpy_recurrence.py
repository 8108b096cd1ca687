"""Recurrent networks from the papers' equations, in float64 numpy, one sentence at a time without padding."""

import types

import jax
import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def float64(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


PLAIN = types.SimpleNamespace(normalisation='none', time_skip=0, dilation=1, residual=False)  # as a model's options


class Carry(tuple):
    """The state of the last step, (h,) or (c, h), with all states before it and the number of steps."""

    past, position = (), 0


def carried(state, past, position):
    carry = Carry(state)
    carry.past, carry.position = past, position
    return carry


def handed(carry):
    """As a decoder goes on from it: steps are counted from 0 again."""
    return carried(carry, getattr(carry, 'past', ()), 0)


def start(kind, p):
    H = p['recurrent_kernel'].shape[0]
    return tuple(np.zeros(H) for _ in range(2 if kind == 'lstm' else 1))


def population(p, position):
    """Mean and variance of a step: those of the last step that was seen, where this one was not."""
    weight, mean, var = p['running_weight'], p['running_mean'], p['running_var']
    if weight.ndim:
        position = min(position, len(weight) - 1)
        while weight[position] == 0 and position:
            position -= 1
        weight, mean, var = weight[position], mean[position], var[position]
    return (mean / weight, var / weight) if weight else (0.0, 1.0)


def normalised(kind, p, x, position=0, units=slice(None)):
    """Ba et al. 2016, equation 3; Zhang and Sennrich 2019, equation 4; Ioffe and Szegedy 2015, algorithm 2."""
    if kind == 'layer':
        y = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
    elif kind == 'rms':
        y = x / np.sqrt((x ** 2).mean() + 1e-6)
    else:
        mean, var = population(p, position)
        y = (x - np.broadcast_to(mean, p['scale'].shape)[units]) / np.sqrt(
            np.broadcast_to(var, p['scale'].shape)[units] + 1e-3)
    return y * p['scale'][units] + (p['bias'][units] if 'bias' in p else 0.0)


def step(kind, p, carry, x, more=0.0, reset='before', options=PLAIN, layer=0):
    """One step on the vector `x`; `more` joins W x + b. Returns the carry and every gate by name."""
    past, position = (*getattr(carry, 'past', ()), tuple(carry)), getattr(carry, 'position', 0)

    def back(k):  # the state of step t - k; before the first step, the one it started in
        return past[-k] if k <= len(past) else past[0]

    def N(which, y, units=slice(None)):
        if options.normalisation == 'none':
            return y
        return normalised(options.normalisation, p[f'{which}_norm'], y, position, units)

    state = back(options.dilation ** layer)
    U, h = p['recurrent_kernel'], state[-1]
    H = len(h)
    a = x @ p['input_kernel']
    if kind == 'gru':
        a = np.concatenate([N('input', a[:2 * H], slice(0, 2 * H)), N('input', a[2 * H:], slice(2 * H, 3 * H))])
    else:
        a = N('input', a)
    a = a + p['bias'] + more
    if options.time_skip:
        a = a + back(options.time_skip)[-1] @ p['skip_kernel']
    if kind == 'rnn':
        h = np.tanh(a + N('recurrent', h @ U))
        return carried((h,), past, position + 1), {'hidden': h}
    if kind == 'lstm':
        a = a + N('recurrent', h @ U)
        i, f, g, o = sigmoid(a[:H]), sigmoid(a[H:2 * H]), np.tanh(a[2 * H:3 * H]), sigmoid(a[3 * H:])
        c = f * state[0] + i * g
        h = o * np.tanh(N('cell', c))
        return carried((c, h), past, position + 1), {'input_gate': i, 'forget_gate': f, 'candidate': g,
                                                     'output_gate': o, 'cell': c, 'hidden': h}
    gates = a[:2 * H] + N('recurrent', h @ U[:, :2 * H], slice(0, 2 * H))
    r, z = sigmoid(gates[:H]), sigmoid(gates[H:])
    units = slice(2 * H, 3 * H)
    if reset == 'before':
        n = np.tanh(a[2 * H:] + N('recurrent', (r * h) @ U[:, 2 * H:], units))
    else:
        n = np.tanh(a[2 * H:] + r * (N('recurrent', h @ U[:, 2 * H:], units) + p['recurrent_bias']))
    h = z * h + (1 - z) * n
    return carried((h,), past, position + 1), {'reset_gate': r, 'update_gate': z, 'candidate': n, 'hidden': h}


def layer(kind, p, inputs, carry=None, more=0.0, reset='before', options=PLAIN, number=0):
    """Outputs (T, H) and the last carry."""
    carry, outputs = carry or start(kind, p), []
    for x in inputs:
        carry, seen = step(kind, p, carry, x, more, reset, options, number)
        outputs.append(seen['hidden'])
    return np.array(outputs), carry


def stack(kind, p, inputs, carries=None, more=0.0, reset='before', options=PLAIN):
    """Top outputs (T, H or 2H) and each layer's carry, or its two carries."""
    x, after = inputs, []
    for n in range(len(p)):
        q, kinds = p[f'layer_{n}'], dict(reset=reset, options=options, number=n)
        if 'forward' in q:
            there, last = layer(kind, q['forward'], x, **kinds)
            back, first = layer(kind, q['backward'], x[::-1], **kinds)
            y, carry = np.concatenate([there, back[::-1]], axis=-1), (last, first)
        else:
            y, carry = layer(kind, q, x, carries and carries[n], more if n == 0 else 0.0, **kinds)
        x = x + y if n and options.residual else y
        after.append(carry)
    return x, tuple(after)


def bridge(p, summary, states):
    """tanh(V c), cut into an LSTM's cell and hidden state."""
    return tuple(np.split(np.tanh(summary @ p['summary']['kernel'] + p['summary']['bias']), states))


def maxout(x):
    return x.reshape(*x.shape[:-1], -1, 2).max(axis=-1)
