"""Searches compared on a tiny trained-by-chance model, every number again by hand."""

import dataclasses

import numpy as np
import pytest
from tiny import bigrams

from seqjax.decoding.options import Decoding
from seqjax.decoding.search import score
from seqjax.studies import searches
from seqjax.studies.subject import Subject
from seqjax.studies.table import Table


@pytest.fixture(scope='module')
def compared(tmp_path_factory):
    """Numbers below a thousand into digits, with parameters that make the model unsure of everything."""
    experiment = bigrams().replace('task', target='digits').replace('decoding', max_length=3)
    subject = Subject(tmp_path_factory.mktemp('run'), experiment, trained=False)
    rng = np.random.default_rng(2)
    evaluator, params = subject._opened
    params = {name: {key: np.asarray(rng.normal(0, 1.2, x.shape), np.float32) for key, x in part.items()}
              for name, part in params.items()}
    params['out']['bias'][2] += 1.5  # hypotheses end, at different places
    subject.__dict__['_opened'] = (evaluator, params)
    named = {'greedy': Decoding(max_length=3, batch_size=8)} | {
        f'beam {size}, {alpha}': Decoding(method='beam', beam_size=size, length_penalty=alpha, max_length=3,
                                          batch_size=8) for size, alpha in ((2, 0.0), (200, 0.0), (200, 1.0))}
    return subject, named, Table.of(searches.compare(subject, named, 7, True, 1))


def lengths_of(subject):
    """The targets of the sources that are decoded."""
    return [subject.data.ids['test'][1].row(i) for i in range(7)]


def test_a_beam_that_holds_everything_makes_no_error_and_greedy_search_does(compared):
    errors = {row['search']: row['search_errors'] for row in compared[2].rows}
    assert errors['beam 200, 0.0'] == errors['beam 200, 1.0'] == 0.0
    assert errors['exhaustive, penalty 0'] == errors['exhaustive, penalty 1'] == 0.0
    longest = compared[2].where({'search': 'exhaustive, penalty 1'}).rows[0]['length'] * sum(
        len(target) for target in lengths_of(compared[0]))
    assert longest > 7, 'hypotheses of one token tell no penalty from another'
    assert 0 < errors['greedy'] <= 100
    assert errors['greedy'] >= errors['beam 2, 0.0']


def test_numbers_are_those_of_the_hypotheses(compared):
    subject, named, table = compared
    source, target = (side.take(np.arange(7)) for side in subject.data.ids['test'])
    for name, decoding in named.items():
        row, = table.where({'search': name}).rows
        found = [best[0] for best in subject.evaluator.decode(subject.params, source, decoding)]
        assert row['exact_match'] == pytest.approx(np.mean([
            100 * (h.text == reference) for h, reference in zip(found, subject.data.text['test'][1])]))
        assert row['length'] == pytest.approx(sum(len(h.ids) for h in found) / target.lengths.sum())
        sums = [float(score(subject.model, subject.params, source.row(i)[None], h.ids[None])[0])
                for i, h in enumerate(found) if h.ids[-1] == 2]
        assert row['log_prob'] == pytest.approx(np.mean(sums), rel=1e-4)
        assert row['beam'] == (1 if decoding.method == 'greedy' else decoding.beam_size)
        assert row['milliseconds'] > 0
    assert not table.where({'search': 'exhaustive, penalty 0'}).column('milliseconds')


def test_without_exhaustive_search_the_best_found_is_the_measure(compared):
    subject, named, table = compared
    few = dict(list(named.items())[:2])
    rows = searches.compare(subject, few, 7, False, 1)
    assert [row['search'] for row in rows] == list(few)
    assert rows[1]['search_errors'] <= table.where({'search': 'beam 2, 0.0'}).rows[0]['search_errors']
    assert dataclasses.asdict(few['greedy'])['method'] == 'greedy'
