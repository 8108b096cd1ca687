"""Recurrent networks from the papers' equations, in float64 numpy, one sentence at a time without padding."""

import jax
import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def float64(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def start(kind, p):
    H = p['recurrent_kernel'].shape[0]
    return tuple(np.zeros(H) for _ in range(2 if kind == 'lstm' else 1))


def step(kind, p, carry, x, more=0.0, reset='before'):
    """One step on the vector `x`; `more` joins W x + b. Returns the carry and every gate by name."""
    U, h = p['recurrent_kernel'], carry[-1]
    H = len(h)
    a = x @ p['input_kernel'] + p['bias'] + more
    if kind == 'rnn':
        h = np.tanh(a + h @ U)
        return (h,), {'hidden': h}
    if kind == 'lstm':
        i = sigmoid(a[:H] + h @ U[:, :H])
        f = sigmoid(a[H:2 * H] + h @ U[:, H:2 * H])
        g = np.tanh(a[2 * H:3 * H] + h @ U[:, 2 * H:3 * H])
        o = sigmoid(a[3 * H:] + h @ U[:, 3 * H:])
        c = f * carry[0] + i * g
        h = o * np.tanh(c)
        return (c, h), {'input_gate': i, 'forget_gate': f, 'candidate': g, 'output_gate': o, 'cell': c, 'hidden': h}
    r = sigmoid(a[:H] + h @ U[:, :H])
    z = sigmoid(a[H:2 * H] + h @ U[:, H:2 * H])
    if reset == 'before':
        n = np.tanh(a[2 * H:] + (r * h) @ U[:, 2 * H:])
    else:
        n = np.tanh(a[2 * H:] + r * (h @ U[:, 2 * H:] + p['recurrent_bias']))
    h = z * h + (1 - z) * n
    return (h,), {'reset_gate': r, 'update_gate': z, 'candidate': n, 'hidden': h}


def layer(kind, p, inputs, carry=None, more=0.0, reset='before'):
    """Outputs (T, H) and the last carry."""
    carry, outputs = carry or start(kind, p), []
    for x in inputs:
        carry, seen = step(kind, p, carry, x, more, reset)
        outputs.append(seen['hidden'])
    return np.array(outputs), carry


def stack(kind, p, inputs, carries=None, more=0.0, reset='before'):
    """Top outputs (T, H or 2H) and each layer's carry, or its two carries."""
    x, after = inputs, []
    for n in range(len(p)):
        q = p[f'layer_{n}']
        if 'forward' in q:
            there, last = layer(kind, q['forward'], x, reset=reset)
            back, first = layer(kind, q['backward'], x[::-1], reset=reset)
            x, carry = np.concatenate([there, back[::-1]], axis=-1), (last, first)
        else:
            x, carry = layer(kind, q, x, carries and carries[n], more if n == 0 else 0.0, reset)
        after.append(carry)
    return x, tuple(after)


def bridge(p, summary, states):
    """tanh(V c), cut into an LSTM's cell and hidden state."""
    return tuple(np.split(np.tanh(summary @ p['summary']['kernel'] + p['summary']['bias']), states))


def maxout(x):
    return x.reshape(*x.shape[:-1], -1, 2).max(axis=-1)
