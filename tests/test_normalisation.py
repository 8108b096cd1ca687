"""Normalisation against the papers in numpy float64, batch statistics in training, and how the learner keeps them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy_recurrence as np_
import optax
import pytest
from tiny import flags, launch, outcome

from seqjax.errors import UserError
from seqjax.layers.cells import Cell
from seqjax.layers.normalisation import Norm, layer_norm, layer_normalise, observe, rms_normalise
from seqjax.layers.recurrence import Recurrence
from seqjax.models.bahdanau import Bahdanau
from seqjax.models.decoder_only import DecoderOnly
from seqjax.models.luong import Luong
from seqjax.models.recurrent import GRU, LSTM, RNN
from seqjax.models.transformer import Transformer
from seqjax.tasks.losses import observed
from seqjax.training.checkpoint import Checkpoints
from seqjax.training.optimizer import decayed
from seqjax.training.parallel import Placement
from seqjax.training.step import GradientDescent

RANDOM = np.random.default_rng(0)
X_BD = RANDOM.normal(2.0, 3.0, (7, 5))
WEIGHT = {'w': np.zeros(1)}
REAL_B = np.array([1, 1, 0, 1, 1, 0, 1], bool)


def test_layer_and_rms_are_the_papers():
    x = X_BD.astype(np.float32)
    np.testing.assert_allclose(layer_normalise(x), (X_BD - X_BD.mean(1, keepdims=True)) / X_BD.std(1, keepdims=True),
                               rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rms_normalise(x), X_BD / np.sqrt((X_BD ** 2).mean(1, keepdims=True)), rtol=1e-5)
    for function in (layer_normalise, rms_normalise):
        assert function(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.float32
        gradient = jax.grad(lambda x, function=function: function(x).sum())(jnp.zeros((2, 5)))
        assert np.isfinite(gradient).all()


def test_layer_norm_and_its_written_out_gradient():
    """The result against equation 4, and the gradient against differences of it, in numpy float64."""
    x, slope = RANDOM.normal(1.0, 2.0, (2, 3, 5)), RANDOM.normal(size=(2, 3, 5))
    scale, bias = RANDOM.normal(size=(2, 5))

    def result(x, scale, bias):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + bias

    def differences(number):
        arguments = [x, scale, bias]
        found = np.zeros_like(arguments[number])
        for place in np.ndindex(found.shape):
            for sign in (1, -1):
                moved = [argument.copy() for argument in arguments]
                moved[number][place] += sign * 1e-6
                found[place] += sign * (result(*moved) * slope).sum() / 2e-6
        return found

    ours, pull = jax.vjp(layer_norm, *(jnp.asarray(a, jnp.float32) for a in (x, scale, bias)))
    np.testing.assert_allclose(ours, result(x, scale, bias), atol=2e-6)
    for number, gradient in enumerate(pull(jnp.asarray(slope, jnp.float32))):
        np.testing.assert_allclose(gradient, differences(number), atol=1e-5)
    constant = jax.grad(lambda x: (layer_norm(x, jnp.ones(5), jnp.zeros(5)) * slope[0]).sum())(jnp.full((3, 5), 7.0))
    assert np.isfinite(constant).all()


def test_batch_statistics_are_over_real_tokens():
    real = X_BD[REAL_B]
    mean, var, seen = observe(jnp.asarray(np.where(REAL_B[:, None], X_BD, 1e3), jnp.float32), jnp.asarray(REAL_B))
    np.testing.assert_allclose(mean, real.mean(0), rtol=1e-5)
    np.testing.assert_allclose(var, real.var(0), rtol=1e-5)
    np.testing.assert_allclose(seen['sum'] / seen['count'], real.mean(0), rtol=1e-5)
    np.testing.assert_allclose(seen['squares'] / seen['count'], real.var(0, ddof=1), rtol=1e-5)
    for few in (0, 1):
        mean, var, seen = observe(jnp.asarray(X_BD, jnp.float32), jnp.arange(7) < few)
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(seen))
        assert np.isfinite(mean).all()
        assert (np.asarray(var) == 0).all()


@pytest.mark.parametrize('mode', ['pmap', 'shard_map', 'jit'])
def test_batch_statistics_are_over_all_replicas(mode):
    """Though a replica holds no real token at all; and the sums of all are those of one."""
    placement = Placement(mode, 'data=4')
    x_BD, real_B = RANDOM.normal(size=(8, 3)).astype(np.float32), np.array([1, 1, 1, 0, 0, 0, 1, 1], bool)

    def normalised(params, batch):
        x_BD, real_B = batch
        mean, var, _ = observe(x_BD, real_B)
        return (x_BD - mean) / jnp.sqrt(var)

    real = x_BD[real_B].astype(np.float64)
    np.testing.assert_allclose(placement.rows(normalised)(WEIGHT, placement.place_batch((x_BD, real_B))),
                               (x_BD - real.mean(0)) / real.std(0), rtol=1e-4, atol=1e-5)
    seen = placement.sums(lambda params, batch: observe(*batch)[2])(WEIGHT, placement.place_batch((x_BD, real_B)))
    np.testing.assert_allclose(seen['squares'] / seen['count'], real.var(0, ddof=1), rtol=1e-4)
    assert float(seen['count']) == 5


def test_running_statistics_forget_their_start_and_later_steps_share_the_last_that_was_seen():
    norm = Norm('batch', 2, steps=4)
    empty = {'scale': np.ones(2), 'running_mean': np.zeros((4, 2)), 'running_var': np.zeros((4, 2)),
             'running_weight': np.zeros(4)}
    nobody = norm.apply({'params': empty}, method='weights')
    np.testing.assert_array_equal(nobody['mean'], np.zeros((4, 2)))
    np.testing.assert_array_equal(nobody['var'], np.ones((4, 2)))
    params = empty | {'running_weight': np.array([0.5, 0.2, 0, 0]),
                      'running_mean': np.array([[1., 2], [1, 4], [0, 0], [0, 0]]),
                      'running_var': np.array([[1., 1], [2, 3], [0, 0], [0, 0]])}
    known = norm.apply({'params': params}, method='weights')
    np.testing.assert_allclose(known['mean'], [[2, 4], [5, 20], [5, 20], [5, 20]], rtol=1e-6)
    np.testing.assert_allclose(known['var'], [[2, 2], [10, 15], [10, 15], [10, 15]], rtol=1e-6)


B, T, D, H = 4, 5, 3, 4
MASK = np.arange(T) < np.array([[5], [3], [2], [5]])


@functools.cache
def layer(kind, reverse=False, reset='before'):
    """A batch-normalised layer, its parameters, its input, and what it does with it in training."""
    module = Recurrence(Cell(kind, H, reset=reset, normalisation='batch', steps=4), D, reverse)
    x_BTD = RANDOM.normal(size=(B, T, D)).astype(np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x_BTD, MASK)['params']
    params = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(1).normal(0, 0.7, x.shape), jnp.float32), shapes)

    @jax.jit
    def run(x_BTD, mask_BT):
        (outputs, carry), seen = module.apply({'params': params}, x_BTD, mask_BT, mutable=['statistics'])
        return outputs, carry, observed(seen)

    return params, x_BTD, run


def in_training(kind, p, x_BTD, reverse, reset):
    """Outputs (B, T, H) with each step's own statistics, all rows together, in numpy; and those of U h by step."""
    def N(which, x_BK, here, units=slice(None)):
        mean, var = x_BK[here].mean(0), x_BK[here].var(0)
        if which == 'recurrent' and units.start in (None, 0):
            table.append((mean, var, here.sum()))
        q = p[f'{which}_norm']
        return (x_BK - mean) / np.sqrt(var + 1e-3) * q['scale'][units] + (q['bias'][units] if 'bias' in q else 0)

    table, lengths = [], MASK.sum(1)
    rows = [x[:n][::-1] if reverse else x[:n] for x, n in zip(x_BTD.astype(np.float64), lengths)]
    a = np.concatenate(rows) @ p['input_kernel']
    a = (a - a.mean(0)) / np.sqrt(a.var(0) + 1e-3) * p['input_norm']['scale'] + p['bias']
    a = np.split(a, np.cumsum(lengths)[:-1])
    h, c, out, U, s = np.zeros((B, H)), np.zeros((B, H)), np.zeros((B, T, H)), p['recurrent_kernel'], np_.sigmoid
    for t in range(T):
        here = lengths > t
        now = np.stack([row[min(t, len(row) - 1)] for row in a])
        if kind == 'lstm':
            i, f, g, o = np.split(now + N('recurrent', h @ U, here), 4, axis=1)
            new_c = s(f) * c + s(i) * np.tanh(g)
            new = s(o) * np.tanh(N('cell', new_c, here))
            c = np.where(here[:, None], new_c, c)
        else:
            r, z = np.split(s(now[:, :2 * H] + N('recurrent', h @ U[:, :2 * H], here, slice(0, 2 * H))), 2, axis=1)
            units = slice(2 * H, 3 * H)
            if reset == 'before':
                n = N('recurrent', (r * h) @ U[:, 2 * H:], here, units)
            else:
                n = r * (N('recurrent', h @ U[:, 2 * H:], here, units) + p['recurrent_bias'])
            new = z * h + (1 - z) * np.tanh(now[:, 2 * H:] + n)
        h = np.where(here[:, None], new, h)
        for row in np.flatnonzero(here):
            out[row, lengths[row] - 1 - t if reverse else t] = new[row]
    return out, table


