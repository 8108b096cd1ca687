"""Translation: from one sequence to another. Vocabularies, loss, and what a corpus must provide."""

import dataclasses
import functools
import hashlib
import json
import operator
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from seqjax.data.batches import Shape, choose_shapes
from seqjax.data.vocabulary import BOS, PAD, Ragged, Vocabulary
from seqjax.errors import UserError
from seqjax.layers.unpadding import Sides, unpad, unpadding
from seqjax.options import option
from seqjax.tasks.losses import cross_entropy, divergence, observed
from seqjax.tasks.scheduled_sampling import ScheduledSampling

Text = tuple[list[str], list[str]]  # sources and targets, line by line
DRAWS = 8  # encodings of the training split by BPE-dropout


@dataclasses.dataclass(frozen=True)
class Codec:
    """What turns text into batches and back, stored with the run: two vocabularies and the shapes of batches."""

    source: Vocabulary
    target: Vocabulary
    shapes: tuple[Shape, ...]  # of training; the last has room for nothing longer than the training split holds
    max_length: int  # tokens with EOS, either side
    length_ratio: float = 1.0  # target tokens for each source token of the training split, EOS counted on both sides

    @property
    def all_shapes(self) -> tuple[Shape, ...]:
        """The shapes of training, and one that holds everything the task admits."""
        longest = Shape(self.max_length, self.max_length)
        return self.shapes if longest in self.shapes else (*self.shapes, longest)

    @property
    def search_shapes(self) -> tuple[Shape, ...]:
        """Those that searches are compiled for: of each two of training's the wider, and the one for everything. A
        search is longer to compile than a step, and pays less for width: it ends when its rows do.
        """
        return tuple(shape for shape in self.all_shapes if shape not in self.shapes[-2::-2])

    def to_json(self) -> dict[str, Any]:
        """A JSON value from which `from_json` makes an equal codec."""
        return dict(source=json.loads(self.source.to_json()), target=json.loads(self.target.to_json()),
                    shapes=self.shapes, max_length=self.max_length, length_ratio=self.length_ratio)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> 'Codec':
        """The inverse of `to_json`."""
        return cls(Vocabulary.from_json(json.dumps(value['source'])), Vocabulary.from_json(json.dumps(value['target'])),
                   tuple(Shape(*shape) for shape in value['shapes']), value['max_length'],
                   value.get('length_ratio', 1.0))  # runs from before it was measured go on


@dataclasses.dataclass(frozen=True)
class Data:
    """The splits of a corpus as text and as ids."""

    text: dict[str, Text]
    ids: dict[str, tuple[Ragged, Ragged]]
    codec: Codec
    sha256: str  # of the text of all splits
    notes: tuple[str, ...] = ()  # what was left out of the training split, and why


