"""The loop over tokens: rows that are left go on in groups, with what is theirs and more room."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_decoding import METHODS, TOY, decode, random_toy, sources
from tiny import TEXT, at_random

from experiments.translation import numerals
from seqjax.data.batches import pad_rows
from seqjax.decoding.options import EOS, Decoding
from seqjax.decoding.search import begin, search
from seqjax.decoding.walk import walk


def walked(ends_B, max_length, room=None, groups=True):
    """Rows that end at given positions and count, each in steps of its own: the counts, and of each step the rows and
    whether it has all the room."""
    ends_B = jnp.asarray(ends_B)
    steps = []

    def extend(position, done_B, rows, model):
        own_B, wide = model
        jax.debug.callback(lambda own_B, wide: steps.append((len(own_B), bool(wide))), own_B, wide)
        count_B, ends_B = rows
        return done_B | (position + 1 >= ends_B), (count_B + jnp.where(done_B, 0, own_B), ends_B), model

    def go_on(model, row_C):
        return (model[0] if row_C is None else model[0][row_C]), jnp.bool_(True)

    @jax.jit
    def run():
        own_B = jnp.arange(1, len(ends_B) + 1)
        return walk(extend, (0 * ends_B, ends_B), (own_B, jnp.bool_(False)), ends_B == 0, max_length,
                    max_length if room is None else room, go_on, groups)

    count_B, _ = jax.tree.map(np.asarray, run())
    jax.effects_barrier()
    return count_B, steps


@pytest.mark.parametrize('groups', [True, False])
@pytest.mark.parametrize('room', [3, 9])
@pytest.mark.parametrize('seed', range(3))
def test_each_row_is_extended_until_it_ends(seed, room, groups):
    ends_B = np.random.default_rng(seed).integers(0, 12, 32)
    count_B, steps = walked(ends_B, 9, room, groups)
    np.testing.assert_array_equal(count_B, np.minimum(ends_B, 9) * np.arange(1, 33))
    left = [int((ends_B > position).sum()) for position in range(9)]
    first = [n for n in left[:room] if n > (8 if groups else 0)]
    assert steps[:len(first)] == [(32, False)] * len(first)
    after = np.flatnonzero(ends_B > len(first))
    if groups:
        order = [after[i:i + 8] for i in range(0, len(after), 8)]
        expected = [(8, True)] * sum(min(ends_B[rows].max(), 9) - len(first) for rows in order)
    else:
        expected = [(32, True)] * (min(ends_B.max(), 9) - len(first))
    assert steps[len(first):] == expected


def test_of_a_batch_that_is_nearly_empty_few_rows_are_extended():
    ends_B = np.zeros(64, int)
    ends_B[[3, 40]] = 5, 7
    count_B, steps = walked(ends_B, 20)
    assert count_B[[3, 40]].tolist() == [5 * 4, 7 * 41]
    assert count_B.sum() == 5 * 4 + 7 * 41
    assert steps == [(16, True)] * 7
    assert walked(np.zeros(64, int), 20)[1] == []


def test_of_few_rows_no_group_is_made():
    assert walked([1, 9, 1, 1, 1, 1, 1, 1], 20)[1] == [(8, False)] * 9
    assert walked([1, 9, 1, 1, 1, 1, 1, 1], 20, room=4)[1] == [(8, False)] * 4 + [(8, True)] * 5


@pytest.mark.parametrize('flags', METHODS, ids=lambda flags: flags['method'])
@pytest.mark.parametrize(('room', 'longest', 'ending'), [(1, 20, 1.0), (3, 20, 1.0), (20, 20, 1.0), (2, 5, -2.0)])
def test_a_search_finds_the_same_however_it_walks(flags, room, longest, ending):
    """The last group has rows in it that were cut in another."""
    kinds = 37
    params = random_toy(kinds, seed=11)
    params = {'logits': params['logits'].at[:, :, EOS].add(ending)}
    source_BS, rows = sources(*range(1, kinds + 1)), jnp.arange(100, 100 + kinds)
    run = jax.jit(search, static_argnums=(0, 3, 4), static_argnames=('room', 'groups'))
    apart, together = (run(TOY, params, source_BS, Decoding(**flags), longest, row_B=rows, room=room, groups=groups)
                       for groups in (True, False))
    plain = decode(params, source_BS, longest, row=rows, **flags)
    for one, other, third in zip(apart, together, plain):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)
    cut = ~(plain.tokens_BKT == EOS).any(-1)
    assert cut.any() or ending > 0, 'some should be cut'


@pytest.mark.parametrize(('model', 'K'), [
    ('transformer', 3), ('decoderonly', 3), ('transformer', 1), ('rnn', 3), ('bahdanau', 3), ('luong', 3),
    ('convs2s', 3), ('rctm', 3)])
def test_rows_that_go_on_take_all_that_is_theirs_along(model, K):
    """A step of some rows, amid a search and with more room, is that of all rows where they are."""
    evaluator, params, (source, _), _ = at_random(
        numerals(model).replace('task', **TEXT | dict(test_size=6, highest=99_999)).replace('model', hidden_size=8))
    rng = np.random.default_rng(0)
    source_BS = jnp.asarray(pad_rows(source, np.arange(6), 24))

    @jax.jit
    def run(source_BS, tokens, parents, chosen, last):
        at = begin(evaluator.model, params, source_BS, 6, 9, K)
        _, carried = at.first(tokens[0, :, 0], at.model)
        for tokens_BK, parents_BK in zip(tokens, parents):
            _, carried = at.step(tokens_BK.reshape(-1), carried)
            carried = at.follow(carried, parents_BK) if K > 1 else carried
        of_all = at.step(last.reshape(-1), carried)[0]
        return (of_all, at.step(last.reshape(-1), at.go_on(carried, None))[0],
                at.step(last[chosen].reshape(-1), at.go_on(carried, chosen))[0])

    tokens, parents = rng.integers(3, 9, (4, 6, K)), rng.integers(0, K, (4, 6, K))
    chosen = np.array([4, 1, 5])
    of_all, wide, of_some = (x.reshape(-1, K, x.shape[-1]) for x in run(
        source_BS, tokens, parents, chosen, rng.integers(3, 9, (6, K))))
    np.testing.assert_allclose(wide, of_all, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(of_some, of_all[chosen], rtol=1e-5, atol=1e-6)
    assert np.abs(of_all[chosen] - of_all[:3]).max() > 1e-2, 'rows should differ'


def test_there_is_little_room_only_where_that_makes_a_difference():
    for model, room in (('transformer', 6), ('gru', 9)):
        evaluator, params, (source, _), _ = at_random(
            numerals(model).replace('task', **TEXT).replace('model', hidden_size=8))
        assert begin(evaluator.model, params, pad_rows(source, np.arange(2), 24), 6, 9, 1).room == room
