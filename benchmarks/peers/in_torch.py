"""torch's side of `benchmarks/translation.py`: the same models of torch's own parts, with the same parameters."""

import math
import sys

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import items, protocol

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


class Transformer(nn.Module):
    """nn.Transformer, normalised before, one embedding for source, target and output, and sinusoids.

    Its parameters are ours: no biases in attention. So is its dropout, on embeddings and sub-layers, where torch has it
    on attention weights and inside the feed-forward layer besides, which would cost it more.
    """

    def __init__(self, words, width, layers, heads, feedforward, dropout, length):
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        nn.init.normal_(self.embedding.weight, std=width ** -0.5)
        self.stacks = nn.Transformer(width, heads, layers, layers, feedforward, dropout, batch_first=True,
                                     norm_first=True)
        for layer in (*self.stacks.encoder.layers, *self.stacks.decoder.layers):
            for name in ('self_attn', 'multihead_attn'):
                if hasattr(layer, name):
                    setattr(layer, name, nn.MultiheadAttention(width, heads, 0.0, bias=False, batch_first=True))
            layer.dropout = nn.Identity()
        self.dropout, self.scale = nn.Dropout(dropout), math.sqrt(width)
        angle = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
        self.register_buffer('positions', torch.stack([angle.sin(), angle.cos()], 2).flatten(1),
                             persistent=False)
        self.register_buffer('causal', torch.triu(torch.ones(length, length, dtype=torch.bool), 1), persistent=False)

    def embed(self, tokens):
        """(B, T) to (B, T, D)."""
        return self.dropout(self.embedding(tokens) * self.scale + self.positions[:tokens.shape[1]])

    def forward(self, source, tokens):
        """Logits (B, T, V). Padding of the target needs no mask: it comes last."""
        T, padding = tokens.shape[1], source == items.PAD
        x = self.stacks(self.embed(source), self.embed(tokens), tgt_mask=self.causal[:T, :T], tgt_is_causal=True,
                        src_key_padding_mask=padding, memory_key_padding_mask=padding)
        return x @ self.embedding.weight.T


class Attentive(nn.Module):
    """Bahdanau's model of nn.LSTM and nn.LSTMCell, with the additive attention and maxout readout of our `bahdanau`.

    torch's second bias of each gate, which adds nothing to the first, stays 0 and is no parameter.
    """

    def __init__(self, words, width, dropout):
        super().__init__()
        self.source, self.target = nn.Embedding(words, width), nn.Embedding(words, width)
        self.encoder = nn.LSTM(width, width, bidirectional=True, batch_first=True)
        self.cell = nn.LSTMCell(3 * width, width)
        for name, bias in (*self.encoder.named_parameters(), *self.cell.named_parameters()):
            if name.startswith('bias_hh'):
                nn.init.zeros_(bias).requires_grad_(False)
        self.bridge, self.keys = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.query, self.v = nn.Linear(width, width, bias=False), nn.Linear(width, 1, bias=False)
        self.readout, self.output = nn.Linear(4 * width, 2 * width), nn.Linear(width, words)
        self.dropout = nn.Dropout(dropout)

    def forward(self, source, tokens):
        """Logits (B, T, V)."""
        lengths = (source != items.PAD).sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.dropout(self.source(source)), lengths, batch_first=True,
                                                   enforce_sorted=False)
        memory, _ = nn.utils.rnn.pad_packed_sequence(self.encoder(packed)[0], batch_first=True,
                                                     total_length=source.shape[1])
        c, h = torch.tanh(self.bridge(memory[:, 0, memory.shape[2] // 2:])).chunk(2, -1)
        keys, padding = self.keys(memory), source == items.PAD
        embedded = self.dropout(self.target(tokens))
        states, contexts = [], []
        for x in embedded.unbind(1):
            scores = self.v(torch.tanh(self.query(h)[:, None] + keys)).squeeze(-1)
            weights = scores.masked_fill(padding, -math.inf).softmax(-1)
            context = torch.bmm(weights[:, None], memory).squeeze(1)
            h, c = self.cell(torch.cat([x, context], -1), (h, c))
            states.append(h)
            contexts.append(context)
        x = torch.cat([self.dropout(torch.stack(states, 1)), embedded, self.dropout(torch.stack(contexts, 1))], -1)
        x = self.readout(x).unflatten(-1, (-1, 2)).amax(-1)
        return self.output(self.dropout(x))


def training(model, words, rows, source_length, target_length, compiled=False, dtype='float32', **_):
    """Steps of Adam, its fused form, on the mean smoothed cross entropy of the tokens that are no padding."""
    model = model.to(DEVICE).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3, fused=True)
    pairs = items.batches(rows, source_length, target_length, words)
    forward = torch.compile(model) if compiled else model
    told = {'parameters': sum(p.numel() for p in model.parameters() if p.requires_grad)}

    def step(source, target):
        source, target = (torch.from_numpy(x).long().to(DEVICE) for x in (source, target))
        tokens = F.pad(target[:, :-1], (1, 0), value=items.BOS)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == 'bfloat16'):
            logits = forward(source, tokens)
        loss = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), ignore_index=items.PAD,
                               label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def call(times):
        for i in range(times):
            loss = step(*pairs[i % len(pairs)])
        told['loss'] = loss.item()
        return times * items.tokens_of(pairs)

    call(3)
    return call, told


def transformer(width, layers, heads, feedforward, words, dropout, **shape):
    """Steps of nn.Transformer."""
    torch.manual_seed(0)
    return training(Transformer(words, width, layers, heads, feedforward, dropout, 64), words, **shape)


def lstm(width, words, dropout, **shape):
    """Steps of the recurrent model."""
    torch.manual_seed(0)
    return training(Attentive(words, width, dropout), words, **shape)


def products(dtype='float32', **shape):
    """The products of `items.factors` and of their backward passes; the work in FLOPs."""
    torch.manual_seed(0)
    sizes = items.factors(**shape)
    factors = [tuple(torch.randn(*size, dtype=getattr(torch, dtype), device=DEVICE)
                     for size in ((m, k), (k, n), (m, n))) for m, k, n in sizes]

    def call(times):
        for _ in range(times):
            found = [(x @ w, slope @ w.T, x.T @ slope) for x, w, slope in factors]
        found[-1][-1].sum().item()
        return times * 3 * sum(2 * m * k * n for m, k, n in sizes)

    call(3)
    return call, {}


def about():
    """Versions, device and threads."""
    return {'versions': {'torch': torch.__version__}, 'device': 'gpu' if DEVICE == 'cuda' else DEVICE,
            'device_kind': torch.cuda.get_device_name() if DEVICE == 'cuda' else 'cpu',
            'threads': torch.get_num_threads()}


if __name__ == '__main__':
    protocol.only(int(sys.argv[1]))
    torch.set_num_threads(int(sys.argv[1]))
    protocol.serve({'transformer': transformer, 'lstm': lstm, 'products': products}, about)
