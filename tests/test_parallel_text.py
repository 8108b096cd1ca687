import bz2
import gzip
import io
import lzma
import re
import sys
import unicodedata

import pytest

from seqjax.data import parallel
from seqjax.errors import UserError

WRITE = {'': lambda data: data, '.gz': gzip.compress, '.xz': lzma.compress, '.bz2': bz2.compress}


def put(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(WRITE[path.suffix if path.suffix in WRITE else ''](data))
    return path


def message(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('suffix', WRITE)
def test_lines_end_at_newlines_only(tmp_path, suffix):
    odd = 'one\u2028same\x0bsame\x0csame\x85same\x1csame\rsame'
    path = put(tmp_path / f'a.de{suffix}', f'{odd}\r\n\n  été \nlast')
    assert parallel.read_lines(path) == [odd, '', '  été ', 'last']


def test_the_last_newline_ends_a_line(tmp_path):
    assert parallel.read_lines(put(tmp_path / 'a', 'x\ny\n')) == ['x', 'y']
    assert parallel.read_lines(put(tmp_path / 'a', 'x\ny\n\n')) == ['x', 'y', '']
    assert parallel.read_lines(put(tmp_path / 'a', '')) == []
    assert parallel.read_lines(put(tmp_path / 'a', b'\xef\xbb\xbfx\n')) == ['x']


def test_a_dash_is_standard_input(monkeypatch):
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO('grün\nrot\n'.encode())))
    assert parallel.read_lines('-') == ['grün', 'rot']


def test_two_files_are_pairs(tmp_path):
    source, target = put(tmp_path / 'x.de', 'a\n\nc\n'), put(tmp_path / 'x.en.gz', 'A\nB\nC\n')
    assert parallel.read_pairs(f'{source},{target}') == (['a', '', 'c'], ['A', 'B', 'C'])


def test_columns_of_a_table(tmp_path):
    table = put(tmp_path / 'x.tsv.xz', 'a\tA\t1\nb \tB\t2\n\nc\t\t3\n')
    assert parallel.read_pairs(table) == (['a', 'b ', '', 'c'], ['A', 'B', '', ''])
    assert parallel.read_pairs(table, columns=(3, 1)) == (['1', '2', '', '3'], ['a', 'b ', '', 'c'])


def test_damage_is_named(tmp_path):
    a, b = put(tmp_path / 'a.de', 'x\ny\n'), put(tmp_path / 'a.en', 'X\nY\nZ\n')
    assert re.search(r'a\.de has 2 lines and .*a\.en has 3', message(parallel.read_pairs, f'{a},{b}'))
    empty = put(tmp_path / 'empty', '')
    assert message(parallel.read_pairs, f'{a},{empty}') == f'{empty} is empty'
    latin = put(tmp_path / 'latin.gz', 'gut\nnoch gut\ngrün\n'.encode('latin1'))
    assert 'latin.gz: line 3, byte offset 15 (0xfc) is not UTF-8' in message(parallel.read_lines, latin)
    table = put(tmp_path / 'x.tsv', 'a\tA\nb B\n')
    assert 'x.tsv: line 2 has 1 tab-separated column and column 2 is asked for' in message(parallel.read_pairs, table)
    assert 'does not exist' in message(parallel.read_lines, tmp_path / 'none')
    assert 'Is a directory' in message(parallel.read_lines, tmp_path)
    for suffix in ('.gz', '.xz', '.bz2'):
        whole = WRITE[suffix](b'some text\n' * 100)
        middle = len(whole) // 2
        for data in (b'no archive', whole[:middle], whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1:]):
            (tmp_path / f'bad{suffix}').write_bytes(data)
            assert 'cannot be read: ' in message(parallel.read_lines, tmp_path / f'bad{suffix}')
    assert 'names 3 files' in message(parallel.read_pairs, 'a,b,c')
    assert 'columns (0, 1)' in message(parallel.read_pairs, table, columns=(0, 1))


def directory(tmp_path, valid='val', suffix=''):
    for name in ('train', valid, 'test_2016_flickr'):
        put(tmp_path / f'{name}.de{suffix}', f'{name} eins\n\n zwei\n')
        put(tmp_path / f'{name}.en{suffix}', f'{name} one\nnothing\ntwo\n')
    return tmp_path


