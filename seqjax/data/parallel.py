"""Parallel text from files: 'a.de,a.en', one .tsv, or a directory of splits; plain or compressed; one line, one row."""

import bz2
import gzip
import hashlib
import lzma
import pathlib
import sys
import unicodedata
import zlib
from collections.abc import Sequence

from seqjax.errors import UserError

OPEN = {'': open, '.gz': gzip.open, '.xz': lzma.open, '.bz2': bz2.open}
# What corpora call their splits, where nobody says.
NAMES = {'train': ('train',), 'valid': ('val', 'valid', 'validation', 'dev'), 'test': ('test', 'test_2016_flickr')}
MULTI30K = ('for --experiment=multi30k, put train.de.gz, train.en.gz, val.* and test_2016_flickr.* of '
            'github.com/multi30k/dataset, folder data/task1/raw, into one directory')
Splits = dict[str, tuple[list[str], list[str]]]  # name -> (sources, targets)


def read_lines(path: str | pathlib.Path) -> list[str]:
    r"""The lines of a UTF-8 file, '-' being standard input; .gz, .xz and .bz2 are unpacked.

    A line ends at \n or \r\n and nowhere else: str.splitlines also breaks at U+2028, form feeds and others, after which
    one side of a corpus has more lines than the other. Raises UserError where the file is missing, damaged or not
    UTF-8.
    """
    path = str(path)
    try:
        if path == '-':
            data = sys.stdin.buffer.read()
        else:
            with OPEN.get(pathlib.Path(path).suffix, open)(path, 'rb') as file:
                data = file.read()
    except FileNotFoundError as error:
        raise UserError(f'{path} does not exist; check the path') from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f'{path} cannot be read: {getattr(error, "strerror", None) or error}') from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise UserError(f'{path}: line {line}, byte offset {error.start} (0x{data[error.start]:02x}) is not UTF-8; '
                        f'convert the file, for instance with iconv -f latin1 -t utf-8') from error
    lines = text.removeprefix('\ufeff').replace('\r\n', '\n').split('\n')
    return lines if lines[-1] else lines[:-1]


def read_pairs(path: str | pathlib.Path, columns: Sequence[int] = (1, 2)) -> tuple[list[str], list[str]]:
    """Sources and targets of 'a.de,a.en', two line-aligned files, or of one tab-separated file.

    Args:
      columns: where a tab-separated file has the source and the target, counted from 1.

    Raises UserError where a file is missing, empty or not UTF-8, the sides differ in length, or a row lacks a column.
    """
    path = str(path)
    if ',' in path and not pathlib.Path(path).exists():
        files = path.split(',')
        if len(files) != 2:
            raise UserError(f'{path!r} names {len(files)} files; give two, source,target, or one .tsv')
        return _aligned(*files)
    if min(columns) < 1 or len(columns) != 2:
        raise UserError(f'columns {tuple(columns)} are no two columns counted from 1; try 1,2')
    sources, targets = [], []
    for number, line in enumerate(_some_lines(path), 1):
        cells = line.split('\t')
        if not line.strip():
            cells = [''] * max(columns)
        elif len(cells) < max(columns):
            raise UserError(f'{path}: line {number} has {len(cells)} tab-separated column{"s" * (len(cells) > 1)} and '
                            f'column {max(columns)} is asked for; mend the line, or change the columns')
        sources.append(cells[columns[0] - 1])
        targets.append(cells[columns[1] - 1])
    return sources, targets


