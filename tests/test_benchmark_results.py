"""What is made of measurements: FLOPs, batches, ratios, shares, tables."""

import numpy as np
import pytest

from benchmarks import items, ours, results, start, tables
from seqjax.data.batches import Batch
from seqjax.data.room import Room
from seqjax.errors import UserError
from seqjax.prepared import Prepared
from seqjax.training import flops
from seqjax.training.parallel import Placement

SHAPE = dict(width=16, layers=2, heads=2, feedforward=24, words=40, rows=3, source_length=5, target_length=7,
             dropout=0.0)


def test_model_flops_are_those_of_the_step():
    """The formula against the products that stand in the step, by hand and counted.

    Counted, there are the sums of layer normalisation's backward pass besides, four over each token's width.
    """
    experiment = ours.experiment_of('transformer', SHAPE['words'], ours.fields_of('transformer', SHAPE, 'float32'), 0.1,
                                    None)
    ready = Prepared(experiment, Placement('pmap'))
    learner = ready.learner(10)
    (source, target), = items.batches(3, 5, 7, 40, count=1)
    tokens = [int((side != items.PAD).sum()) for side in (source, target)]
    assert tokens == [5 + 4 + 3, 7 + 6 + 4]
    batch = Batch(source, target, np.ones(3, np.float32), np.arange(3, dtype=np.int32), Room(*tokens))
    state = ready.abstract_state(learner)
    norms = 5 * tokens[0] + 7 * tokens[1]  # two an encoder's layer, three a decoder's, one above each
    assert items.model_flops(**SHAPE) == flops.count(learner.step, state, batch) - norms * 4 * 2 * 16
    by_hand = (2 * 12 * 2 * (4 * 256 + 2 * 384 + 2 * 256) + 2 * 17 * (2 * (6 * 256 + 2 * 384) + 640)
               + 4 * 3 * 2 * 16 * (25 + 49 + 35))
    assert items.model_flops(**SHAPE) == 3 * by_hand


def test_batches_are_the_same_for_everybody_and_equally_full():
    one, two = items.batches(10, 16, 24, 100), items.batches(10, 16, 24, 100)
    for a, b in zip(one, two):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    assert (one[0][1] != one[1][1]).any()
    assert {int((target != 0).sum()) for _, target in one} == {items.tokens_of(one)}
    for source, _ in one:
        lengths = (source != 0).sum(1)
        assert sorted(lengths)[::9] == [10, 16]
        assert (source[np.arange(10), lengths - 1] == items.EOS).all()
        assert ((source == items.EOS).sum(1) == 1).all()
        assert source.max() < 100


def test_products_are_those_of_a_layer_and_the_logits():
    """With all that a decoder of one layer has besides taken out of the count of its step."""
    shape = items.transformer(64, layers=1, rows=5, source_length=10, target_length=10)
    m, width = items.tokens_of(items.batches(5, 10, 10, 8000)), 64
    assert all(first == m for first, _, _ in items.factors(**shape))
    source_and_scores = 2 * m * (6 * width ** 2 + 2 * width * 256) + 4 * 5 * width * 300
    across = 2 * m * 2 * width ** 2
    assert 3 * sum(2 * a * b * c for a, b, c in items.factors(**shape)) == (
        items.model_flops(**shape) - 3 * (source_and_scores + across))


def test_items_are_chosen_by_name_beginning_or_pattern():
    known = {item.name: item for item in items.items()} | start.items()
    assert items.selected(known, '', False) == list(known)
    assert items.selected(known, 'training.transformer.256', False) == [
        'training.transformer.256', 'training.transformer.256.nodrop']
    assert items.selected(known, 'bfloat16.decoding', False) == [
        'bfloat16.decoding.greedy.1', 'bfloat16.decoding.greedy.64', 'bfloat16.decoding.beam.1',
        'bfloat16.decoding.beam.64']
    assert items.selected(known, 'training.trans', False) == []
    assert items.selected(known, 'decoding.*.1,plan.bahdanau', False) == [
        'decoding.greedy.1', 'decoding.beam.1', 'plan.bahdanau.256']
    quick = items.selected(known, '', True)
    assert {name.partition('.')[0] for name in quick} == {'training', 'decoding', 'start'}
    assert len(quick) <= 5


