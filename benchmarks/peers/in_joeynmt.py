"""joeynmt's side of `benchmarks/translation.py`: its own models, training step and search, on everybody's batches.

joeynmt 2.3.0 is called in the process, without its data loader: from batches of ids on, nothing is left out. The
learning rate is constant: some of its schedules do not go with torch 2.13, and none costs anything in a step.
"""
# ruff: noqa: E402

import importlib.metadata
import pathlib
import sys
import tempfile

import numpy as np
import torch

# joeynmt imports this backport, and does not require it.
sys.modules.setdefault('importlib_metadata', importlib.metadata)
from joeynmt.batch import Batch
from joeynmt.config import parse_global_args
from joeynmt.model import build_model
from joeynmt.search import search
from joeynmt.training import TrainManager
from joeynmt.vocabulary import Vocabulary

from benchmarks import items, packed, protocol


def numbered(ids: np.ndarray) -> torch.Tensor:
    """Our ids as joeynmt's, whose special pieces are unk 0, pad 1, bos 2, eos 3."""
    return torch.from_numpy(np.where(ids < items.WORDS, (ids + 1) % items.WORDS, ids)).long()


def recurrent_config(width, embedding, dropout):
    """The model of joeynmt's configs/rnn_reverse.yaml."""
    side = dict(type='recurrent', rnn_type='lstm', embeddings=dict(embedding_dim=embedding, scale=False),
                hidden_size=width, dropout=dropout, num_layers=1)
    return dict(initializer='xavier_uniform', embed_initializer='normal', embed_init_weight=0.1,
                bias_initializer='zeros', encoder=side | dict(bidirectional=True),
                decoder=side | dict(hidden_dropout=dropout, input_feeding=True, init_hidden='zero', attention='luong',
                                    activation='tanh'))


def transformer_config(width, layers, heads, feedforward, dropout=0.0, norm='pre', **_):
    """An encoder-decoder of these sizes, all embeddings tied."""
    side = dict(type='transformer', num_layers=layers, num_heads=heads, hidden_size=width, ff_size=feedforward,
                embeddings=dict(embedding_dim=width, scale=True), dropout=dropout, layer_norm=norm)
    return dict(initializer='xavier_uniform', embed_initializer='xavier_uniform', bias_initializer='zeros',
                tied_embeddings=True, tied_softmax=True, encoder=side, decoder=side)


def parsed(config: dict, words: int, **training) -> tuple:
    """joeynmt's own arguments for a run, and its model with vocabularies of `words` pieces."""
    folder = pathlib.Path(tempfile.mkdtemp())
    args = parse_global_args(dict(
        name='benchmark', model_dir=str(folder), use_cuda=torch.cuda.is_available(), data={}, model=config,
        testing={}, training=dict(learning_rate=1e-3, scheduling='exponential', normalization='tokens',
                                  batch_size=1) | training))
    torch.manual_seed(0)
    vocabularies = [Vocabulary([f'w{i}' for i in range(words - items.WORDS)], args.data['special_symbols'])
                    for _ in range(2)]
    model = build_model(args.model, *vocabularies).to(args.device)
    model.loss_function = ('crossentropy', args.train.label_smoothing)
    return args, model


def batch_of(source: np.ndarray, target: np.ndarray | None, device: torch.device) -> Batch:
    """A batch of joeynmt's."""
    if target is not None:
        target = numbered(np.pad(target, ((0, 0), (1, 0)), constant_values=items.BOS))
    return Batch(numbered(source), torch.from_numpy((source != items.PAD).sum(1)), None, target, None,
                 torch.arange(len(source)), device, pad_index=1, eos_index=3, is_train=target is not None)


def training(args, model, words, rows, source_length, target_length, threads=None):
    """What joeynmt's TrainManager does between one batch and the next; by default with all threads."""
    manager = TrainManager(0, model, args.model_dir, args.device, autocast=args.autocast, train_args=args.train,
                           dev_args=args.test)
    pairs = items.batches(rows, source_length, target_length, words)
    told = {'parameters': sum(p.numel() for p in model.parameters() if p.requires_grad)}

    def call(times):
        torch.set_num_threads(threads or int(sys.argv[1]))
        model.train()
        model.zero_grad()
        for i in range(times):
            loss, _ = manager._train_step(batch_of(*pairs[i % len(pairs)], args.device))
            if manager.clip_grad_fun is not None:
                manager.clip_grad_fun(parameters=model.parameters())
            manager.optimizer.step()
            model.zero_grad()
        told['loss'] = loss
        return times * items.tokens_of(pairs)

    call(3)
    return call, told


def recurrent(width, embedding, words, dropout, **shape):
    """Steps of the reverse task's recipe."""
    args, model = parsed(recurrent_config(width, embedding, dropout), words, optimizer='adamw', clip_grad_norm=1.0)
    return training(args, model, words, **shape)


def transformer(words, rows, source_length, target_length, **sizes):
    """Steps of a Transformer."""
    args, model = parsed(transformer_config(**sizes), words, optimizer='adam', label_smoothing=0.1)
    return training(args, model, words, rows, source_length, target_length)


def decode(words, rows, source_length, target_length, beam, **sizes):
    """Its search, which may not end before `target_length` tokens."""
    args, model = parsed(transformer_config(**sizes, norm='post'), words)
    model.eval()
    (source, _), = items.batches(rows, source_length, 2, words, 1)

    def call(times):
        for _ in range(times):
            found, _, _ = search(model, batch_of(source, None, args.device), target_length, beam, 0.6,
                                 min_output_length=target_length)
        return times * rows if found.shape == (rows, target_length) else 0

    call(1)
    return call, {'parameters': sum(p.numel() for p in model.parameters())}


def translate(run, rows, beam, penalty):
    """Its search of all sentences with our trained parameters, batch after batch, to where the model ends them."""
    found = packed.Packed.read(run)
    sizes = {name: found.sizes[name] for name in ('width', 'layers', 'heads', 'feedforward')}
    args, model = parsed(transformer_config(**sizes), found.sizes['words'])
    state = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in packed.for_joeynmt(found).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any('pe.pe' not in name for name in missing):
        raise ValueError(f'no parameters for {missing}, no place for {unexpected}')
    model.eval()
    batches, written = found.batches(rows, by_length=False), [None] * len(found.sources)

    def call(times):
        for _ in range(times):
            for places in batches:
                best, _, _ = search(model, batch_of(found.padded(places), None, args.device), found.sizes['length'],
                                    beam, penalty)
                for place, ids in zip(places, best):
                    written[place] = np.where(ids < items.WORDS, (ids - 1) % items.WORDS, ids)
        return times * len(written)

    call(1)
    return call, {'parameters': sum(p.numel() for p in model.parameters()),
                  'found': [packed.words_of(ids) for ids in written]}


def about():
    """Versions, device and threads."""
    versions = {name: importlib.metadata.version(name) for name in ('joeynmt', 'torch')}
    device = 'gpu' if torch.cuda.is_available() else 'cpu'
    return {'versions': versions, 'device': device, 'device_kind': device, 'threads': torch.get_num_threads()}


if __name__ == '__main__':
    protocol.only(int(sys.argv[1]))
    torch.set_num_threads(int(sys.argv[1]))
    protocol.serve({'recurrent': recurrent, 'transformer': transformer, 'decode': decode,
                    'translate': translate}, about)
