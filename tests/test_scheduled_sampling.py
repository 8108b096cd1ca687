"""Scheduled sampling: the schedules, whose words are read, and what must not change.

That modes agree with own words is in test_agreement.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recurrent_checks as checks
from tiny import Bigram, bigrams, outcome, records

from experiments.translation import numerals
from seqjax import catalogue, figures, flags
from seqjax.data.batches import Batch, Batches
from seqjax.decoding.options import BOS, EOS, PAD, Decoding
from seqjax.decoding.search import search
from seqjax.errors import UserError
from seqjax.models.luong import Luong
from seqjax.models.transformer import Transformer
from seqjax.options import options, unread
from seqjax.prepared import prepare
from seqjax.run import train
from seqjax.tasks.scheduled_sampling import SCHEDULES, one_by_one
from seqjax.tasks.translation import Translation
from seqjax.training.progress import Progress

SMALL = dict(hidden_size=6, num_layers=1, dropout=0.0)
MODELS = {'luong': Luong(attention='monotonic', window=2, **SMALL),
          'transformer': Transformer(num_heads=2, feedforward_size=8, **SMALL)}
every = pytest.mark.parametrize('name', MODELS)
ways = pytest.mark.parametrize('passes', ['stepwise', 'two_pass'])
KEY = jax.random.key(7)


def batch(B=6, T=5, padded=True):
    """Random pairs; the second last row is padded most, the last is filler."""
    rng = np.random.default_rng(1)
    source, target = rng.integers(3, 11, (B, 6)).astype(np.int32), rng.integers(3, 13, (B, T)).astype(np.int32)
    source[:, -1] = target[:, -1] = EOS
    weight = np.ones(B, np.float32)
    if padded:
        target[-2, 2:], source[-2, 3:], target[-1], source[-1], weight[-1] = [EOS] + [PAD] * (T - 3), PAD, PAD, PAD, 0
    return Batch(source, target, weight, np.arange(B, dtype=np.int32))


def always(share=1.0, **fields):
    return Translation(sampling='constant', sampling_share=share, **fields)


@functools.cache
def ready(name):
    """Random parameters of a model that says different things."""
    found = checks.compiled(MODELS[name])
    if name == 'transformer':  # whose last bias would outweigh everything
        norm = jax.tree.map_with_path(lambda path, x: x * (path[-1].key != 'bias'), found.params['decoder_norm'])
        found.params = found.params | {'decoder_norm': norm}
    return found


@functools.cache
def losses(name, task, sampled=True):
    """(params, batch, key) -> ((objective, report), gradient) of the summed loss."""
    model = ready(name).model

    def loss(params, pairs, key):
        objective, report = task.loss(model, params, pairs, key if sampled else None, 3)
        return objective['loss'][0], objective | report

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def run(name, task, pairs, key=KEY, **more):
    (_, terms), gradient = losses(name, task, **more)(ready(name).params, pairs, key)
    return terms, gradient


def read(name, task, pairs, key=KEY):
    """The words that the decoder reads, (B, T)."""
    net = ready(name)

    def words(params):
        memory = net.model.apply({'params': params}, pairs.source, method='encode')
        revise, _ = task.revision(net.model, params, pairs, key, 3)
        return revise(memory, jnp.asarray(forced(pairs)))

    return np.asarray(jax.jit(words)(net.params))


def forced(pairs):
    return np.pad(pairs.target[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)


def allowed(logits):
    """Logits of what a decoder may say."""
    return np.where(np.isin(np.arange(logits.shape[-1]), [PAD, BOS]), -np.inf, logits)


@pytest.mark.parametrize(('fields', 'expected'), [
    (dict(sampling='constant', sampling_share=0.1), 0.9), (dict(sampling='linear', sampling_slope=0.1), 0.5),
    (dict(sampling='exponential', sampling_base=0.8), 0.8 ** 5),
    (dict(sampling='inverse_sigmoid', sampling_scale=1.0), 1 / (1 + np.exp(5.0))), (dict(), 1.0),
    (dict(sampling='linear', sampling_slope=0.1, sampling_floor=0.7), 0.7)], ids=str)
def test_schedules_at_step_five(fields, expected):
    """The values of OpenNMT-tf's own test of get_sampling_probability."""
    np.testing.assert_allclose(Translation(**fields).forcing(5), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(Translation(**fields).forcing)(jnp.int32(5)), expected, rtol=1e-6)


