"""Scores against sacreBLEU itself, by hand, and by their properties."""

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from seqjax.errors import UserError
from seqjax.tasks.scores import Score, aer, bleu, chrf, exact_match, paired_bootstrap, resampled, summary

REFERENCES = ['A man in an orange hat starring at something.',
              'A Boston Terrier is running on lush green grass.',
              'A girl in karate uniform breaking a stick with a front kick.',
              'Five people wearing winter jackets stand.', 'People are fixing the roof of a house.',
              'A man in light colored clothing photographs a group of men.']
HYPOTHESES = ['A man in an orange hat looking at something.', 'A boston terrier is running on the green grass.',
              'A girl in a karate uniform breaks a stick with a kick.', 'Five people wearing winter jackets stand.',
              'People fix the roof of a house .', '']


def test_values_are_sacrebleus():
    assert bleu(HYPOTHESES, REFERENCES).value == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    lower = bleu(HYPOTHESES, REFERENCES, lowercase=True)
    assert lower.value == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], lowercase=True).score
    assert lower.value > bleu(HYPOTHESES, REFERENCES).value
    tokens = bleu(HYPOTHESES, REFERENCES, tokenize='none')
    assert tokens.value == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], tokenize='none', force=True).score
    assert chrf(HYPOTHESES, REFERENCES).value == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score


def test_signatures_say_how():
    version = f'version:{sacrebleu.__version__}'
    assert bleu(HYPOTHESES, REFERENCES).signature == f'BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{version}'
    lower = bleu(HYPOTHESES, REFERENCES, lowercase=True, tokenize='none').signature
    assert lower == f'BLEU|nrefs:1|case:lc|eff:no|tok:none|smooth:exp|{version}'
    assert chrf(HYPOTHESES, REFERENCES).signature == f'chrF2|nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}'


def test_bleu_by_hand():
    # the cat sat on the red mat / the cat sat on the mat: matches 6/7, 4/6, 3/5, 2/4; no brevity penalty.
    value = bleu(['the cat sat on the red mat'], ['the cat sat on the mat']).value
    np.testing.assert_allclose(value, 100 * (6 / 7 * 4 / 6 * 3 / 5 * 2 / 4) ** 0.25, rtol=1e-9)
    # Five words of six, all matching: only the brevity penalty, exp(1 - 6/5).
    value = bleu(['the cat sat on the'], ['the cat sat on the mat']).value
    np.testing.assert_allclose(value, 100 * np.exp(-0.2), rtol=1e-9)


def test_exact_match_is_percent():
    score = exact_match(['7', '12', '3 1'], ['7', '13', '31'])
    assert score == Score(100 / 3, 'exact_match|nrefs:1|case:mixed|tok:none')
    assert exact_match(['a'], ['A']).value == 0


def test_summary_names_and_signs_every_score():
    values, signatures = summary(HYPOTHESES, REFERENCES)
    expected = {'bleu': bleu(HYPOTHESES, REFERENCES), 'bleu_lowercase': bleu(HYPOTHESES, REFERENCES, lowercase=True),
                'chrf': chrf(HYPOTHESES, REFERENCES), 'exact_match': exact_match(HYPOTHESES, REFERENCES)}
    assert values == {name: score.value for name, score in expected.items()}
    assert signatures == {name: score.signature for name, score in expected.items()}
    perfect, _ = summary(REFERENCES, REFERENCES)
    np.testing.assert_allclose(list(perfect.values()), 100.0)


@pytest.mark.parametrize('score', [bleu, chrf, exact_match, summary, lambda h, r: paired_bootstrap(h, h, r)])
def test_lists_that_cannot_be_scored_are_refused(score):
    with pytest.raises(UserError, match='0 hypotheses'):
        score([], [])
    with pytest.raises(UserError, match='2 hypotheses for 3 references'):
        score(['a', 'b'], ['a', 'b', 'c'])


