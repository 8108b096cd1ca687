"""Attention against known alignments, on weights made by hand."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.data.alignments import Alignment, align, alignment_error_rate
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

    S, T = (int(side.lengths.max()) for side in ids)
    weights_BTS = np.full((len(gold), T, S), 0.1)
    for row, known in enumerate(gold):
        for t in range(ids[1].lengths[row] - 1):
            sources = [j for j, other in known.sure if other == t] or [ids[0].lengths[row] - 1]
            weights_BTS[row, t, min(sources)] = 0.6

    class Model:
        """Its first layer looks everywhere alike, its second where the links are."""

        def capture(self, params, batch):
            S, T = batch.source.shape[1], batch.target.shape[1]
            room_BTS = jnp.pad(jnp.asarray(weights_BTS), ((0, 0), (0, 64), (0, 64)))
            told_B1TS = room_BTS[batch.row, None, :T, :S]
            even_B1TS = jnp.full_like(told_B1TS, 0.1)
            even_B2TS = jnp.concatenate([even_B1TS, even_B1TS], axis=1)
            return {'encoder/x': np.zeros(()), 'decoder/cross_attention': jnp.stack(
                [even_B2TS, jnp.concatenate([told_B1TS, told_B1TS], axis=1)])}

    return types.SimpleNamespace(
        data=types.SimpleNamespace(text={'valid': text, 'test': text}, ids={'valid': ids, 'test': ids}), params=None,
        composed=types.SimpleNamespace(task=Numerals(source='en', target='fr')),
        model=Model()), text, gold, ids


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


def test_validation_chooses_the_head(subject):
    fake, _, gold, _ = subject
    assert attended.best_head(fake, 5) == (1, 0)
    expected = [{(min(j for j, other in g.sure if other == t), t) for _, t in g.sure} for g in gold]
    assert attended.links(fake, 5) == expected
    shapes = [w.shape for w in attended.looks(fake, 'test', 5)]
    assert shapes == [(2, 2, T, S) for S, T in zip(*(side.lengths for side in subject[3]))]


def test_the_mean_of_heads_is_a_choice_too(subject):
    """Two heads that are wrong in different places, and right together."""
    fake, _, gold, _ = subject
    at = [[(min(j for j, other in g.sure if other == t), t) for t in sorted({t for _, t in g.sure})] for g in gold]
    room_BHTS = np.full((len(gold), 2, 64, 64), 0.1)
    for row, links in enumerate(at):
        for j, t in links:
            room_BHTS[row, :, t, j] = 0.5
            room_BHTS[row, t % 2, t, (j + 1) % 3] = 0.6

    class Model:
        def capture(self, params, batch):
            S, T = batch.source.shape[1], batch.target.shape[1]
            return {'decoder/cross_attention': jnp.asarray(room_BHTS)[None, batch.row, :, :T, :S]}

    fake = types.SimpleNamespace(**vars(fake) | {'model': Model()})
    assert attended.best_head(fake, 5) == (0, 2)
    assert all(set(links) <= guessed for links, guessed in zip(at, attended.links(fake, 5)))


def test_a_statistical_system_has_links_of_its_own(subject):
    fake = types.SimpleNamespace(**vars(subject[0]) | {'model': types.SimpleNamespace(
        links=lambda params, source, target: {(len(source), len(target))})})
    assert attended.links(fake, 2) == [{(3, 3)}, {(4, 2)}]


def test_crossings_by_hand():
    sure = [frozenset({(0, 0), (1, 2), (2, 1)}), frozenset({(0, 1), (1, 0), (2, 0)})]
    gold = [Alignment(links, links) for links in sure]
    assert attended.crossings(gold[0].sure) == {((1, 2), (2, 1))}
    assert attended.crossings(gold[1].sure) == {((0, 1), (1, 0)), ((0, 1), (2, 0))}
    assert attended.crossings({(0, 0), (0, 1), (1, 1)}) == set(), 'a shared end is no crossing'
    # Of three crossings one is found, and one is made that is not there.
    guessed = [{(0, 0), (1, 1), (2, 2)}, {(0, 1), (1, 0), (3, 0)}]
    found = attended.judged(guessed, gold)
    assert found['crossings_found'] == pytest.approx(100 / 3)
    assert found['crossings_right'] == pytest.approx(50)
    assert found['aer'] == pytest.approx(100 * (1 - 2 * 3 / 12))
    monotone = attended.judged([{(0, 0)}, {(0, 0)}], gold)
    assert monotone['crossings_found'] == 0
    assert np.isnan(monotone['crossings_right'])


def test_the_diagonal_never_crosses(subject):
    assert not any(attended.crossings(links) for links in attended.along_the_diagonal(subject[0], 5))
