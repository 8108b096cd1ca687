"""A trained Transformer for programs that know nothing of seqjax: its parameters under their names. Needs numpy alone.

What is packed is one file, which every side of an item reads. Ids: pad 0, bos 1, eos 2, unk 3.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import items

FILE = pathlib.Path(__file__).resolve().parents[1] / '.cache' / 'packed.npz'


class Packed(NamedTuple):
    """A run's parameters by their paths, the positions that it adds, sentences to translate, and sizes."""

    run: str  # its folder, as the command named it
    parameters: dict[str, np.ndarray]
    positions: np.ndarray  # (length, width)
    sources: list[np.ndarray]  # ids, EOS at the end
    sizes: dict[str, int]  # width, layers, heads, feedforward, words, length

    def write(self) -> None:
        """What `read` reads."""
        FILE.parent.mkdir(parents=True, exist_ok=True)
        ends = np.cumsum([len(ids) for ids in self.sources])
        parameters = {f'parameters/{path}': value for path, value in self.parameters.items()}
        np.savez(FILE, run=self.run, positions=self.positions, sources=np.concatenate(self.sources), ends=ends,
                 sizes=json.dumps(self.sizes), **parameters)

    @classmethod
    def read(cls, run: str) -> 'Packed':
        """What `write` wrote.

        Raises:
          ValueError: nothing was written, or another run.
        """
        if FILE.exists():
            with np.load(FILE) as found:
                if str(found['run']) == run:
                    parameters = {name.partition('/')[2]: found[name] for name in found if name.startswith('param')}
                    return cls(run, parameters, found['positions'], np.split(found['sources'], found['ends'][:-1]),
                               json.loads(str(found['sizes'])))
        raise ValueError(f'{run} was not packed: our side, which does it, failed or was left out')

    def batches(self, rows: int, by_length: bool) -> list[np.ndarray]:
        """Places of the sentences, so many a batch, in their order or the shortest first."""
        lengths = np.array([len(ids) for ids in self.sources])
        order = np.argsort(lengths, kind='stable') if by_length else np.arange(len(lengths))
        return np.split(order, range(rows, len(order), rows))

    def padded(self, places: Sequence[int]) -> np.ndarray:
        """The sentences at these places, (rows, the longest of them), padded with 0."""
        rows = [self.sources[place] for place in places]
        return np.stack([np.pad(ids, (0, max(map(len, rows)) - len(ids))) for ids in rows])


def words_of(ids: Sequence[int]) -> list[int]:
    """What stands before the first EOS, as a list for JSON."""
    ids = [int(i) for i in ids]
    return ids[:ids.index(items.EOS)] if items.EOS in ids else ids


def layer(p: Mapping[str, np.ndarray], side: str, n: int) -> dict[str, Any]:
    """Layer n of a side as torch's modules have it: kernels turned, and (query, key, value, output) of an attention."""
    def norm(sublayer):
        return {name: p[f'{side}/{sublayer}_residual/norm/{ours}'][n]
                for name, ours in (('weight', 'scale'), ('bias', 'bias'))}

    def linear(part):
        return {'weight': p[f'{side}/feedforward/{part}/kernel'][n].T, 'bias': p[f'{side}/feedforward/{part}/bias'][n]}

    qkv = p[f'{side}/self_attention/query_key_value'][n]
    found = {'self': [*(qkv[:, i].T for i in range(3)), p[f'{side}/self_attention/output'][n].T],
             'self norm': norm('self_attention'), 'expand': linear('expand'), 'contract': linear('contract'),
             'feedforward norm': norm('feedforward')}
    if side == 'decoder':
        keys_values = p['memory/key_value'][:, n]
        found['cross'] = [p['decoder/cross_attention/query'][n].T, *(keys_values[:, i].T for i in range(2)),
                          p['decoder/cross_attention/output'][n].T]
        found['cross norm'] = norm('cross_attention')
    return found


def named(packed: Packed, names: Mapping[str, str], attention: Sequence[str]) -> dict[str, np.ndarray]:
    """Parameters under another program's names; biases of attention, which ours has not, are 0.

    Args:
      names: what stands for each part of a layer, and for the 'norm' at a side's end; those of an encoder's may differ
        and are then under 'encoder PART'.
      attention: the names of the query, key, value and output within an attention.
    """
    state = {}
    for side in ('encoder', 'decoder'):
        for n in range(packed.sizes['layers']):
            for part, found in layer(packed.parameters, side, n).items():
                at = names['layer'].format(side=side, n=n) + names.get(f'{side} {part}', names.get(part, ''))
                if isinstance(found, dict):
                    state |= {f'{at}.{name}': value for name, value in found.items()}
                    continue
                for name, weight in zip(attention, found):
                    state |= {f'{at}.{name}.weight': weight, f'{at}.{name}.bias': np.zeros(len(weight), np.float32)}
        for name, ours in (('weight', 'scale'), ('bias', 'bias')):
            state[f'{names["norm"].format(side=side)}.{name}'] = packed.parameters[f'{side}_norm/{ours}']
    return state


def for_pegasus(packed: Packed) -> dict[str, np.ndarray]:
    """The state of a PegasusForConditionalGeneration, Hugging Face's Transformer that normalises before sub-layers."""
    names = {'layer': 'model.{side}.layers.{n}.', 'norm': 'model.{side}.layer_norm', 'self': 'self_attn',
             'self norm': 'self_attn_layer_norm', 'cross': 'encoder_attn', 'cross norm': 'encoder_attn_layer_norm',
             'expand': 'fc1', 'contract': 'fc2', 'feedforward norm': 'final_layer_norm'}
    table = packed.parameters['target_embedding']
    return named(packed, names, ('q_proj', 'k_proj', 'v_proj', 'out_proj')) | {
        name: table for name in ('model.shared.weight', 'model.encoder.embed_tokens.weight',
                                 'model.decoder.embed_tokens.weight', 'lm_head.weight')}


def for_joeynmt(packed: Packed) -> dict[str, np.ndarray]:
    """The state of joeynmt's Transformer, whose special pieces are unk 0, pad 1, bos 2, eos 3."""
    names = {'layer': '{side}.layers.{n}.', 'norm': '{side}.layer_norm', 'encoder self': 'src_src_att',
             'decoder self': 'trg_trg_att', 'encoder self norm': 'layer_norm', 'decoder self norm': 'x_layer_norm',
             'cross': 'src_trg_att', 'cross norm': 'dec_layer_norm', 'expand': 'feed_forward.pwff_layer.0',
             'contract': 'feed_forward.pwff_layer.3', 'feedforward norm': 'feed_forward.layer_norm'}
    table = packed.parameters['target_embedding'].copy()
    table[[1, 2, 3, 0]] = table[:4].copy()
    return named(packed, names, ('q_layer', 'k_layer', 'v_layer', 'output_layer')) | {
        name: table for name in ('src_embed.lut.weight', 'trg_embed.lut.weight', 'decoder.output_layer.weight')}