@pytest.mark.parametrize(('kind', 'reset'), [('lstm', 'before'), ('gru', 'before'), ('gru', 'after')])
@pytest.mark.parametrize('reverse', [False, True])
def test_training_normalises_by_the_rows_at_the_same_step(kind, reset, reverse):
    params, x_BTD, run = layer(kind, reverse, reset)
    outputs, _, seen = run(x_BTD, MASK)
    expected, table = in_training(kind, np_.float64(params), x_BTD, reverse, reset)
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-4)
    total, count = seen['recurrent_norm/running_mean']
    np.testing.assert_array_equal(count[:, 0], [4, 4, 3, 4], err_msg='rows at steps 0, 1, 2, and at 3 and 4 together')
    for step in range(3):
        mean, var, rows = table[step]
        width = len(mean)
        np.testing.assert_allclose(total[step, :width] / count[step], mean, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(seen['recurrent_norm/running_var'][0][step, :width] / count[step],
                                   var * rows / (rows - 1), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(seen['input_norm/running_weight'], [15, 15])


@pytest.mark.parametrize('reverse', [False, True])
def test_padding_is_not_counted(reverse):
    """More padding, other padding, and rows of nothing else: the same outputs and the same statistics."""
    _, x_BTD, run = layer('lstm', reverse)
    outputs, carry, seen = run(x_BTD, MASK)
    wider = np.pad(np.where(MASK[:, :, None], x_BTD, 50.0), ((0, 2), (0, 2), (0, 0)), constant_values=50.0)
    again, after, noted = run(wider.astype(np.float32), np.pad(MASK, ((0, 2), (0, 2))))
    np.testing.assert_allclose(again[:B, :T], outputs, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:B], b, rtol=1e-5, atol=1e-6), after, carry)
    assert set(seen) == {f'{which}_norm/running_{what}' for which in ('input', 'recurrent', 'cell')
                         for what in ('mean', 'var', 'weight')}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), noted, seen)


