"""Exposure and scaling: what they measure, what the verdict says in words, and their figures, on made-up results."""

import types

import numpy as np
import pytest
from made_results import MADE, SEED, scaling, verdict

from experiments.studies import exposure as exposing
from experiments.studies import scaling as scale
from seqjax import catalogue
from seqjax.studies.table import Table


def test_the_sentence_tells_every_law():
    """Parameters, those with a floor, and data, whose exponent is one for all."""
    sentence = verdict('scaling', scaling(spread=1e-6)).sentence
    assert 'Exponents of parameters: gru 0.20 [0.20, 0.20], losses off the law by 0 %; bahdanau 0.50' in sentence
    assert 'With a floor: gru 0.20' in sentence
    assert sentence.endswith('Of data: gru 0.30 [0.30, 0.30]; bahdanau 0.30 [0.30, 0.30]; transformer 0.30 [0.30, '
                             '0.30].')


@pytest.mark.parametrize('name', ['exposure', 'scaling'])
def test_figures_are_drawn_of_full_results(name):
    """Of columns that the verdict does not read, too; `scaling` has data on one axis only in full."""
    table = MADE[name].results()
    if name == 'exposure':
        table = Table.of([*table.rows, *({**row, 'place': 0.5, 'gap_at': 1.0} for row in table.rows), *(
            {**row, 'reads': reads, 'distance': 1, 'lost_at': 1.0} for row in table.rows for reads in ('true', 'own'))])
    found = catalogue.load('study', name)('full').figures(table)
    assert [len(figure.axes) for figure in found.values()] == {'exposure': [2, 4], 'scaling': [3, 1, 2]}[name]


def test_the_cheapest_is_the_least_of_the_widths():
    rows = [{SEED: 0, 'model.hidden_size': width, 'compute': x, 'loss_at': y} for width, curve in (
        (8, {1.0: 8.0, 2.0: 4.0, 4.0: 4.0, 8.0: 4.0}), (16, {4.0: 8.0, 8.0: 2.0, 16.0: 1.0, 32.0: 1.0}))
        for x, y in curve.items()]
    found = scale.cheapest(Table.of(rows), 5)
    assert found.column('compute') == pytest.approx([2, 4, 8, 16, 32])
    assert found.column('loss') == pytest.approx([4, 4, 2, 1, 1])


def test_steps_to_a_loss_lie_between_records():
    assert exposing.reached([10, 20, 30], [3.0, 2.0, 0.5], 1.0) == pytest.approx(20 + 10 * 2 / 3)
    assert exposing.reached([10, 20], [0.9, 0.5], 1.0) == 10
    assert exposing.reached([10, 20], [3.0, 2.0], 1.0) == 20, 'never: at least so many'


def test_exposure_measures_what_was_read(monkeypatch):
    """A decoder that is right after true words, never after its own, and wrong for two words after a wrong one."""
    def right_after(evaluator, params, source, target, decoding, readings):
        found = []
        for own, wrong in readings:
            rows = []
            for i, length in enumerate(target.lengths):
                right = np.full(length, not own)
                if wrong is not None:
                    right[:wrong[0][i] + 1] = True
                    right[wrong[0][i] + 1:wrong[0][i] + 3] = False
                rows.append(right)
            found.append(rows)
        return found

    monkeypatch.setattr(exposing, 'right_after', right_after)
    target = types.SimpleNamespace(lengths=np.array([12] * 20), count=lambda: 20, row=lambda i: np.arange(4, 16))
    subject = types.SimpleNamespace(
        records=[{'step': step, 'split': 'valid', 'nll': nll} for step, nll in ((10, 3.0), (20, 0.5))],
        data=types.SimpleNamespace(ids={'test': (None, target)}), evaluator=None, params=None,
        codec=types.SimpleNamespace(target=types.SimpleNamespace(size=20)),
        composed=types.SimpleNamespace(decoding=None),
        summary={'parameters': 7, 'test': {'exact_match': 0.0, 'bleu': 0.0, 'nll': 1.0}})
    overall, *rows = exposing.measure(subject)
    assert {name: overall[name] for name in ('forced', 'free', 'gap', 'gap_beginning', 'gap_end')} == {
        'forced': 100, 'free': 0, 'gap': 100, 'gap_beginning': 100, 'gap_end': 100}
    assert overall['lost'] == pytest.approx(200 / 3)
    assert overall['recovered'] == pytest.approx(100 / 3)
    assert overall['steps_to_loss'] == pytest.approx(20 - 10 * (exposing.LEVEL - 0.5) / 2.5)
    by_distance = {(row['reads'], row['distance']): row['lost_at'] for row in rows if 'reads' in row}
    assert [by_distance['true', d] for d in (1, 2, 3, 4)] == [100, 100, 0, 0]
    assert [by_distance['own', d] for d in (1, 2, 3, 4)] == [100, 100, 100, 100]
