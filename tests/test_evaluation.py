"""Decoding a split: sources of like lengths together, with little room at first."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny import TEXT, at_random

from experiments.translation import numerals
from seqjax.data.batches import Shape, pad_rows
from seqjax.decoding.options import EOS, Decoding
from seqjax.decoding.search import search

LONGEST = 60


@pytest.fixture(scope='module')
def tiny():
    """Models of random parameters and 40 sources that all go into one shape; of the GRU some translations end."""
    found = {}
    for model in ('gru', 'transformer'):
        evaluator, params, (source, _), _ = at_random(
            numerals(model).replace('task', **TEXT | dict(test_size=40, highest=99_999, max_length=LONGEST)).replace(
                'model', hidden_size=8, num_layers=1).replace('training', batch_size=8, mesh='data=1'))
        if model == 'gru':
            params = params | {'output_bias': params['output_bias'].at[EOS].add(1.0)}
        else:  # or hypotheses that repeat a word for ever are as good as each other
            params = jax.tree.map(lambda x: 3 * x, params)
        found[model] = evaluator, params, source
    return found


@pytest.mark.parametrize(('model', 'flags'), [
    ('gru', dict(method='greedy')), ('gru', dict(method='beam', beam_size=3, nbest=3)),
    ('gru', dict(method='sample', seed=1)), ('transformer', dict(method='sample', seed=1, temperature=2.0)),
    ('transformer', dict(method='beam', beam_size=3, nbest=3))], ids=str)
def test_what_goes_on_with_more_room_is_what_all_the_room_gives_at_once(tiny, model, flags):
    """Rows are told apart by their ids, which samples depend on."""
    evaluator, params, source = tiny[model]
    decoding = Decoding(batch_size=64, **flags)
    shape, = {shape for _, _, shape in evaluator.sources(source, decoding)}
    found = evaluator.decode(params, source, decoding)
    assert sum(len(best[0].ids) > shape.target for best in found) > 16, 'more than one group should be left'

    rows = np.arange(source.count())
    whole = pad_rows(source, rows, LONGEST)
    expected = jax.jit(lambda params: search(
        evaluator.model, params, whole, decoding, LONGEST, row_B=rows, groups=False))(params)
    for best, tokens_KT, scores_K in zip(found, expected.tokens_BKT, expected.scores_BK, strict=True):
        for one, tokens_T, score in zip(best, tokens_KT, scores_K, strict=True):
            np.testing.assert_array_equal(one.ids, np.trim_zeros(tokens_T, 'b'))
            np.testing.assert_allclose(one.score, score, rtol=1e-4)


def test_sources_of_like_lengths_are_searched_together(tiny):
    evaluator, _, source = tiny['gru']
    batches = list(evaluator.sources(source, Decoding(batch_size=16)))
    rows = np.concatenate([row_B for row_B, _, _ in batches])
    np.testing.assert_array_equal(rows, [*np.argsort(source.lengths, kind='stable'), *[-1] * 8])
    for row_B, batch, shape in batches:
        here = row_B[row_B >= 0]
        assert shape == next(s for s in evaluator.codec.search_shapes if s.source >= source.lengths[here].max())
        np.testing.assert_array_equal(batch.row.reshape(-1), row_B)
        np.testing.assert_array_equal(batch.source.reshape(16, -1)[:len(here)], pad_rows(source, here, shape.source))
        assert not batch.source.reshape(16, -1)[len(here):].any()


def test_searches_have_the_wider_of_each_two_shapes_and_one_for_everything(tiny):
    def chosen(*widths):
        codec = dataclasses.replace(tiny['gru'][0].codec, shapes=tuple(Shape(n, n + 1) for n in widths), max_length=60)
        return [shape.source for shape in codec.search_shapes]

    assert chosen(8, 12, 16, 20, 24, 32) == [12, 20, 32, 60]
    assert chosen(8, 12, 16) == [8, 16, 60]
    assert chosen(8) == [8, 60]


def test_no_sources_are_no_translations(tiny):
    evaluator, params, source = tiny['gru']
    assert evaluator.decode(params, source.take(np.zeros(0, int)), Decoding()) == []
