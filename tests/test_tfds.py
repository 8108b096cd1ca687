import json
import pathlib
import subprocess
import sys

import pytest

from seqjax.data import tfds
from seqjax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
SPLITS = {'train': ([f'Satz {i} grün' for i in range(2500)], [f'sentence {i}' for i in range(2500)]),
          'validation': (['eins', ''], ['one', 'two']), 'test': (['drei'], ['three'])}
EXPECTED = {'train': SPLITS['train'], 'valid': SPLITS['validation'], 'test': SPLITS['test']}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp('tfds')
    tfds.write(SPLITS, 'words_translate', str(path), 'de', 'en')
    return path


def stock(data_dir, version):
    """A data set as wmt14_translate prepares it: a config, the Translation feature, an unregistered builder."""
    import tensorflow_datasets

    class Wmt(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tensorflow_datasets.core.Version(version)
        BUILDER_CONFIGS = [tensorflow_datasets.core.BuilderConfig(name='de-en')]

        def _info(self):
            features = tensorflow_datasets.features.Translation(languages=('de', 'en'))
            info = tensorflow_datasets.core.DatasetInfo(builder=self, features=features)
            info.initialize_from_bucket = lambda: None
            return info

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples() for name in ('train', 'validation', 'test')}

        def _generate_examples(self):
            for i in range(3):
                yield i, {'de': f'ä{version}', 'en': f'a{i}'}

    Wmt.name = 'wmt14_translate'
    Wmt(data_dir=data_dir, file_format='array_record').download_and_prepare(download_dir=data_dir / 'downloads')


def test_what_is_written_is_read_in_order(data_dir):
    assert tfds.read_splits('words_translate', str(data_dir)) == EXPECTED
    swapped = tfds.read_splits('words_translate:1.0.0', str(data_dir), 'en', 'de', train='test')
    assert swapped['train'] == (['three'], ['drei'])
    sliced = tfds.read_splits('words_translate', str(data_dir), train='train[10:12]')
    assert sliced['train'] == (['Satz 10 grün', 'Satz 11 grün'], ['sentence 10', 'sentence 11'])


def test_training_pairs_with_an_empty_side_are_left_out(data_dir, capsys):
    splits = tfds.read_splits('words_translate', str(data_dir), train='validation')
    assert splits['train'] == (['eins'], ['one'])
    assert splits['valid'] == SPLITS['validation']
    assert 'left out 1 of 2' in capsys.readouterr().err


def test_stock_builders_are_read_without_their_code(tmp_path, monkeypatch):
    stock(tmp_path, '1.0.0')
    stock(tmp_path, '1.10.0')
    stock(tmp_path, '1.9.0')
    newest = tfds.read_splits('wmt14_translate/de-en', str(tmp_path))
    assert newest['test'][0] == ['ä1.10.0'] * 3
    assert sorted(newest['test'][1]) == ['a0', 'a1', 'a2']
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    assert tfds.read_splits('wmt14_translate/de-en:1.9.0')['valid'][0] == ['ä1.9.0'] * 3
    with pytest.raises(UserError, match='has configs; ask for one of wmt14_translate/de-en'):
        tfds.read_splits('wmt14_translate')


def test_what_is_missing_is_named(data_dir):
    for dataset, text in (('wmt14_translate/de-en', 'no data set wmt14_translate/de-en in'),
                          ('words_translate:2.0.0', 'no data set words_translate:2.0.0')):
        with pytest.raises(UserError, match=text) as caught:
            tfds.read_splits(dataset, str(data_dir))
        assert f'tfds build {dataset} --file_format=array_record --data_dir={data_dir}' in str(caught.value)
        assert '\n' not in str(caught.value)
    with pytest.raises(UserError, match=r"no feature 'dee'; did you mean 'de'\?"):
        tfds.read_splits('words_translate', str(data_dir), 'dee')
    with pytest.raises(UserError, match=r"no split 'valid'; did you mean 'validation'\?"):
        tfds.read_splits('words_translate', str(data_dir), valid='valid')
    for part in ('validation[:1', 'validation[:200%]', 'validation+nope', 'validation[500:]', 'validation[:10%]'):
        with pytest.raises(UserError, match=r"words_translate has \d+ records in 'validation', and '") as caught:
            tfds.read_splits('words_translate', str(data_dir), valid=part)
        assert '\n' not in str(caught.value)


def test_other_formats_are_refused(tmp_path):
    path = pathlib.Path(tfds.write(SPLITS, 'words_translate', str(tmp_path), 'de', 'en')) / 'dataset_info.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'fileFormat': 'tfrecord'}))
    with pytest.raises(UserError, match=r'stored as tfrecord, which only TensorFlow reads; remove .*array_record'):
        tfds.read_splits('words_translate', str(tmp_path))


def test_nothing_is_overwritten(data_dir):
    with pytest.raises(UserError, match='words_translate is already a data set'):
        tfds.write(SPLITS, 'words_translate', str(data_dir), 'de', 'en')
    with pytest.raises(UserError, match="name 'Words'"):
        tfds.write(SPLITS, 'Words', str(data_dir), 'de', 'en')


READ = '''
import sys
from seqjax.data import tfds
print(tfds.read_splits('multi30k_translate', sys.argv[1])['valid'])
print('tensorflow' in sys.modules)
'''


def test_the_command_writes_a_corpus_without_tensorflow(tmp_path):
    for name in ('train', 'val', 'test'):
        (tmp_path / f'{name}.de').write_text(f'{name} grün\n')
        (tmp_path / f'{name}.en').write_text(f'{name} green\n')
    out = tmp_path / 'out'
    command = [sys.executable, '-m', 'seqjax.data.tfds', f'--path={tmp_path}', '--source=de', '--target=en',
               '--name=multi30k_translate', f'--data_dir={out}']
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, f'{out}/multi30k_translate/1.0.0\n', '')
    read = subprocess.run([sys.executable, '-c', READ, out], capture_output=True, text=True, cwd=ROOT)
    assert (read.stdout, read.stderr) == ("(['val grün'], ['val green'])\nFalse\n", '')
    again = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert again.returncode == 2
    assert 'already a data set' in again.stderr
    assert again.stderr.count('\n') == 1
