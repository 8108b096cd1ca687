"""The Transformer with each position encoding, against numpy; what holds for all of them; where learned ones end."""

import jax
import numpy as np
import numpy_transformer as reference
import pytest
import transformer_checks as checks
from tiny import flags, launch, summary
from transformer_checks import LENGTHS, MOVED, SIZES, SOURCE, TOKENS, compiled, shapes_of

from experiments.translation import numerals
from seqjax import figures
from seqjax.errors import UserError
from seqjax.models.transformer import Transformer
from seqjax.prepared import prepare

KINDS = ('learned', 'rotary', 'alibi', 't5')  # test_transformer.py has sinusoidal and none


def run_of(kind, **fields):
    """All of them with both ties and norms between them."""
    return compiled(positions=kind, **dict(tie='none', norm='after' if kind in ('rotary', 't5') else 'before') | fields)


@pytest.mark.parametrize('kind', KINDS)
def test_logits_equal_the_papers_equations(kind):
    run = run_of(kind)
    logits = run.full(run.params, SOURCE, TOKENS)
    for row in range(3):
        expected, _ = reference.transformer(run.model, run.params, SOURCE[row, :LENGTHS[row]], TOKENS[row])
        np.testing.assert_allclose(logits[row], expected, rtol=5e-4, atol=5e-4)


@pytest.mark.parametrize('kind', KINDS)
def test_cached_decoding_equals_all_at_once(kind):
    checks.cached_decoding_equals_all_at_once(run_of(kind))


@pytest.mark.parametrize('kind', KINDS)
def test_neighbours_and_padding_change_nothing(kind):
    checks.neighbours_and_padding_change_nothing(run_of(kind))


@pytest.mark.parametrize('kind', KINDS)
def test_the_order_of_the_source_is_seen_and_every_parameter_has_a_gradient(kind):
    run = run_of(kind)
    one, two = (np.asarray(run.full(run.params, source, TOKENS[:1])) for source in (SOURCE[:1], MOVED))
    assert np.abs(one - two).max() > 1e-2
    checks.every_parameter_has_a_finite_gradient(run)


@pytest.mark.parametrize('kind', KINDS)
def test_parameters_of_positions(kind):
    """T5: one table for all layers of a stack."""
    plain, shapes = (shapes_of(positions=positions) for positions in ('none', kind))
    more = {jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape
            for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]
            if path[0].key not in plain}
    assert more == {'learned': {'source_position_embedding': (9, 8), 'target_position_embedding': (7, 8)},
                    't5': {'encoder_relative/relative_bias': (32, 2), 'decoder_relative/relative_bias': (32, 2)},
                    }.get(kind, {})


@pytest.mark.parametrize('kind', ['sinusoidal', 'rotary', 'alibi', 't5'])
def test_positions_go_on_beyond_the_training_length(kind):
    """Twice as long as the longest sentence of the data: still the papers' equations."""
    run = run_of(kind)
    rng = np.random.default_rng(5)
    source, tokens = rng.integers(3, 13, (1, 18)), rng.integers(3, 13, (1, 14))
    logits = run.full(run.params, source, tokens)
    expected, _ = reference.transformer(run.model, run.params, source[0], tokens[0])
    np.testing.assert_allclose(logits[0], expected, rtol=1e-3, atol=1e-3)


def test_learned_positions_end_and_say_so():
    run = run_of('learned')
    long = np.full((1, 10), 5, np.int32)
    message = 'a sequence of 10 tokens is longer than the 9 positions that --model.positions=learned has; '
    with pytest.raises(UserError, match=message):
        run.encode(run.params, long)
    with pytest.raises(UserError, match='of 8 tokens is longer than the 7 positions'):
        run.full(run.params, SOURCE, long[:, :8])
    memory = run.encode(run.params, SOURCE)
    carry = run.model.apply({'params': run.params}, memory, 8, method='start')
    with pytest.raises(UserError, match='of 8 tokens is longer than the 7 positions'):
        run.decode(run.params, TOKENS[:, :1], memory, carry)
    with pytest.raises(UserError, match='needs source_length and target_length'):
        shapes_of(positions='learned', target_length=None)


def test_a_longer_output_than_positions_is_refused_before_training():
    experiment = numerals('transformer').replace('task', train_size=60, valid_size=9, test_size=9, highest=999)
    codec = experiment.task.prepare().codec
    learned = experiment.replace('model', positions='learned').replace('decoding', max_length=33)
    with pytest.raises(UserError, match=r'--decoding\.max_length=33: the model has positions for 32 target tokens'):
        prepare(learned, codec)
    assert prepare(learned.replace('decoding', max_length=32), codec).experiment.model.target_length == 32
    prepare(learned.replace('model', positions='alibi'), codec)


def test_learned_positions_are_as_many_as_the_task_admits(tmp_path, monkeypatch):
    """Batches are no wider, where widths are rounded up too: 10 is no multiple of 4."""
    monkeypatch.setattr(figures, 'draw_run', lambda *args: [])
    command = flags(tmp_path / 'run', '--training.steps=2', '--task.max_length=10', '--decoding.max_length=none',
                    '--model.positions=learned', '--model.num_heads=2', '--model.feedforward_size=8',
                    model='transformer')
    assert launch(*command) == 0
    assert summary(tmp_path / 'run')['steps'] == 2


def test_heads_that_cannot_be_turned_are_refused():
    with pytest.raises(UserError, match=r'positions=rotary turns pairs of units, and a head of --model\.hidden_size=6'):
        Transformer(**(SIZES | dict(hidden_size=6, positions='rotary'))).check()
    Transformer(**(SIZES | dict(hidden_size=6, positions='alibi'))).check()


@pytest.mark.parametrize('kind', KINDS)
def test_remat_and_half_precision(kind):
    """The same gradients when recomputed; logits within half precision of the others."""
    plain, remat, half = run_of(kind), run_of(kind, remat=True), run_of(kind, dtype='bfloat16')
    one, two = (run.gradient(run.params) for run in (plain, remat))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), one, two)
    exact = np.asarray(plain.full(plain.params, SOURCE, TOKENS))[:3]
    error = np.abs(half.full(plain.params, SOURCE, TOKENS)[:3] - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.05


def test_positions_are_made_once_for_all_layers():
    """The angles and biases stand before the scan: a program of 9 layers makes no more of them than one of 3."""
    for kind, operation in (('rotary', ' cos '), ('t5', 'gather'), ('alibi', ' abs ')):
        counts = []
        for depth in (3, 9):
            model = Transformer(**(SIZES | dict(num_layers=depth, positions=kind)))
            shapes = jax.eval_shape(model.init, jax.random.key(0), SOURCE, TOKENS)
            jaxpr = jax.make_jaxpr(model.apply)(shapes, SOURCE, TOKENS).jaxpr
            scans = [str(equation) for equation in jaxpr.eqns if equation.primitive.name == 'scan']
            assert len(scans) == 2
            assert not [text for text in scans if operation in text], kind
            counts.append(str(jaxpr).count(operation))
        assert counts[0] == counts[1] > 0
