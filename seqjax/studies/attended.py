"""What the attention of a trained model is worth: its links against those that are known, and its evidence."""

import numpy as np

from seqjax.data.alignments import align, alignment_error_rate
from seqjax.data.vocabulary import Ragged
from seqjax.studies import evidence
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row
from seqjax.tasks.forced import forced


def first(pairs: tuple[Ragged, Ragged], count: int) -> tuple[Ragged, Ragged]:
    """The first `count` pairs."""
    rows = np.arange(min(count, pairs[0].count()))
    return pairs[0].take(rows), pairs[1].take(rows)


def alignment(subject: Subject, count: int, threshold: float = 0.25) -> Row:
    """Alignment error rates, in percent, of attention on number words, teacher-forced, over the first test pairs.

    'aer': a target word is linked with the source word that has its greatest weight; 'aer_threshold': with all that
    have at least `threshold`.
    """
    task = subject.composed.task
    source, target = first(subject.data.ids['test'], count)
    texts = [side[:count] for side in subject.data.text['test']]
    gold = [align(s, t, task.source, task.target) for s, t in zip(*texts)]
    sure, possible = [a.sure for a in gold], [a.possible for a in gold]
    batch = evidence.batch_of(source, target)
    weights_BTS = np.asarray(subject.model.capture(subject.params, batch)['decoder/cross_attention'])[-1].mean(1)
    cut = {row: weights_BTS[b, :target.lengths[row], :source.lengths[row]] for b, row in enumerate(batch.row)}
    ways = {'aer': evidence.strongest_links, 'aer_threshold': lambda w: evidence.links_above(w, threshold)}
    return {name: 100 * alignment_error_rate([way(cut[i]) for i in range(source.count())], sure, possible)
            for name, way in ways.items()}


def explanation(subject: Subject, count: int) -> Row:
    """Kendall's tau of weights with influence over the first `count` test pairs."""
    found = evidence.influences(subject.model, subject.params, *first(subject.data.ids['test'], count))
    # EOS is left out of both, since a source without its end is none that was trained on.
    weights = [one.weight[:, :-1] for one in found]
    return {'tau_gradient': evidence.rank_correlation(weights, [one.gradient[:, :-1] for one in found]),
            'tau_left_out': evidence.rank_correlation(weights, [one.left_out[:, :-1] for one in found]),
            'tau_influences': evidence.rank_correlation([one.gradient[:, :-1] for one in found],
                                                        [one.left_out[:, :-1] for one in found])}


def intervention(subject: Subject, count: int) -> Row:
    """Exact match, in percent, with weights as they are, permuted among the source's tokens, and made equal."""
    pairs = first(subject.data.ids['test'], count)
    changes = {'plain': None, 'permuted': evidence.permuted, 'evened': evidence.evened}
    return {name: 100 * float(np.mean([one.right.all() for one in forced(
        subject.evaluator, subject.params, *pairs, subject.composed.decoding, change)]))
        for name, change in changes.items()}


def diagonal(subject: Subject, count: int) -> Row:
    """The floor of alignment: each target word is linked with the source word as far along as it is."""
    task = subject.composed.task
    texts = [side[:count] for side in subject.data.text['test']]
    gold = [align(s, t, task.source, task.target) for s, t in zip(*texts)]
    source, target = (side.lengths - 1 for side in first(subject.data.ids['test'], count))
    links = [{(int((t + 0.5) * S / T), t) for t in range(T)} for S, T in zip(source, target)]
    return {'aer': 100 * alignment_error_rate(links, [a.sure for a in gold], [a.possible for a in gold])}
