"""ConvS2S and RCTM from the papers' equations, in float64 numpy, one sentence at a time without padding."""

import jax
import numpy as np
import numpy_recurrence as np_


def weights(p):
    """w = g v / |v| (Salimans and Kingma 2016, equation 2) for each output, or v where there is no g."""
    v = p['kernel']
    return v if 'scale' not in p else np.stack(
        [p['scale'][o] * v[..., o] / np.linalg.norm(v[..., o]) for o in range(v.shape[-1])], axis=-1)


def linear(p, x):
    return x @ weights(p)[0] + p['bias']


def gated_convolution(p, x, front, back):
    """v(W [x_{i-front}, ..., x_{i+back}] + b), Gehring et al. 2017, section 3.2."""
    W, D = weights(p), x.shape[1]
    x = np.concatenate([np.zeros((front, D)), x, np.zeros((back, D))])
    y = np.array([x[i:i + len(W)].reshape(-1) @ W.reshape(-1, W.shape[-1]) for i in range(len(x) - len(W) + 1)])
    a, b = (y + p['bias'])[:, :D], (y + p['bias'])[:, D:]
    return a * np_.sigmoid(b)


def convs2s(model, p, source, tokens):
    """Logits (T, V), and the weights of each layer (N, T, S)."""
    half, k, m = np.sqrt(0.5), model.kernel_size, len(source)
    e = p['source_embedding'][source] + p['source_positions'][:m]
    x = linear(p['encoder_input'], e)
    for n in range(model.num_layers):
        q = jax.tree.map(lambda leaf, n=n: leaf[n], p['encoder'])
        x = (gated_convolution(q['convolution'], x, k // 2, k // 2) + x) * half
    z = linear(p['encoder_output'], x)
    g = p['target_embedding'][tokens] + p['target_positions'][:len(tokens)]
    h, seen = linear(p['decoder_input'], g), []
    for n in range(model.num_layers):
        q = jax.tree.map(lambda leaf, n=n: leaf[n], p['decoder'])
        inside = gated_convolution(q['convolution'], h, k - 1, 0)
        d = (linear(q['query'], inside) + g) * half                                         # equation 1
        a = np_.softmax(d @ z.T)
        c = np.array([sum(a[i, j] * (z[j] + e[j]) * half for j in range(m)) for i in range(len(a))])  # equation 2
        inside = (linear(q['context'], c * m * np.sqrt(1 / m)) + inside) * half
        h = (inside + h) * half
        seen.append(a)
    return linear(p['output'], linear(p['decoder_output'], h)), np.array(seen)


def kernel(packed, width):
    """The kernel of that width among those of width 2, 3, ... that lie one after the other."""
    first = sum(range(2, width))
    return packed[first:first + width]


def column(K, x):
    return np.tanh(sum(K[b] * x[b] for b in range(len(K))))


def fold(p, x, widest, to_one=True):
    """Kalchbrenner and Blunsom 2013: K_2, K_3, ... as far as they fit; to one column, the top kernel that does."""
    for width in range(2, widest + 1):
        if len(x) >= width:
            x = np.array([column(kernel(p['main'], width), x[a:a + width]) for a in range(len(x) - width + 1)])
    if to_one and len(x) > 1:
        x = column(kernel(p['top'], len(x)), x)[None]
    return x


def unfold(p, x, m, n, widest):
    columns = max(m - n + 1, 1)
    places = [(j + 0.5) * len(x) / columns - 0.5 for j in range(columns)]
    x = np.stack([np.interp(places, np.arange(len(x)), x[:, d]) for d in range(x.shape[1])], axis=-1)
    for width in range(widest, 1, -1):
        K, y = kernel(p['inverse'], width), np.zeros((len(x) + width - 1, x.shape[1]))
        for a in range(len(x)):
            for b in range(width):
                y[a + b] += K[b] * x[a]
        x = np.tanh(y)
    return x


def rctm(model, p, source, tokens):
    """Logits (T, V), and what joins each step (T, E)."""
    x = p['source_embedding'][source]
    if model.variant == 'sentence':
        F, m = fold(p['fold'], x, int(np.ceil(np.sqrt(2 * model.source_length)))), 1
        assert len(F) == 1
    else:
        widest = {2: 2, 4: 3, 7: 4}[model.ngram]
        m = max(int(np.floor(model.length_ratio * len(source) + 0.5)), 1)
        grams = fold(p['fold'], x, widest, to_one=False)
        assert len(grams) == len(source) - model.ngram + 1 or len(source) < model.ngram
        F = unfold(p['unfold'], grams @ p['translation']['kernel'], m, model.ngram, widest)
        assert len(F) == max(m, model.ngram)
    joins = np.array([F[min(i, m - 1)] for i in range(len(tokens))])
    inputs = np.concatenate([p['target_embedding'][tokens], joins], axis=-1)
    h, _ = np_.stack(model.cell, p['decoder'], inputs)
    return h @ p['output_embedding'].T + p['output_bias'], joins