def systems(n=60, seed=0):
    """Three systems on n sentences: each spoils some words of the reference, the third more of them."""
    rng = np.random.default_rng(seed)
    words = ['a', 'the', 'man', 'dog', 'runs', 'on', 'grass', 'red', 'hat', 'house', 'of', 'men']
    references = [' '.join(rng.choice(words, 12)) for _ in range(n)]

    def spoil(rate):
        return [' '.join('x' if rng.random() < rate else w for w in line.split()) for line in references]

    return references, spoil(0.10), spoil(0.10), spoil(0.3)


def test_bootstrap_agrees_with_sacrebleus(monkeypatch):
    monkeypatch.setenv('SACREBLEU_SEED', '12345')
    references, a, b, c = systems()
    test = PairedTest([('a', a), ('b', b), ('c', c)], {'BLEU': BLEU()}, [references], 'bs', n_samples=300)
    results = dict(zip('abc', test()[1]['BLEU']))
    for name, system in (('b', b), ('c', c)):
        ours = paired_bootstrap(a, system, references, seed=12345, samples=300)
        assert ours.p_value == pytest.approx(results[name].p_value, abs=1e-12)
        assert ours.difference == pytest.approx(results[name].score - results['a'].score, abs=1e-9)


@pytest.mark.parametrize('lowercase', [False, True])
def test_resampled_test_sets_are_scored_as_the_whole(lowercase):
    """Each is sacreBLEU's of the lines that its seed draws, in either case."""
    found = resampled(HYPOTHESES, REFERENCES, seed=3, samples=4, lowercase=lowercase)
    assert found.value == pytest.approx(bleu(HYPOTHESES, REFERENCES, lowercase).value)
    drawn = np.random.default_rng(3).choice(len(REFERENCES), size=(4, len(REFERENCES)))
    expected = [bleu([HYPOTHESES[i] for i in rows], [REFERENCES[i] for i in rows], lowercase).value for rows in drawn]
    np.testing.assert_allclose(found.values, expected)


def test_bootstrap_tells_a_difference_from_chance():
    references, a, b, c = systems(seed=1)
    close, far, same = (paired_bootstrap(a, x, references, samples=200) for x in (b, c, a))
    assert far.difference < close.difference
    assert far.p_value == 1 / 201
    assert far.b_better == 0
    assert far.low < far.difference < far.high < 0
    assert close.p_value > 0.02
    assert (same.difference, same.low, same.high, same.b_better) == (0, 0, 0, 0)
    other = paired_bootstrap(b, a, references, samples=200)
    assert other.difference == -close.difference
    assert other.p_value == close.p_value
    assert other.low == pytest.approx(-close.high)
    assert paired_bootstrap(a, b, references, seed=1, samples=200) != close
    assert paired_bootstrap(a, b, references, samples=200) == close
    with pytest.raises(UserError, match='samples=0'):
        paired_bootstrap(a, b, references, samples=0)


def test_alignment_error_rate():
    # |A & S| = 2, |A & P| = 3, |A| = 4, |S| = 3.
    sure, possible, found = [{(0, 0), (1, 1), (2, 2)}], [{(3, 2)}], [{(0, 0), (1, 1), (3, 2), (0, 3)}]
    assert aer(sure, possible, found) == pytest.approx(1 - 5 / 7)
    # Sure links count as possible whether listed or not; one more sentence adds to the sums, not to a mean.
    assert aer(sure, [possible[0] | sure[0]], found) == aer(sure, possible, found)
    assert aer(sure * 2, possible * 2, [found[0], set()]) == pytest.approx(1 - 5 / 10)
    assert aer(sure, possible, sure) == 0
    assert aer(sure, possible, [sure[0] | possible[0]]) == 0
    assert aer(sure, possible, [{(9, 9)}]) == 1
    with pytest.raises(UserError, match='undefined'):
        aer([set()], possible, [set()])
    with pytest.raises(UserError, match='1 sure, 2 possible and 1 predicted'):
        aer(sure, possible * 2, found)
