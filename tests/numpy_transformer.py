"""The Transformer written down from the paper (Vaswani et al. 2017), in float64 numpy, one sentence without padding."""

import jax
import numpy as np
from numpy_positions import Told

NOTHING = Told('none')


def float64(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def positions(length, width):
    """Section 3.5, an element at a time."""
    table = np.zeros((length, width))
    for pos in range(length):
        for i in range(width // 2):
            table[pos, 2 * i] = np.sin(pos / 10000 ** (2 * i / width))
            table[pos, 2 * i + 1] = np.cos(pos / 10000 ** (2 * i / width))
    return table


def attention(Q, K, V, causal=False, bias=0.0):
    """Equation 1; returns context and weights. `causal` may be a mask (T, S) of what is seen."""
    scores = Q @ K.T / np.sqrt(K.shape[-1]) + bias
    if causal is not False:
        scores[~(np.tri(len(Q), len(K), dtype=bool) if causal is True else causal)] = -np.inf
    weights = softmax(scores)
    return weights @ V, weights


def multi_head(query, memory, W_Q, W_K, W_V, W_O, num_heads, causal=False, told=NOTHING):
    """Concat(head_1, ..., head_h) W^O of section 3.2.2, head_i on the i-th columns; and the weights (H, T, S)."""
    heads = [attention(told.turn(query @ q), told.turn(memory @ k), memory @ v, causal,
                       told.bias(h, num_heads, len(query)) if query is memory else 0.0)
             for h, (q, k, v) in enumerate(zip(*(np.split(W, num_heads, axis=1) for W in (W_Q, W_K, W_V))))]
    return np.concatenate([context for context, _ in heads], axis=1) @ W_O, np.array([weights for _, weights in heads])


def feed_forward(p, x):
    """Equation 2."""
    h = np.maximum(0, x @ p['expand']['kernel'] + p['expand']['bias'])
    return h @ p['contract']['kernel'] + p['contract']['bias']


def layer_norm(p, x):
    """Ba et al. 2016, equation 4."""
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * p['scale'] + p['bias']


def normalised(p, x):
    """By the kind whose parameters there are; with none, nothing."""
    if not p:
        return x
    if 'running_mean' in p:  # Ioffe and Szegedy 2015, algorithm 2
        mean, variance = p['running_mean'] / p['running_weight'], p['running_var'] / p['running_weight']
        return (x - mean) / np.sqrt(variance + 1e-3) * p['scale'] + p['bias']
    if 'bias' not in p:  # Zhang and Sennrich 2019, equation 4
        return x / np.sqrt((x ** 2).mean(axis=-1, keepdims=True) + 1e-6) * p['scale']
    return layer_norm(p, x)


def sublayer(p, norm, x, f, residual=True):
    """LayerNorm(x + f(x)) of section 3.1, or x + f(LayerNorm(x))."""
    p = p.get('norm') if p else None
    y = f(normalised(p, x)) if norm == 'before' else f(x)
    y = x + y if residual else y
    return y if norm == 'before' else normalised(p, y)


def self_attention(p, x, num_heads, causal=False, told=NOTHING):
    q, k, v = np.moveaxis(p['query_key_value'], 1, 0)
    return multi_head(x, x, q, k, v, p['output'], num_heads, causal, told)


def encoder_layer(p, x, norm, num_heads, told=NOTHING, causal=False, residual=True):
    """(S, D) to (S, D), and the weights (H, S, S)."""
    seen = []

    def attend(x):
        y, weights = self_attention(p['self_attention'], x, num_heads, causal, told)
        seen.append(weights)
        return y

    x = sublayer(p.get('self_attention_residual'), norm, x, attend, residual)
    x = sublayer(p.get('feedforward_residual'), norm, x, lambda x: feed_forward(p['feedforward'], x), residual)
    return x, *seen


def decoder_layer(p, x, memory, key, value, norm, num_heads, told=NOTHING, residual=True,
                  causal=True):
    """(T, D) to (T, D), and the weights on the target (H, T, T) and on the source (H, T, S)."""
    seen = []

    def attend(x):
        y, weights = self_attention(p['self_attention'], x, num_heads, causal=causal, told=told)
        seen.append(weights)
        return y

    def look(x):
        q = p['cross_attention']
        y, weights = multi_head(x, memory, q['query'], key, value, q['output'], num_heads)
        seen.append(weights)
        return y

    x = sublayer(p.get('self_attention_residual'), norm, x, attend, residual)
    x = sublayer(p.get('cross_attention_residual'), norm, x, look, residual)
    x = sublayer(p.get('feedforward_residual'), norm, x, lambda x: feed_forward(p['feedforward'], x), residual)
    return x, *seen


def layer(stacked, n):
    return jax.tree.map(lambda x: x[n], stacked)


def transformer(model, params, source_S, tokens_T):
    """Logits (T, V), and the weights of every layer: 'encoder', 'decoder' (N, H, T, T) and 'cross' (N, H, T, S)."""
    p = float64(params)
    norm, heads, D = model.norm, model.num_heads, model.hidden_size
    seen = {'encoder': [], 'decoder': [], 'cross': []}

    def embed(side, tokens, shared=False):
        x = p['target_embedding' if shared else f'{side}_embedding'][tokens] * np.sqrt(D)
        if model.positions == 'learned':
            return x + p[f'{side}_position_embedding'][:len(tokens)]
        return x + positions(len(tokens), D) if model.positions == 'sinusoidal' else x

    told = Told(model.positions, p.get('encoder_relative'), bidirectional=True)
    x = embed('source', source_S, model.tie == 'all')
    for n in range(model.num_layers):
        x, weights = encoder_layer(layer(p['encoder'], n), x, norm, heads, told, residual=model.residual)
        seen['encoder'].append(weights)
    memory = normalised(p.get('encoder_norm'), x) if norm == 'before' else x
    told = Told(model.positions, p.get('decoder_relative'), bidirectional=not model.causal)
    x = embed('target', tokens_T)
    for n in range(model.num_layers):
        key, value = p['memory']['key_value'][:, n, 0], p['memory']['key_value'][:, n, 1]
        x, mine, theirs = decoder_layer(layer(p['decoder'], n), x, memory, key, value, norm, heads, told,
                                        model.residual, model.causal)
        seen['decoder'].append(mine)
        seen['cross'].append(theirs)
    if norm == 'before':
        x = normalised(p.get('decoder_norm'), x)
    output = p['output_embedding' if model.tie == 'none' else 'target_embedding']
    return x @ output.T, {name: np.array(weights) for name, weights in seen.items()}


def decoder_only(model, params, source_S, tokens_T):
    """Logits (T, V) and the weights (N, H, S + T, S + T) of one pass over the source and, after it, the target."""
    p, S = float64(params), len(source_S)
    x = np.concatenate([p['target_embedding' if model.tie == 'all' else 'source_embedding'][source_S],
                        p['target_embedding'][tokens_T]]) * np.sqrt(model.hidden_size)
    if model.positions == 'learned':
        x = x + p['position_embedding'][:len(x)]
    if model.positions == 'sinusoidal':
        x = x + positions(len(x), model.hidden_size)
    both = model.prefix_mask == 'prefix'
    told = Told(model.positions, p.get('decoder_relative'), bidirectional=both or not model.causal)
    visible = np.tri(len(x), dtype=bool)
    if both:
        visible[:S, :S] = True
    if not model.causal:
        visible[S:, S:] = True
    seen = []
    for n in range(model.num_layers):
        x, weights = encoder_layer(layer(p['decoder'], n), x, model.norm, model.num_heads, told, visible,
                                   model.residual)
        seen.append(weights)
    x = normalised(p.get('decoder_norm'), x) if model.norm == 'before' else x
    output = p['output_embedding' if model.tie == 'none' else 'target_embedding']
    return x[S:] @ output.T, np.array(seen)