SMALL = dict(source_size=11, target_size=13, source_length=6, dropout=0.0, num_layers=2)
WHOLE = [Transformer(hidden_size=8, num_heads=2, feedforward_size=8, normalisation='batch', **SMALL),
         LSTM(hidden_size=5, normalisation='batch', **SMALL), Bahdanau(hidden_size=5, normalisation='batch', **SMALL),
         Luong(hidden_size=5, normalisation='batch', input_feeding=False, **SMALL)]
SOURCE = np.array([[4, 5, 6, 7, 8, 2], [9, 4, 2, 0, 0, 0], [5, 5, 7, 2, 0, 0]], np.int32)
TOKENS = np.array([[1, 4, 5, 6, 7], [1, 9, 8, 2, 0], [1, 3, 2, 0, 0]], np.int32)
COUNTED = (TOKENS != 0) & (TOKENS != 2)


@pytest.mark.parametrize('model', WHOLE, ids=lambda model: type(model).__name__)
def test_a_model_in_training_counts_no_padding_and_at_evaluation_no_neighbour(model):
    params = jax.jit(model.init)(jax.random.key(0), SOURCE, TOKENS)['params']

    @functools.partial(jax.jit, static_argnums=2)
    def run(source, tokens, training):
        logits, seen = model.apply({'params': params}, source, tokens, mutable=['statistics'] if training else [])
        return logits, observed(seen)

    logits, seen = run(SOURCE, TOKENS, True)
    filler, start = np.zeros((2, 8), np.int32), np.pad(np.ones((2, 1), np.int32), ((0, 0), (0, 6)))
    wider = (np.concatenate([np.pad(SOURCE, ((0, 0), (0, 2))), filler]),
             np.concatenate([np.pad(TOKENS, ((0, 0), (0, 2))), start]))
    again, noted = run(*wider, True)
    np.testing.assert_allclose(np.asarray(again[:3, :5])[COUNTED], np.asarray(logits)[COUNTED], rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), noted, seen)
    paths = {jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape
             for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0] if 'running' in path[-1].key}
    assert {name: total.shape for name, (total, _) in seen.items()} == paths
    assert any(np.asarray(pair[1]).max() == COUNTED.sum() for name, pair in seen.items() if 'decoder' in name)
    other = SOURCE.copy()
    other[1:] = SOURCE[0]
    assert np.abs(run(other, TOKENS, True)[0][0] - logits[0]).max() > 1e-4, 'in training neighbours count'
    plain, nothing = run(SOURCE, TOKENS, False)
    assert nothing == {}
    np.testing.assert_allclose(run(other, TOKENS, False)[0][0], plain[0], rtol=1e-5, atol=1e-6)