def read_splits(path: str | pathlib.Path, source_lang: str, target_lang: str, train: str | None = None,
                valid: str | None = None, test: str | None = None, columns: Sequence[int] = (1, 2),
                held_out: float = 0.01) -> Splits:
    """Train, valid and test pairs.

    A directory holds each split as NAME.LANG for both languages or as NAME.tsv, compressed or not; NAME is `train`,
    `valid`, `test`, or one of the usual names where that is None. Its splits are taken as they are.
    Any other path is read by `read_pairs`, and a pair goes to valid or test, each with probability `held_out`, by a
    hash of its source sentence: so no source is in two splits, and lines added later do not move the others. Sources
    that differ in case, outer spaces or Unicode form only are the same.
    See `drop_empty` for pairs with an empty side.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        names = {split: (name,) if name else NAMES[split] for split, name in zip(NAMES, (train, valid, test))}
        splits = {split: _find(path, source_lang, target_lang, name, columns) for split, name in names.items()}
    elif ',' not in str(path) and not path.exists():
        raise UserError(f'{path} does not exist; name a .tsv, two line-aligned files, or a folder of splits; '
                        f'{MULTI30K}')
    elif named := next((f'{split}={name}' for split, name in zip(NAMES, (train, valid, test)) if name), None):
        raise UserError(f'--task.{named} names files of a folder, and {path} is none; name a folder, or leave the '
                        'names of splits out, and a part is held out (--experiment=parallel has no names)')
    else:
        splits = _hold_out(*read_pairs(path, columns), held_out)
        for split, (sources, _) in splits.items():
            if not sources:
                raise UserError(f'{path}: none of its lines falls into {split} with {held_out:g} held out for each of '
                                'valid and test; give a longer file, hold out more, or a directory of three splits')
    return drop_empty(splits, str(path))


def drop_empty(splits: Splits, path: str) -> Splits:
    """Drops training pairs with an empty side and tells their number on stderr; the other splits lose nothing.

    Raises UserError, naming `path`, where no training pair is left.
    """
    kept = [pair for pair in zip(*splits['train']) if pair[0].strip() and pair[1].strip()]
    if dropped := len(splits['train'][0]) - len(kept):
        print(f'{path}: left out {dropped} of {len(kept) + dropped} training pairs, which have an empty side',
              file=sys.stderr)
    if not kept:
        raise UserError(f'{path}: every training pair has an empty side')
    return splits | {'train': ([source for source, _ in kept], [target for _, target in kept])}


def _some_lines(path: str) -> list[str]:
    lines = read_lines(path)
    if not any(lines):
        raise UserError(f'{path} is empty')
    return lines


def _aligned(source: str, target: str) -> tuple[list[str], list[str]]:
    sources, targets = _some_lines(source), _some_lines(target)
    if len(sources) != len(targets):
        raise UserError(f'{source} has {len(sources)} lines and {target} has {len(targets)}; '
                        'line n of one must translate line n of the other')
    return sources, targets


def _find(directory: pathlib.Path, source_lang: str, target_lang: str, names: Sequence[str],
          columns: Sequence[int]) -> tuple[list[str], list[str]]:
    """The split of a directory that has one of these names; the first that is there."""
    def existing(stem: str) -> pathlib.Path | None:
        files = (directory / (stem + suffix) for suffix in OPEN)
        return next((file for file in files if file.is_file()), None)

    for name in names:
        source, target = existing(f'{name}.{source_lang}'), existing(f'{name}.{target_lang}')
        if source and target:
            return _aligned(str(source), str(target))
        if table := existing(f'{name}.tsv'):
            return read_pairs(table, columns)
        if source or target:
            have, lack = (source, target_lang) if source else (target, source_lang)
            raise UserError(f'{directory} has {have.name} but not {name}.{lack}; add it, or change the language')
    if not (source_lang and target_lang):
        raise UserError(f'{directory} is a folder without {" or ".join(f"{name}.tsv" for name in names)}; name the '
                        'endings of its files, as --task.source=de --task.target=en')
    present = ', '.join(sorted(file.name for file in directory.iterdir() if file.is_file())[:12]) or 'nothing'
    raise UserError(f'{directory} has no {" or ".join(names)} split, NAME.{source_lang} and NAME.{target_lang} or '
                    f'NAME.tsv, plain or .gz .xz .bz2; it holds {present}; {MULTI30K}')


def _hold_out(sources: list[str], targets: list[str], share: float) -> Splits:
    """Deals pairs into splits by the hash of the source."""
    splits = {split: ([], []) for split in NAMES}
    for source, target in zip(sources, targets):
        key = unicodedata.normalize('NFC', source.strip()).casefold()
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
        split = 'valid' if place < share else 'test' if place < 2 * share else 'train'
        splits[split][0].append(source)
        splits[split][1].append(target)
    return splits