def test_schedules_go_from_one_to_zero():
    steps = np.array([1, 10, 100, 460, 1000, 10_000, 10_000_000])
    for sampling in SCHEDULES[1:]:
        shares = np.array([Translation(sampling=sampling).forcing(step) for step in steps])
        assert (np.diff(shares) <= 0).all()
        assert shares[0] > 0.98
        assert shares[-1] == 0
    assert Translation(sampling='inverse_sigmoid').forcing(100 * np.log(100)) == pytest.approx(0.5)


@ways
@every
def test_no_own_words_is_teacher_forcing(name, passes):
    """The same numbers, of the loss and of every gradient."""
    terms, gradient = run(name, always(0.0, sampling_passes=passes), batch())
    expected, expected_gradient = run(name, Translation(), batch())
    np.testing.assert_array_equal(terms.pop('teacher_forcing'), [18, 18])  # 4 rows of 5 words, one of 3, each less one
    assert 'teacher_forcing' not in expected
    jax.tree.map(np.testing.assert_array_equal, terms, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), gradient, expected_gradient)
    np.testing.assert_array_equal(read(name, always(0.0, sampling_passes=passes), batch()), forced(batch()))


def test_no_own_words_is_teacher_forcing_with_dropout_too():
    model = Luong(hidden_size=6, num_layers=2, dropout=0.4).clone(**checks.SIZES)
    params = model.init(jax.random.key(0), batch().source, batch().target)['params']
    one, two, other = (jax.jit(lambda key, task=task: task.loss(model, params, batch(), key, 3)[0]['loss'][0])(key)
                       for task, key in ((always(0.0), KEY), (Translation(), KEY), (always(0.0), jax.random.key(8))))
    assert one == two != other


@every
def test_own_words_alone_are_those_of_greedy_decoding(name):
    pairs, net = batch(B=40, T=7, padded=False), ready(name)
    found = read(name, always(sampling_word='argmax', sampling_passes='stepwise'), pairs)
    decoded = jax.jit(lambda params: search(net.model, params, pairs.source, Decoding(), 7))(net.params)
    tokens_BT = np.asarray(decoded.tokens_BKT[:, 0])
    assert (found[:, 0] == BOS).all()
    for row, tokens in zip(found, tokens_BT):
        length = int((tokens != PAD).sum())
        np.testing.assert_array_equal(row[1:length + 1], tokens[:min(length, 6)])
    assert len({str(row) for row in found}) > 2, 'one answer to everything proves nothing'
    ends = (tokens_BT == EOS).any(axis=1)
    assert ends.any() or name != 'luong'
    assert (found[ends] > BOS)[:, 1:].all(), 'it reads on after its EOS'


@every
def test_one_by_one_follows_what_was_read(name):
    """Against a whole pass over the words so far for each next word."""
    pairs, net = batch(padded=False), ready(name)
    own_BT = np.random.default_rng(3).random((6, 4)) < 0.5
    memory = net.encode(net.params, pairs.source)

    def draw(logits_BV, column):
        return jnp.where(jnp.arange(13) == PAD, -jnp.inf, logits_BV).argmax(-1).astype(jnp.int32)

    found = jax.jit(lambda params: one_by_one(net.model, params, memory, jnp.asarray(forced(pairs)),
                                              jnp.asarray(own_BT), draw, KEY))(net.params)
    words = forced(pairs)
    for t in range(1, 5):
        logits_BTV = np.array(net.full(net.params, pairs.source, words))
        logits_BTV[:, :, PAD] = -np.inf
        words[:, t] = np.where(own_BT[:, t - 1], logits_BTV[:, t - 1].argmax(-1), words[:, t])
    np.testing.assert_array_equal(found, words)
    assert (words != forced(pairs))[:, 1:].sum() > own_BT.sum() / 2


