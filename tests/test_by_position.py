"""Scores by length and by place, against sums by hand."""

import math

import numpy as np

from seqjax.tasks.by_position import bins_of, by_length, by_place, middle_places


def test_bins_hold_every_length_once():
    assert bins_of(60, 20) == [(1, 20), (21, 40), (41, 60)]
    assert bins_of(25, 10) == [(1, 10), (11, 20), (21, 25)]
    assert [n for low, high in bins_of(37, 6) for n in range(low, high + 1)] == list(range(1, 38))


def test_means_by_length_with_both_ends_and_without_empty_ranges():
    found = by_length([100, 0, 50, 10], [1, 10, 11, 40], [(1, 10), (11, 20), (21, 30), (31, 40)])
    assert found == [{'from': 1, 'to': 10, 'length': 5.5, 'pairs': 2, 'mean': 50.0},
                     {'from': 11, 'to': 20, 'length': 15.5, 'pairs': 1, 'mean': 50.0},
                     {'from': 31, 'to': 40, 'length': 35.5, 'pairs': 1, 'mean': 10.0}]


def test_means_by_place_count_tokens_not_sentences():
    values = [np.array([1.0, 0.0, 0.0, 1.0]), np.array([0.0, 1.0])]
    places = [np.array([0.1, 0.4, 0.6, 1.0]), np.array([0.2, 0.9])]
    assert by_place(values, places, 2) == [1 / 3, 2 / 3]
    found = by_place(values, places, 4)
    assert found[0] == 1 / 2
    assert found[1] == 0.0
    assert found[3] == 1.0
    assert math.isnan(by_place([np.ones(1)], [np.zeros(1)], 2)[1])


def test_places_are_middles_and_turn_round():
    np.testing.assert_allclose(middle_places(4), [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(middle_places(4, backwards=True), [0.875, 0.625, 0.375, 0.125])
    assert len(middle_places(0)) == 0
