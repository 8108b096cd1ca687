"""The layers of the Transformer against torch (fixtures/make_torch_transformer.py) and the paper in numpy."""

import pathlib

import jax
import numpy as np
import numpy_transformer as reference
import pytest

from seqjax.layers.transformer import DecoderLayer, EncoderLayer

TORCH = np.load(pathlib.Path(__file__).parent / 'fixtures' / 'torch_transformer.npz')
NORMS = ('before', 'after')


def layer_norm(p, which):
    return {'norm': {'scale': p[f'{which}.weight'], 'bias': p[f'{which}.bias']}}


def torch_params(kind):
    """torch's layer as ours (its matrices are transposed), and the keys and values of the source for a decoder."""
    p = {key.partition('/')[2]: np.asarray(value, np.float32) for key, value in TORCH.items() if key.startswith(kind)}
    D = 8
    ours = {'self_attention': {'query_key_value': np.moveaxis(p['self_attn.in_proj_weight'].reshape(3, D, D), 2, 0),
                               'output': p['self_attn.out_proj.weight'].T},
            'feedforward': {ours: {'kernel': p[f'{theirs}.weight'].T, 'bias': p[f'{theirs}.bias']}
                            for ours, theirs in (('expand', 'linear1'), ('contract', 'linear2'))},
            'self_attention_residual': layer_norm(p, 'norm1')}
    if kind == 'encoder':
        return ours | {'feedforward_residual': layer_norm(p, 'norm2')}, None
    q, k, v = p['multihead_attn.in_proj_weight'].reshape(3, D, D)
    memory_kv = tuple((np.asarray(TORCH['source'], np.float32) @ W.T).reshape(3, 5, 2, 4).swapaxes(1, 2)
                      for W in (k, v))
    return ours | {'cross_attention': {'query': q.T, 'output': p['multihead_attn.out_proj.weight'].T},
                   'cross_attention_residual': layer_norm(p, 'norm2'),
                   'feedforward_residual': layer_norm(p, 'norm3')}, memory_kv


@pytest.mark.parametrize('norm', NORMS)
def test_encoder_layer_equals_torch_and_numpy(norm):
    layer, (params, _) = EncoderLayer(2, 12, norm, dropout=0.0), torch_params('encoder')
    x_BSD = np.asarray(TORCH['source'], np.float32)
    mask_BS = np.arange(5) < TORCH['lengths'][:, None]
    out, _ = jax.jit(layer.apply)({'params': params}, x_BSD, mask_BS[:, None])
    np.testing.assert_allclose(out, TORCH[f'encoder/outputs_{norm}'], rtol=1e-4, atol=1e-5)
    for row, length in enumerate(TORCH['lengths']):
        expected, _ = reference.encoder_layer(reference.float64(params), TORCH['source'][row, :length], norm, 2)
        np.testing.assert_allclose(out[row, :length], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('norm', NORMS)
def test_decoder_layer_equals_torch(norm):
    layer, (params, memory_kv) = DecoderLayer(2, 12, norm, dropout=0.0), torch_params('decoder')
    mask_BS = np.arange(5) < TORCH['lengths'][:, None]
    out, kept = jax.jit(layer.apply)(
        {'params': params}, np.asarray(TORCH['target'], np.float32), memory_kv, np.tri(4, dtype=bool)[None], mask_BS)
    assert kept is None
    np.testing.assert_allclose(out, TORCH[f'decoder/outputs_{norm}'], rtol=1e-4, atol=1e-5)
