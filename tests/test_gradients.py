"""Gradients by distance and by layer, against products of Jacobians in float64 numpy; and what is known of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.models.decoder_only import DecoderOnly
from seqjax.models.recurrent import GRU, LSTM, RNN
from seqjax.models.transformer import Transformer
from seqjax.studies import gradients

SIZES = dict(source_size=12, target_size=7, source_length=110, target_length=8)
TOKENS = np.ones((1, 2), np.int32)


def ready(kind, seed=0, **fields):
    model = kind(**(dict(num_layers=1, hidden_size=6, dropout=0.0) | fields)).clone(**SIZES)
    return model, jax.jit(model.init)(jax.random.key(seed), TOKENS, TOKENS)['params']


def test_a_plain_networks_gradient_is_the_product_of_its_jacobians():
    """|J v| of the very rows and directions: d h_t / d h_{t-1} = diag(1 - h^2) U^T, through encoder and decoder."""
    model, params = ready(RNN, bidirectional=False)
    params = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(x.size).normal(0, 0.5, x.shape), x.dtype), params)
    distances, rows = (0, 1, 4, 9), 3
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    source_BS = gradients.sources(SIZES['source_size'], distances, rows)
    directions = np.random.default_rng((0, 1)).normal(size=(rows, SIZES['target_size']))
    logs = []
    for row, tokens in enumerate(source_BS):
        e, d = p['encoder']['layer_0'], p['decoder']['layer_0']
        steps = [(e, p['source_embedding'][t]) for t in tokens if t] + [(d, p['target_embedding'][1])]
        h, jacobian = np.zeros(6), None
        for q, x in steps:
            h = np.tanh(x @ q['input_kernel'] + h @ q['recurrent_kernel'] + q['bias'])
            slope = np.diag(1 - h ** 2)
            jacobian = slope @ (q['input_kernel'].T if jacobian is None else q['recurrent_kernel'].T @ jacobian)
        logs.append(np.log10(np.linalg.norm(directions[row % rows] @ p['output_embedding'] @ jacobian)))
    found = gradients.reach(model, params, distances, rows)
    np.testing.assert_allclose(found, np.reshape(logs, (4, 3)).mean(axis=1), atol=1e-4)
    assert found[3] < found[0] - 0.3


def test_sources_are_beginnings_of_each_other():
    source = gradients.sources(12, (0, 2, 5), 2)
    assert source.shape == (6, 7)
    assert [list(row).index(2) for row in source] == [1, 1, 3, 3, 6, 6]
    assert (source[4:, :3] == source[2:4, :3]).all()
    assert (source[0, 2:] == 0).all()
    assert source[source > 2].min() >= 4
    assert (source[0] != source[1]).any()


def test_gain_multiplies_what_multiplies_a_state():
    _, params = ready(RNN, time_skip=3)
    loud = gradients.amplified(params, 4.0)
    changed = {jax.tree_util.keystr(path, simple=True, separator='/') for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(loud)) if (a != b).any()}
    assert changed == {f'{side}/layer_0/{name}' for side in ('encoder', 'decoder')
                       for name in ('recurrent_kernel', 'skip_kernel')}
    after, before = (tree['encoder']['layer_0']['skip_kernel'] for tree in (loud, params))
    np.testing.assert_allclose(after, 4 * before)
    drawn = ready(RNN, time_skip=3, recurrent_gain=4.0)[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), drawn, loud)


@pytest.mark.parametrize('kind', [RNN, LSTM])
def test_gradients_vanish_under_torchs_uniform_matrices(kind):
    """Forget bias 0, gain 1: over 100 steps the LSTM's is below 1e-19, like the plain network's."""
    model, params = ready(kind, hidden_size=32, **({'forget_bias': 0.0} if kind is LSTM else {}))
    rng = np.random.default_rng(0)
    params = jax.tree_util.tree_map_with_path(lambda path, x: jnp.asarray(
        rng.uniform(-32 ** -0.5, 32 ** -0.5, x.shape), x.dtype) if path[-1].key == 'recurrent_kernel' else x, params)
    near, far = gradients.reach(model, params, (0, 100))
    assert near > -1.5
    assert far < -19


def test_an_lstms_gradient_explodes_at_gain_8_and_lasts_at_forget_bias_3():
    model, params = ready(LSTM, hidden_size=128, forget_bias=0.0)
    assert gradients.reach(model, gradients.amplified(params, 8.0), (100,), rows=2)[0] > 11
    model, params = ready(LSTM, hidden_size=32, forget_bias=3.0)
    near, far = gradients.reach(model, params, (0, 100))
    assert abs(far - near) < 2
    model, params = ready(LSTM, hidden_size=32, forget_bias=3.0, cut='cell')  # nothing but c had carried it
    assert gradients.reach(model, params, (100,))[0] < -30
    model, params = ready(GRU, hidden_size=32)
    assert -20 < gradients.reach(model, params, (100,))[0] < -8


def test_attention_reaches_the_first_word_however_far():
    model, params = ready(Transformer, hidden_size=16, num_heads=2, feedforward_size=16)
    near, far = gradients.reach(model, params, (1, 100))
    assert -2.5 < far - near < 0  # one word of a hundred, not a product of a hundred


def test_norms_by_layer_are_those_of_each_layers_leaves():
    model, params = ready(DecoderOnly, num_layers=3, hidden_size=8, num_heads=2, feedforward_size=8)
    source, target = np.array([[4, 5, 6, 2]], np.int32), np.array([[4, 3, 2]], np.int32)

    def loss(params):
        return jnp.square(model.apply({'params': params}, source, target)).sum()

    found = gradients.by_layer(loss, params, 'decoder')
    gradient = jax.grad(loss)(params)['decoder']
    for layer in range(3):
        flat = np.concatenate([np.ravel(leaf[layer]) for leaf in jax.tree.leaves(gradient)])
        np.testing.assert_allclose(found[layer], np.linalg.norm(flat.astype(np.float64)), rtol=1e-4)
    assert len(set(np.round(found, 4))) == 3
