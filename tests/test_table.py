"""Means and intervals over seeds, against scipy and values worked out by hand."""

import csv
import io
import math

import numpy as np
import pytest
from scipy import stats

from seqjax.studies.axes import SEED
from seqjax.studies.table import Interval, Table, difference, interval, log_ratio, welch

X, Y = [3.1, 2.7, 3.6, 2.9], [2.0, 2.4, 1.1]


def table(name, values, **settings):
    return Table.of({SEED: seed, name: value, **settings} for seed, value in enumerate(values))


def test_interval_is_students():
    found = interval(X)
    low, high = stats.t.interval(0.95, 3, np.mean(X), stats.sem(X))
    assert found == pytest.approx((np.mean(X), low, high, np.std(X, ddof=1), 4))
    # By hand: mean 2, std 1, t(0.975, 2) = 4.302653, so 2 ± 4.302653 / sqrt(3).
    assert interval([1, 2, 3]) == pytest.approx((2, 2 - 2.484138, 2 + 2.484138, 1, 3), abs=1e-6)
    assert interval(X, 0.5).high < found.high


def test_interval_of_too_few_has_no_bounds():
    assert math.isnan(interval([5.0]).low)
    assert interval([5.0])[:1] + interval([5.0])[4:] == (5.0, 1)
    assert interval([]).count == 0
    assert interval([1.0, None, math.nan, math.inf, 3.0])[0] == 2
    assert str(Interval(2, 1, 3, 0.5, 3)) == '2 ± 0.5'
    assert str(interval([5.0])) == '5'


def test_differences_are_paired_where_the_seeds_are_equal():
    ours, theirs = table('score', X), table('score', [2.0, 2.4, 1.1, 2.2])
    test = stats.ttest_rel(ours.column('score'), theirs.column('score')).confidence_interval()
    assert difference(ours, theirs, 'score')[:3] == pytest.approx((np.mean(X) - 1.925, test.low, test.high))


def test_differences_are_welchs_where_they_are_not():
    test = stats.ttest_ind(X, Y, equal_var=False).confidence_interval()
    found = difference(table('score', X), table('score', Y), 'score')
    assert found[:3] == pytest.approx((np.mean(X) - np.mean(Y), test.low, test.high))
    assert found == welch(X, Y)
    assert math.isnan(welch(X, [1.0]).low)
    assert welch(X, [1.0]).mean == pytest.approx(np.mean(X) - 1)


def test_ratios_are_in_logarithms_of_the_seeds_that_both_have():
    doubled = log_ratio(table('score', [2.0, 8.0, 5.0]), table('score', [1.0, 2.0]), 'score', math.log(2))
    assert doubled[:3] == pytest.approx(interval([1.0, 2.0])[:3])
    points = log_ratio(table('score', [1.01]), table('score', [1.0]), 'score', 0.01)
    assert points.mean == pytest.approx(100 * math.log(1.01))


def test_seeds_are_what_repeats_and_not_rows():
    """Ten rows of a seed are one value, or the interval would shrink with the number of lengths that are looked at."""
    rows = Table.of({SEED: seed, 'length': length, 'score': 10 * seed + length}
                    for seed in (0, 1) for length in range(10))
    assert rows.per_seed('score') == {0: 4.5, 1: 14.5}
    assert rows.interval('score').count == 2
    assert rows.interval('nothing').count == 0


def test_selection_keeps_the_order():
    rows = Table.of([{'model': 'b', 'x': 1}, {'model': 'a', 'x': 2}, {'model': 'b', 'x': 3}, {'x': 4}])
    assert rows.values('model') == ['b', 'a']
    assert rows.where({'model': 'b'}).column('x') == [1, 3]
    assert rows.where({'model': None}).column('x') == [], 'a missing column is not None'
    assert rows.where(lambda row: row['x'] > 2).column('x') == [3, 4]
    assert [(key, len(part)) for key, part in rows.groups('model').items()] == [(('b',), 2), (('a',), 1), ((None,), 1)]
    assert rows.columns() == ['model', 'x']
    assert len(rows) == 4


def test_csv_is_read_back():
    rows = Table.of([{'a': 'x,"y"\n', 'b': 1.5}, {'b': 2, 'c': None}])
    read = list(csv.DictReader(io.StringIO(rows.csv())))
    assert read == [{'a': 'x,"y"\n', 'b': '1.5', 'c': ''}, {'a': '', 'b': '2', 'c': ''}]


def test_text_has_a_line_for_each_setting():
    rows = Table.of([*table('score', [1.0, 3.0], model='a').rows, *table('score', [5.0], model='b').rows])
    assert rows.text(('model',), ('score',)).split('\n') == [
        'model  score    seeds', 'a      2 ± 1.4  2', 'b      5        1']