@pytest.mark.parametrize('valid', ['val', 'dev'])
@pytest.mark.parametrize('suffix', ['', '.gz'])
def test_a_directory_of_files(tmp_path, capsys, valid, suffix):
    splits = parallel.read_splits(directory(tmp_path, valid, suffix), 'de', 'en')
    assert splits == {
        'train': (['train eins', ' zwei'], ['train one', 'two']),
        'valid': ([f'{valid} eins', '', ' zwei'], [f'{valid} one', 'nothing', 'two']),
        'test': (['test_2016_flickr eins', '', ' zwei'], ['test_2016_flickr one', 'nothing', 'two'])}
    assert 'left out 1 of 3 training pairs' in capsys.readouterr().err


def test_a_directory_of_tables(tmp_path, capsys):
    for name in ('train', 'valid', 'extra'):
        put(tmp_path / f'{name}.tsv.xz', f'{name}\t{name.upper()}\n')
    splits = parallel.read_splits(tmp_path, 'de', 'en', test='extra', columns=(2, 1))
    assert splits == {'train': (['TRAIN'], ['train']), 'valid': (['VALID'], ['valid']), 'test': (['EXTRA'], ['extra'])}
    assert capsys.readouterr().err == ''


def test_what_a_directory_lacks_is_named(tmp_path):
    directory(tmp_path)
    assert 'has train.de but not train.fr' in message(parallel.read_splits, tmp_path, 'de', 'fr')
    lacking = message(parallel.read_splits, tmp_path, 'de', 'en', valid='dev')
    assert 'no dev split' in lacking
    assert 'val.en' in lacking
    assert 'task1/raw' in lacking
    absent = message(parallel.read_splits, tmp_path / 'multi30k', 'de', 'en')
    assert 'multi30k does not exist' in absent
    assert 'github.com/multi30k/dataset' in absent
    assert message(parallel.read_splits, tmp_path, '', '') == (
        f'{tmp_path} is a folder without train.tsv; name the endings of its files, as --task.source=de '
        '--task.target=en')
    table = put(tmp_path / 'all.tsv', 'a\tA\n' * 300)
    assert f'--task.valid=dev names files of a folder, and {table} is none' in message(
        parallel.read_splits, table, '', '', valid='dev')
    put(tmp_path / 'train.de', '\n\n')
    put(tmp_path / 'train.en', 'a\nb\n')
    assert 'train.de is empty' in message(parallel.read_splits, tmp_path, 'de', 'en')
    put(tmp_path / 'train.de', 'a\n \n')
    put(tmp_path / 'train.en', ' \nb\n')
    assert 'every training pair has an empty side' in message(parallel.read_splits, tmp_path, 'de', 'en')


def owner(splits):
    """The split of each source, which must be one."""
    where = {}
    for name, (sources, _) in splits.items():
        for source in sources:
            assert where.setdefault(unicodedata.normalize('NFC', source.strip()).lower(), name) == name
    return where


def test_held_out_rows_stay_when_lines_are_added(tmp_path):
    lines = [f'Satz {i // 2}\tsentence {i}' for i in range(4000)]  # each source twice
    table = put(tmp_path / 'x.tsv', '\n'.join(lines))
    splits = parallel.read_splits(table, 'de', 'en', held_out=0.1)
    assert sum(len(sources) for sources, _ in splits.values()) == 4000
    for name in ('valid', 'test'):
        assert 300 < len(splits[name][0]) < 500
    assert sorted(f'{s}\t{t}' for pairs in splits.values() for s, t in zip(*pairs)) == sorted(lines)
    before = owner(splits)
    put(table, '\n'.join([f'neu {i}\tnew' for i in range(500)] + lines[::-1]))
    after = owner(parallel.read_splits(table, 'de', 'en', held_out=0.1))
    assert {source: after[source] for source in before} == before


def test_spellings_of_one_source_stay_together(tmp_path):
    words = [f'é{i}' for i in range(500)]
    lines = [form for word in words for form in (word, unicodedata.normalize('NFD', word), word.upper(), f' {word} ')]
    table = put(tmp_path / 'x.tsv', ''.join(f'{line}\tx\n' for line in lines))
    where = owner(parallel.read_splits(table, 'de', 'en', held_out=0.2))
    assert set(where.values()) == {'train', 'valid', 'test'}


def test_too_few_lines_to_hold_out(tmp_path):
    table = put(tmp_path / 'x.tsv', 'a\tA\n')
    assert 'none of its lines falls into' in message(parallel.read_splits, table, 'de', 'en')
