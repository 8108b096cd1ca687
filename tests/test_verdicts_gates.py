"""Gates and whispers: one part of a claim that fails is named, and the floors are in order."""

import pytest
from made_results import gates, verdict

from seqjax.studies.table import Table


def test_one_forget_bias_that_forgets_is_enough_and_is_named():
    made = gates()
    forgets = Table.of({**row, 'over': -13.0} if row.get('model.forget_bias') == 0 and row.get('gain') == 1 else row
                       for row in made.rows)
    found = verdict('gates', forgets)
    assert found.answer == 'not supported'
    assert 'forget bias 0 an LSTM\'s is 10^-13.0 times; kept would be a thousandth or more. (not supported)' in (
        found.sentence)
    assert found.sentence.count('(not supported)') == 1


def test_the_floors_of_witnesses_are_in_order():
    """More voices help a poll, weights help more, and a chain loses nearly everything."""
    import types

    from experiments.studies import whispers as module
    from seqjax.tasks.puzzles import Puzzle
    rows = {row['floor']: row for row in module.trivial(types.SimpleNamespace(
        composed=types.SimpleNamespace(task=Puzzle())))}
    random, poll, best, last = (rows[name]['hard'] for name in rows)
    assert last == pytest.approx(random, abs=0.5)
    assert random + 30 < poll < best - 5 < 100
