"""R-Drop: two passes that dropout makes differ, and what pulls them together."""

import jax
import numpy as np
from test_unpadding import SOURCE, TARGET, TOKENS, WEIGHT, system
from tiny import bigrams, flags, launch, records

from seqjax.data.batches import Batch
from seqjax.data.room import Room
from seqjax.run import train
from seqjax.tasks.losses import cross_entropy, divergence
from seqjax.tasks.translation import Translation

KEY = jax.random.key(3)
TASK = Translation(label_smoothing=0.1, rdrop=4.0)


def batch(room=None):
    return Batch(SOURCE, TARGET, WEIGHT, np.arange(len(SOURCE), dtype=np.int32), room)


def value(objective):
    """What is optimised: the sum over terms of sum/count."""
    return sum(total / count for total, count in objective.values())


def test_the_objective_is_that_of_two_passes():
    """(L_1 + L_2 + alpha L_KL) / 2, equation 4 of Liang et al. 2021, and its gradient."""
    model, params = system('transformer', dropout=0.3)

    def passes(params):
        return [model.apply({'params': params}, SOURCE, TOKENS, rngs={'dropout': key}) for key in jax.random.split(KEY)]

    def expected(params):
        one, two = passes(params)
        likely = [cross_entropy(logits, TARGET, WEIGHT, 0.1)[0]['loss'] for logits in (one, two)]
        apart, count = divergence(one, two, TARGET, WEIGHT)
        return (sum(total for total, _ in likely) + 4.0 * apart) / 2 / count

    one, two = passes(params)
    assert np.abs(one - two).max() > 0.1
    run = jax.jit(jax.value_and_grad(lambda params: value(TASK.loss(model, params, batch(), KEY, 1)[0])))
    found, by_hand = run(params), jax.jit(jax.value_and_grad(expected))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, by_hand)
    objective, report = TASK.loss(model, params, batch(), KEY, 1)
    words = (WEIGHT[:, None] * (TARGET != 0)).sum()
    assert {name: float(count) for name, (_, count) in (objective | report).items()} == {
        'loss': 2 * words, 'rdrop': words, 'nll': 2 * words, 'accuracy': 2 * words}


def test_without_padding_it_is_the_same():
    model, params = system('gru', dropout=0.0)

    def told(room):
        # Dropout's draws follow the places. Without it both passes are one, twice, and nothing lies between them.
        return TASK.loss(model, params, batch(room), KEY, 1)

    padded, tight = told(None), told(Room(10, 12))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), padded, tight)
    assert padded[0]['rdrop'][0] == tight[0]['rdrop'][0] == 0
    dropping, _ = system('gru', dropout=0.3)
    objective, _ = TASK.loss(dropping, params, batch(Room(10, 12)), KEY, 1)
    assert objective['rdrop'][0] > 0


def test_evaluation_makes_one_pass():
    model, params = system('transformer', dropout=0.3)
    plain = Translation(label_smoothing=0.1)
    assert str(jax.make_jaxpr(lambda params: TASK.loss(model, params, batch(), None, 1))(params)) == str(
        jax.make_jaxpr(lambda params: plain.loss(model, params, batch(), None, 1))(params))


def test_own_words_and_statistics_of_the_batch_are_those_of_both_passes():
    model, params = system('transformer', dropout=0.3, normalisation='batch', num_layers=1)

    def told(rdrop):
        task = Translation(sampling='constant', rdrop=rdrop)
        return jax.jit(lambda params, key: task.loss(model, params, batch(), key, 1)[1])

    plain = told(0.0)
    one, two = (plain(params, key) for key in jax.random.split(KEY))
    both = told(1.0)(params, KEY)
    assert set(both) == set(one) > {'nll', 'accuracy', 'teacher_forcing', 'encoder_norm/running_mean'}
    jax.tree.map(lambda x, a, b: np.testing.assert_allclose(x, a + b, rtol=1e-4, atol=1e-4), both, one, two)


def test_training_pulls_the_passes_together(tmp_path):
    """With the weight the divergence that is optimised falls, in a run as a user starts it."""
    apart = {}
    for weight in (1e-6, 20.0):
        train(bigrams(steps=40, log_every=10).replace('task', rdrop=weight), tmp_path / str(weight),
              say=lambda text: None)
        told = records(tmp_path / str(weight))
        apart[weight] = [line['rdrop'] / weight for line in told if line['split'] == 'train']
        assert not any('rdrop' in line for line in told if line['split'] == 'valid')
    assert apart[20.0][-1] < apart[1e-6][-1] / 2


def test_where_it_says_nothing_it_is_refused(tmp_path, capfd):
    assert launch(*flags(tmp_path / 'same', '--task.rdrop=5', '--model.dropout=0')) == 2
    assert capfd.readouterr().err == ('error: --task.rdrop=5.0 compares two passes that dropout makes differ, and with '
                                      '--model.dropout=0.0 they are the same; raise dropout, or set rdrop to 0\n')
    assert launch(*flags(tmp_path / 'less', '--task.rdrop=-1', '--model.dropout=0.1')) == 2
    assert '--task.rdrop=-1.0 must be at least 0' in capfd.readouterr().err
    assert launch('--experiment=numerals', '--model=smt', '--task.rdrop=5', f'--workdir={tmp_path / "counts"}') == 2
    assert ('--task.rdrop=5.0 is not read by SMT, which learns by counting; set it to 0.0'
            in capfd.readouterr().err)
    assert not any(tmp_path.iterdir())
