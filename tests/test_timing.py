"""Times with a clock that stands still but where it is told to move."""

import math

import pytest

from seqjax.studies.timing import alternating, crossing, of_seconds, slope


class Clock:
    """Seconds that pass only where something is called."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def lasting(self, name, *seconds):
        """A call that takes these seconds, one after the other, the last for ever."""
        left = list(seconds)

        def call():
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
        return call


def test_compiling_is_not_counted_and_calls_take_turns():
    clock = Clock()
    found = alternating({'a': clock.lasting('a', 50, 1, 3, 2), 'b': clock.lasting('b', 90, 7)}, 3, clock=clock)
    assert clock.calls == ['a', 'b'] * 4
    assert found['a'] == (2, 1.5, 2.5, 3)
    assert found['b'] == (7, 7, 7, 3)


def test_a_budget_ends_the_rounds():
    clock = Clock()
    found = alternating({'a': clock.lasting('a', 5, 2)}, 100, budget=7, clock=clock)
    assert found['a'].repeats == 4


def test_one_slow_moment_does_not_move_the_median():
    assert of_seconds([1, 1, 1, 100, 1]).median == 1


def test_slope_is_the_exponent():
    x = [16, 64, 256, 1024]
    assert slope(x, [3e-4 * n ** 1.7 for n in x]) == pytest.approx(1.7)
    assert math.isnan(slope([1], [1]))


def test_lines_cross_where_power_laws_do():
    x = [16, 32, 64, 128, 256, 512]
    ours, theirs = [n ** 2 for n in x], [100 * n for n in x]
    assert crossing(x, ours, theirs) == pytest.approx(100)
    assert crossing(x, theirs, ours) == math.inf
    assert crossing(x, [n + 1 for n in x], x) == 0.0
    # A first crossing that is undone does not count.
    assert crossing([1, 2, 4, 8], [2, 2, 2, 16], [1, 4, 4, 8]) == pytest.approx(4 * 2 ** 0.5)
