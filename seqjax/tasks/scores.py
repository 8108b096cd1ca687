"""Scores of finished outputs against references, on the host, each with the signature that makes it comparable."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from seqjax.errors import UserError


class Score(NamedTuple):
    """A number, and how it was computed: without the second, the first compares with nothing (Post 2018)."""

    value: float
    signature: str


def bleu(hypotheses: Sequence[str], references: Sequence[str], lowercase: bool = False,
         tokenize: str = '13a') -> Score:
    """Corpus BLEU in percent (Papineni et al. 2002) by sacreBLEU. tokenize='none' is for text that already is."""
    _check(hypotheses, references)
    # `force` silences a warning about tokenised text where text is meant to be tokenised.
    metric = BLEU(lowercase=lowercase, tokenize=tokenize, force=tokenize == 'none')
    value = metric.corpus_score(hypotheses, [references]).score
    return Score(value, f'BLEU|{metric.get_signature()}')


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Corpus chrF2 in percent (Popovic 2015): character 6-grams, recall weighted twice, by sacreBLEU."""
    _check(hypotheses, references)
    metric = CHRF()
    value = metric.corpus_score(hypotheses, [references]).score
    return Score(value, f'chrF2|{metric.get_signature()}')


def exact_match(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Percent of hypotheses that are their reference, character for character."""
    _check(hypotheses, references)
    value = 100.0 * sum(h == r for h, r in zip(hypotheses, references)) / len(references)
    return Score(value, 'exact_match|nrefs:1|case:mixed|tok:none')


def summary(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[dict[str, float], dict[str, str]]:
    """The scores of a test set by name, and their signatures under the same names."""
    scores = {
        'bleu': bleu(hypotheses, references),
        'bleu_lowercase': bleu(hypotheses, references, lowercase=True),
        'chrf': chrf(hypotheses, references),
        'exact_match': exact_match(hypotheses, references),
    }
    return ({name: score.value for name, score in scores.items()},
            {name: score.signature for name, score in scores.items()})


class Bootstrap(NamedTuple):
    """How sure a difference in BLEU between two systems is."""

    difference: float  # BLEU of b minus BLEU of a, on the whole test set
    p_value: float  # of so large a difference, either way, if the systems were equal
    low: float  # 95 % interval of the difference
    high: float
    b_better: float  # share of the resampled test sets on which b is strictly better (Koehn 2004)


class Resampled(NamedTuple):
    """BLEU of a system on a test set, and on test sets of as many sentences drawn from it with replacement."""

    value: float
    values: np.ndarray  # (samples,)


def resampled(hypotheses: Sequence[str], references: Sequence[str], seed: int = 0, samples: int = 1000,
              lowercase: bool = False) -> Resampled:
    """BLEU on resampled test sets (Koehn 2004); equal seeds draw the same sentences for every system."""
    _check(hypotheses, references)
    if samples < 1:
        raise UserError(f'samples={samples}: a bootstrap needs at least one resampled test set; 1000 are usual')
    statistics, n = _bleu_statistics(hypotheses, references, lowercase), len(references)
    indices = np.random.default_rng(seed).choice(n, size=(samples, n), replace=True)
    times = np.stack([np.bincount(row, minlength=n) for row in indices])
    return Resampled(_bleu_of(statistics.sum(axis=0)), np.array([_bleu_of(total) for total in times @ statistics]))


def paired(a: Resampled, b: Resampled) -> Bootstrap:
    """The difference of two systems on the same resampled test sets.

    The p-value centres the resampled differences (Riezler and Maxwell 2005), as sacreBLEU's does: the share of
    |d*| - mean |d*| above |d|, with one added to both counts, so it is never 0.
    """
    differences, difference = b.values - a.values, b.value - a.value
    sizes = np.abs(differences)
    extreme = (sizes - sizes.mean() > abs(difference)).sum()
    low, high = np.percentile(differences, [2.5, 97.5])
    return Bootstrap(difference, float((extreme + 1) / (len(differences) + 1)), float(low), float(high),
                     float((differences > 0).mean()))


def paired_bootstrap(a: Sequence[str], b: Sequence[str], references: Sequence[str], seed: int = 0,
                     samples: int = 1000, lowercase: bool = False) -> Bootstrap:
    """Paired bootstrap resampling of two systems' outputs: `paired`, of what `resampled` draws for both."""
    return paired(*(resampled(system, references, seed, samples, lowercase) for system in (a, b)))


def aer(sure: Sequence[Collection[tuple[int, int]]], possible: Sequence[Collection[tuple[int, int]]],
        predicted: Sequence[Collection[tuple[int, int]]]) -> float:
    """Alignment error rate, 1 - (|A & S| + |A & P|) / (|A| + |S|), over a corpus (Och and Ney 2003, section 6).

    Args:
      sure, possible, predicted: S, P and A; for each sentence pair its links, (source, target) positions. Sure links
        are possible ones whether listed so or not.
    """
    if not len(sure) == len(possible) == len(predicted):
        raise UserError(f'alignments of {len(sure)} sure, {len(possible)} possible and {len(predicted)} predicted '
                        f'sentences: give one of each for every sentence pair')
    hits = links = 0
    for sure_links, possible_links, links_found in zip(sure, possible, predicted):
        s, a = set(sure_links), set(links_found)
        hits += len(a & s) + len(a & (s | set(possible_links)))
        links += len(a) + len(s)
    if not links:
        raise UserError('no sure and no predicted links: an alignment error rate of nothing is undefined; check the '
                        'alignment files')
    return 1.0 - hits / links


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if not hypotheses:
        raise UserError('0 hypotheses: the score of nothing is undefined; give at least one sentence')
    if len(hypotheses) != len(references):
        raise UserError(f'{len(hypotheses)} hypotheses for {len(references)} references: give one hypothesis a '
                        f'reference, in the same order')


def _bleu_statistics(hypotheses: Sequence[str], references: Sequence[str], lowercase: bool) -> np.ndarray:
    """Sums of these over sentences give corpus BLEU: lengths, matches and n-grams; int64 (sentences, 10)."""
    # effective_order changes no count; it tells sacreBLEU that one sentence is meant.
    metric = BLEU(lowercase=lowercase, effective_order=True, force=True)
    scores = [metric.sentence_score(h, [r]) for h, r in zip(hypotheses, references)]
    return np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores], np.int64)


def _bleu_of(total: np.ndarray) -> float:
    """BLEU with sacreBLEU's default smoothing, of summed statistics."""
    return BLEU.compute_bleu(correct=total[2:6].tolist(), total=total[6:].tolist(), sys_len=int(total[0]),
                             ref_len=int(total[1]), smooth_method='exp').score
