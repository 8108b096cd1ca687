"""The benchmark's torch models are ours: of equal parameters the loss is the same. Skips where there are no peers."""

import json
import subprocess

import jax
import numpy as np
import pytest

from benchmarks import items, ours, packed
from benchmarks.peers.__main__ import PYTHON, ROOT
from seqjax.data.batches import Batch
from seqjax.decoding.options import Decoding
from seqjax.decoding.search import search
from seqjax.layers.positions import sinusoids
from seqjax.models.transformer import Transformer
from seqjax.prepared import initialise
from seqjax.training.checkpoint import paths

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason='no .cache/peers: python -m benchmarks.peers')
SHAPE = dict(width=16, layers=2, heads=2, feedforward=24, words=40, dropout=0.0)
LOSS = '''
import sys
from torch.nn import functional as F
import json, numpy, torch
from benchmarks import items
from benchmarks.peers import in_torch
model = eval(f"in_torch.{sys.argv[2]}").train()
state = {name: torch.tensor(value) for name, value in numpy.load(sys.argv[1]).items()}
missing, unexpected = model.load_state_dict(state, strict=False)
(source, target), = (tuple(torch.from_numpy(x).long() for x in pair) for pair in items.batches(3, 6, 7, 40, count=1))
logits = model(source, F.pad(target[:, :-1], (1, 0), value=items.BOS))
loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=items.PAD, label_smoothing=0.1)
print(json.dumps([loss.item(), missing, unexpected]))
'''


def transformer(p):
    """Ours by torch's names."""
    state = {'embedding.weight': p['target_embedding']}
    for side in ('encoder', 'decoder'):
        for n in range(SHAPE['layers']):
            at = f'stacks.{side}.layers.{n}'
            state[f'{at}.self_attn.in_proj_weight'] = p[f'{side}/self_attention/query_key_value'][n].reshape(16, 48).T
            state[f'{at}.self_attn.out_proj.weight'] = p[f'{side}/self_attention/output'][n].T
            for name, part in (('linear1', 'expand'), ('linear2', 'contract')):
                state[f'{at}.{name}.weight'] = p[f'{side}/feedforward/{part}/kernel'][n].T
                state[f'{at}.{name}.bias'] = p[f'{side}/feedforward/{part}/bias'][n]
            parts = ['self_attention', 'feedforward'] if side == 'encoder' else [
                'self_attention', 'cross_attention', 'feedforward']
            for number, part in enumerate(parts, 1):
                for name, own in (('weight', 'scale'), ('bias', 'bias')):
                    state[f'{at}.norm{number}.{name}'] = p[f'{side}/{part}_residual/norm/{own}'][n]
            if side == 'decoder':
                keys_D2D = p['memory/key_value'][:, n]
                state[f'{at}.multihead_attn.in_proj_weight'] = np.concatenate(
                    [p['decoder/cross_attention/query'][n].T, keys_D2D[:, 0].T, keys_D2D[:, 1].T])
                state[f'{at}.multihead_attn.out_proj.weight'] = p['decoder/cross_attention/output'][n].T
        for name, own in (('weight', 'scale'), ('bias', 'bias')):
            state[f'stacks.{side}.norm.{name}'] = p[f'{side}_norm/{own}']
    return state


def attentive(p):
    """Ours by torch's names; its second biases are not set."""
    state = {'source.weight': p['source_embedding'], 'target.weight': p['target_embedding'],
             'cell.weight_ih': np.concatenate([p['decoder/layer_0/input_kernel'], p['context_kernel']]).T,
             'cell.weight_hh': p['decoder/layer_0/recurrent_kernel'].T, 'cell.bias_ih': p['decoder/layer_0/bias'],
             'query.weight': p['query_kernel'].T, 'v.weight': p['alignment_v'][None],
             'output.weight': p['output_embedding'], 'output.bias': p['output_bias']}
    for name, own in (('bridge', 'bridge_0/summary'), ('keys', 'alignment_keys'), ('readout', 'readout_layer')):
        state |= {f'{name}.weight': p[f'{own}/kernel'].T, f'{name}.bias': p[f'{own}/bias']}
    for end, way in (('', 'forward'), ('_reverse', 'backward')):
        for name, own in (('weight_ih', 'input_kernel'), ('weight_hh', 'recurrent_kernel'), ('bias_ih', 'bias')):
            state[f'encoder.{name}_l0{end}'] = p[f'encoder/layer_0/{way}/{own}'].T
    return state