@every
def test_two_passes_read_what_follows_the_true_words(name):
    pairs, net = batch(), ready(name)
    found = read(name, always(sampling_word='argmax', sampling_passes='two_pass'), pairs)
    says_BT = allowed(np.asarray(net.full(net.params, pairs.source, forced(pairs)))).argmax(-1)
    expected = np.where(pairs.target[:, 1:] != PAD, says_BT[:, :-1], forced(pairs)[:, 1:])
    np.testing.assert_array_equal(found[:, 1:], expected)
    assert (found != forced(pairs)).sum() > 8


@ways
@every
def test_the_loss_is_that_of_the_words_read_and_no_gradient_goes_through_their_choice(name, passes):
    pairs, net = batch(), ready(name)
    task = always(0.6, sampling_passes=passes)
    terms, gradient = run(name, task, pairs)
    words = read(name, task, pairs)
    assert 3 < (words != forced(pairs)).sum() < 16

    def loss(params):
        log_probs_BTV = jax.nn.log_softmax(net.full(params, pairs.source, words))
        nll_BT = -jnp.take_along_axis(log_probs_BTV, pairs.target[:, :, None], axis=-1)[:, :, 0]
        return (nll_BT * (pairs.target != PAD)).sum()

    expected, expected_gradient = jax.jit(jax.value_and_grad(loss))(net.params)
    np.testing.assert_allclose(terms['loss'][0], expected, rtol=1e-5)
    usual = run(name, Translation(), pairs)[1]['target_embedding']
    assert np.abs(gradient['target_embedding'] - usual).max() > 1e-2, 'other words were read'
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient, expected_gradient)


def test_a_parallel_decoder_takes_two_passes_and_others_go_step_by_step():
    for name in MODELS:
        auto, stepwise, two_pass = (read(name, always(sampling_word='argmax', sampling_passes=passes), batch())
                                    for passes in ('auto', 'stepwise', 'two_pass'))
        assert (stepwise != two_pass).any()
        np.testing.assert_array_equal(auto, two_pass if name == 'transformer' else stepwise)


def test_evaluation_reads_the_true_words():
    terms, _ = run('luong', always(), batch(), sampled=False)
    expected, _ = run('luong', Translation(), batch(), sampled=False)
    assert terms.keys() == {'loss', 'nll', 'accuracy'}
    jax.tree.map(np.testing.assert_array_equal, terms, expected)


def constant_logits(logits_V):
    """A model that says the same whatever it reads, and how: (tokens, memory, carry) -> logits, carry."""
    class Constant:
        parallel_decoder = True

        def apply(self, variables, tokens_BT, *rest, method, rngs=None):
            if method == 'start':
                return ()
            return jnp.broadcast_to(jnp.asarray(logits_V, jnp.float32), (*tokens_BT.shape, len(logits_V))), ()

    return Constant()


def revised(task, model, pairs, key):
    """The words read, and the share of true ones as (sum, count)."""
    def words(key):
        revise, report = task.revision(model, {}, pairs, key, 3)
        return revise(jnp.zeros(1), jnp.asarray(forced(pairs))), report['teacher_forcing']

    tokens, share = jax.jit(words)(key)
    return np.asarray(tokens), tuple(map(float, share))


def rows(B, T, word, lengths):
    """Targets of one word B times over, EOS after `lengths` - 1 of them."""
    last_B1 = lengths[:, None] - 1
    target = np.where(np.arange(T) < last_B1, word, np.where(np.arange(T) == last_B1, EOS, PAD))
    return Batch(np.ones((B, 2), np.int32), target.astype(np.int32), (lengths > 0).astype(np.float32), np.arange(B))


