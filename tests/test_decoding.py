"""Greedy decoding, the options, scoring, and what holds for every method."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.decoding.options import BOS, EOS, PAD, Decoding
from seqjax.decoding.search import score, search
from seqjax.errors import UserError
from seqjax.models.contract import Translator
from seqjax.options import options, unread


class Toy:
    """A translator whose next token may depend on the whole prefix, known to it only through its carry.

    params['logits'] is (kinds, prefixes, V): the first source token picks the kind; prefixes are numbered as the nodes
    of a V-ary tree, modulo their number. The leaves of memory and carry have their batch axis in several places, or
    none.
    """

    branches = False

    def apply(self, variables, *args, method):
        return getattr(self, method)(variables['params'], *args)

    widened = Translator.widened

    def unstacked(self, params, memory):
        return params, memory

    def encode(self, params, source_BS):
        return {'kind_B': source_BS[:, 0], 'mask_1BS': (source_BS != PAD)[None], 'one': jnp.float32(1)}

    def start(self, params, memory, max_length):
        B = memory['kind_B'].shape[0]
        return {'node_NB': jnp.zeros((2, B), jnp.int32), 'position_B': jnp.zeros(B, jnp.int32), 'steps': jnp.int32(0),
                'seen_1BT': jnp.zeros((1, B, max_length), jnp.int32)}

    def decode(self, params, tokens_BT, memory, carry=None):
        carry = self.start(params, memory, tokens_BT.shape[1]) if carry is None else carry
        M, V = params['logits'].shape[1:]
        logits = []
        for token_B in tokens_BT.T:
            position_B, node_B = carry['position_B'], carry['node_NB'][1]
            node_B = jnp.where(position_B == 0, 0, (node_B * V + token_B + 1) % M)
            seen_1BT = jax.vmap(lambda seen, t, p: seen.at[p].set(t))(carry['seen_1BT'][0], token_B, position_B)[None]
            carry = {'node_NB': carry['node_NB'].at[1].set(node_B), 'position_B': position_B + 1,
                     'steps': carry['steps'] + 1, 'seen_1BT': seen_1BT}
            logits.append(params['logits'][memory['kind_B'], node_B] * memory['one'])
        return jnp.stack(logits, axis=1), carry


class Counting(Toy):
    """A Toy that counts on the host how often it is asked for tokens."""

    def __init__(self):
        self.calls = 0

    def decode(self, *args):
        jax.debug.callback(self.count)
        return super().decode(*args)

    def count(self):
        self.calls += 1


def tree(next_probs, V, T):
    """Logits (prefixes, V) of a Toy from a function of the prefix (a tuple) that returns {token: probability}."""
    rows = []
    for length in range(T):
        for prefix in itertools.product(range(V), repeat=length):
            row = np.full(V, -np.inf)
            for token, p in next_probs(prefix).items():
                row[token] = np.log(p)
            rows.append(row)
    return np.array(rows)


def toy(*kinds):
    """Parameters of a Toy whose kind i + 1 has the logits kinds[i]; kind 0, a source of PAD, yields NaN."""
    kinds = np.stack([np.full_like(kinds[0], np.nan), *kinds])
    return {'logits': jnp.asarray(kinds, jnp.float32)}


def random_toy(kinds, V=6, T=4, seed=0, scale=2.0):
    nodes = sum(V ** t for t in range(T))
    return toy(*np.random.default_rng(seed).normal(0, scale, (kinds, nodes, V)))


def sources(*kinds, width=2):
    source_BS = np.zeros((len(kinds), width), np.int32)
    source_BS[:, 0] = kinds
    source_BS[np.array(kinds) != 0, 1] = EOS
    return jnp.asarray(source_BS)


SEARCH = jax.jit(search, static_argnums=(0, 3, 4))
SCORE = jax.jit(score, static_argnums=0)
TOY = Toy()


def decode(params, source_BS, max_length, model=TOY, rng=None, row=None, **flags):
    return jax.tree.map(np.asarray, SEARCH(model, params, source_BS, Decoding(**flags), max_length, rng, row))


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def greedy_by_hand(logits, T):
    """Greedy decoding in plain Python: tokens and log probability."""
    V = logits.shape[-1]
    node, tokens, total = 0, [], 0.0
    while len(tokens) < T and EOS not in tokens:
        log_probs = log_softmax(logits[node % len(logits)])
        token = max(range(2, V), key=lambda v: log_probs[v])
        total += log_probs[token]
        tokens.append(token)
        node = (node * V + token + 1) % len(logits)
    return tokens + [PAD] * (T - len(tokens)), total


METHODS = [dict(method='greedy'), dict(method='beam', beam_size=3, nbest=3), dict(method='sample', seed=3)]


def test_greedy_takes_the_likeliest_token_of_every_step():
    params = random_toy(20)
    found = decode(params, sources(*range(1, 21)), 6)
    assert found.tokens_BKT.shape == (20, 1, 6)
    assert found.tokens_BKT.dtype == np.int32
    assert found.scores_BK.dtype == np.float32
    ends = set()
    for i in range(20):
        tokens, total = greedy_by_hand(np.asarray(params['logits'][i + 1]), 6)
        assert found.tokens_BKT[i, 0].tolist() == tokens
        np.testing.assert_allclose(found.log_probs_BK[i, 0], total, rtol=1e-5)
        ends.add(tokens.index(EOS) if EOS in tokens else None)
    assert None in ends, 'no row reached max_length'
    assert len(ends) > 3, 'rows should end at different steps'
    np.testing.assert_array_equal(found.scores_BK, found.log_probs_BK)


def test_greedy_tensor2tensor():
    # tensor2tensor beam_search_test: testGreedyBatchOne, testGreedyWithCornerCase; its ids 0, 1 (EOS), 2 are 3, 2, 4.
    steps = [{3: 0.7, EOS: 0.3}, {3: 0.4, EOS: 0.6}, {3: 0.5, EOS: 0.5}]
    found = decode(toy(tree(lambda prefix: steps[len(prefix)], 5, 3)), sources(1), 3)
    assert found.tokens_BKT.tolist() == [[[3, EOS, PAD]]]
    np.testing.assert_allclose(np.exp(found.scores_BK), [[0.7 * 0.6]], rtol=1e-6)

    steps = [{3: 0.2, EOS: 0.1, 4: 0.7}, {3: 0.4, EOS: 0.1, 4: 0.5}]
    found = decode(toy(tree(lambda prefix: steps[len(prefix)], 5, 2)), sources(1), 2)
    assert found.tokens_BKT.tolist() == [[[4, 4]]]
    np.testing.assert_allclose(np.exp(found.scores_BK), [[0.7 * 0.5]], rtol=1e-6)


@pytest.mark.parametrize('flags', METHODS, ids=lambda flags: flags['method'])
def test_a_row_does_not_depend_on_its_batch(flags):
    params = random_toy(7)
    kinds = [1, 2, 0, 3, 4, 5, 6, 7]
    rows = jnp.arange(100, 108)
    together = decode(params, sources(*kinds), 5, row=rows, **flags)
    assert len({str(row) for row in together.tokens_BKT.tolist()}) > 4
    for i, kind in enumerate(kinds):
        # Alone, and padded to another width.
        alone = decode(params, sources(kind, width=5), 5, row=rows[i:i + 1], **flags)
        for one, all_rows in zip(alone, together):
            np.testing.assert_array_equal(one[0], all_rows[i])
    order = np.array([7, 3, 1, 0, 2])
    fewer = decode(params, sources(*np.array(kinds)[order]), 5, row=rows[order], **flags)
    for some, all_rows in zip(fewer, together):
        np.testing.assert_array_equal(some, all_rows[order])


@pytest.mark.parametrize('flags', METHODS, ids=lambda flags: flags['method'])
def test_pad_and_bos_are_never_chosen_and_pad_follows_eos(flags):
    params = random_toy(30)
    params = {'logits': params['logits'].at[:, :, PAD].add(6.0).at[:, :, BOS].add(5.0)}
    found = decode(params, sources(*range(1, 31)), 6, **flags)
    for tokens in found.tokens_BKT.reshape(-1, 6).tolist():
        end = tokens.index(EOS) + 1 if EOS in tokens else 6
        assert PAD not in tokens[:end]
        assert BOS not in tokens
        assert tokens[end:] == [PAD] * (6 - end)
    # The forbidden mass is the model's: it is not shared out among the others.
    own = SCORE(TOY, params, jnp.repeat(sources(*range(1, 31)), found.tokens_BKT.shape[1], 0),
                jnp.asarray(found.tokens_BKT.reshape(-1, 6)))
    np.testing.assert_allclose(found.log_probs_BK.reshape(-1), own, rtol=1e-5)


@pytest.mark.parametrize('flags', METHODS, ids=lambda flags: flags['method'])
def test_filler_rows_end_at_once_and_others_at_eos(flags):
    model = Counting()
    found = decode(random_toy(1), sources(0, 0, 0), 9, model, **flags)
    jax.effects_barrier()
    assert model.calls == (flags['method'] == 'beam'), 'the first token of a beam is not in the loop'
    assert not found.tokens_BKT.any()
    assert not found.scores_BK.any()
    assert not found.log_probs_BK.any()

    # After two tokens nothing but EOS has any probability, and every beam is full or has nothing left to extend.
    model.calls = 0
    two = tree(lambda prefix: {EOS: 1.0} if len(prefix) == 2 else {3: 0.6, 4: 0.4}, 5, 4)
    found = decode(toy(two), sources(1, 0, 1), 9, model, **flags)
    jax.effects_barrier()
    assert model.calls == 3
    assert (found.tokens_BKT[0, :, 2] == EOS).all()
    assert not found.tokens_BKT[1].any()


@pytest.mark.parametrize('flags', METHODS, ids=lambda flags: flags['method'])
def test_max_length_cuts_what_does_not_end(flags):
    model = Counting()
    endless = tree(lambda prefix: {3: 0.5, 4: 0.3, 5: 0.2}, 6, 2)
    found = decode(toy(endless), sources(1, 1), 4, model, **flags)
    jax.effects_barrier()
    assert model.calls == 4
    assert found.tokens_BKT.shape[-1] == 4
    assert (found.tokens_BKT > EOS).all()
    assert np.isfinite(found.scores_BK).all()


def test_score_is_the_teacher_forced_log_probability():
    params = random_toy(3)
    target_BT = np.array([[4, 5, EOS, PAD], [EOS, PAD, PAD, PAD], [3, 3, 3, EOS], [PAD] * 4])
    kinds = [1, 2, 3, 1]
    expected = []
    for kind, target in zip(kinds, target_BT.tolist()):
        node, total = 0, 0.0
        for token in target:
            if token != PAD:
                total += log_softmax(params['logits'][kind][node])[token]
                node = node * 6 + token + 1
        expected.append(total)
    own = SCORE(TOY, params, sources(*kinds), jnp.asarray(target_BT))
    np.testing.assert_allclose(own, expected, rtol=1e-5)
    normalised = SCORE(TOY, params, sources(*kinds), jnp.asarray(target_BT), 0.7)
    np.testing.assert_allclose(normalised, np.array(expected) / ((5 + np.array([3, 1, 4, 0])) / 6) ** 0.7, rtol=1e-5)


def test_low_precision_logits_are_scored_in_float32():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_toy(4))

    class Low(Toy):
        def decode(self, *args):
            logits, carry = super().decode(*args)
            return logits.astype(jnp.bfloat16), carry

    found = decode(params, sources(1, 2, 3, 4), 4, Low())
    assert found.log_probs_BK.dtype == np.float32
    for i in range(4):
        _, total = greedy_by_hand(np.asarray(params['logits'][i + 1], np.float64), 4)
        np.testing.assert_allclose(found.log_probs_BK[i, 0], total, rtol=1e-5)


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r'nbest=6 is more than --decoding\.beam_size=5'):
        Decoding(method='beam', nbest=6).check()
    Decoding(method='greedy', nbest=6).check()
    for temperature in (0.0, -1.0, float('nan')):
        with pytest.raises(UserError, match='method=greedy'):
            decode(random_toy(1), sources(1), 2, method='sample', temperature=temperature)


def test_options_are_free_and_read_by_their_method_only():
    read = {method: {f.name for f in options(Decoding(method=method)) if not unread(Decoding(method=method), f)}
            for method in ('greedy', 'beam', 'sample')}
    always = {'method', 'max_length', 'batch_size'}
    assert read == {'greedy': always, 'beam': always | {'beam_size', 'length_penalty', 'nbest'},
                    'sample': always | {'temperature', 'top_k', 'top_p', 'seed'}}
    assert all(f.metadata['free'] for f in options(Decoding()))
    hash(Decoding())
