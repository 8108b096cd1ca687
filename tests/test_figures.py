"""Pictures are whole files, show what they say, and have their arrays beside them."""

import json
import types

import jax
import numpy as np
import numpy_transformer as reference
import pytest

from seqjax import figures
from seqjax.data.vocabulary import Vocabulary
from seqjax.models.bahdanau import Bahdanau
from seqjax.models.recurrent import LSTM
from seqjax.models.transformer import Transformer
from seqjax.tasks.evaluation import Evaluator, Hypothesis
from seqjax.tasks.translation import Codec, Translation

LABELS = [(['a', 'b', 'c', '</s>'], ['x', 'y', '</s>']), (['d', '</s>'], ['z', '</s>'])]


def assert_whole_picture(path):
    data = path.read_bytes()
    assert data.startswith(b'\x89PNG\r\n')
    assert data.endswith(b'IEND\xaeB`\x82')
    assert figures.pyplot().imread(path).std() > 0.01, 'an empty picture'
    assert [p.name for p in path.parent.iterdir() if p.name.startswith('.')] == []


def shown(figure):
    """The panels that have a picture: title -> (array, labels along, labels down)."""
    return {axis.get_title(): (np.asarray(axis.images[0].get_array()),
                               [label.get_text() for label in axis.get_xticklabels()],
                               [label.get_text() for label in axis.get_yticklabels()])
            for axis in figure.axes if axis.images}


@pytest.mark.parametrize(('N', 'H'), [(1, 1), (1, 8), (2, 4), (6, 1)])
def test_attention_maps_show_every_head_and_sentence_with_its_pieces(N, H):
    weights = np.random.default_rng(0).random((N, 2, H, 5, 6)).astype(np.float32)
    figure = figures.attention_maps(weights, LABELS)
    panels = shown(figure)
    figures.pyplot().close(figure)
    arrays = [array for array, _, _ in panels.values()]
    assert len(panels) == 2 + (N * H if N * H > 1 else 0)
    for b, (source, target) in enumerate(LABELS):
        array, along, down = panels[f'sentence {b + 1}' + (f', layer {N}, mean of heads' if N * H > 1 else '')]
        np.testing.assert_allclose(array, weights[-1, b].mean(axis=0)[:len(target), :len(source)], rtol=1e-6)
        assert (along, down) == (source, target)
    if N * H > 1:
        for n in range(N):
            for h in range(H):
                array, along, down = panels[f'sentence 1, layer {n + 1}, head {h + 1}']
                np.testing.assert_array_equal(array, weights[n, 0, h, :3, :4])
                assert (along, down) == LABELS[0]
    assert all(array.max() > 0 for array in arrays)


def test_pieces_may_be_dollars(tmp_path):
    """Which matplotlib takes for mathematics."""
    labels = [(['$$', '$_$', '</s>'], ['$^$', '▁$$', 'a$b$'])]
    figure = figures.attention_maps(np.ones((1, 1, 1, 3, 3), np.float32), labels)
    (_, along, down), = shown(figure).values()
    assert (along, down) == labels[0]
    assert_whole_picture(figures.save(figure, tmp_path / 'attention.png', {}))
    figure = figures.state_maps({'decoder/hidden': np.random.default_rng(0).random((1, 3, 2))}, labels[0][1])
    assert_whole_picture(figures.save(figure, tmp_path / 'states.png', {}))


def test_attention_maps_mark_windows():
    """Positions from 1 on an axis from 0, in the panel of their sentence, rows of padding left out."""
    windows = np.random.default_rng(0).uniform(1, 4, (2, 5, 3)).astype(np.float32)
    figure = figures.attention_maps(np.full((1, 2, 1, 5, 6), 0.1), LABELS, windows)
    for b, (axis, (source, target)) in enumerate(zip(figure.axes, LABELS)):
        for column, line in enumerate(axis.lines):
            np.testing.assert_allclose(line.get_xdata(), windows[b, :len(target), column] - 1)
            np.testing.assert_array_equal(line.get_ydata(), np.arange(len(target)))
        assert len(axis.lines) == 3
        assert axis.get_xlim() == (-0.5, len(source) - 0.5)
    figures.pyplot().close(figure)


def test_state_maps_show_the_decoder_and_nothing_else():
    rng = np.random.default_rng(0)
    captured = {'decoder/layer_0/hidden': rng.normal(size=(2, 4, 5)),
                'decoder/layer_0/input_gate': rng.random((2, 4, 5)),
                'encoder/layer_0/hidden': rng.normal(size=(2, 6, 5)), 'decoder/scalar': np.ones(2)}
    figure = figures.state_maps(captured, LABELS[0][1])
    panels = shown(figure)
    figures.pyplot().close(figure)
    assert set(panels) == {'decoder/layer_0/hidden', 'decoder/layer_0/input_gate'}
    for name, (array, along, _) in panels.items():
        np.testing.assert_array_equal(array, captured[name][0, :3].T)
        assert along == LABELS[0][1]


SENTENCES = ['one two three', 'four', 'five six seven eight']
HYPOTHESES = ['un deux', 'quatre', '']
TINY = dict(hidden_size=8, num_layers=2)


@pytest.mark.parametrize(('model', 'picture'), [
    (Transformer(**TINY, num_heads=2, feedforward_size=8), 'attention'),
    (Transformer(**TINY, num_heads=2, feedforward_size=8, dtype='bfloat16'), 'attention'),
    (Bahdanau(hidden_size=8), 'attention'), (LSTM(**TINY), 'states')],
    ids=['transformer', 'bfloat16', 'bahdanau', 'lstm'])
