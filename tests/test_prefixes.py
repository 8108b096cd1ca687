"""What a decoder says after words that are not the reference's: against a model by hand, and greedy search."""

import jax
import numpy as np
import pytest
from tiny import at_random, bigrams

from experiments.translation import numerals
from seqjax.data.vocabulary import BOS, EOS, UNK, Ragged
from seqjax.tasks.forced import forced
from seqjax.tasks.prefixes import NOWHERE, Reading, by_distance, mistakes, right_after


@pytest.fixture(scope='module')
def small():
    return at_random(bigrams())


def likeliest(params, source, token):
    """The tiny model's next word by hand."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(params))
    x = p['target']['embedding'][token] + p['source']['embedding'][source].mean(0)
    logits = x @ p['out']['kernel'] + p['out']['bias']
    logits[[0, BOS]] = -np.inf
    return int(logits.argmax())


def by_hand(params, source, target, own, place, word):
    """Reads one word after the other; the model's own may follow a sentence's end."""
    said, read = [], BOS
    for t, true in enumerate(target):
        said.append(likeliest(params, source, read))
        read = word if t == place else said[-1] if own and (place == NOWHERE or t > place) else true
    return said


@pytest.mark.parametrize('own', [False, True])
@pytest.mark.parametrize('injected', [False, True])
def test_every_token_is_that_of_the_model_by_hand(small, own, injected):
    evaluator, params, (source, target), decoding = small
    # Half of the references are what the model says, so that some of its words are right.
    best = [by_hand(params, source.row(i), target.row(i), True, NOWHERE, 0) for i in range(source.count())]
    target = Ragged.of([best[i] if i % 2 else target.row(i) for i in range(source.count())])
    wrong = mistakes(target, evaluator.codec.target.size)
    other = Reading(not own), Reading(own, wrong if injected else None)
    found = right_after(evaluator, params, source, target, decoding, other)[1]
    judged = []
    for i, (right, place, word) in enumerate(zip(found, *wrong)):
        said = by_hand(params, source.row(i), target.row(i), own, place if injected else NOWHERE, word)
        np.testing.assert_array_equal(right, np.array(said) == target.row(i))
        judged += list(right)
    assert 0 < np.mean(judged) < 1, 'tokens all right or all wrong prove nothing'


@pytest.mark.parametrize('model', ['gru', 'transformer'])
def test_models_of_the_catalogue(model):
    """Without own words it is what `forced` says; with them, what greedy search finds is right at every place."""
    experiment = numerals(model).replace('task', train_size=60, valid_size=9, test_size=9, highest=999, buckets=1)
    experiment = experiment.replace('model', hidden_size=8, num_layers=1).replace(
        'decoding', batch_size=8, max_length=6).replace('training', mesh='data=1')
    evaluator, params, (source, target), decoding = at_random(experiment)
    for right, one in zip(right_after(evaluator, params, source, target, decoding, [Reading()])[0],
                          forced(evaluator, params, source, target, decoding)):
        np.testing.assert_array_equal(right, one.right)
    best = Ragged.of([hypotheses[0].ids for hypotheses in evaluator.decode(params, source, decoding)])
    own = [Reading(own=True)]
    assert all(right.all() for right in right_after(evaluator, params, source, best, decoding, own)[0])
    other = Ragged.of([[4 + (row[0] == 4), *row[1:]] for row in (best.row(i) for i in range(best.count()))])
    rights = right_after(evaluator, params, source, other, decoding, own)[0]
    assert all(not right[0] and right[1:].all() for right in rights), 'it reads its own first word, not the other'


def test_mistakes_are_other_words_part_of_the_way():
    target = Ragged.of([[5, 6, 7, 8, 9, 4, EOS]] * 400 + [[4, EOS], [UNK, 5, EOS], [5, 4, EOS]])
    places, words = mistakes(target, 10)
    assert list(places) == [2] * 400 + [NOWHERE, 0, 0]
    assert set(words[:400]) == {4, 5, 6, 8, 9}
    assert set(words) <= set(range(4, 10))
    assert words[-1] != 5
    unknown = Ragged.of([[UNK, 5, EOS]] * 400)
    assert set(mistakes(unknown, 10)[1]) == set(range(4, 10)), 'of an unknown word, all'
    assert (mistakes(target, 10, seed=1)[1] != words).any()


def test_distances_are_counted_from_the_place():
    rights = [np.array([1, 1, 0, 1, 1], bool), np.array([1, 0, 0], bool), np.array([0, 0], bool)]
    np.testing.assert_equal(by_distance(rights, [1, 0, NOWHERE], 4), [0.0, 0.5, 1.0, np.nan])
