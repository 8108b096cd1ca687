"""What there is to choose from is found by reading files."""

import inspect

import pytest

from seqjax import catalogue
from seqjax.errors import UserError
from seqjax.models.contract import Translator


def test_names_are_those_of_the_files():
    assert {'multi30k', 'numerals', 'parallel', 'reverse', 'tfds'} <= set(catalogue.experiments())
    assert {'bahdanau', 'convs2s', 'gru', 'lstm', 'luong', 'rctm', 'rnn', 'transformer'} <= set(catalogue.models())
    assert catalogue.models()['transformer'] == (
        'transformer', 'seqjax.models.transformer', 'Transformer', catalogue.models()['transformer'].summary)


@pytest.mark.parametrize('name', catalogue.models())
def test_models_keep_the_contract(name):
    model = catalogue.load('model', name)
    assert issubclass(model, Translator)
    assert model.__name__.lower() == name
    for method in ('encode', 'start', 'decode'):
        assert getattr(model, method) is not getattr(Translator, method), method
    assert inspect.getdoc(model).partition('\n')[0] == catalogue.models()[name].summary != ''


@pytest.mark.parametrize('name', catalogue.experiments())
def test_experiments_are_functions_of_a_models_name(name):
    function = catalogue.load('experiment', name)
    assert function.__name__ == name
    parameter, = inspect.signature(function).parameters.values()
    assert parameter.name == 'model'
    assert parameter.default in catalogue.models()
    assert inspect.getdoc(function).partition('\n')[0] == catalogue.experiments()[name].summary != ''


def test_a_new_file_is_enough(tmp_path, monkeypatch):
    (tmp_path / 'experiments').mkdir()
    (tmp_path / 'experiments' / 'new.py').write_text(
        'import nowhere\n\n__all__ = ["Fresh"]\n\n\ndef Fresh(model="gru"):\n    """One line.\n\n    More."""\n\n\n'
        'def hidden():\n    """Not listed."""\n')
    (tmp_path / 'experiments' / 'helpers.py').write_text('VALUE = 1\n')
    monkeypatch.setattr(catalogue, 'ROOT', tmp_path)
    assert catalogue.experiments() == {'fresh': ('fresh', 'experiments.new', 'Fresh', 'One line.')}


@pytest.mark.parametrize(('kind', 'name', 'message'), [
    ('model', 'transfomer', "--model=transfomer: there is no such model; did you mean 'transformer'?"),
    ('experiment', 'multi30', "--experiment=multi30: there is no such experiment; did you mean 'multi30k'?"),
    ('experiment', '', '--experiment=: there is no such experiment; choose one of colours, multi30k, '),
    ('model', 'Transformer', "--model=Transformer: there is no such model; did you mean 'transformer'?")])
def test_unknown_names(kind, name, message):
    with pytest.raises(UserError) as caught:
        catalogue.load(kind, name)
    assert str(caught.value).startswith(message)
    assert '\n' not in str(caught.value)


def test_the_listing_has_a_line_for_each():
    lines = catalogue.listing().splitlines()
    for known in (catalogue.experiments(), catalogue.models()):
        for entry in known.values():
            assert sum(line.split() == [entry.name, *entry.summary.split()] for line in lines) == 1
