"""The benchmark's workers, with a small worker that only counts; and how a driver asks several in turn."""

import pathlib
import sys

import pytest

from benchmarks import items, translation
from benchmarks.items import Item, Side
from benchmarks.protocol import Failed, Worker

ROOT = pathlib.Path(__file__).parents[1]
COUNTER = '''
import os, sys, time
from benchmarks import protocol

def counting(work=1.0, broken=False):
    if broken:
        raise ValueError('no such\\nmodel')
    print('a library greets')
    os.write(1, b'so does its C code\\n')
    made = [0]
    def call(times):
        made[0] += times
        if work < 0:
            sys.exit('out of memory')
        time.sleep(0.01 * times)
        return work * times
    return call, {'parameters': 7}

protocol.serve({'counting': counting, 'sleeping': lambda: time.sleep(60)}, lambda: {'device': 'cpu'})
'''


@pytest.fixture
def worker():
    worker = Worker([sys.executable, '-c', COUNTER], cwd=ROOT)
    yield worker
    worker.close()


def test_a_worker_is_made_and_run(worker):
    assert worker.ask('about') == {'device': 'cpu'}
    assert worker.ask('make', key='a', kind='counting', shape={'work': 2.5}) == {'parameters': 7}
    run = worker.ask('run', key='a', times=4)
    assert run['work'] == 10
    assert 0.04 <= run['seconds'] < 5
    assert 0 <= run['cpu_seconds'] < run['seconds']
    worker.ask('drop', key='a')
    with pytest.raises(Failed, match='KeyError'):
        worker.ask('run', key='a', times=1)


def test_mistakes_are_answers_in_one_line(worker):
    with pytest.raises(Failed, match=r'^ValueError: no such model$'):
        worker.ask('make', key='a', kind='counting', shape={'broken': True})
    with pytest.raises(Failed, match='no maker of flying; there are counting'):
        worker.ask('make', key='a', kind='flying', shape={})
    assert worker.alive


def test_death_is_told_with_the_last_words(worker):
    worker.ask('make', key='a', kind='counting', shape={'work': -1})
    with pytest.raises(Failed, match='died: out of memory'):
        worker.ask('run', key='a', times=1)
    assert not worker.alive
    with pytest.raises(Failed, match='died: out of memory'):
        worker.ask('about')
    worker.close()  # with what it was asked still in the pipe


def test_who_is_late_is_killed(worker):
    with pytest.raises(Failed, match='took more than 1 s'):
        worker.ask('make', timeout=1, key='a', kind='sleeping', shape={})
    assert not worker.alive


class Fake:
    """A worker whose seconds are given; it notes what it is asked."""

    def __init__(self, name, seconds, asked, work=3.0):
        self.name, self.seconds, self.asked, self.work = name, seconds, asked, work

    def ask(self, do, timeout=0, **arguments):
        self.asked.append((self.name, do, arguments.get('times')))
        if do == 'make':
            if self.seconds is None:
                raise Failed('nothing here')
            return {'parameters': 7, 'got': arguments['shape']}
        times = arguments.get('times')
        return {'seconds': self.seconds * times, 'work': self.work * times, 'cpu_seconds': 1.0} if times else None


class Fakes(dict):
    abouts = {name: {'device': 'cpu', 'device_kind': 'cpu'} for name in 'abcd'}


def test_sides_take_turns_and_the_order_turns_round():
    asked = []
    workers = Fakes(a=Fake('a', 0.1, asked), b=Fake('b', 5.0, asked), c=Fake('c', None, asked),
                    d=Fake('d', 1.0, asked, work=0.0))
    item = Item('some', 'steps', {'width': 2}, (
        Side('ours', 'a', 'k'), Side('theirs', 'b', 'k', {'fast': True}), Side('absent', 'c', 'k'),
        Side('early', 'd', 'k'), Side('no', 'a', 'k')))
    found = translation.measure(item, workers, 2, turn=1.0, without={'no'}, settle=0.0)
    assert found['ours']['times'] == 10
    assert found['theirs']['times'] == 1
    assert found['theirs']['got'] == {'width': 2, 'fast': True}
    assert found['ours']['values'] == pytest.approx([30, 30])
    assert found['ours']['cpu_values'] == pytest.approx([30, 30])
    assert found['theirs']['values'] == pytest.approx([0.6, 0.6])
    assert found['absent'] == {'error': 'nothing here'}
    assert found['early'] == {'error': 'ended its sentences early'}
    turns = [name for name, do, _ in asked if do == 'run'][3:]  # each was run once to see how long it takes
    assert turns == ['a', 'b', 'd', 'b', 'a']


def test_translations_are_scored_by_our_worker():
    class Translator(Fake):
        def ask(self, do, timeout=0, **arguments):
            if arguments.get('kind') == 'scored':
                asked.append((self.name, arguments['shape']))
                return {'bleu': 10.0 * len(arguments['shape']['found'])}
            told = super().ask(do, timeout, **arguments)
            return told | {'found': [[5]] * len(self.name)} if do == 'make' else told

    asked = []
    workers = Fakes(ours=Translator('ours', 0.1, asked), b=Translator('b', 0.1, asked))
    workers.abouts = {'ours': Fakes.abouts['a'], 'b': Fakes.abouts['b']}
    item = Item('some', 'sentences', {'run': 'r'}, (Side('ours', 'ours', 'k'), Side('theirs', 'b', 'k')))
    found = translation.measure(item, workers, 1, turn=1.0, without=set(), settle=0.0)
    assert (found['ours']['bleu'], found['theirs']['bleu']) == (40.0, 10.0)
    assert 'found' not in found['ours']
    assert [ask for ask in asked if len(ask) == 2] == [
        ('ours', {'run': 'r', 'found': [[5]] * 4}), ('ours', {'run': 'r', 'found': [[5]]})]


def test_an_item_in_bfloat16_has_ours_in_float32_besides():
    item = Item('some', 'steps', {'width': 2}, (Side('ours', 'a', 'k', {'model': 'm'}), Side('joeynmt', 'b', 'k'),
                                                Side('torch', 'c', 'k')), quick=True)
    assert items.in_bfloat16(item) == Item('bfloat16.some', 'steps', {'width': 2, 'dtype': 'bfloat16'}, (
        Side('ours', 'a', 'k', {'model': 'm'}), Side('ours float32', 'a', 'k', {'model': 'm', 'dtype': 'float32'}),
        Side('torch', 'c', 'k')))