@dataclasses.dataclass(frozen=True)
class Translation(ScheduledSampling):
    """A parallel corpus to learn from. Subclasses say where its splits come from (`splits`)."""

    vocabulary: Literal['word', 'char', 'bpe'] = option('word', 'pieces of text: words, characters or byte pairs')
    vocabulary_size: int | None = option(None, 'most pieces of a vocabulary; none: all (not for bpe)', at_least=5)
    min_frequency: int = option(1, 'pieces seen less often in training are unknown', at_least=1)
    joint_vocabulary: bool = option(False, 'one vocabulary for both sides')
    lowercase: bool = option(False, 'read and write lower case only')
    bpe_dropout: float = option(0.0, 'probability that training passes over a merge of byte pairs: epochs read eight '
                                     'encodings in turn', at_least=0.0, below=1.0, when={'vocabulary': ('bpe',)})
    max_length: int = option(64, 'longest sentence, tokens with EOS: longer training pairs are left out, longer '
                                 'input is refused', at_least=2)
    buckets: int = option(2, 'shapes of batches, each compiled once', at_least=1)
    label_smoothing: float = option(0.0, 'probability spread evenly over the vocabulary', at_least=0.0, below=1.0)
    rdrop: float = option(0.0, 'R-Drop: the weight alpha of the divergence between two passes that dropout makes '
                               'differ; 0: one pass', at_least=0.0)
    metric: Literal['bleu', 'bleu_lowercase', 'chrf', 'exact_match', 'loss'] = option(
        'bleu', 'validation score that says which checkpoint is best')
    valid_sentences: int | None = option(None, 'validation sentences decoded at each evaluation; none: all', at_least=1)

    def splits(self) -> dict[str, Text]:
        """The text of 'train', 'valid' and 'test', from wherever it comes."""
        raise TypeError(f'{type(self).__name__} says nothing of where its text comes from')

    def groups(self, sources: list[str]) -> dict[str, list[int]]:
        """Subsets of an evaluation split that are scored apart as well, by name; none unless a task says so."""
        return {}

    def prepare(self, codec: Codec | None = None) -> Data:
        """Reads the splits; learns vocabularies and shapes on the training split unless a run's `codec` is given.

        Raises:
          UserError: nothing to train on, or an evaluation sentence longer than max_length (none is ever dropped).
        """
        text = self.splits()
        sha256 = hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()
        notes = []
        if codec is None:
            source, target = self.learn(*text['train'])
        else:
            source, target = codec.source, codec.target
        ids = {name: (source.encode(sources), target.encode(targets)) for name, (sources, targets) in text.items()}
        for name, (sources, targets) in ids.items():
            longest = [max(s, t) for s, t in zip(sources.lengths, targets.lengths)]
            if name == 'train':
                keep = [n <= self.max_length for n in longest]
                if not all(keep):
                    notes.append(f'left out {keep.count(False)} of {len(keep)} training pairs, of more than '
                                 f'--task.max_length={self.max_length} tokens')
                    ids[name] = tuple(side.take(keep) for side in ids[name])
                    text[name] = tuple([line for line, k in zip(side, keep) if k] for side in text[name])
            elif longest and max(longest) > self.max_length:
                row = longest.index(max(longest))
                raise UserError(f'pair {row + 1} of the {name} split has {longest[row]} tokens, more than '
                                f'--task.max_length={self.max_length}; raise it, for evaluation leaves nothing out')
        if not ids['train'][0].count():
            raise UserError(f'no pair of the training split fits --task.max_length={self.max_length}; raise it')
        if codec is None:
            lengths = [side.lengths for side in ids['train']]
            shapes = choose_shapes(*lengths, count=self.buckets, longest=self.max_length)
            codec = Codec(source, target, shapes, self.max_length, float(lengths[1].sum() / lengths[0].sum()))
        return Data(text, ids, codec, sha256, tuple(notes))

    def learn(self, sources: list[str], targets: list[str]) -> tuple[Vocabulary, Vocabulary]:
        """Vocabularies of both sides, from the training split alone."""
        sides = [sources + targets] if self.joint_vocabulary else [sources, targets]
        learned = [Vocabulary.learn(side, self.vocabulary, self.vocabulary_size, self.min_frequency, self.lowercase)
                   for side in sides]
        return learned[0], learned[-1]

    def encodings(self, data: Data, seed: int) -> list[tuple[Ragged, Ragged]]:
        """What training reads, an epoch each and from the first of them again: the split as it is, or with BPE-dropout
        (Provilkov et al. 2020) `DRAWS` encodings of it. A row that has more than max_length tokens in one is as it is.
        """
        plain = data.ids['train']
        if not self.bpe_dropout:
            return [plain]
        vocabularies = data.codec.source, data.codec.target
        sides = [vocabulary.redraw(text, self.bpe_dropout, DRAWS, (seed, i))
                 for i, (vocabulary, text) in enumerate(zip(vocabularies, data.text['train']))]
        return [tuple(drawn.where(drawn.lengths <= data.codec.max_length, whole) for drawn, whole in zip(pair, plain))
                for pair in zip(*sides)]

    def sizes(self, codec: Codec) -> dict[str, int]:
        """The fields of a model that only the data tells."""
        return dict(source_size=codec.source.size, target_size=codec.target.size, source_length=codec.max_length,
                    target_length=codec.max_length, length_ratio=codec.length_ratio)

    def loss(self, model: Any, params: Any, batch: Any, rng: jax.Array | None, step: Any) -> tuple[dict, dict]:
        """Cross entropy: what is optimised, and what is only reported, as {term: (sum, count)}.

        The decoder reads the true words, but for those that scheduled sampling replaces in training (`rng` is given).
        Where the batch says what room its tokens need, padding is left out. With R-Drop training makes two passes,
        whose cross entropies are added up, and 'rdrop' is optimised besides: alpha / 2 times how far they lie apart
        (half of Liang et al. 2021, equation 4).
        """
        # In training batch normalisation looks at the batch, and says what it saw; in evaluation it does not.
        by = None if batch.room is None else Sides(
            unpadding(batch.source != PAD, batch.room.source), unpadding(batch.target != PAD, batch.room.target))
        target_BT, weight_B = batch.target, batch.weight
        if by is not None:  # tokens side by side are rows of one token each
            weight_B = unpad(jnp.broadcast_to(weight_B[:, None], target_BT.shape), by.target)
            target_BT = unpad(target_BT, by.target)[:, None]
        keys = jax.random.split(rng) if self.rdrop and rng is not None else [rng]
        said, reports = zip(*(self.one_pass(model, params, batch, key, step, by) for key in keys))
        losses = [cross_entropy(logits_BTV, target_BT, weight_B, self.label_smoothing) for logits_BTV in said]
        objective, report = _totalled(losses)
        if len(said) > 1:
            apart, count = divergence(*said, target_BT, weight_B)
            objective['rdrop'] = (self.rdrop / 2 * apart, count)
        return objective, report | _totalled(reports)

    def one_pass(self, model: Any, params: Any, batch: Any, rng: jax.Array | None, step: Any, by: Sides | None
                 ) -> tuple[jax.Array, dict]:
        """Logits (B, T, V), or (N, 1, V) without padding, and what else the model tells."""
        tokens_BT = jnp.pad(batch.target[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)
        rngs, revision, forcing = None if rng is None else {'dropout': rng}, (), {}
        if rng is not None and self.sampling != 'none':
            revise, forcing = self.revision(model, params, batch, rng, step)
            revision = (revise,)
        logits_BTV, seen = model.apply({'params': params}, batch.source, tokens_BT, *revision, by=by, rngs=rngs,
                                       mutable=[] if rng is None else ['statistics'])
        return logits_BTV if by is None else logits_BTV[:, None], forcing | observed(seen)


def _totalled(terms: Sequence[Any]) -> Any:
    """The sums and counts of all passes together."""
    return jax.tree.map(lambda *parts: functools.reduce(operator.add, parts), *terms)
