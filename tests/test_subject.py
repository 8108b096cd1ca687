"""What a study reads of a trial: from the files of its run, which are written here by hand."""

import functools
import json

import jax
import numpy as np
from tiny import bigrams

from seqjax.prepared import initialise
from seqjax.studies.subject import Subject


def test_what_is_read_of_a_run(tmp_path):
    subject = Subject(tmp_path, bigrams(), trained=False)
    _, references = subject.data.text['test']
    (tmp_path / 'predictions').mkdir()
    lines = ['wrong', *references[1:]]
    (tmp_path / 'predictions' / 'test.txt').write_text('\n'.join([*lines, '']), encoding='utf-8')
    (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n{"step": 2}\n', encoding='utf-8')
    (tmp_path / 'summary.json').write_text(json.dumps({'steps': 2}), encoding='utf-8')
    assert subject.right.tolist() == [0.0] + [100.0] * (len(references) - 1)
    assert [record['step'] for record in subject.records] == [1, 2]
    assert subject.summary == {'steps': 2}
    assert {row['floor'] for row in subject.floors()} >= {'copy of the source', 'unigram model'}


def test_fresh_parameters_are_those_of_the_seed(tmp_path):
    subject = Subject(tmp_path, bigrams(), trained=False)
    tokens = np.ones((1, 2), np.int32)
    expected = jax.jit(subject.model.init)(jax.random.key(subject.composed.training.seed), tokens, tokens)['params']
    # Compiled with another effort, so not to the last bit; to the last bit those that a run begins with.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), subject.fresh, expected)
    begun = subject.ready.begin(subject.ready.learner(9))
    jax.tree.map(np.testing.assert_array_equal, subject.fresh, begun.params)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(subject.params), jax.device_get(subject.fresh))
    other = initialise(subject.model, 5)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(expected)))
