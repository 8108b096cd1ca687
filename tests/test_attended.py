"""Attention against known alignments, on weights made by hand."""

import types

import numpy as np
import pytest

from seqjax.data.alignments import align, alignment_error_rate
from seqjax.data.numerals import pairs
from seqjax.data.vocabulary import Vocabulary
from seqjax.studies import attended
from seqjax.tasks.corpora import Numerals


@pytest.fixture(scope='module')
def subject():
    """Numbers in English and French; attention whose strongest weight is a sure link, EOS on EOS."""
    text = pairs([21, 105, 80, 3017, 999], 'en', 'fr')
    codecs = [Vocabulary.learn(side, 'word', None) for side in text]
    ids = tuple(codec.encode(side) for codec, side in zip(codecs, text))
    gold = [align(s, t, 'en', 'fr') for s, t in zip(*text)]

    def capture(params, batch):
        B, S, T = *batch.source.shape, batch.target.shape[1]
        weights = np.full((1, B, 1, T, S), 0.1)
        for b, row in enumerate(batch.row):
            for t in range(ids[1].lengths[row] - 1):
                sources = [j for j, other in gold[row].sure if other == t] or [ids[0].lengths[row] - 1]
                weights[0, b, 0, t, min(sources)] = 0.6
        return {'encoder/x': np.zeros(()), 'decoder/cross_attention': weights}

    return types.SimpleNamespace(
        data=types.SimpleNamespace(text={'test': text}, ids={'test': ids}), params=None,
        composed=types.SimpleNamespace(task=Numerals(source='en', target='fr')),
        model=types.SimpleNamespace(capture=capture)), text, gold, ids


def test_strongest_links_are_scored_against_what_is_known(subject):
    fake, _, gold, _ = subject
    guessed = [{(min(j for j, other in g.sure if other == t), t) for _, t in g.sure} for g in gold]
    expected = 100 * alignment_error_rate(guessed, [g.sure for g in gold], [g.possible for g in gold])
    found = attended.alignment(fake, 5)
    assert found['aer'] == pytest.approx(expected)
    assert 0 < found['aer'] < 25  # one link a word, where some words have two
    assert found['aer_threshold'] == pytest.approx(expected)
    # 0.1 is everywhere: every word is linked with every word
    everything = [{(j, t) for j in range(S - 1) for t in range(T - 1)}
                  for S, T in zip(*(side.lengths for side in subject[3]))]
    expected = 100 * alignment_error_rate(everything, [g.sure for g in gold], [g.possible for g in gold])
    assert attended.alignment(fake, 5, threshold=0.05)['aer_threshold'] == pytest.approx(expected)


def test_only_the_first_pairs_are_read(subject):
    fake, _, gold, _ = subject
    guessed = [{(min(j for j, other in g.sure if other == t), t) for _, t in g.sure} for g in gold[:2]]
    expected = 100 * alignment_error_rate(guessed, [g.sure for g in gold[:2]], [g.possible for g in gold[:2]])
    assert attended.alignment(fake, 2)['aer'] == pytest.approx(expected)


def test_the_diagonal_by_hand(subject):
    fake, _, gold, _ = subject
    # 'twenty - one' and 'vingt et un' are as long as one another; 'one hundred and five' and 'cent cinq' are not.
    links = [{(0, 0), (1, 1), (2, 2)}, {(1, 0), (3, 1)}]
    expected = 100 * alignment_error_rate(links, [g.sure for g in gold[:2]], [g.possible for g in gold[:2]])
    assert attended.diagonal(fake, 2)['aer'] == pytest.approx(expected)
