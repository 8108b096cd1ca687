"""Schedules against their closed formulas, updates against the papers' in numpy float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import UserError
from seqjax.options import options, unread
from seqjax.training.optimizer import Optimizer, decayed

RATE = 0.02


def rates(total=100, upto=120, **fields):
    schedule = Optimizer(learning_rate=RATE, **fields).build(total)[1]
    return np.asarray(jax.jit(schedule)(jnp.arange(1, upto + 1)), np.float64)


def test_inverse_sqrt_is_the_papers_with_its_peak_at_the_learning_rate():
    """Vaswani et al. (2017), equation 3: min(t^-0.5, t w^-1.5), which has its peak w^-0.5 at t = w."""
    t, w = np.arange(1.0, 121), 16
    expected = np.minimum(t ** -0.5, t * w ** -1.5)
    ours = rates(schedule='inverse_sqrt', warmup_steps=w)
    np.testing.assert_allclose(ours, RATE * expected / expected.max(), rtol=1e-6)
    assert ours.argmax() == w - 1


@pytest.mark.parametrize('warmup', [0, 1, 10])
def test_other_schedules(warmup):
    t = np.arange(1.0, 121)
    rise = t / max(warmup, 1)
    left = np.clip((100 - t) / (100 - warmup), 0, 1)
    shapes = {'constant': np.ones(120), 'linear': left, 'cosine': 0.5 * (1 + np.cos(np.pi * (1 - left)))}
    for name, shape in shapes.items():
        expected = RATE * np.where(t < warmup, rise, shape)
        np.testing.assert_allclose(rates(schedule=name, warmup_steps=warmup), expected, rtol=1e-5, atol=1e-8)
        if warmup:
            assert rates(schedule=name, warmup_steps=warmup)[warmup - 1] == pytest.approx(RATE)
    assert rates(schedule='linear')[99] == rates(schedule='cosine')[99] == 0


def test_schedules_that_do_not_fit():
    assert not Optimizer(schedule='inverse_sqrt', warmup_steps=10).depends_on_steps
    assert not Optimizer().depends_on_steps
    for name in ('cosine', 'linear'):
        assert Optimizer(schedule=name).depends_on_steps
        with pytest.raises(UserError, match=rf'=100 leaves nothing of 100 steps for --optimizer\.schedule={name}'):
            Optimizer(schedule=name, warmup_steps=100).build(100)
    Optimizer(schedule='constant', warmup_steps=100).build(100)
    with pytest.raises(UserError, match=r'inverse_sqrt with --optimizer\.warmup_steps=0'):
        Optimizer(schedule='inverse_sqrt').check()


def descend(optimizer, shape=(3, 4), steps=5):
    """Parameters after each step, and the gradients, which are random."""
    random = np.random.default_rng(0)
    params = {'kernel': random.normal(size=shape), 'bias': random.normal(size=(2, shape[1]))}
    gradients = [jax.tree.map(lambda p: random.normal(size=p.shape) * 3, params) for _ in range(steps)]
    transform, _ = optimizer.build(100)
    update = jax.jit(transform.update)
    ours = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    state, path = transform.init(ours), []
    for gradient in gradients:
        updates, state = update(jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), gradient), state, ours)
        ours = jax.tree.map(jnp.add, ours, updates)
        path.append(jax.device_get(ours))
    return params, gradients, path


def follow(optimizer, rule, **kwargs):
    """Compares with `rule(params, gradient, memory, t, name) -> update` in float64."""
    params, gradients, path = descend(optimizer, **kwargs)
    memory = {name: {} for name in params}
    for t, (gradient, ours) in enumerate(zip(gradients, path), 1):
        params = {name: p + rule(p, gradient[name], memory[name], t, name) for name, p in params.items()}
        for name, p in params.items():
            np.testing.assert_allclose(ours[name], p, rtol=2e-5, atol=2e-6)


def adam(gradient, memory, t, beta1, beta2, epsilon):
    """Kingma and Ba (2015), algorithm 1."""
    memory['m'] = beta1 * memory.get('m', 0) + (1 - beta1) * gradient
    memory['v'] = beta2 * memory.get('v', 0) + (1 - beta2) * gradient ** 2
    return memory['m'] / (1 - beta1 ** t) / (np.sqrt(memory['v'] / (1 - beta2 ** t)) + epsilon)


def test_adam():
    follow(Optimizer(learning_rate=0.1, warmup_steps=3),
           lambda p, g, m, t, name: -0.1 * min(t / 3, 1) * adam(g, m, t, 0.9, 0.999, 1e-8))
    follow(Optimizer(learning_rate=0.1, beta1=0.8, beta2=0.98, epsilon=0.1),
           lambda p, g, m, t, name: -0.1 * adam(g, m, t, 0.8, 0.98, 0.1))


def test_adamw_shrinks_matrices_only():
    """Loshchilov and Hutter (2019), algorithm 2; the bias has two dimensions, as in a scanned stack."""
    follow(Optimizer('adamw', 0.1, weight_decay=0.3), lambda p, g, m, t, name:
           -0.1 * (adam(g, m, t, 0.9, 0.999, 1e-8) + 0.3 * p * (name == 'kernel')))


def test_what_is_decayed():
    params = {'layer': {'kernel': np.zeros((2, 3)), 'bias': np.zeros((6, 3))}, 'norm': {'scale': np.zeros((6, 3))},
              'embedding': np.zeros((5, 3)), 'vector': np.zeros(3)}
    assert decayed(params) == {'layer': {'kernel': True, 'bias': False}, 'norm': {'scale': False}, 'embedding': True,
                               'vector': False}


def test_sgd_with_momentum_and_clipping():
    follow(Optimizer('sgd', 0.1), lambda p, g, m, t, name: -0.1 * g)

    def heavy(p, g, m, t, name):
        m['v'] = 0.9 * m.get('v', 0) + g
        return -0.1 * m['v']

    follow(Optimizer('sgd', 0.1, momentum=0.9), heavy)


def test_clipping_is_over_all_parameters():
    params, gradients, path = descend(Optimizer('sgd', 1.0, clip_norm=2.5), steps=1)
    norm = np.sqrt(sum((g ** 2).sum() for g in gradients[0].values()))
    assert norm > 2.5
    for name, p in params.items():
        np.testing.assert_allclose(path[0][name], p - gradients[0][name] * 2.5 / norm, rtol=1e-5)
    params, gradients, path = descend(Optimizer('sgd', 1.0, clip_norm=1e3), steps=1)
    np.testing.assert_allclose(path[0]['bias'], params['bias'] - gradients[0]['bias'], rtol=1e-5)


@pytest.mark.parametrize(('fields', 'rho', 'epsilon'), [({}, 0.95, 1e-6), ({'rho': 0.9, 'epsilon': 1e-3}, 0.9, 1e-3)])
def test_adadelta(fields, rho, epsilon):
    """Zeiler (2012), algorithm 1; by default with the constants of Bahdanau et al. and of Cho et al."""
    def rule(p, g, m, t, name):
        m['g'] = rho * m.get('g', 0) + (1 - rho) * g ** 2
        x = -np.sqrt(m.get('x', 0) + epsilon) / np.sqrt(m['g'] + epsilon) * g
        m['x'] = rho * m.get('x', 0) + (1 - rho) * x ** 2
        return x

    follow(Optimizer('adadelta', 1.0, **fields), rule)


def test_adafactor():
    """Shazeer and Stern (2018), algorithms 4 and 5: factored second moments, update clipping, relative step size."""
    def rms(x):
        return np.sqrt((x ** 2).mean())

    def rule(p, g, m, t, name):
        decay, square = 1 - t ** -0.8, g ** 2 + 1e-30
        if min(p.shape) >= 128:
            m['r'] = decay * m.get('r', 0) + (1 - decay) * square.mean(1)
            m['c'] = decay * m.get('c', 0) + (1 - decay) * square.mean(0)
            v = np.outer(m['r'], m['c']) / m['r'].mean()
        else:
            v = m['v'] = decay * m.get('v', 0) + (1 - decay) * square
        update = g / np.sqrt(v)
        return -0.1 * max(1e-3, rms(p)) * update / max(1, rms(update))

    follow(Optimizer('adafactor', 0.1), rule, shape=(130, 140), steps=3)


def test_options_say_when_they_are_read():
    read = {name: {f.name for f in options(Optimizer) if not unread(Optimizer(name), f)} - {
        'name', 'learning_rate', 'schedule', 'warmup_steps', 'clip_norm'} for name in
        ('adam', 'adamw', 'sgd', 'adafactor', 'adadelta')}
    assert read == {'adam': {'beta1', 'beta2', 'epsilon'}, 'adamw': {'beta1', 'beta2', 'epsilon', 'weight_decay'},
                    'sgd': {'momentum'}, 'adafactor': set(), 'adadelta': {'rho', 'epsilon'}}
    assert len(options(Optimizer)) == len(dataclasses.fields(Optimizer))
