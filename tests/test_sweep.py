"""The grammar of --sweep: values are read as the flags read them."""

import pytest

from seqjax.errors import UserError
from seqjax.studies import sweep
from seqjax.studies.axes import SEED
from seqjax.studies.options import Conduct

BASE = {'experiment': 'numerals', 'model': 'gru', 'training.steps': 4}


@pytest.mark.parametrize(('text', 'axes'), [
    ('model.num_layers=1,2,4', {'model.num_layers': [1, 2, 4]}),
    ('training.seed=0..2', {SEED: [0, 1, 2]}),
    ('training.seed=7,0..2,9', {SEED: [7, 0, 1, 2, 9]}),
    ('--model.dropout=0,0.5 optimizer.clip_norm=none,1', {'model.dropout': [0.0, 0.5],
                                                         'optimizer.clip_norm': [None, 1.0]}),
    ('task.joint_vocabulary=true,false', {'task.joint_vocabulary': [True, False]}),
    ('task.source=en,de', {'task.source': ['en', 'de']}),
    ('model=gru,lstm', {'model': ['gru', 'lstm']}),
    ('experiment=parallel task.columns=1,2|2,1', {'experiment': ['parallel'], 'task.columns': [(1, 2), (2, 1)]}),
    ("training.mesh='data=1,fsdp=2|data=2'", {'training.mesh': ['data=1,fsdp=2', 'data=2']}),
    ('decoding.method=beam decoding.beam_size=2,3', {'decoding.method': ['beam'], 'decoding.beam_size': [2, 3]}),
    ('training.mesh=data=1', {'training.mesh': ['data=1']})])
def test_axes(text, axes):
    found = sweep.parse(text, BASE)
    assert found == axes
    assert [[type(value) for value in values] for values in found.values()] == [
        [type(value) for value in values] for values in axes.values()]


@pytest.mark.parametrize(('text', 'message'), [
    ('', '--sweep has no axis; write NAME=VALUE,VALUE'),
    ('model.num_layers', "--sweep: 'model.num_layers' is no axis; write NAME=VALUE,VALUE"),
    ('model.num_layers=', 'the axis model.num_layers has no value; give at least one'),
    ('model.num_layers=,', 'the axis model.num_layers has no value; give at least one'),
    ('training.seed=3..1', 'the axis training.seed has no value in 3..1; write the lower number first'),
    ('model.num_layers=1 model.num_layers=2', 'the axis model.num_layers is there twice; put its values together'),
    ('model.num_layer=1', "--model.num_layer: there is no such flag; did you mean 'model.num_layers'?"),
    ('model.num_heads=1', '--model.num_heads: there is no such flag'),
    ('layers=1', '--layers: there is no such flag; --help lists them'),
    ('model.num_layers=one', '--model.num_layers=one is not an int'),
    ('model=gruu', "--model=gruu: there is no such model; did you mean 'gru'?"),
    ("model.num_layers='1", 'close the quotation')])
def test_mistakes(text, message):
    with pytest.raises(UserError) as caught:
        sweep.parse(text, BASE)
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(('text', 'seeds', 'names'), [
    ('model.num_layers=1,2 training.seed=5,6', None,
     ['num_layers=1,seed=5', 'num_layers=2,seed=5', 'num_layers=1,seed=6', 'num_layers=2,seed=6']),
    ('model.num_layers=1,2', None, ['num_layers=1,seed=0', 'num_layers=2,seed=0']),
    ('model.num_layers=1', 2, ['num_layers=1,seed=0', 'num_layers=1,seed=1']),
    ('training.seed=3', None, ['gru,seed=3'])])
def test_the_axis_of_seeds_repeats(text, seeds, names):
    trials = sweep.study(text, BASE, seeds).trials()
    assert [trial.name for trial in trials] == names
    assert all(trial.settings['training.steps'] == 4 for trial in trials)


def test_the_base_seed_stays_where_there_is_no_axis_of_seeds():
    trial, = sweep.study('model.num_layers=1', BASE | {SEED: 9}).trials()
    assert trial.settings[SEED] == 9
    with pytest.raises(UserError, match=r'--seeds=2 and an axis training\.seed: the axis says which seeds'):
        sweep.study('training.seed=1', BASE, 2)


def test_the_base_is_what_was_typed(tmp_path):
    (tmp_path / 'flags').write_text('--training.steps=9\n--model.num_layers=2\n')
    argv = ['--model.num_heads=2', '--training.steps', '7', f'--flagfile={tmp_path}/flags', '--workers=2']
    assert sweep.base('numerals', None, argv, 'model=transformer,transformer', (Conduct(),)) == {
        'experiment': 'numerals', 'model': 'transformer', 'training.steps': 7, 'model.num_layers': 2,
        'model.num_heads': 2}
    with pytest.raises(UserError, match=r'--sweep needs --experiment=NAME'):
        sweep.base(None, None, [], '', ())