@ways
def test_the_share_of_true_words(passes):
    """What is reported is what was read, and follows the schedule; a row's choices are independent."""
    lengths = np.random.default_rng(0).integers(0, 9, 3000)
    pairs = rows(3000, 8, 5, lengths)
    task = always(0.3, sampling_word='argmax', sampling_passes=passes)
    tokens, (true, count) = revised(task, constant_logits([0, 0, 0, 1, 9, 1, 1]), pairs, KEY)
    own = tokens == 4
    assert count == np.maximum(lengths - 1, 0).sum()
    assert true == count - own.sum()
    np.testing.assert_array_equal(np.where(own, forced(pairs), tokens), forced(pairs))
    assert not own[:, 0].any()
    assert abs(own.sum() / count - 0.3) < 5 * (0.3 * 0.7 / count) ** 0.5
    long = own[lengths == 8][:, 1:]
    assert abs(long.mean(axis=0) - 0.3).max() < 5 * (0.21 / len(long)) ** 0.5, 'every column alike'
    pairs_of = (long[:, :-1] & long[:, 1:]).mean()
    assert abs(pairs_of - 0.09) < 0.02, 'each word for itself, not sentence by sentence'


@ways
def test_own_words_are_drawn_from_the_model(passes):
    logits = np.array([5.0, 4.0, 0.0, 1.0, 2.0, 0.5, -1.0])
    pairs = rows(4000, 3, 6, np.full(4000, 3))
    tokens, _ = revised(always(sampling_passes=passes), constant_logits(logits), pairs, KEY)
    p = np.where(np.arange(7) < EOS, 0, np.exp(logits))
    p /= p.sum()
    for column in (1, 2):
        found = np.bincount(tokens[:, column], minlength=7) / 4000
        assert (abs(found - p) <= 5 * (p * (1 - p) / 4000) ** 0.5).all(), found
    assert (tokens[:, 1] == tokens[:, 2]).mean() < 0.6, 'columns are drawn apart'
    other, _ = revised(always(sampling_passes=passes), constant_logits(logits), pairs, jax.random.key(8))
    assert (other != tokens).any()
    likeliest, _ = revised(always(sampling_word='argmax', sampling_passes=passes), constant_logits(logits), pairs, KEY)
    assert (likeliest[:, 1:] == 4).all()


@ways
@every
def test_padding_never_matters(name, passes):
    pairs = batch()
    wider = pairs._replace(source=np.pad(pairs.source, ((0, 0), (0, 2))), target=np.pad(pairs.target, ((0, 0), (0, 3))))
    task = always(0.6, sampling_passes=passes)
    terms, gradient = run(name, task, pairs)
    expected, expected_gradient = run(name, task, wider)
    assert 0 < terms['teacher_forcing'][0] < terms['teacher_forcing'][1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), terms, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient, expected_gradient)
    np.testing.assert_array_equal(read(name, task, wider)[:, :5], read(name, task, pairs))
    # What filler rows hold is read by nobody either.
    junk = pairs._replace(source=np.where(pairs.weight[:, None] == 0, 7, pairs.source))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), run(name, task, junk)[0], terms)


def test_dropout_differs_in_every_step_of_the_scan():
    class Dice:
        """Says what its dropout key comes to."""

        parallel_decoder = False

        def apply(self, variables, tokens_BT, *rest, method, rngs=None):
            if method == 'start':
                return ()
            word_B = jax.random.randint(rngs['dropout'], tokens_BT.shape[:1], 3, 1000)
            return jax.nn.one_hot(word_B, 1000)[:, None], ()

    pairs = rows(1, 12, 3, np.array([12]))
    task = always(sampling_word='argmax')
    words = [revised(task, Dice(), pairs, jax.random.key(n))[0][0, 1:] for n in (7, 8)]
    assert len(set(np.concatenate(words))) > 20
    np.testing.assert_array_equal(revised(task, Dice(), pairs, KEY)[0][0, 1:], words[0])