def test_a_run_is_drawn_whatever_the_model(model, picture, tmp_path):
    source, target = (Vocabulary.learn(text, 'word', None, 1, False) for text in (SENTENCES, ['un deux quatre']))
    codec = Codec(source, target, (), max_length=9)
    model = model.clone(**Translation().sizes(codec))
    tokens = np.ones((1, 2), np.int32)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.float32(rng.normal(0, 0.5, x.shape)),
                          jax.eval_shape(model.init, jax.random.key(0), tokens, tokens)['params'])
    placement = types.SimpleNamespace(sums=lambda f: f, rows=lambda f: f)
    evaluator = Evaluator(Translation(), model, codec, placement)
    ids = source.encode(SENTENCES)
    hypotheses = [Hypothesis(line, 0.0, target.encode([line]).row(0)) for line in HYPOTHESES]
    (tmp_path / 'metrics.jsonl').write_text(json.dumps({'step': 1, 'split': 'train', 'nll': 2.0}) + '\n')
    drawn = figures.draw_run(tmp_path, evaluator, params, ids, hypotheses, '.greedy')
    assert [path.relative_to(tmp_path).as_posix() for path in drawn] == [
        f'figures/{picture}.greedy.png', 'figures/learning_curve.png']
    for path in drawn:
        assert_whole_picture(path)
    arrays = np.load(drawn[0].with_suffix('.npz'))
    assert all(arrays[name].dtype == np.float32 for name in arrays if not name.startswith(('source_', 'target_')))
    assert list(arrays['source_2'][:4]) == ['five', 'six', 'seven', 'eight']
    assert [len(arrays[f'target_{b}']) for b in range(3)] == [3, 2, 1]
    if picture == 'states':
        assert arrays['decoder/layer_1/hidden'].shape == (3, 3, 8)
        return
    cross = next(arrays[name] for name in arrays if name.endswith('cross_attention'))
    for b, length in enumerate((4, 2, 5)):  # rows in the order of the sentences
        assert (cross[:, b, :, :, length:] == 0).all()
        assert (cross[:, b, :, :, length - 1] > 0).all()
    if model.dtype == 'float32' and isinstance(model, Transformer):
        shifted = np.concatenate([[1], hypotheses[0].ids[:-1]])
        _, seen = reference.transformer(model, params, ids.row(0), shifted)
        np.testing.assert_allclose(cross[:, 0, :, :, :4], seen['cross'], rtol=1e-3, atol=1e-5)


def test_hypotheses_of_nothing_are_not_drawn(tmp_path):
    evaluator = types.SimpleNamespace(look_inside=None)
    source = Vocabulary.learn(SENTENCES, 'word', None, 1, False).encode(SENTENCES)
    nothing = [Hypothesis('', 0.0, np.array([], np.int32))] * 3
    assert figures.draw_run(tmp_path, evaluator, None, source, nothing) == []
    assert list(tmp_path.iterdir()) == []


def test_the_learning_curve_is_that_of_the_metrics(tmp_path):
    records = [{'step': 1, 'split': 'train', 'nll': 3.0, 'time': {'seconds': 1}},
               {'step': 2, 'split': 'valid', 'nll': 2.5, 'bleu': 1.5, 'exact_match': 0.0},
               {'step': 2, 'split': 'train', 'nll': 2.0}, {'step': 4, 'split': 'valid', 'nll': 2.25, 'bleu': 3.0},
               {'step': 4, 'split': 'test', 'nll': 9.0, 'bleu': 9.0}]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(record) + '\n' for record in records))
    path = figures.draw_learning_curve(tmp_path / 'metrics.jsonl', tmp_path / 'curve.png')
    assert_whole_picture(path)
    arrays = np.load(path.with_suffix('.npz'))
    np.testing.assert_array_equal(arrays['train_nll'], [[1, 3.0], [2, 2.0]])
    np.testing.assert_array_equal(arrays['valid_nll'], [[2, 2.5], [4, 2.25]])
    np.testing.assert_array_equal(arrays['valid_bleu'], [[2, 1.5], [4, 3.0]])
    np.testing.assert_array_equal(arrays['valid_exact_match'], [[2, 0.0]])
    assert arrays['train_bleu'].shape == (0, 2)


def test_sinusoids_are_drawn_as_the_formula_has_them(tmp_path, monkeypatch):
    kept = []
    plt = figures.pyplot()
    monkeypatch.setattr(plt, 'close', kept.append)
    path = figures.draw_sinusoids(tmp_path / 'sinusoids.png')
    monkeypatch.undo()
    assert_whole_picture(path)
    np.testing.assert_allclose(np.load(path.with_suffix('.npz'))['table'], reference.positions(20, 512), atol=1e-6)
    axis, bar = kept[0].axes
    np.testing.assert_allclose(np.reshape(axis.collections[0].get_array(), (20, 512)), reference.positions(20, 512),
                               atol=1e-6)
    assert (axis.get_xlim(), axis.get_ylim()) == ((0, 512), (20, 0))
    assert bar.get_ylim() == (-1, 1)
    plt.close(kept[0])


def test_a_picture_that_fails_leaves_nothing(tmp_path):
    class Broken:
        def savefig(self, file, **_):
            file.write(b'\x89PNG half')
            raise OSError(28, 'No space left on device')

    with pytest.raises(OSError, match='No space'):
        figures.save(Broken(), tmp_path / 'a.png', {})
    assert list(tmp_path.iterdir()) == []


def test_figures_are_closed():
    plt = figures.pyplot()
    assert plt.get_backend().lower() == 'agg'
    assert plt.get_fignums() == []
