"""Decoding a split: with little room first, and once more where that was too little."""

import jax
import numpy as np
import pytest
from tiny import TEXT, at_random

from experiments.translation import numerals
from seqjax.data.batches import pad_rows
from seqjax.decoding.options import EOS, Decoding
from seqjax.decoding.search import search

LONGEST = 60


@pytest.fixture(scope='module')
def small():
    """A GRU of random parameters, 40 sources that all go into one shape, and a function that makes ending likelier."""
    evaluator, params, (source, _), _ = at_random(
        numerals('gru').replace('task', **TEXT | dict(test_size=40, highest=99_999, max_length=LONGEST)).replace(
            'model', hidden_size=8, num_layers=1).replace('training', batch_size=8, mesh='data=1'))

    def ending(by):
        return params | {'output_bias': params['output_bias'].at[EOS].add(by)}

    return evaluator, source, ending


@pytest.mark.parametrize(('flags', 'by', 'size', 'sizes'), [
    (dict(method='greedy'), 1.0, 16, {24: [16] * 3, LONGEST: [16] * 2}),
    (dict(method='greedy'), 2.0, 64, {24: [64], LONGEST: [8]}),
    (dict(method='beam', beam_size=3, nbest=3), 1.5, 64, {24: [64], LONGEST: [8]}),
    (dict(method='sample', seed=1), 2.0, 64, {24: [64], LONGEST: [8]})], ids=str)
def test_what_is_searched_again_is_what_all_the_room_gives_at_once(small, monkeypatch, flags, by, size, sizes):
    """Rows are told apart by their ids, which samples depend on; few that are left come in an eighth of a batch."""
    evaluator, source, ending = small
    params, decoding = ending(by), Decoding(batch_size=size, **flags)
    searched, compiled = {}, type(evaluator)._search

    def noted(one, room):
        def run(params, batch):
            searched.setdefault(room, []).append(batch.row.size)
            return compiled(evaluator, one, room)(params, batch)
        return run

    monkeypatch.setattr(evaluator, '_search', noted)
    found = evaluator.decode(params, source, decoding)
    assert searched == sizes

    rows = np.arange(source.count())
    whole = pad_rows(source, rows, LONGEST)
    expected = jax.jit(lambda params: search(evaluator.model, params, whole, decoding, LONGEST, row_B=rows))(params)
    for best, tokens_KT, scores_K in zip(found, expected.tokens_BKT, expected.scores_BK, strict=True):
        for one, tokens_T, score in zip(best, tokens_KT, scores_K, strict=True):
            np.testing.assert_array_equal(one.ids, np.trim_zeros(tokens_T, 'b'))
            np.testing.assert_allclose(one.score, score, rtol=1e-4)


def test_no_sources_are_no_translations(small):
    evaluator, source, ending = small
    assert evaluator.decode(ending(0.0), source.take(np.zeros(0, int)), Decoding()) == []