def test_the_learner_moves_running_means_and_leaves_what_nobody_saw():
    """Two micro-batches of unlike counts, and an entry that is seen by nobody; no weight decay moves it either."""
    def loss(params, batch, rng, step):
        seen = {'norm/running_mean': (jnp.stack([batch.sum(), 0.0]), jnp.stack([(batch != 0).sum() * 1.0, 0.0]))}
        return {'a': (params['w'] * batch.sum(), jnp.float32(batch.size))}, {'b': (batch.sum(), jnp.float32(1))} | seen

    start = {'w': jnp.float32(1), 'norm': {'running_mean': jnp.array([3.0, 5.0])}}
    for accumulate in (1, 2):
        learner = GradientDescent(loss, optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1)), lambda t: 0.1,
                                  seed=0, accumulate=accumulate, decay=0.9)
        state, terms = learner.step(learner.init(start), jnp.array([1.0, 2, 0, 6]))
        np.testing.assert_allclose(state.params['norm']['running_mean'], [0.9 * 3 + 0.1 * 3, 5.0], rtol=1e-6)
        assert set(terms) == {'a', 'b', 'gradient_norm', 'learning_rate'}
        np.testing.assert_allclose(state.params['w'], 1 - 0.1 * (9 / 4 + 0.5), rtol=1e-6)