@pytest.fixture
def item():
    def side(values, **more):
        return dict(values=values, device='cpu', device_kind='cpu', times=3, parameters=1234567) | more
    return dict(unit='target tokens', shape=items.transformer(512, dropout=0.0), note='', repeats=3, seconds=61.4,
                load=[0.1, 2.0], threads=2, when='2026-01-02 03:04 UTC', commit='abc1234', versions={'jax': '1'},
                machine='P, 2 cores', system='L, Python 3',
                sides={'ours': side([200.0, 100.0, 300.0], tokens=1000),
                       'torch': side([100.0, 200.0, 100.0], parameters=1234568),
                       'on a GPU': side([9e9] * 3, device='gpu'), 'broken': {'error': 'a|b'},
                       'matmul': side([1e11, 2e11, 4e11])})


def test_ratios_are_of_turns(item):
    assert results.middle([3.0, 1.0, 7.0]) == (3, 1, 7)
    assert results.ratio([2, 1, 3], [1, 2, 1]) == (2, 0.5, 3)
    assert results.fastest(item) == 'torch', 'neither the ceiling nor what ran on another device'
    assert results.same_parameters(item).startswith('ours 1,234,567, torch 1,234,568')
    item['sides'] = {'ours': {'error': 'no'}}
    assert results.fastest(item) is None


def test_the_share_of_the_ceiling(item):
    step = items.model_flops(**item['shape'])
    low, high = step * 100 / 1000 / 2e11, step * 200 / 1000 / 1e11
    assert results.share(item) == pytest.approx((step * 300 / 1000 / 4e11, low, high))
    del item['sides']['matmul']
    assert results.share(item) is None


def test_tables_stand_between_their_marks(item, tmp_path):
    document = tmp_path / 'performance.md'
    document.write_text('# Speed\n\n<!-- table:training -->\nobsolete\n<!-- end table:training -->\n\nProse.\n')
    seconds = {'cached': [5.0, 4.0, 6.0], 'cold': [20.0, 21.0, 22.0], 'import jax': [1.0, 1.5, 1.0]}
    memory = dict(parameter_bytes=44, plan_parameter_bytes=44, plan_bytes=100 << 20, peak_bytes=130 << 20, values=[1.3])
    measured = {'training.transformer.512.nodrop': item,
                'bfloat16.training.transformer.512': item | {'shape': item['shape'] | {'dtype': 'bfloat16'}},
                'start.some': item | {'sides': {name: {'values': values, 'peak_bytes': 3 << 20 if name == 'cold' else 0}
                                                for name, values in seconds.items()}},
                'products.some': item | {'sides': {name: item['sides'][name] for name in ('ours', 'torch')}},
                'plan.some': item | {'sides': {'ours': memory}}}
    assert tables.write(document, measured) == ['training', 'bfloat16', 'ceiling', 'products', 'start', 'plan',
                                                   'conditions']
    text = document.read_text()
    assert 'obsolete' not in text
    assert text.index('Prose.') > text.index('<!-- end table:training -->')
    rows = {line.split(' | ')[1]: line for line in text.splitlines() if line.startswith('| ')}
    assert '|  | torch | 100 (100 to 200) | **2 (0.5 to 3)** | 1.3: met |' in text
    assert rows['on a GPU'].endswith('|  |  |')
    assert rows['broken'] == '|  | broken | failed | a/b |  |'
    assert '| 512 | 0.0 | float32 | cpu | ' in text
    assert '| 512 | 0.0 | bfloat16 | cpu | ' in text
    assert text.count('1.3: met') == 1, 'no goal is set in bfloat16'
    assert '| products.some | ours | 2e-07 (1e-07 to 3e-07) |  |' in text
    assert '|  | torch | 1e-07 (1e-07 to 2e-07) | 2 (0.5 to 3) |' in text
    assert '| start.some, cached | 5 (4 to 6) | 4 (2.5 to 5) | 3: missed |  |' in text
    assert '| start.some, cold | 21 (20 to 22) | 19.5 (19 to 21) |  | 3 MiB |' in text
    assert '| plan.some | 44, equal | 100 MiB | 130 MiB | +30 % | 20 %: missed |' in text
    assert '2026-01-02 03:04 UTC' in text
    before = text
    tables.write(document, measured)
    assert document.read_text() == before, 'written again, nothing moves'
    with pytest.raises(UserError, match='is not there'):
        tables.write(tmp_path / 'none.md', measured)


def test_memory_of_this_process_is_read():
    assert start.most_memory() > 50 << 20
    assert start.most_memory(10 ** 9) == 0
