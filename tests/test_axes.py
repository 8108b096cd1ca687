"""Lists of settings: products, pairs, unions, in their order."""

import pytest

from seqjax.errors import UserError
from seqjax.studies.axes import SEED, chain, cross, grid, lasting, seeds, zipped


def test_a_grid_is_every_combination_the_last_name_fastest():
    assert grid({'model': ('rnn', 'gru'), 'model.hidden_size': (4, 8, 16)}) == [
        {'model': 'rnn', 'model.hidden_size': 4}, {'model': 'rnn', 'model.hidden_size': 8},
        {'model': 'rnn', 'model.hidden_size': 16}, {'model': 'gru', 'model.hidden_size': 4},
        {'model': 'gru', 'model.hidden_size': 8}, {'model': 'gru', 'model.hidden_size': 16}]


def test_zipped_names_go_together():
    assert zipped({'a.x': (1, 2), 'a.y': ('p', 'q')}) == [{'a.x': 1, 'a.y': 'p'}, {'a.x': 2, 'a.y': 'q'}]


def test_a_chain_has_each_setting_once():
    assert chain(grid({'a': (1, 2)}), grid({'a': (2, 3)}), [{'b': 1}]) == [{'a': 1}, {'a': 2}, {'a': 3}, {'b': 1}]


def test_in_a_cross_the_later_name_wins():
    assert cross([{'a': 1, 'b': 1}, {'a': 2}], [{'b': 5}, {}]) == [
        {'a': 1, 'b': 5}, {'a': 1, 'b': 1}, {'a': 2, 'b': 5}, {'a': 2}]


def test_seeds_are_counted_or_listed():
    assert seeds(3) == [{SEED: 0}, {SEED: 1}, {SEED: 2}]
    assert seeds((7, 9)) == [{SEED: 7}, {SEED: 9}]


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: grid({'a': (1,), 'b': ()}), 'the axis b has no value; give at least one'),
    (lambda: zipped({'a': (1, 2), 'b': (1,)}), 'a has 2, b has 1'),
    (lambda: zipped({'a': (), 'b': ()}), 'at least one: a has 0, b has 0'),
    (lambda: seeds(0), 'the axis training.seed has no value; at least one seed is needed')])
def test_empty_axes_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_evaluations_are_spread_over_the_steps():
    assert lasting(100) == {f'training.{name}': 100 for name in ('steps', 'evaluate_every', 'checkpoint_every')}
    assert [lasting(steps, 8)['training.evaluate_every'] for steps in (80, 4)] == [10, 1]
