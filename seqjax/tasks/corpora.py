"""Where the text of a translation task comes from: number words, a grammar, lists, files, TensorFlow Datasets."""

import dataclasses
from collections.abc import Iterable

from seqjax.data import alignments, colours, numerals, parallel, reverse, tfds
from seqjax.errors import UserError
from seqjax.options import option
from seqjax.tasks.translation import Text, Translation


@dataclasses.dataclass(frozen=True)
class Numerals(Translation):
    """Number words of one language to those of another, from num2words; the splits share no number."""

    source: str = option('en', "source language, by num2words' code, or 'digits'")
    target: str = option('fr', "target language, by num2words' code, or 'digits'")
    highest: int = option(999_999, 'highest number', at_least=100)
    train_size: int = option(20_000, 'numbers to train on', at_least=1)
    valid_size: int = option(500, 'numbers to validate on', at_least=1)
    test_size: int = option(1000, 'numbers to test on', at_least=1)
    data_seed: int = option(0, 'seed of the choice of numbers', at_least=0)
    left_out: tuple[int, int] | None = option(None, 'first and last of numbers that are in no split: a domain of '
                                              'their own', at_least=0)

    def splits(self) -> dict[str, Text]:
        """Numbers in words, drawn so that short and long ones both appear."""
        return numerals.splits(self.source, self.target, self.highest, self.train_size, self.valid_size, self.test_size,
                               self.data_seed, self.left_out)

    def pairs(self, numbers: Iterable[int]) -> Text:
        """Any numbers, in both languages."""
        return numerals.pairs(numbers, self.source, self.target)

    def alignment(self, source: str, target: str) -> alignments.Alignment:
        """Which words of a pair translate each other."""
        return alignments.align(source, target, self.source, self.target)


@dataclasses.dataclass(frozen=True)
class Colours(Translation):
    """Sentences of things and their colours, English to French, from a grammar: 'blue car' is 'voiture bleue'."""

    train_size: int = option(10_000, 'sentences to train on', at_least=1)
    valid_size: int = option(200, 'sentences to validate on', at_least=1)
    test_size: int = option(1000, 'sentences to test on', at_least=1)
    data_seed: int = option(0, 'seed of the sentences', at_least=0)

    def splits(self) -> dict[str, Text]:
        """Sentences drawn from the grammar, no English one twice."""
        return colours.splits(self.train_size, self.valid_size, self.test_size, self.data_seed)

    def alignment(self, source: str, target: str) -> alignments.Alignment:
        """Which words of a pair translate each other."""
        return colours.align(source, target)


@dataclasses.dataclass(frozen=True)
class Reverse(Translation):
    """Lists of integers to the same lists backwards, longer ones in the test split than in training."""

    train_size: int = option(50_000, 'lists to train on', at_least=1)
    valid_size: int = option(1000, 'lists to validate on', at_least=1)
    test_size: int = option(1000, 'lists to test on', at_least=1)
    highest: int = option(49, 'highest integer', at_least=1)
    skew: float = option(0.0, 'integer n is as frequent as (n + 1)^-skew; 0: all alike, 1: as words are', at_least=0.0)
    train_length: int = option(25, 'longest list of the training split', at_least=1)
    test_length: int = option(30, 'longest list of the validation and test splits', at_least=1)
    data_seed: int = option(0, 'seed of the lists', at_least=0)

    def splits(self) -> dict[str, Text]:
        """Random lists, as text."""
        return reverse.splits(self.train_size, self.valid_size, self.test_size, self.highest, self.train_length,
                              self.test_length, self.data_seed, self.skew)

    def groups(self, sources: list[str]) -> dict[str, list[int]]:
        """Lists of the lengths seen in training, and longer ones."""
        within = [len(source.split()) <= self.train_length for source in sources]
        return {'within': [i for i, w in enumerate(within) if w], 'beyond': [i for i, w in enumerate(within) if not w]}


@dataclasses.dataclass(frozen=True)
class Parallel(Translation):
    """A parallel corpus in files: a .tsv, two line-aligned files, or a folder of splits; plain, .gz, .xz or .bz2."""

    path: str = option('', "a .tsv, 'source,target' files, or a folder with the splits", free=True)
    source: str = option('', "source language: the ending of the source files in a folder ('de')")
    target: str = option('', "target language: the ending of the target files in a folder ('en')")
    train: str | None = option(None, 'name of the training files in a folder; none: one of the usual names')
    valid: str | None = option(None, 'name of the validation files in a folder; none: one of the usual names')
    test: str | None = option(None, 'name of the test files in a folder; none: one of the usual names')
    columns: tuple[int, int] = option((1, 2), 'source and target column of a .tsv, from 1', at_least=1)

    def splits(self) -> dict[str, Text]:
        """The lines of the files; without files for validation and test, held-out lines."""
        if not self.path:
            raise UserError("--task.path is missing: give a .tsv, two line-aligned files 'train.de,train.en', or a "
                            'folder of splits; for Multi30k, the folder data/task1/raw of github.com/multi30k/dataset')
        return parallel.read_splits(self.path, self.source, self.target, self.train, self.valid, self.test,
                                    self.columns)

    def pairs(self) -> Text:
        """All that is in one .tsv or in two line-aligned files, in no splits."""
        return parallel.read_pairs(self.path, self.columns)


@dataclasses.dataclass(frozen=True)
class TFDS(Translation):
    """A translation dataset of TensorFlow Datasets, prepared as array_record; read without TensorFlow."""

    dataset: str = option('', "name and config, as 'wmt14_translate/de-en'")
    data_dir: str = option('', 'folder the dataset was prepared in', free=True)
    source: str = option('de', 'feature that holds the source')
    target: str = option('en', 'feature that holds the target')
    train: str = option('train', 'training split')
    valid: str = option('validation', 'validation split')
    test: str = option('test', 'test split')

    def splits(self) -> dict[str, Text]:
        """The examples of the three splits."""
        if not self.dataset:
            raise UserError("--task.dataset is missing: name a prepared dataset, as 'wmt14_translate/de-en', and its "
                            '--task.data_dir')
        return tfds.read_splits(self.dataset, self.data_dir, self.source, self.target, self.train, self.valid,
                                self.test)
