"""Experiment: a task, a model and a training that are checked together."""

import dataclasses

import pytest

from seqjax import catalogue
from seqjax.decoding.options import Decoding
from seqjax.errors import UserError
from seqjax.experiment import GROUPS, Experiment, flat
from seqjax.models.transformer import Transformer
from seqjax.options import options
from seqjax.tasks.corpora import Numerals, Parallel
from seqjax.training.optimizer import Optimizer
from seqjax.training.training import Training

SMALL = dict(num_layers=1, hidden_size=8, num_heads=2, feedforward_size=8)


def experiment(**parts):
    return Experiment(**(dict(task=Numerals(), model=Transformer(**SMALL)) | parts))


def refusal(make):
    with pytest.raises(UserError) as caught:
        make()
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(('parts', 'message'), [
    (dict(model=Transformer(num_layers=2.0)), '--model.num_layers=2.0 is not an int'),
    (dict(model=Transformer(num_layers=True)), '--model.num_layers=True is not an int'),
    (dict(model=Transformer(num_layers=0)), '--model.num_layers=0 must be at least 1'),
    (dict(model=Transformer(dropout=1.0)), '--model.dropout=1.0 must be below 1.0'),
    (dict(model=Transformer(norm='between')), "--model.norm='between' is not one of before, after"),
    (dict(model=Transformer(remat='yes')), "--model.remat='yes' is not a bool"),
    (dict(task=Numerals(max_length=1)), '--task.max_length=1 must be at least 2'),
    (dict(task=Parallel(columns=(1, 0))), '--task.columns=(1, 0) must be at least 1'),
    (dict(optimizer=Optimizer(learning_rate=float('nan'))), '--optimizer.learning_rate=nan is not a float'),
    (dict(optimizer=Optimizer(name='adamm')), "--optimizer.name='adamm' is not one of adam, "),
    (dict(training=Training(batch_size=0)), '--training.batch_size=0 must be at least 1'),
    (dict(training=Training(steps=None)), '--training.steps=none and --training.epochs=none'),
    (dict(training=Training(batch_size=10, accumulate=3)), '--training.accumulate=3 does not divide'),
    (dict(decoding=Decoding(beam_size=0)), '--decoding.beam_size=0 must be at least 1'),
    (dict(decoding=Decoding(method='beam', beam_size=2, nbest=3)), 'decoding.nbest=3 is more than'),
    (dict(optimizer=Optimizer(schedule='inverse_sqrt')), 'schedule=inverse_sqrt with --optimizer.warmup_steps=0')])
def test_values_are_checked(parts, message):
    assert message in refusal(lambda: experiment(**parts))


def test_a_model_is_checked_before_the_data_are_read_and_after():
    assert 'num_heads=3 does not divide --model.hidden_size=8' in refusal(
        lambda: experiment(model=Transformer(**(SMALL | dict(num_heads=3)))))
    untied = experiment(model=Transformer(**SMALL, tie='all'))
    assert '--model.tie=all needs one vocabulary' in refusal(
        lambda: untied.sized(source_size=10, target_size=11, source_length=5))
    assert untied.sized(source_size=10, target_size=10, source_length=5).model.source_size == 10


def test_replace_changes_one_field_and_checks_it():
    one = experiment()
    two = one.replace('training', steps=7, batch_size=3)
    assert (two.training.steps, two.training.batch_size) == (7, 3)
    assert dataclasses.replace(two, training=one.training) == one
    assert one.training.steps == Training().steps
    assert '--training.steps=0 must be at least 1' in refusal(lambda: one.replace('training', steps=0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.training = None


def test_flat_has_every_option_once_and_nothing_else():
    fields = flat(experiment(decoding=Decoding(beam_size=9)))
    assert list(fields) == [f'{group}.{field.name}' for group, part in zip(GROUPS, (
        Numerals, Transformer, Optimizer, Training, Decoding)) for field in options(part)]
    assert fields['decoding.beam_size'] == 9
    assert fields['model.hidden_size'] == 8
    assert 'model.source_size' not in fields
    assert not any(name.endswith(('.parent', '.name')) and name != 'optimizer.name' for name in fields)


@pytest.mark.parametrize('model', catalogue.models())
@pytest.mark.parametrize('name', catalogue.experiments())
def test_every_experiment_takes_every_model(name, model):
    composed = catalogue.load('experiment', name)(model)
    assert type(composed.model).__name__.lower() == model
    size = dict(source_size=50, target_size=50, source_length=20)
    assert composed.sized(**size).model.source_size == 50
