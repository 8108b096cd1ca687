"""Kalchbrenner and Blunsom 2013, equation by equation in float64."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpy_convolution as reference
import numpy_recurrence as np_
import pytest
import recurrent_checks as checks

from seqjax.errors import UserError
from seqjax.layers.ngrams import Fold, Unfold, depth, span, stretch
from seqjax.models.rctm import RCTM
from seqjax.tasks.translation import Codec, Translation

SMALL = dict(hidden_size=5, embedding_size=4, source_length=9)
PAIRED = SMALL | dict(length_ratio=1.2)
MODELS = [RCTM(variant='sentence', **SMALL), RCTM(**PAIRED), RCTM(ngram=2, cell='gru', num_layers=2, **PAIRED),
          RCTM(ngram=7, cell='lstm', length_ratio=0.7, **SMALL),
          RCTM(variant='sentence', cell='lstm', num_layers=2, hidden_size=5, source_length=20)]
every = pytest.mark.parametrize('model', MODELS, ids=checks.name)


@every
def test_logits_follow_the_equations(model):
    checks.agrees_with_numpy(model, reference.rctm)


@every
def test_one_token_at_a_time_equals_all_at_once(model):
    checks.steps_equal_all_at_once(model)


@pytest.mark.parametrize('model', MODELS[:2], ids=checks.name)
def test_neighbours_and_padding_change_nothing(model):
    checks.neighbours_and_padding_change_nothing(model)


@pytest.mark.parametrize('model', MODELS[:2], ids=checks.name)
def test_future_tokens_have_no_gradient(model):
    checks.future_has_no_gradient(model)


def columns(counts, D=3):
    """A row of random columns for each count, zeros behind."""
    x_BSD = np.random.default_rng(0).normal(size=(len(counts), max(counts), D)).astype(np.float32)
    return x_BSD * (np.arange(max(counts)) < np.array(counts)[:, None])[:, :, None]


def applied(module, *args):
    """Parameters and output."""
    params = jax.jit(module.init, static_argnums=range(4, len(args) + 1))(jax.random.key(1), *args)['params']
    output = jax.jit(module.apply, static_argnums=range(4, len(args) + 1))({'params': params}, *args)
    return np_.float64(params), output


def test_sentences_of_every_length_fold_to_one_column():
    counts = np.arange(1, 31)
    x_BSD = columns(counts)
    p, (folded_BSD, left_B) = applied(Fold(depth(30), finish=True), x_BSD, counts)
    assert depth(30) == 8
    assert p['main'].shape == (2 + 3 + 4 + 5 + 6 + 7 + 8, 3)
    assert p['top'].shape == (2 + 3 + 4 + 5 + 6 + 7, 3)
    np.testing.assert_array_equal(left_B, np.ones(30))
    for row, count in enumerate(counts):
        np.testing.assert_allclose(folded_BSD[row, 0], reference.fold(p, x_BSD[row, :count].astype(float), 8)[0],
                                   rtol=1e-4, atol=1e-6)
    assert folded_BSD.shape == (30, 1, 3)


def test_six_words_take_the_kernels_of_the_papers_figure():
    """Figure 2: K_2 and K_3 leave three of six words' columns, and the top kernel L_3 makes them one."""
    module, x_BSD = Fold(depth(9), finish=True), columns([6])
    params = jax.jit(module.init)(jax.random.key(1), x_BSD, np.array([6]))['params']
    gradient = jax.jit(jax.grad(lambda params: module.apply({'params': params}, x_BSD, np.array([6]))[0].sum()))(params)
    touched = {name: np.abs(leaf).sum(axis=1) > 0 for name, leaf in gradient.items()}
    assert touched['main'].tolist() == [True] * (2 + 3) + [False] * (4 + 5)
    assert touched['top'].tolist() == [False] * 2 + [True] * 3 + [False] * 4


def test_there_are_kernels_enough_for_every_length():
    for longest in range(1, 200):
        assert depth(longest) == max(2, int(np.ceil(np.sqrt(2 * longest))))
        left = longest - (span(depth(longest)) - 1)
        assert left < depth(longest), 'what is left after the widest kernel has a top kernel'


@pytest.mark.parametrize(('widest', 'n'), [(2, 2), (3, 4), (4, 7)])
def test_a_column_of_the_ngram_model_sees_n_words(widest, n):
    assert span(widest) == n
    module, x_BSD = Fold(widest, finish=False), columns([9])
    params = jax.jit(module.init)(jax.random.key(1), x_BSD, np.array([9]))['params']
    jacobian = jax.jit(jax.jacrev(lambda x: module.apply({'params': params}, x, np.array([9]))[0][0].sum(-1)))(x_BSD)
    seen_AS = np.abs(np.asarray(jacobian[:, 0])).sum(-1) > 0
    expected = np.array([[a <= s < a + n and a <= 9 - n for s in range(9)] for a in range(9)])
    np.testing.assert_array_equal(seen_AS, expected)


def test_ngrams_unfold_to_the_words_of_the_target():
    counts, words = np.array([1, 2, 3, 6, 6, 5]), np.array([9, 1, 3, 9, 6, 2])
    x_BSD = columns(counts)
    p, unfolded_BMD = applied(Unfold(3), x_BSD, counts, words, 9)
    assert unfolded_BMD.shape == (6, 9, 3)
    for row, (count, m) in enumerate(zip(counts, words)):
        expected = reference.unfold(p, x_BSD[row, :count].astype(float), m, 4, 3)
        np.testing.assert_allclose(unfolded_BMD[row, :m], expected[:m], rtol=1e-4, atol=1e-6)


