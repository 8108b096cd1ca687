"""Totals in float64, and writers that take back exactly what comes after a step."""

import json
import struct

import numpy as np
import pytest

from seqjax.training.metrics import JsonLines, TensorBoard, Totals, _frames


def test_totals_are_float64_and_weighted_by_count():
    totals = Totals()
    totals.add({'nll': (np.float32(2 ** 24), np.float32(1))})
    for _ in range(10):
        totals.add({'nll': (np.float32(1), np.float32(1)), 'empty': (np.float32(0), np.float32(0))})
    assert totals.sums() == {'nll': (2.0 ** 24 + 10, 11.0), 'empty': (0.0, 0.0)}
    assert totals.means() == {'nll': (2.0 ** 24 + 10) / 11}, 'float32 would have lost every 1'
    again = Totals(json.loads(json.dumps(totals.sums())))
    assert again.sums() == totals.sums()
    totals.clear()
    assert totals.means() == {}
    assert again.means()


def records(*steps):
    return [{'step': step, 'split': 'train', 'nll': step / 7, 'time': {'seconds': step * 1.5}} for step in steps]


def test_json_lines_are_on_disk_at_once(tmp_path):
    writer = JsonLines(tmp_path / 'metrics.jsonl')
    writer.write({'step': 1, 'split': 'valid', 'bleu': float('nan'), 'time': {'eta': float('inf')}, 'text': 'größe'})
    line = (tmp_path / 'metrics.jsonl').read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {'step': 1, 'split': 'valid', 'bleu': None,
                                                            'time': {'eta': None}, 'text': 'größe'}
    writer.close()


@pytest.mark.parametrize('torn', ['', '{"step": 40, "spl', '{"step": 20}'])
def test_json_lines_cut(tmp_path, torn):
    path = tmp_path / 'metrics.jsonl'
    writer = JsonLines(path)
    for record in records(10, 20, 30, 25, 20):
        writer.write(record)
    writer.close()
    with open(path, 'a') as file:
        file.write(torn)
    again = JsonLines(path)
    again.cut(20)
    again.write(records(21)[0])
    assert [json.loads(line) for line in path.read_text().splitlines()] == records(10, 20, 20, 21)
    again.cut(0)
    again.close()
    assert path.read_text() == ''
    assert [file.name for file in tmp_path.iterdir()] == ['metrics.jsonl']


def test_json_lines_keeps_the_bytes_and_tells_of_damage_in_the_middle(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    JsonLines(path).cut(5)
    assert not path.exists()
    path.write_text('{"step":1,   "split":"train"}\nnonsense\n{"step":2,"split":"train"}\n')
    with pytest.raises(ValueError):
        JsonLines(path).cut(5)


def crc32c(data):
    """Castagnoli's polynomial bit by bit, from its definition (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def events(directory):
    """[(step, name, value)] and file versions, read with the format's own definition."""
    from tensorboardX.proto.event_pb2 import Event
    scalars, versions = [], []
    for path in sorted(directory.glob('events.*')):
        content, at = path.read_bytes(), 0
        while at < len(content):
            length = struct.unpack('<Q', content[at:at + 8])[0]
            data = content[at + 12:at + 12 + length]
            assert content[at + 8:at + 12] == masked(content[at:at + 8])
            assert content[at + 12 + length:at + 16 + length] == masked(data)
            event = Event.FromString(data)
            scalars += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            versions += [event.file_version] * bool(event.file_version)
            at += 16 + length
    return scalars, versions


def expected(*steps):
    return [pair for step in steps for pair in ((step, 'train/nll', np.float32(step / 7)),
                                                (step, 'train/time/seconds', np.float32(step * 1.5)))]


@pytest.mark.parametrize('torn', [b'', b'\x10', b'\x18\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04abc'])
def test_tensorboard_cut(tmp_path, torn):
    writer = TensorBoard(tmp_path)
    for record in records(10, 20, 30):
        writer.write(record)
    writer.close()
    assert events(tmp_path)[0] == expected(10, 20, 30)
    file, = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + torn)
    again = TensorBoard(tmp_path)
    again.cut(20)
    for record in records(21, 22):
        again.write(record)
    assert events(tmp_path) == (expected(10, 20, 21, 22), ['brain.Event:2'] * 2)
    again.cut(20)
    again.close()
    assert events(tmp_path) == (expected(10, 20), ['brain.Event:2']), 'a file with nothing left is removed'


def test_frames_stop_at_damage(tmp_path):
    frame = struct.pack('<Q', 3)
    frame += masked(frame) + b'abc' + masked(b'abc')
    assert list(_frames(frame * 2)) == [(frame, b'abc')] * 2
    assert list(_frames(frame + frame.replace(b'abc', b'abd') + frame)) == [(frame, b'abc')]


def test_an_evaluation_that_the_checkpoint_does_not_know_is_taken_back(tmp_path):
    """Killed after evaluating at 20 and saving, or before: the state is that of step 20 either way."""
    both = [*records(10, 20), *({**record, 'split': 'valid'} for record in records(10, 20))]
    for evaluated, left in ((None, both), (20, both), (10, both[:3])):
        json_lines, board = JsonLines(tmp_path / f'{evaluated}.jsonl'), TensorBoard(tmp_path / str(evaluated))
        board.directory.mkdir()
        for writer in (json_lines, board):
            for record in both:
                writer.write(record)
            writer.cut(20, evaluated)
        assert [json.loads(line) for line in json_lines.path.read_text().splitlines()] == left
        assert sorted({(step, name.split('/')[0]) for step, name, _ in events(board.directory)[0]}) == sorted(
            (record['step'], record['split']) for record in left)
