"""Evaluation and prediction of a translation model: loss, decoding and scores, in batches of few shapes."""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from seqjax.data.batches import Batch, Batches, Shape, pad_rows
from seqjax.data.vocabulary import EOS, Ragged
from seqjax.decoding.options import Decoding
from seqjax.decoding.search import search
from seqjax.errors import UserError
from seqjax.tasks import scores
from seqjax.tasks.translation import Codec, Translation


class Hypothesis(NamedTuple):
    """One translation of a sentence, as text and as ids (EOS included), with its length-normalised log probability."""

    text: str
    score: float
    ids: np.ndarray


class Sources(NamedTuple):
    """What a search reads: (B, S) int32, PAD after each, and what each row is called (B,), -1 for a filler."""

    source: np.ndarray
    row: np.ndarray


class Evaluation(NamedTuple):
    """The scores of one split, and the translations behind them."""

    metrics: dict[str, float]
    signatures: dict[str, str]
    hypotheses: list[Hypothesis]

    def table(self) -> str:
        """A score a line, with its signature."""
        return '\n'.join(f'{name:<20} {value:8.3f}   {self.signatures.get(name, "")}'.rstrip()
                         for name, value in self.metrics.items())

    def text(self) -> str:
        """The translations, one a line."""
        return ''.join(f'{one_line(hypothesis.text)}\n' for hypothesis in self.hypotheses)


def one_line(text: str) -> str:
    """`text` with what would end a line, or a field of one, made a space: byte pairs can spell any character."""
    return re.sub('[\\n\\r\\t]', ' ', text)