def test_stretching_keeps_equals_and_ends():
    x_BSD = columns([5, 5, 2, 1])
    out = np.asarray(jax.jit(stretch, static_argnums=3)(x_BSD, np.array([5, 5, 2, 1]), np.array([5, 2, 4, 3]), 6))
    np.testing.assert_allclose(out[0, :5], x_BSD[0], atol=1e-5)
    np.testing.assert_allclose(out[1, :2], [0.25 * x_BSD[1, 0] + 0.75 * x_BSD[1, 1],
                                            0.75 * x_BSD[1, 3] + 0.25 * x_BSD[1, 4]], atol=1e-5)
    a, b = x_BSD[2, :2]
    np.testing.assert_allclose(out[2, :4], [a, 0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b, b], atol=1e-5)
    np.testing.assert_allclose(out[3, :3], np.repeat(x_BSD[3, :1], 3, axis=0), atol=1e-6)
    for row, count in enumerate([5, 2, 4, 3]):
        assert not out[row, count:].any()


def test_target_lengths_are_the_source_times_the_ratio_of_the_training_split():
    run = checks.compiled(MODELS[1])  # 1.2 target tokens a source token
    memory = run.encode(run.params, checks.SOURCE)
    assert memory['words'].tolist() == [7, 4, 1, 1]
    assert memory['columns'].shape == (4, 7, 4)
    words = checks.compiled(MODELS[3]).encode(checks.compiled(MODELS[3]).params, checks.SOURCE)['words']
    assert words.tolist() == [4, 2, 1, 1]
    sentence = checks.compiled(MODELS[0])
    assert sentence.encode(sentence.params, checks.SOURCE)['columns'].shape == (4, 1, 4)


@dataclasses.dataclass(frozen=True)
class Longer(Translation):
    """Five source tokens and eight target tokens to learn from, EOS counted, and a pair that is too long."""

    def splits(self):
        pairs = [('a b', 'x y z w'), ('a', 'x y'), ('a', 'x ' * 20)]
        return {'train': tuple(map(list, zip(*pairs))), 'valid': (['a'], ['x']), 'test': (['a'], ['x'])}


def test_the_length_ratio_is_measured_on_the_training_split_and_kept_with_the_run():
    task = Longer(max_length=8)
    codec = task.prepare().codec
    assert task.sizes(codec)['length_ratio'] == 8 / 5
    stored = json.loads(json.dumps(codec.to_json()))
    assert Codec.from_json(stored).length_ratio == 8 / 5
    del stored['length_ratio']
    assert Codec.from_json(stored).length_ratio == 1.0


def test_each_step_reads_its_own_column_and_the_last_one_again():
    """The word at step i feels column i and those before, which stand in the state; beyond m the last."""
    run = checks.compiled(MODELS[3])
    memory = run.encode(run.params, checks.SOURCE[:1])
    assert memory['words'].tolist() == [4]

    def outputs(columns):
        return run.decode(run.params, checks.TOKENS[:1], {**memory, 'columns': columns})[0][0].sum(-1)

    jacobian = np.abs(np.asarray(jax.jit(jax.jacrev(outputs))(memory['columns'])))[:, 0].sum(-1)
    assert jacobian.shape == (5, 4)
    assert ((jacobian > 0) == np.array([[c <= min(t, 3) for c in range(4)] for t in range(5)])).all()


def test_the_order_of_words_is_seen():
    for model in MODELS[:2]:
        run = checks.compiled(model)
        moved = checks.SOURCE[:1, [1, 0, 2, 3, 4, 5]]
        one, two = (run.full(run.params, source, checks.TOKENS[:1]) for source in (checks.SOURCE[:1], moved))
        assert np.abs(one - two).max() > 1e-3


def test_capture_shows_the_states_and_every_parameter_learns():
    shown, run = checks.captured(MODELS[1])
    assert {name: value.shape for name, value in shown.items()} == {'decoder/layer_0/hidden': (4, 5, 5)}
    for model in MODELS[:2]:
        run = checks.compiled(model)
        mix = np.random.default_rng(1).normal(size=(4, 5, 13))
        gradient = jax.jit(jax.grad(lambda params, run=run, mix=mix: (run.model.apply(
            {'params': params}, checks.SOURCE, checks.TOKENS) * mix).sum()))(run.params)
        for path, leaf in jax.tree_util.tree_flatten_with_path(gradient)[0]:
            assert np.isfinite(leaf).all(), path
            assert np.abs(leaf).max() > 1e-6, path


def test_dropout_needs_a_key():
    checks.dropout_needs_a_key(RCTM(dropout=0.5, **PAIRED), MODELS[1].clone(dropout=0.0))


def test_bfloat16_computes_near_float32():
    for variant in ('sentence', 'ngram'):
        run, exact = (checks.compiled(RCTM(variant=variant, dtype=dtype, **SMALL)) for dtype in ('bfloat16', 'float32'))
        logits = run.full(run.params, checks.SOURCE, checks.TOKENS)
        assert logits.dtype == jnp.float32
        assert 0 < np.abs(logits - exact.full(run.params, checks.SOURCE, checks.TOKENS)).max() < 0.3


def test_a_source_longer_than_there_are_kernels_for_is_refused():
    model = checks.compiled(MODELS[0]).model
    with pytest.raises(UserError, match='source of 10 tokens is longer than the 9'):
        jax.eval_shape(model.init, jax.random.key(0), np.ones((1, 10), np.int32), np.ones((1, 2), np.int32))
    with pytest.raises(UserError, match='choose --model'):
        jax.eval_shape(RCTM(variant='sentence', source_size=5, target_size=5).init, jax.random.key(0),
                       *itertools.repeat(np.ones((1, 2), np.int32), 2))
