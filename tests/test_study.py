"""Trials and their names; verdicts, each way."""

import math

import pytest

from seqjax.errors import UserError
from seqjax.studies.axes import SEED, chain, cross, grid, zipped
from seqjax.studies.study import LONGEST, Study, Verdict, all_of, decide
from seqjax.studies.table import Table, interval


def study(axes, **fields):
    return Study(**(dict(claim='c', source='s', expect='e', base={'experiment': 'numerals', 'training.steps': 5},
                         axes=axes, measure=lambda subject: [], verdict=None, seeds=2) | fields))


def test_trials_are_all_settings_with_the_first_seed_first():
    trials = study(grid({'model': ('gru', 'lstm'), 'model.hidden_size': (4, 8)})).trials()
    assert [trial.name for trial in trials] == [
        f'{model},hidden_size={size},seed={seed}' for seed in (0, 1) for model in ('gru', 'lstm') for size in (4, 8)]
    assert trials[5].row() == {'experiment': 'numerals', 'model': 'gru', 'training.steps': 5, 'model.hidden_size': 8,
                               SEED: 1}


def test_the_usual_model_is_named_where_no_other_is():
    trial, = study([{'model.num_layers': 1}], seeds=(4,)).trials()
    assert (trial.model, trial.name) == ('transformer', 'num_layers=1,seed=4')


def test_names_are_names_of_folders():
    trial, = study([{'task.path': 'a/b c', 'task.columns': (1, 2)}], seeds=1).trials()
    assert trial.name == 'path=a_bc,columns=1,2,seed=0'
    long = study(grid({'task.path': ('x' * 300, 'x' * 299 + 'y')}), seeds=1).trials()
    assert all(len(trial.name.encode()) <= LONGEST for trial in long)
    assert long[0].name != long[1].name


def test_a_setting_may_lack_what_another_has():
    axes = chain(grid({'model': ('gru',)}), cross(grid({'model': ('luong',)}), zipped({'model.score': ('dot',)})))
    assert [trial.name for trial in study(axes, seeds=1).trials()] == ['gru,seed=0', 'luong,score=dot,seed=0']


@pytest.mark.parametrize(('axes', 'message'), [
    ([], 'the study has no trial'),
    ([{'model.hidden_size': 4}, {'model.hidden_size': 4}], 'two trials are the same: hidden_size=4,seed=0'),
    (grid({'experiment': ('numeral',)}), "--experiment=numeral: there is no such experiment; did you mean 'numerals'")])
def test_studies_that_are_none(axes, message):
    with pytest.raises(UserError, match=message):
        study(axes).trials()


@pytest.mark.parametrize(('values', 'answer'), [
    ([5.0, 5.1, 5.2], 'supported'), ([1.0, 1.1, 1.2], 'not supported'), ([1.0, 9.0, 5.0], 'undecided'),
    ([9.0], 'undecided'), ([], 'undecided'), ([3.0, 3.0, 3.0], 'not supported')])
def test_decide(values, answer):
    """The whole interval has to be above the mark, or not to be; one seed decides nothing, however far it is."""
    verdict = decide(interval(values), above=3.0, sentence='So it is.', unit='points')
    assert verdict.answer == answer
    assert (verdict.sentence, verdict.unit) == ('So it is.', 'points')
    assert verdict.effect == pytest.approx(sum(values) / len(values)) if values else math.isnan(verdict.effect)


@pytest.mark.parametrize(('answers', 'answer'), [
    (['supported', 'supported'], 'supported'), (['supported', 'undecided'], 'undecided'),
    (['undecided', 'not supported'], 'not supported'), (['supported', 'not supported'], 'not supported')])
def test_all_of(answers, answer):
    verdict = all_of([Verdict(part, f'Part {i}.', float(i)) for i, part in enumerate(answers)])
    assert verdict.answer == answer
    assert verdict.effect == 0.0
    assert verdict.sentence == f'Part 0. ({answers[0]}) Part 1. ({answers[1]})'


def test_results_that_lack_what_a_verdict_reads_decide_nothing():
    made = study([{'model': 'gru'}], verdict=lambda table: decide(interval([table.rows[0]['score']] * 2), 1, 'Yes.'))
    assert made.answer(Table.of([{'score': 2.0}])).answer == 'supported'
    assert made.answer(Table.of([])).answer == 'undecided'
    assert 'IndexError' in made.answer(Table.of([])).sentence
    assert isinstance(made.answer(Table.of([])).raised, IndexError), 'tests can tell it from an answer'
    assert made.answer(Table.of([{'score': 2.0}])).raised is None
    assert study([{'model': 'gru'}]).answer(Table.of([])) is None


def test_columns_are_what_varies_and_what_is_a_number():
    rows = Table.of([{'experiment': 'numerals', 'model': 'gru', 'training.steps': 5, SEED: 0, 'bleu': 1.0, 'word': 'a',
                      'good': True, 'count': 3}])
    assert study(grid({'model': ('gru',)})).columns(rows) == (('model',), ('bleu', 'count'))
    assert study(grid({'model': ('gru',)}), shown=(('word',), ('count',))).columns(rows) == (('word',), ('count',))
