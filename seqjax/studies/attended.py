"""What the attention of a trained model is worth: its links against those that are known, and its evidence."""

from collections.abc import Sequence, Set

import jax
import numpy as np

from seqjax.data.alignments import Alignment, Link, alignment_error_rate, crossings
from seqjax.data.vocabulary import Ragged
from seqjax.studies import evidence
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row
from seqjax.tasks.forced import forced

_looks = jax.jit(evidence.looks, static_argnums=0)  # a model is its own configuration: equal ones share the program


def first(pairs: tuple[Ragged, Ragged], count: int) -> tuple[Ragged, Ragged]:
    """The first `count` pairs."""
    rows = np.arange(min(count, pairs[0].count()))
    return pairs[0].take(rows), pairs[1].take(rows)


def known(subject: Subject, split: str, count: int) -> list[Alignment]:
    """The alignments of the first `count` pairs of a split, which the task knows."""
    return [subject.composed.task.alignment(*pair) for pair in zip(*(side[:count]
                                                                     for side in subject.data.text[split]))]


def looks(subject: Subject, split: str, count: int) -> list[np.ndarray]:
    """What every layer and head looks at in each of the first `count` pairs, teacher-forced: (N, H, T, S), EOS last."""
    source, target = first(subject.data.ids[split], count)
    batch = evidence.batch_of(source, target, multiple=8)
    weights_NBHTS = np.asarray(_looks(subject.model, subject.params, batch))
    found: list = [None] * source.count()
    for b, row in enumerate(batch.row):
        found[row] = weights_NBHTS[:, b, :, :target.lengths[row], :source.lengths[row]]
    return found


def error_rate(links: Sequence[Set[Link]], gold: Sequence[Alignment]) -> float:
    """The alignment error rate, in percent."""
    return 100 * alignment_error_rate(links, [a.sure for a in gold], [a.possible for a in gold])


def alignment(subject: Subject, count: int, threshold: float = 0.25) -> Row:
    """Alignment error rates, in percent, of the last layer's attention, teacher-forced, over the first test pairs.

    'aer': a target word is linked with the source word that has its greatest weight; 'aer_threshold': with all that
    have at least `threshold`. Weights are the mean over heads.
    """
    weights, gold = [w[-1].mean(0) for w in looks(subject, 'test', count)], known(subject, 'test', count)
    return {'aer': error_rate([evidence.strongest_links(w) for w in weights], gold),
            'aer_threshold': error_rate([evidence.links_above(w, threshold) for w in weights], gold)}


def and_their_mean(weights_NHTS: np.ndarray) -> np.ndarray:
    """The heads of each layer, and behind the last one their mean."""
    return np.concatenate([weights_NHTS, weights_NHTS.mean(1, keepdims=True)], axis=1)


def best_head(subject: Subject, count: int) -> tuple[int, int]:
    """The layer and head whose strongest links are nearest to what is known of the first validation pairs; the number
    behind the last head's stands for their mean.
    """
    weights, gold = [and_their_mean(w) for w in looks(subject, 'valid', count)], known(subject, 'valid', count)
    layers, heads = weights[0].shape[:2]
    rates = {(n, h): error_rate([evidence.strongest_links(w[n, h]) for w in weights], gold)
             for n in range(layers) for h in range(heads)}
    return min(rates, key=rates.get)


def links(subject: Subject, count: int) -> list[set[Link]]:
    """The links of the first test pairs: those that a statistical system itself has made, or each target word with the
    source word that the best head (or the mean of a layer) looks at most; validation says which that is."""
    if hasattr(subject.model, 'links'):
        params, words = jax.device_get(subject.params), [
            [side.row(i)[:-1] for i in range(side.count())] for side in first(subject.data.ids['test'], count)]
        return [subject.model.links(params, *pair) for pair in zip(*words)]
    layer, head = best_head(subject, count)
    return [evidence.strongest_links(and_their_mean(w)[layer, head]) for w in looks(subject, 'test', count)]


def judged(guessed: Sequence[Set[Link]], gold: Sequence[Alignment]) -> Row:
    """Of links, in percent: 'aer'; 'crossings_found', the pairs of sure links that cross and are among them;
    'crossings_right', their pairs that cross and are sure. NaN where there is none.
    """
    hits = made = there = 0
    for ours, theirs in zip(guessed, gold, strict=True):
        cross, wanted = crossings(ours), crossings(theirs.sure)
        hits, made, there = hits + len(cross & wanted), made + len(cross), there + len(wanted)
    return {'aer': error_rate(guessed, gold), 'crossings_found': 100 * hits / there if there else float('nan'),
            'crossings_right': 100 * hits / made if made else float('nan')}


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


def along_the_diagonal(subject: Subject, count: int) -> list[set[Link]]:
    """Each target word with the source word as far along as it is."""
    source, target = (side.lengths - 1 for side in first(subject.data.ids['test'], count))
    return [{(int((t + 0.5) * S / T), t) for t in range(T)} for S, T in zip(source, target)]


def diagonal(subject: Subject, count: int) -> Row:
    """The floor of alignment."""
    return {'aer': error_rate(along_the_diagonal(subject, count), known(subject, 'test', count))}
