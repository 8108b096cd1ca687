"""Translation data sets in the format of TensorFlow Datasets (array_record), read and written without TensorFlow.

    python -m seqjax.data.tfds --path=DIR --source=de --target=en --name=multi30k_translate --data_dir=OUT

writes a parallel corpus (see parallel.py) as such a data set.
"""

import argparse
import contextlib
import functools
import io
import os
import pathlib
import re
import sys
import tempfile
from typing import Any

from seqjax.data import parallel
from seqjax.data.parallel import Splits
from seqjax.errors import UserError, did_you_mean

VERSION = '1.0.0'


def read_splits(dataset: str, data_dir: str | None = None, source_key: str = 'de', target_key: str = 'en',
                train: str = 'train', valid: str = 'validation', test: str = 'test') -> Splits:
    """Train, valid and test pairs of a prepared data set; nothing is ever downloaded. See `parallel.drop_empty`.

    Args:
      dataset: 'name' or 'name/config', either with ':version' (the newest, where it is left out). Its builder need not
        be registered: that of wmt14_translate is only where TensorFlow is, but its files are read without.
      data_dir: where it was prepared; None is $TFDS_DATA_DIR or ~/tensorflow_datasets.
      source_key, target_key: features that hold the text ('de' and 'en' of wmt14_translate/de-en).
      train, valid, test: its names for the splits; slices such as 'train[:1%]' too.

    Raises UserError, with the command that prepares it, where the data set is not there or not in array_record.
    """
    data_dir = os.path.expanduser(data_dir or os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets'))
    fix = (f'prepare it where TensorFlow and a network are: tfds build {dataset} --file_format=array_record '
           f'--data_dir={data_dir}; a corpus of your own: python -m seqjax.data.tfds --help')
    builder = _tfds().builder_from_directory(_directory(dataset, pathlib.Path(data_dir), fix))
    for key in (source_key, target_key):
        if key not in builder.info.features:
            raise UserError(f'{dataset} has no feature {key!r}{did_you_mean(key, builder.info.features)}')
    splits = {split: _read(builder, dataset, name, source_key, target_key, fix)
              for split, name in (('train', train), ('valid', valid), ('test', test))}
    return parallel.drop_empty(splits, dataset)


def write(splits: Splits, name: str, data_dir: str, source_key: str, target_key: str) -> str:
    """Writes the splits as data set `name`, in their order, and returns its directory.

    Raises UserError where `name` is no lower_case_name or is already there: it is never overwritten.
    """
    if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
        raise UserError(f'data set name {name!r}: use lower-case letters, digits and underscores, a letter first')
    there = pathlib.Path(data_dir).expanduser() / name
    if any(there.glob('**/dataset_info.json')):
        raise UserError(f'{there} is already a data set; remove it, or choose another name')
    tfds = _tfds()

    class Corpus(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """The pairs at hand."""

        def _info(self):
            text = tfds.features.Text()
            info = tfds.core.DatasetInfo(builder=self, supervised_keys=(source_key, target_key), disable_shuffling=True,
                                         features=tfds.features.FeaturesDict({source_key: text, target_key: text}))
            info.initialize_from_bucket = lambda: None  # would ask the network for a data set of this name
            return info

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(*sides) for split, sides in splits.items()}

        def _generate_examples(self, sources, targets):
            for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
                yield i, {source_key: source, target_key: target}

    Corpus.name, Corpus.VERSION = name, tfds.core.Version(VERSION)
    builder = Corpus(data_dir=there.parent, file_format='array_record')
    with tempfile.TemporaryDirectory() as downloads, contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=downloads)
    return str(builder.data_dir)


@functools.cache
def _tfds() -> Any:
    """The library, which takes a second to import, without its progress bars."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    return tfds


def _directory(dataset: str, data_dir: pathlib.Path, fix: str) -> pathlib.Path:
    """DATA_DIR/name/version or DATA_DIR/name/config/version, the newest version where none is asked for."""
    name, _, version = dataset.partition(':')
    root = data_dir / name
    versions = sorted((tuple(map(int, file.parent.name.split('.'))), file.parent)
                      for file in root.glob('*/dataset_info.json') if re.fullmatch(r'\d+\.\d+\.\d+', file.parent.name)
                      and version in ('', file.parent.name))
    if versions:
        return versions[-1][1]
    configs = sorted({file.parent.parent.name for file in root.glob('*/*/dataset_info.json')})
    if configs and not version:
        raise UserError(f'{dataset} has configs; ask for one of {", ".join(f"{name}/{config}" for config in configs)}')
    raise UserError(f'no data set {dataset} in {data_dir}; {fix}')


def _read(builder: Any, dataset: str, split: str, source_key: str, target_key: str,
          fix: str) -> tuple[list[str], list[str]]:
    """The texts of one split, in the order of its files."""
    if (name := re.split(r'\W', split)[0]) not in builder.info.splits:
        raise UserError(f'{dataset} has no split {split!r}{did_you_mean(name, builder.info.splits)}')
    try:
        records = builder.as_data_source(split=split)
    except NotImplementedError as error:
        raise UserError(f'{dataset} is stored as {builder.info.file_format.value}, which only TensorFlow reads; remove '
                        f'{builder.data_dir}, then {fix}') from error
    except ValueError as error:  # a slice that is misspelt, or of nothing
        why = ' '.join(str(error).split()).partition('. ')[0]
        raise UserError(f'{dataset} has {builder.info.splits[name].num_examples} records in {name!r}, and {split!r} is '
                        f"no part of them: {why}; write for example '{name}[:10%]' or '{name}[:100]'") from error
    sources, targets = [], []
    for start in range(0, len(records), 1024):  # in blocks: twice as fast as one by one
        for record in records.__getitems__(range(start, min(start + 1024, len(records)))):
            sources.append(record[source_key].decode())
            targets.append(record[target_key].decode())
    return sources, targets


def main(argv: list[str] | None = None) -> None:
    """Writes the parallel corpus that the command line names."""
    parser = argparse.ArgumentParser(prog='python -m seqjax.data.tfds', allow_abbrev=False, description=(
        'Writes a parallel corpus as a data set of TensorFlow Datasets, without TensorFlow.'))
    parser.add_argument('--path', required=True, help='directory of splits, one .tsv, or "a.de,a.en"')
    parser.add_argument('--source', required=True, help='source language: file ending and feature name')
    parser.add_argument('--target', required=True, help='target language: file ending and feature name')
    parser.add_argument('--name', required=True, help='name of the data set, such as multi30k_translate')
    parser.add_argument('--data_dir', required=True, help='directory of data sets to write it into')
    for split in parallel.NAMES:
        parser.add_argument(f'--{split}', help=f'name of the {split} files (default: {parallel.NAMES[split]})')
    parser.add_argument('--columns', default='1,2', help='source and target columns of a .tsv (default: 1,2)')
    args = parser.parse_args(argv)
    try:
        if not re.fullmatch(r'\d+,\d+', args.columns):
            raise UserError(f'columns {args.columns!r}: give two numbers, such as 1,2')
        columns = tuple(map(int, args.columns.split(',')))
        splits = parallel.read_splits(args.path, args.source, args.target, args.train, args.valid, args.test, columns)
        splits['validation'] = splits.pop('valid')
        print(write(splits, args.name, args.data_dir, args.source, args.target))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == '__main__':
    main()