READ_WITH = {'sampling_share': 'constant', 'sampling_slope': 'linear', 'sampling_floor': 'linear',
             'sampling_base': 'exponential', 'sampling_scale': 'inverse_sigmoid'}


def test_what_the_schedule_does_not_read_is_refused():
    fields = {f.name: f for f in options(Translation()) if f.name.startswith('sampling_')}
    for sampling in ('none', *SCHEDULES):
        task = Translation(sampling=sampling)
        unused = {name for name, field in fields.items() if unread(task, field)}
        expected = {name for name, schedule in READ_WITH.items() if schedule != sampling}
        assert unused == expected | ({'sampling_word', 'sampling_passes'} if sampling == 'none' else set())
    for name in fields:
        with pytest.raises(UserError, match=rf'--task\.{name}=.* is not read with --task\.sampling=none; drop it, or'):
            flags.override('task.', Translation(), {name: getattr(Translation(), name)})


def test_a_run_that_dies_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """Choices and words depend on the seed and the step alone."""
    monkeypatch.setattr(figures, 'draw_run', lambda *args: [])
    for passes in ('stepwise', 'two_pass'):
        experiment = bigrams(steps=7, checkpoint_every=3, evaluate_every=5, log_every=1, accumulate=2).replace(
            'task', sampling='linear', sampling_slope=0.1, sampling_passes=passes)
        train(experiment, tmp_path / f'{passes}_whole', say=lambda text: None)

        class Died(Exception):
            """The machine went off."""

        def die(progress, step, *rest, advance=Progress.advance):
            if step == 5:
                raise Died
            advance(progress, step, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(Progress, 'advance', die)
            with pytest.raises(Died):
                train(experiment, tmp_path / passes, say=lambda text: None)
        train(experiment, tmp_path / passes, say=lambda text: None)
        assert outcome(tmp_path / passes) == outcome(tmp_path / f'{passes}_whole')
        shares = [r['teacher_forcing'] for r in records(tmp_path / passes) if r['split'] == 'train']
        np.testing.assert_allclose(shares, 1 - 0.1 * np.arange(1, 8), atol=0.35)
        assert len(set(shares)) > 4
        assert not any('teacher_forcing' in r for r in records(tmp_path / passes) if r['split'] == 'valid')
    one, two = (outcome(tmp_path / passes)['params_sha256'] for passes in ('stepwise', 'two_pass'))
    assert one != two


@pytest.mark.parametrize('model', catalogue.models())
def test_every_model_takes_both_ways(model):
    """Nothing but the contract is asked for. Traced, not run: a carry that changes its shape or type would show."""
    experiment = numerals(model).replace('task', train_size=20, valid_size=2, test_size=2, highest=999, buckets=1)
    prepared = experiment.task.prepare()
    ready = prepare(experiment, prepared.codec)
    pairs = Batches(*prepared.ids['train'], 4, prepared.codec.shapes, None).batch(0)
    params = ready.abstract_params()
    for passes in ('stepwise', 'two_pass'):
        loss = always(sampling_passes=passes).loss
        gradient = jax.eval_shape(jax.grad(lambda params, loss=loss: loss(
            ready.experiment.model, params, pairs, KEY, 1)[0]['loss'][0]), params)
        assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)


def test_a_model_of_any_kind_learns_from_its_own_words():
    """Nothing but the contract is asked for."""
    model = Bigram().clone(**checks.SIZES)
    params = model.init(jax.random.key(0), batch().source, batch().target)['params']
    gradient = jax.jit(jax.grad(lambda params: always().loss(model, params, batch(), KEY, 1)[0]['loss'][0]))(params)
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
