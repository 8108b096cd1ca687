"""Beam search against brute force, a plain Python beam, and other people's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_decoding import SCORE, TOY, Counting, decode, log_softmax, random_toy, sources, toy, tree

from seqjax.decoding.beam import NO_BATCH, batch_axes, length_penalty, reorder, repeat
from seqjax.decoding.options import EOS, PAD


def normalise(log_prob, length, alpha):
    return log_prob / ((5 + length) / 6) ** alpha


def extensions(log_probs, prefix, V):
    """Log probabilities of the next token after a prefix, from a table of all prefixes."""
    node = 0
    for token in prefix:
        node = node * V + token + 1
    return log_probs[node % len(log_probs)]


def pad(tokens, T):
    return list(tokens) + [PAD] * (T - len(tokens))


def brute_force(log_probs, T, alpha):
    """All sequences, as (score, log probability, tokens): those with EOS by score, then those cut at T by score."""
    V = log_probs.shape[-1]
    ended, cut, alive = [], [], [((), 0.0)]
    for _ in range(T):
        alive = [((*prefix, v), total + extensions(log_probs, prefix, V)[v])
                 for prefix, total in alive for v in range(EOS, V)]
        ended += [(normalise(total, len(s), alpha), total, s) for s, total in alive if s[-1] == EOS]
        alive = [(s, total) for s, total in alive if s[-1] != EOS]
    cut = [(normalise(total, T, alpha), total, s) for s, total in alive]
    return sorted(ended, reverse=True) + sorted(cut, reverse=True)


def plain_beam(log_probs, K, T, alpha):
    """The rule of the beam in lists and loops: the K best as (score, log probability, tokens)."""
    V = log_probs.shape[-1]
    alive, ended = [((), 0.0)], []
    for length in range(1, T + 1):
        candidates = sorted(((total + extensions(log_probs, prefix, V)[v], (*prefix, v))
                             for prefix, total in alive for v in range(EOS, V)), reverse=True)[:2 * K]
        ended += [(normalise(total, length, alpha), total, s) for total, s in candidates[:K] if s[-1] == EOS]
        alive = [(s, total) for total, s in candidates if s[-1] != EOS][:K]
        best = normalise(alive[0][1], length, alpha) if alive else -np.inf
        if len(ended) >= K and best <= max(ended)[0]:
            break
    ended = sorted(ended, reverse=True)
    return (ended + [(normalise(total, T, alpha), total, s) for s, total in alive])[:K]


def check_rows(found, expected, T):
    for i, rows in enumerate(expected):
        places = found.tokens_BKT.shape[1]
        rows = rows[:places]
        assert found.tokens_BKT[i].tolist() == [pad(s, T) for _, _, s in rows] + [[PAD] * T] * (places - len(rows))
        empty = [-np.inf] * (places - len(rows))
        np.testing.assert_allclose(found.scores_BK[i], [row[0] for row in rows] + empty, rtol=1e-5)
        np.testing.assert_allclose(found.log_probs_BK[i], [row[1] for row in rows] + empty, rtol=1e-5)


@pytest.mark.parametrize('alpha', [0.0, 0.6, 3.0])
def test_an_exhaustive_beam_is_brute_force(alpha):
    # V = 5 leaves three tokens to choose from, one of them EOS: 15 sequences end within 4 tokens, 16 are cut.
    kinds, K, T = 40, 33, 4
    params = random_toy(kinds, V=5, T=T, seed=1, scale=1.5)
    found = decode(params, sources(*range(1, kinds + 1)), T, method='beam', beam_size=K, nbest=K, length_penalty=alpha)
    expected = [brute_force(log_softmax(table), T, alpha) for table in params['logits'][1:]]
    assert len(expected[0]) == 31
    check_rows(found, expected, T)
    assert len({rows[0][2] for rows in expected}) > 3


@pytest.mark.parametrize(('K', 'alpha'), [(1, 0.0), (2, 0.6), (3, 0.0), (4, 1.5)])
def test_the_beam_follows_its_rule(K, alpha):
    kinds, T = 60, 5
    params = random_toy(kinds, V=6, T=4, seed=2, scale=1.5)
    params = {'logits': params['logits'].at[:, :, EOS].add(0.5)}
    found = decode(params, sources(*range(1, kinds + 1)), T, method='beam', beam_size=K, nbest=K, length_penalty=alpha)
    expected = [plain_beam(log_softmax(table), K, T, alpha) for table in params['logits'][1:]]
    check_rows(found, expected, T)
    lengths = {len(s) for rows in expected for _, _, s in rows}
    assert lengths == {1, 2, 3, 4, 5}
    assert any(rows[-1][2][-1] != EOS for rows in expected)


def test_beam_scores_are_the_models_own():
    kinds, K, T, alpha = 12, 4, 5, 0.8
    params = random_toy(kinds, seed=3)
    source_BS = sources(*range(1, kinds + 1))
    found = decode(params, source_BS, T, method='beam', beam_size=K, nbest=K, length_penalty=alpha)
    tokens, source = jnp.asarray(found.tokens_BKT.reshape(-1, T)), jnp.repeat(source_BS, K, 0)
    np.testing.assert_allclose(SCORE(TOY, params, source, tokens), found.log_probs_BK.reshape(-1), rtol=1e-5)
    np.testing.assert_allclose(SCORE(TOY, params, source, tokens, alpha), found.scores_BK.reshape(-1), rtol=1e-5)


@pytest.mark.parametrize('scale', [2.0, 1e-6])
def test_a_beam_of_one_is_greedy(scale):
    # The second scale makes steps that differ by less than the rounding of a sum of log probabilities.
    kinds, T = 50, 24
    params = random_toy(kinds, V=9, T=4, seed=4, scale=scale)
    params = {'logits': params['logits'].at[:, :, EOS].add(-1e-6 if scale < 1 else -1.0)}
    source_BS = sources(*range(1, kinds + 1))
    greedy = decode(params, source_BS, T, method='greedy')
    beam = decode(params, source_BS, T, method='beam', beam_size=1, length_penalty=0.0)
    np.testing.assert_array_equal(beam.tokens_BKT, greedy.tokens_BKT)
    np.testing.assert_allclose(beam.scores_BK, greedy.scores_BK, rtol=1e-6)
    ended = (greedy.tokens_BKT == EOS).any(-1)
    assert ended.any()
    assert not ended.all()


def test_ties_go_to_the_lower_id_in_greedy_and_in_a_beam():
    flat = toy(np.zeros((1, 7)))
    for flags in (dict(method='greedy'), dict(method='beam', beam_size=1)):
        assert decode(flat, sources(1), 3, **flags).tokens_BKT.tolist() == [[[EOS, PAD, PAD]]]
    no_eos = toy(np.array([[0, 0, -9.0, 0, 0, 0, 0]]))
    for flags in (dict(method='greedy'), dict(method='beam', beam_size=1)):
        assert decode(no_eos, sources(1), 3, **flags).tokens_BKT.tolist() == [[[3, 3, 3]]]


def test_nbest_only_slices():
    params, source_BS = random_toy(10, seed=5), sources(*range(1, 11))
    best = decode(params, source_BS, 5, method='beam', beam_size=4, nbest=4)
    assert (np.diff(np.where((best.tokens_BKT == EOS).any(-1), best.scores_BK, -99.0)) <= 0).all()
    one = decode(params, source_BS, 5, method='beam', beam_size=4)
    for first, all_of_them in zip(one[:3], best[:3]):
        np.testing.assert_array_equal(first, all_of_them[:, :1])


def test_beam_with_length_penalty_tensor2tensor():
    # tensor2tensor beam_search_test, testNotGreedyBeamTwoWithAlpha, testNotGreedyBatchTwoBeamTwoWithAlpha and
    # testNotGreedyBeamTwo. Its ids 0, 1 (EOS), 2 are 3, 2, 4 here; its tables are by step and place in the beam,
    # which is here the last token's: place 0 is held by 4 after one step and by 3 after two.
    def kind(second):
        def next_probs(prefix):
            if not prefix:
                return {3: 0.101, EOS: 0.099, 4: 0.8}  # .1 and .1 there: a tie, which it gives to its lower id.
            place = {1: {4: 0, 3: 1}, 2: {3: 0, 4: 1}}[len(prefix)].get(prefix[-1])
            if place is None:
                return {3: 1.0}
            p = {1: [second, (0.2, 0.4, 0.4)], 2: [(0.05, 0.9, 0.05), (0.4, 0.4, 0.2)]}[len(prefix)][place]
            return dict(zip((3, EOS, 4), p))
        return tree(next_probs, 5, 3)

    params = toy(kind((0.4, 0.5, 0.1)), kind((0.3, 0.6, 0.1)))
    flags = dict(method='beam', beam_size=2, nbest=2)
    found = decode(params, sources(1, 2), 3, length_penalty=3.5, **flags)
    longer, shorter = [4, 3, EOS], [4, EOS, PAD]
    assert found.tokens_BKT.tolist() == [[longer, shorter], [shorter, longer]]
    log = np.log
    np.testing.assert_allclose(found.scores_BK, [
        [log(0.8 * 0.4 * 0.9) / (8 / 6) ** 3.5, log(0.8 * 0.5) / (7 / 6) ** 3.5],
        [log(0.8 * 0.6) / (7 / 6) ** 3.5, log(0.8 * 0.3 * 0.9) / (8 / 6) ** 3.5]], rtol=1e-5)
    found = decode(params, sources(1), 3, length_penalty=0.0, **flags)
    assert found.tokens_BKT.tolist() == [[shorter, longer]]
    np.testing.assert_allclose(np.exp(found.scores_BK), [[0.8 * 0.5, 0.8 * 0.4 * 0.9]], rtol=1e-5)


def test_back_pointers_are_followed_as_in_gather_tree():
    # google/seq2seq beam_search_test: ids [[1,2,3],[4,5,6],[7,8,9]] with parents [[0,0,0],[0,1,1],[2,1,2]] are the
    # hypotheses 2 6 7, 2 5 8 and 2 6 9. Ids here are two higher; the probabilities make a beam take those parents.
    steps = {(): {3: 0.40, 4: 0.38, 5: 0.20}, (3,): {6: 0.5}, (4,): {7: 0.5, 8: 0.48}, (5,): {},
             (3, 6): {}, (4, 7): {10: 0.5}, (4, 8): {9: 0.6, 11: 0.39}}

    def next_probs(prefix):
        given = steps.get(prefix, {})
        others = [v for v in range(2, 12) if v not in given]
        return given | {v: (1 - sum(given.values())) / len(others) for v in others}

    found = decode(toy(tree(next_probs, 12, 3)), sources(1), 3, method='beam', beam_size=3, nbest=3, length_penalty=0.0)
    assert found.tokens_BKT.tolist() == [[[4, 8, 9], [4, 7, 10], [4, 8, 11]]]


def test_length_penalty_google_seq2seq():
    # google/seq2seq beam_search_test, with its factor .6.
    np.testing.assert_allclose(length_penalty(np.array([1, 2, 3]), 0.6), [1.0, 1.0969027, 1.1884017], rtol=1e-6)
    np.testing.assert_array_equal(length_penalty(np.array([1, 2, 30]), 0.0), 1.0)


def test_finished_goes_before_unfinished():
    # 3 3 is nine times as likely as 4 EOS, but it has not ended.
    def next_probs(prefix):
        return {(): {3: 0.9, 4: 0.1}, (3,): {3: 1.0}, (4,): {EOS: 1.0}}[prefix]

    table = np.full((5 + 1, 5), -np.inf)
    for prefix, node in {(): 0, (3,): 4, (4,): 5}.items():
        for token, p in next_probs(prefix).items():
            table[node, token] = np.log(p)
    found = decode(toy(table), sources(1), 2, method='beam', beam_size=3, nbest=3, length_penalty=0.0)
    assert found.tokens_BKT.tolist() == [[[4, EOS], [3, 3], [PAD, PAD]]]
    np.testing.assert_allclose(found.scores_BK, [[np.log(0.1), np.log(0.9), -np.inf]], rtol=1e-6)


def test_a_row_is_done_when_its_beam_is_full():
    model = Counting()
    # EOS after one token and after two: the beam of two is full, though others could go on for 48 more.
    quick = tree(lambda prefix: {EOS: 0.6, 3: 0.4}, 4, 2)
    found = decode(toy(quick), sources(1), 50, model, method='beam', beam_size=2, nbest=2, length_penalty=0.0)
    jax.effects_barrier()
    assert model.calls == 2
    np.testing.assert_allclose(np.exp(found.scores_BK), [[0.6, 0.24]], rtol=1e-6)


def test_a_hypothesis_that_is_nearly_certain_outlives_poor_ones_that_finish_before_it():
    certain = tree(lambda prefix: {EOS: 0.98, 4: 0.02} if len(prefix) == 3 else {4: 0.98, EOS: 0.02}, 5, 4)
    model = Counting()
    found = decode(toy(certain), sources(1), 20, model, method='beam', beam_size=2, nbest=2, length_penalty=0.6)
    jax.effects_barrier()
    assert found.tokens_BKT[0, 0].tolist() == pad([4, 4, 4, EOS], 20)
    np.testing.assert_allclose(np.exp(found.log_probs_BK[0, 0]), 0.98 ** 4, rtol=1e-5)
    assert model.calls == 4, 'no other could be as good'


def test_a_row_is_done_when_nothing_is_left_to_extend():
    model = Counting()
    two = tree(lambda prefix: {EOS: 1.0} if prefix else {3: 0.6, 4: 0.4}, 5, 2)
    found = decode(toy(two), sources(1), 50, model, method='beam', beam_size=4, nbest=4, length_penalty=0.0)
    jax.effects_barrier()
    assert model.calls == 2
    assert found.tokens_BKT[0].tolist() == [pad(s, 50) for s in ([3, EOS], [4, EOS], [], [])]
    np.testing.assert_allclose(np.exp(found.scores_BK), [[0.6, 0.4, 0, 0]], rtol=1e-6)


def test_batch_axes_are_where_shapes_differ():
    carry = batch_axes(lambda rows: jax.eval_shape(lambda: TOY.start({}, {'kind_B': jnp.zeros(rows)}, 7)))
    assert carry == {'node_NB': 1, 'position_B': 0, 'steps': NO_BATCH, 'seen_1BT': 1}
    assert batch_axes(lambda rows: None) is None
    with pytest.raises(ValueError, match=r"'heads'.* \(16, 4\) for 2 rows and \(24, 4\) for 3"):
        batch_axes(lambda rows: {'heads': jax.ShapeDtypeStruct((rows * 8, 4), jnp.float32)})
    with pytest.raises(ValueError, match='no axis that is the batch alone'):
        batch_axes(lambda rows: [jax.ShapeDtypeStruct((rows, rows), jnp.float32)])


def test_repeat_and_reorder_along_the_batch_axis_of_each_leaf():
    rng = np.random.default_rng(6)

    def leaves(rows):
        return {'a': rng.random((rows, 5), np.float32), 'b': rng.random((3, rows, 4), np.float32), 'c': 3.0,
                'd': np.ones((2, 2))}

    few = leaves(2)
    axes = {'a': 0, 'b': 1, 'c': NO_BATCH, 'd': NO_BATCH}
    wide = repeat(few, axes, 3)
    np.testing.assert_array_equal(wide['a'], few['a'][[0, 0, 0, 1, 1, 1]])
    np.testing.assert_array_equal(wide['b'], few['b'][:, [0, 0, 0, 1, 1, 1]])
    assert wide['d'].shape == (2, 2)
    beams = leaves(6)
    parent_BK = jnp.array([[2, 0, 0], [1, 1, 2]])
    moved = reorder(beams, axes, parent_BK)
    np.testing.assert_array_equal(moved['a'], beams['a'][[2, 0, 0, 4, 4, 5]])
    np.testing.assert_array_equal(moved['b'], beams['b'][:, [2, 0, 0, 4, 4, 5]])
    assert moved['c'] == 3
    assert moved['d'].shape == (2, 2)


def test_reordering_moves_nothing_between_devices():
    mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
    cache, parents = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in ((None, 'data'), ('data',)))
    fn = jax.jit(lambda x, p: reorder(x, 1, p), in_shardings=(cache, parents), out_shardings=cache)
    compiled = fn.lower(jnp.zeros((2, 8 * 3, 5)), jnp.zeros((8, 3), jnp.int32)).compile().as_text()
    assert not any(word in compiled for word in ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute'))


def test_a_wider_search_makes_no_search_error_that_enumeration_would_find():
    kinds, T = 30, 3
    params = random_toy(kinds, V=5, T=T, seed=7, scale=1.0)
    params = {'logits': params['logits'].at[:, :, EOS].add(-0.5)}
    source_BS = sources(*range(1, kinds + 1))
    best = np.array([max(row for row in brute_force(log_softmax(t), T, 0.0) if row[2][-1] == EOS)[0]
                     for t in params['logits'][1:]])
    errors = []
    for K in (1, 16):
        found = decode(params, source_BS, T, method='beam', beam_size=K, length_penalty=0.0)
        ended = (found.tokens_BKT[:, 0] == EOS).any(-1)
        errors.append(int((~ended | (found.scores_BK[:, 0] < best - 1e-4)).sum()))
    assert errors[0] > 3, 'greedy should miss some'
    assert errors[1] == 0
