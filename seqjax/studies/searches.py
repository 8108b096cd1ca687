"""What searches find, against one another and against all that there is to find."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from seqjax.data.vocabulary import EOS, Ragged
from seqjax.decoding.beam import length_penalty
from seqjax.decoding.exhaustive import exhaustive, search_errors
from seqjax.decoding.options import Decoding
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row
from seqjax.studies.timing import alternating
from seqjax.tasks import scores
from seqjax.tasks.evaluation import Hypothesis
from seqjax.tasks.forced import forced


def log_probs(subject: Subject, source: Ragged, found: Sequence[Hypothesis]) -> np.ndarray:
    """log p of each hypothesis, teacher-forced by one program for all searches; -inf for one without an end."""
    target = Ragged.of([h.ids for h in found])
    told = forced(subject.evaluator, subject.params, source, target, subject.composed.decoding)
    return np.array([one.log_prob.sum() if h.ids[-1:].tolist() == [EOS] else -np.inf for one, h in zip(told, found)])


def best_of_all(subject: Subject, source: Ragged, max_length: int, alphas: tuple[float, ...]) -> list[list[Hypothesis]]:
    """For each source, what exhaustive search finds under each length penalty."""
    run = jax.jit(lambda params, source_BS: exhaustive(subject.model, params, source_BS, max_length,
                                                       subject.codec.target.size, alphas))
    found: list[Any] = [None] * source.count()
    empty = Ragged.of([[EOS]] * source.count())
    for rows, batch in subject.evaluator.batches(source, empty, subject.composed.decoding):
        whole = batch.source.reshape(-1, batch.source.shape[-1])  # pmap's batches lead with the device
        best = jax.device_get(run(subject.params, whole))
        for row, tokens_KT, scores_K in zip(rows, best.tokens_BKT, best.scores_BK):
            if row >= 0:
                found[row] = [Hypothesis(subject.codec.target.decode(ids), float(score), np.trim_zeros(ids, 'b'))
                              for ids, score in zip(tokens_KT, scores_K)]
    return found


def compare(subject: Subject, searches: Mapping[str, Decoding], count: int, small: bool, repeats: int) -> list[Row]:
    """A row for each search over the first `count` test sources, and one for exhaustive search where it is possible.

    Args:
      searches: by name; those that are not greedy are beams.
      small: whether everything can be tried. Otherwise the best that any search found stands for the best there is, and
        the search errors are a lower bound.
      repeats: of the times.

    Returns:
      Rows with 'search', 'exact_match' and 'bleu' (percent), 'search_errors' (percent of sources whose hypothesis
      scores less than the best, each by the score that the search itself goes by), 'log_prob' (mean), 'length' (tokens
      over the references'), 'milliseconds' a sentence.
    """
    rows = np.arange(min(count, subject.data.ids['test'][0].count()))
    source, target = (side.take(rows) for side in subject.data.ids['test'])
    references = subject.data.text['test'][1][:len(rows)]
    found = {name: [best[0] for best in subject.evaluator.decode(subject.params, source, decoding)]
             for name, decoding in searches.items()}
    alphas = {name: 0.0 if decoding.method == 'greedy' else decoding.length_penalty
              for name, decoding in searches.items()}
    seconds = alternating({name: lambda decoding=decoding: subject.evaluator.decode(subject.params, source, decoding)
                           for name, decoding in searches.items()}, repeats)
    if small:
        penalties = tuple(sorted(set(alphas.values())))
        best = best_of_all(subject, source, subject.evaluator.max_length(subject.composed.decoding), penalties)
        for i, alpha in enumerate(penalties):
            name = f'exhaustive, penalty {alpha:g}'
            found[name], alphas[name] = [of_source[i] for of_source in best], alpha
    sums = {name: log_probs(subject, source, best) for name, best in found.items()}
    lengths = {name: np.array([len(h.ids) for h in best]) for name, best in found.items()}
    table: list[Row] = []
    for name, best in found.items():
        alpha = alphas[name]
        known = np.stack([sums[other] / length_penalty(lengths[other], alpha) for other in found]).max(axis=0)
        errors = search_errors(sums[name] / length_penalty(lengths[name], alpha), known)
        lines = [h.text for h in best]
        finite = np.isfinite(sums[name])
        row = {'search': name, 'exact_match': scores.exact_match(lines, references).value,
               'bleu': scores.bleu(lines, references).value, 'search_errors': 100 * float(errors.mean()),
               'log_prob': float(sums[name][finite].mean()) if finite.any() else float('nan'),
               'length': float(lengths[name].sum() / target.lengths.sum()), 'penalty': alpha}
        if name in searches:
            row |= {'milliseconds': 1000 * seconds[name].median / len(rows),
                    'beam': 1 if searches[name].method == 'greedy' else searches[name].beam_size}
        table.append(row)
    return table