def test_neither_scales_nor_running_means_are_decayed():
    for model in WHOLE:
        params = jax.eval_shape(model.init, jax.random.key(0), SOURCE, TOKENS)['params']
        shrunk = {path[-1].key for path, leaf in jax.tree_util.tree_flatten_with_path(decayed(params))[0] if leaf}
        assert not [name for name in shrunk if 'scale' in name or 'running' in name or 'bias' in name]
        assert any('kernel' in name or 'key' in name for name in shrunk)


def test_a_run_with_batch_normalisation_goes_on_bit_for_bit(tmp_path, monkeypatch):
    more = ['--model.normalisation=batch', '--training.steps=6', '--training.checkpoint_every=2',
            '--training.evaluate_every=3', '--training.log_every=1']
    assert launch(*flags(tmp_path / 'whole', *more)) == 0

    class Died(Exception):
        pass

    def save(self, step, *rest, save=Checkpoints.save):
        save(self, step, *rest)
        if step == 4:
            self.wait()
            raise Died

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, 'save', save)
        with pytest.raises(Died):
            launch(*flags(tmp_path / 'run', *more))
    assert launch(*flags(tmp_path / 'run', *more)) == 0
    assert outcome(tmp_path / 'run') == outcome(tmp_path / 'whole')


def gradient_by_layer(depth=24, **fields):
    """Norm of the loss's gradient at each encoder layer's feed-forward kernel, lowest first, at the start."""
    model = Transformer(**SMALL | dict(num_layers=depth, hidden_size=16, num_heads=2, feedforward_size=32) | fields)
    params = jax.jit(model.init)(jax.random.key(0), SOURCE, TOKENS)['params']
    mix = np.random.default_rng(0).normal(size=(3, 5, 13)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda p: (model.apply({'params': p}, SOURCE, TOKENS) * mix).sum()))(params)
    kernel_NDF = np.asarray(gradient['encoder']['feedforward']['expand']['kernel'], np.float64)
    return np.sqrt((kernel_NDF ** 2).sum(axis=(1, 2)))


def test_gradients_through_24_layers():
    """Normalisation keeps the lowest layer's gradient at the size of the highest's. Residual connections alone add up
    layers that grow with their sum, out of float32 in half of all draws of 24, and without either the signal fades.
    """
    for fields in ({}, dict(normalisation='rms'), dict(residual=False), dict(residual=False, norm='after')):
        lowest, *_, highest = gradient_by_layer(**fields)
        assert 0.3 < lowest < 100, fields
        assert 0.2 < lowest / highest < 20, fields
    assert 1e9 < gradient_by_layer(18, normalisation='none')[0] < np.inf
    assert 0 < gradient_by_layer(normalisation='none', residual=False)[0] < 1e-2


@pytest.mark.parametrize(('model', 'message'), [
    (LSTM(time_skip=1), '--model.time_skip=1 is the recurrence itself; choose 2 or more, or 0 for none'),
    (GRU(time_skip=2, dilation=2), '--model.time_skip=2 and --model.dilation=2 are two ways to reach back in time'),
    (RNN(dilation=2, num_layers=1), '--model.dilation=2 begins with the second layer and there is one'),
    (Bahdanau(residual=True), '--model.residual=true begins with the second layer and there is one'),
    (Luong(normalisation='batch'), '--model.normalisation=batch .* set --model.input_feeding=false'),
    (DecoderOnly(normalisation='batch'), '--model.normalisation=batch takes one batch of tokens')])
def test_what_cannot_work_is_refused(model, message):
    with pytest.raises(UserError, match=message):
        model.check()


def test_order_of_normalisation_is_not_read_where_there_is_none(tmp_path, capfd):
    assert launch(*flags(tmp_path, '--model.normalisation=none', '--model.norm=after', '--model.num_heads=2',
                         model='transformer')) == 2
    assert '--model.norm' in capfd.readouterr().err.splitlines()[-1]
