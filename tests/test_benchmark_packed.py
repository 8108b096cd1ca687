"""A trained run for programs that know nothing of seqjax: what is written is read, and every parameter has one name."""

import numpy as np
import pytest

from benchmarks import ours, packed
from seqjax.layers.positions import sinusoids
from seqjax.models.transformer import Transformer
from seqjax.prepared import initialise
from seqjax.training.checkpoint import paths

SHAPE = dict(width=8, layers=2, heads=2, feedforward=12, words=20, dropout=0.0)


@pytest.fixture
def some():
    model = Transformer(**ours.fields_of('transformer', SHAPE, 'float32'), source_size=20, target_size=20)
    parameters = {path: np.asarray(value) for path, value in paths(initialise(model, 0)).items()}
    sources = [np.array(ids, np.int32) for ids in ([5, 6, 2], [2], [7, 2], [4, 4, 4, 2])]
    return packed.Packed('runs/some', parameters, sinusoids(9, 8), sources, SHAPE | {'length': 9})


def test_what_is_written_is_read(some, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, 'FILE', tmp_path / 'deep' / 'packed.npz')
    with pytest.raises(ValueError, match='runs/some was not packed'):
        packed.Packed.read('runs/some')
    some.write()
    found = packed.Packed.read('runs/some')
    assert found.sizes == some.sizes
    assert [ids.tolist() for ids in found.sources] == [ids.tolist() for ids in some.sources]
    np.testing.assert_array_equal(found.positions, some.positions)
    assert found.parameters.keys() == some.parameters.keys()
    for path, value in some.parameters.items():
        np.testing.assert_array_equal(found.parameters[path], value)
    with pytest.raises(ValueError, match='runs/other was not packed'):
        packed.Packed.read('runs/other')


def test_batches_are_in_order_or_by_length(some):
    assert [places.tolist() for places in some.batches(3, by_length=False)] == [[0, 1, 2], [3]]
    assert [places.tolist() for places in some.batches(3, by_length=True)] == [[1, 2, 0], [3]]
    assert some.padded([1, 0]).tolist() == [[2, 0, 0], [5, 6, 2]]
    assert packed.words_of(np.array([5, 1, 2, 0, 2])) == [5, 1]
    assert packed.words_of([5, 6]) == [5, 6]


def squares(arrays):
    return sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays)


@pytest.mark.parametrize(('named', 'tables'), [(packed.for_pegasus, 4), (packed.for_joeynmt, 3)])
def test_each_parameter_has_one_name(some, named, tables):
    """And the biases that ours has not are 0."""
    parameters = {path: value + np.float32(0.5) for path, value in some.parameters.items()}
    state, table = named(some._replace(parameters=parameters)), parameters['target_embedding']
    embeddings = [name for name, value in state.items() if value.shape == table.shape]
    assert len(embeddings) == tables
    assert all(squares([state[name]]) == pytest.approx(squares([table])) for name in embeddings)
    others = [value for name, value in state.items() if name not in embeddings]
    expected = [value for path, value in parameters.items() if path != 'target_embedding']
    assert squares(others) == pytest.approx(squares(expected))
    assert sum(value.size for value in others if value.any()) == sum(value.size for value in expected)