@pytest.mark.parametrize(('model', 'theirs', 'named', 'missing'), [
    ('transformer', 'Transformer(40, 16, 2, 2, 24, 0.0, 64)', transformer, []),
    ('bahdanau', 'Attentive(40, 16, 0.0)', attentive,
     ['encoder.bias_hh_l0', 'encoder.bias_hh_l0_reverse', 'cell.bias_hh'])])
def test_torch_computes_our_loss(tmp_path, model, theirs, named, missing):
    experiment = ours.experiment_of(model, SHAPE['words'], ours.fields_of(model, SHAPE, 'float32'), 0.1, None)
    (source, target), = items.batches(3, 6, 7, 40, count=1)
    params = experiment.model.init(jax.random.key(0), source, target)['params']
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params)  # biases too
    batch = Batch(source, target, np.ones(3, np.float32), np.arange(3))
    total, count = experiment.task.loss(experiment.model, params, batch, None, 0)[0]['loss']
    np.savez(tmp_path / 'params.npz', **named({
        jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}))
    done = subprocess.run([PYTHON, '-c', LOSS, tmp_path / 'params.npz', theirs], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [pytest.approx(float(total / count), rel=1e-5), missing, []]


TRANSLATED = '''
import json, pathlib, sys
from benchmarks import packed
packed.FILE = pathlib.Path(sys.argv[1])
if sys.argv[2] == 'joeynmt':
    sys.argv[1:] = ['1']
    from benchmarks.peers import in_joeynmt
    makers = [in_joeynmt.translate]
else:
    from benchmarks.peers import in_pegasus
    makers = [in_pegasus.generate, in_pegasus.ctranslate]
print(json.dumps([make('some', rows=4, beam=beam, penalty=0.0)[1]['found'] for make in makers for beam in (1, 3)]))
'''


@pytest.mark.parametrize('program', ['pegasus', 'joeynmt'])
def test_with_our_parameters_they_translate_as_we_do(tmp_path, monkeypatch, program):
    model = Transformer(**ours.fields_of('transformer', SHAPE, 'float32'), source_size=40, target_size=40)
    params = initialise(model, 3)
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    params['target_embedding'] = params['target_embedding'].at[items.EOS].multiply(3.0)  # so that some end
    source_BS = items.batches(7, 9, 2, 40, count=1)[0][0]
    monkeypatch.setattr(packed, 'FILE', tmp_path / 'packed.npz')
    packed.Packed('some', {path: np.asarray(value) for path, value in paths(params).items()},
                  sinusoids(12, 16), [row[row != items.PAD] for row in source_BS],
                  dict(width=16, layers=2, heads=2, feedforward=24, words=40, length=12)).write()
    done = subprocess.run([PYTHON, '-c', TRANSLATED, packed.FILE, program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = []
    for decoding in (Decoding(), Decoding(method='beam', beam_size=3, length_penalty=0.0)):
        found = jax.jit(lambda source_BS, by=decoding: search(model, params, source_BS, by, 12))(source_BS)
        expected.append([packed.words_of(np.trim_zeros(row, 'b')) for row in np.asarray(found.tokens_BKT[:, 0])])
    assert len({len(words) for words in expected[0]}) > 1
    assert expected[0] != expected[1]
    theirs = json.loads(done.stdout.splitlines()[-1])
    for found, wanted in zip(theirs, expected * 2):
        # joeynmt and, of CTranslate2, a beam write one word at least.
        assert [a for a, b in zip(found, wanted, strict=True) if b] == [b for b in wanted if b]