class Evaluator:
    """Scores and predicts with one model; everything it compiles, it compiles once.

    Args:
      pause: called between batches; may raise to stop early.
      tables: what the learner made of the final parameters, for a model that brings its own search.
    """

    def __init__(self, task: Translation, model: Any, codec: Codec, placement: Any,
                 pause: Callable[[], None] = lambda: None, tables: dict[str, Any] | None = None):
        self.task, self.model, self.codec, self.placement, self.pause = task, model, codec, placement, pause
        self.tables = tables or {}
        self._sums = placement.sums(lambda params, batch: self._all_terms(params, batch))

    def _all_terms(self, params: Any, batch: Any) -> dict:
        objective, report = self.task.loss(self.model, params, batch, None, 0)
        return objective | report

    def max_length(self, decoding: Decoding) -> int:
        """The longest output, in tokens with EOS."""
        return decoding.max_length or self.codec.max_length

    @functools.cached_property
    def _searches(self) -> dict:
        return {}

    def _search(self, decoding: Decoding, room: int) -> Callable:
        key = decoding, room
        if key not in self._searches:
            self._searches[key] = self.placement.rows(lambda params, batch: search(
                self.model, params, batch.source, decoding, self.max_length(decoding), row_B=batch.row, room=room,
                groups=self.placement.rows_at_home))
        return self._searches[key]

    def _share(self, decoding: Decoding) -> slice:
        """The rows of a batch that are this process's."""
        self.placement.check_batch('--decoding.batch_size', decoding.batch_size)
        share = decoding.batch_size // jax.process_count()
        return slice(jax.process_index() * share, (jax.process_index() + 1) * share)

    def batches(self, source: Ragged, target: Ragged, decoding: Decoding) -> Iterator[tuple[np.ndarray, Batch]]:
        """The batches of a split in evaluation order: its rows, and this process's share of them on the devices."""
        mine = self._share(decoding)
        plan = Batches(source, target, decoding.batch_size, self.codec.all_shapes, seed=None)
        for n in range(plan.batches_per_epoch):
            self.pause()
            yield plan.batch(n).row, self.placement.place_batch(plan.batch(n, mine))

    def sources(self, source: Ragged, decoding: Decoding) -> Iterator[tuple[np.ndarray, Sources, Shape]]:
        """Sources in batches on the devices, the shortest first, each in the narrowest shape that holds it: which they
        are, -1 for none, the batch, and its shape.
        """
        size, mine = decoding.batch_size, self._share(decoding)
        order = np.argsort(source.lengths, kind='stable').astype(np.int32)
        for first in range(0, len(order), size):
            self.pause()
            rows = order[first:first + size]
            row_B = np.pad(rows, (0, size - len(rows)), constant_values=-1)
            shape = next(shape for shape in self.codec.search_shapes if shape.source >= source.lengths[rows[-1]])
            batch = Sources(pad_rows(source, row_B[mine], shape.source), row_B[mine])
            yield row_B, self.placement.place_batch(batch), shape

    def losses(self, params: Any, source: Ragged, target: Ragged, decoding: Decoding) -> dict[str, float]:
        """Teacher-forced loss (smoothed as in training), unsmoothed perplexity and accuracy, over every pair."""
        totals = {}
        for _, batch in self.batches(source, target, decoding):
            for name, pair in jax.device_get(self._sums(params, batch)).items():
                totals[name] = totals.get(name, np.zeros(2)) + np.asarray(pair, np.float64)
        means = {name: float(total / count) for name, (total, count) in totals.items()}
        return means | {'perplexity': float(np.exp(min(means['nll'], 700.0)))}

    def decode(self, params: Any, source: Ragged, decoding: Decoding) -> list[list[Hypothesis]]:
        """The n best hypotheses of each source, best first, in the order of the sources.

        Sources of like lengths, which end at about the same time, are searched together, at first with room for as much
        as their targets have in training.
        """
        own = self.model.search(params, self.tables, decoding, self.max_length(decoding))
        if own is not None:
            return [self._hypotheses(own(source.row(row))) for row in self._rows(source.count())]
        found: list = [None] * source.count()
        for row_B, batch, shape in self.sources(source, decoding):
            best = self._search(decoding, shape.target)(params, batch)
            for place in np.flatnonzero(row_B >= 0):
                found[row_B[place]] = self._hypotheses(zip(best.tokens_BKT[place], best.scores_BK[place]))
        return found

    def _hypotheses(self, found: Iterable[tuple[np.ndarray, float]]) -> list[Hypothesis]:
        return [Hypothesis(self.codec.target.decode(ids), float(score), np.trim_zeros(ids, 'b'))
                for ids, score in found]

    def _rows(self, count: int) -> Iterator[int]:
        for row in range(count):
            self.pause()
            yield row

    def evaluate(self, params: Any, text: tuple[list[str], list[str]], ids: tuple[Ragged, Ragged], decoding: Decoding,
                 limit: int | None = None) -> Evaluation:
        """Loss over all pairs, and scores of the decoded text over the first `limit`."""
        metrics = self.losses(params, *ids, decoding)
        source = ids[0] if limit is None else ids[0].take(np.arange(min(limit, ids[0].count())))
        best = [hypotheses[0] for hypotheses in self.decode(params, source, decoding)]
        lines, references = [hypothesis.text for hypothesis in best], text[1][:len(best)]
        values, signatures = scores.summary(lines, references)
        for group, rows in self.task.groups(text[0][:len(best)]).items():
            if rows:
                values[f'exact_match_{group}'] = scores.exact_match([lines[i] for i in rows],
                                                                    [references[i] for i in rows]).value
        own = self.model.search(params, self.tables, decoding, self.max_length(decoding))
        if own is not None:
            values |= own.diagnose([source.row(row) for row in range(source.count())])
        return Evaluation(metrics | values, signatures, best)

    def predict(self, params: Any, lines: Sequence[str], decoding: Decoding) -> list[list[Hypothesis]]:
        """Translations of `lines`. A line that is too long is refused, never cut.

        Raises:
          UserError: the line's number and its length in tokens.
        """
        source = self.codec.source.encode(lines)
        if source.count() and source.lengths.max() > self.codec.max_length:
            row = int(source.lengths.argmax())
            raise UserError(f'line {row + 1} of the input has {source.lengths[row]} tokens with EOS and the model '
                            f'takes {self.codec.max_length}; shorten or split it (--task.max_length is fixed when '
                            'training)')
        found = self.decode(params, source, decoding)
        # A line of nothing is translated by nothing, whatever a model that never saw one would say.
        return [best if line.strip() else [Hypothesis('', 0.0, np.array([EOS]))] for line, best in zip(lines, found)]

    def look_inside(self, params: Any, source: Ragged, hypotheses: Sequence[Hypothesis]) -> dict[str, np.ndarray]:
        """What the model's `capture` returns for these sources and finished hypotheses, as numpy."""
        target = Ragged.of([hypothesis.ids for hypothesis in hypotheses])
        shape = Shape(int(source.lengths.max()), int(target.lengths.max()))
        batch = Batches(source, target, source.count(), [shape], seed=None).batch(0)
        if jax.process_count() > 1:
            params = multihost_utils.process_allgather(params, tiled=True)
        captured = jax.jit(self.model.capture)(jax.device_get(params), batch)
        # float32 whatever the compute dtype: numpy stores bfloat16 as bytes without a meaning.
        return {name: np.asarray(value, np.float32) for name, value in captured.items()}
