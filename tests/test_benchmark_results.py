"""What is made of measurements: FLOPs, batches, ratios, shares, tables."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import commands, items, ours, results, start, steps, tables
from seqjax.data.batches import Batch
from seqjax.data.room import Room
from seqjax.errors import UserError
from seqjax.prepared import Prepared
from seqjax.training import flops
from seqjax.training.parallel import Placement

ROOT = pathlib.Path(__file__).resolve().parents[1]
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
    known = {item.name: item for item in items.items()} | commands.items()
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
    assert [item.name for item in items.items('runs/some') if item.name not in known] == [
        'translating.greedy', 'translating.beam']


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


def by_commands(item):
    """Items of commands of their own, with numbers that a hand can check."""
    def way(milliseconds, mebibytes, **more):
        return more | dict(values=[0.001, milliseconds / 1000, 9.0], compile_seconds=4.0,
                           temporary_bytes=mebibytes << 20)

    def gradients(first, last, mebibytes, apart):
        return item | {'sides': {
            'as it is': way(first, mebibytes, faults=5, apart=apart, greatest=0.3, kinds={'matrix products': 90.1}),
            'without all of these': way(last, mebibytes, kinds={'matrix products': 60, 'fills': 40})}}

    return {'steps.8': gradients(200, 800, 3, 1e-8), 'steps.9': gradients(1000, 1000, 6, 2e-8),
            'allocator.8': item | {'sides': {'kept': dict(values=[1.0, 2.0, 4.0], without=[3.0, 3.0, 5.0],
                                                          faults=[1, 1234, 9999])}},
            'workers.gru': item | {'sides': {'two workers': dict(values=[17.0, 18.0, 19.0], compiling=[0.61, 12.5])}}}


def test_tables_stand_between_their_marks(item, tmp_path):
    document = tmp_path / 'performance.md'
    document.write_text('# Speed\n\n<!-- table:training -->\nobsolete\n<!-- end table:training -->\n\nProse.\n')
    seconds = {'cached': [5.0, 4.0, 6.0], 'cold': [20.0, 21.0, 22.0], 'import jax': [1.0, 1.5, 1.0]}
    memory = dict(parameter_bytes=44, plan_parameter_bytes=44, plan_bytes=100 << 20, peak_bytes=130 << 20, values=[1.3])
    measured = {'training.transformer.512.nodrop': item,
                'bfloat16.training.transformer.512': item | {'shape': item['shape'] | {'dtype': 'bfloat16'}},
                'start.some': item | {'sides': {name: {'values': values, 'peak_bytes': 3 << 20 if name == 'cold' else 0}
                                                for name, values in seconds.items()}},
                'translating.beam': item | {'sides': {
                    'ours': item['sides']['ours'] | {'bleu': 39.456}, 'broken': {'error': 'a|b'},
                    'Hugging Face, by length': item['sides']['torch'] | {'bleu': 39.4}}},
                'products.some': item | {'sides': {name: item['sides'][name] for name in ('ours', 'torch')}},
                'plan.some': item | {'sides': {'ours': memory}},
                'plan.broken': item | {'sides': {'ours': {'error': 'no room'}}},
                'steps.broken': item | {'sides': {'ours': {'error': 'no room'}}}, **by_commands(item)}
    assert tables.write(document, measured) == ['training', 'translating', 'bfloat16', 'ceiling', 'products', 'start',
                                                'plan', 'steps', 'kinds', 'allocator', 'workers', 'conditions']
    text = document.read_text()
    assert 'obsolete' not in text
    assert text.index('Prose.') > text.index('<!-- end table:training -->')
    rows = {line.split(' | ')[1]: line for line in text.splitlines() if line.startswith('| ')}
    assert '|  | torch | 100 (100 to 200) | **2 (0.5 to 3)** | 1.3: met |' in text
    assert rows['on a GPU'].endswith('|  |  |')
    assert rows['broken'] == '|  | broken | failed | a/b |  |'
    assert '|  | Hugging Face, by length | 100 (100 to 200) | **2 (0.5 to 3)** | 3: missed | 39.40 |' in text
    assert '|  | broken | failed | a/b |  |  |' in text
    assert '| 512 | 0.0 | float32 | cpu | ' in text
    assert '| 512 | 0.0 | bfloat16 | cpu | ' in text
    assert text.count('1.3: met') == 1, 'no goal is set in bfloat16'
    assert '| products.some | ours | 2e-07 (1e-07 to 3e-07) |  |' in text
    assert '|  | torch | 1e-07 (1e-07 to 2e-07) | 2 (0.5 to 3) |' in text
    assert '| start.some, cached | 5 (4 to 6) | 4 (2.5 to 5) | 3: missed |  |' in text
    assert '| start.some, cold | 21 (20 to 22) | 19.5 (19 to 21) |  | 3 MiB |' in text
    assert '| plan.some | 44, equal | 100 MiB | 130 MiB | +30 % | 20 %: missed |' in text
    assert '+30 % | 20 %: missed |\n\nplan.broken failed: no room\n<!-- end table:plan -->' in text
    assert text.count('steps.broken failed: no room') == 2
    assert '| steps.broken | 2026-01-02 03:04 UTC |' in text, 'when it failed is told'
    assert [line for line in text.splitlines() if line.startswith(('| gradient', '| as it is', '| with'))] == [
        '| gradient | steps.8 | of the last | temporary arrays | compiled in | steps.9 | of the last '
        '| temporary arrays | compiled in |',
        '| as it is | 200 ms | 0.25 | 3 MiB | 4.0 s | 1,000 ms | 1.00 | 6 MiB | 4.0 s |',
        '| without all of these | 800 ms | 1.00 | 3 MiB | 4.0 s | 1,000 ms | 1.00 | 6 MiB | 4.0 s |',
        '| gradient | matrix products | fills |']
    assert '| steps.8, as it is | 90 % | 0 % |\n| steps.8, without all of these | 60 % | 40 % |' in text
    assert 'Gradients of the same draws differ by at most 2.0e-08, of at most 3.0e-01.' in text
    assert '| allocator.8, kept | 2,000 ms (1,000 to 4,000) | 3,000 ms (3,000 to 5,000) | 1,234 |' in text
    assert '| workers.gru, two workers | 18 (17 to 19) | 0.6, 12.5 |' in text
    assert '2026-01-02 03:04 UTC' in text
    before = text
    tables.write(document, measured)
    assert document.read_text() == before, 'written again, nothing moves'
    other = {'decoding.some': item | {'machine': 'Q, 4 cores', 'versions': {'jax': '2'}}}
    assert tables.write(document, other) == ['decoding', 'conditions']
    after = document.read_text()
    lost = [line for line in before.splitlines() if line not in after.splitlines()]
    assert lost == ['jax 1'], 'the lines of other items stay'
    assert '\n\njax 1, jax 2\n\n' in after
    assert 'P, 2 cores, 2 threads a side; L, Python 3\nQ, 4 cores, 2 threads a side; L, Python 3\n' in after
    assert after.count('| decoding.some | 2026') == 1
    elsewhere = {name: found | {'machine': 'Q, 4 cores', 'versions': {'jax': '2'}} for name, found in measured.items()}
    tables.write(document, elsewhere | other)
    assert 'jax 1' not in document.read_text(), 'nothing that is there was measured so'
    assert 'P, 2 cores' not in document.read_text()
    before = document.read_text()
    tables.write(document, {'training.other': other['decoding.some'], 'start.other': elsewhere['start.some']})
    assert '| training.other<br>' in document.read_text()
    assert '| start.other, cached |' in document.read_text()
    assert set(before.splitlines()) <= set(document.read_text().splitlines()), 'lines of other items stay everywhere'
    with pytest.raises(UserError, match='is not there'):
        tables.write(tmp_path / 'none.md', measured)


def test_lines_of_items_that_were_not_measured_anew_stay_where_they_were():
    def table(*rows, head=('item', 'side', 'rate')):
        return tables.grid(head, rows)

    a, c = ('a<br>parameters: 3', 'ours', '1'), ('c', 'ours', '4')
    before = table(a, ('', 'torch', '2'), ('b', 'ours', '3'), ('', 'torch', '5'), ('', 'other', '6'), c)
    b, d = [('b', 'ours', '7'), ('', 'torch', '8')], ('d', 'ours', '9')
    assert tables.with_others(table(*b, d), before, 1) == table(a, ('', 'torch', '2'), *b, c, d)
    assert tables.with_others(table(d), table(a, head=('item', 'side', 'speed')), 1) == table(d), 'other columns'
    assert tables.with_others(table(d), 'To be measured.', 1) == table(d)
    by_width = [('128', '0.1', '4 %'), ('128', '0.0', '5 %'), ('256', '0.1', '6 %')]
    assert tables.with_others(table(('128', '0.0', '7 %')), table(*by_width), 2) == table(
        by_width[0], ('128', '0.0', '7 %'), by_width[2])
    started = [('s, cached', '2', ''), ('s, cold', '9', '')]
    assert tables.with_others(table(('r, cached', '3', ''), started[0]), table(*started), 1) == table(
        started[0], ('r, cached', '3', ''))


def test_turns_of_two_hours_stand_side_by_side(item):
    sides = {'ours': dict(values=[1.0, 2.0], cpu_values=[3.0, 4.0], parameters=7), 'torch': dict(values=[1.0, 1.0])}
    one = item | {'sides': sides, 'repeats': 2, 'load': [0.5, 2.0], 'seconds': 10, 'when': 'at ten', 'commit': 'abc'}
    other = one | {'sides': {name: side | {'values': [5.0]} for name, side in sides.items()}, 'repeats': 1,
                   'load': [1.0, 1.5], 'seconds': 4, 'when': 'at noon'}
    other['sides']['ours'] |= {'cpu_values': [6.0], 'parameters': 8}
    both = results.together(one, other)
    assert both == one | {
        'sides': {'ours': dict(values=[1.0, 2.0, 5.0], cpu_values=[3.0, 4.0, 6.0], parameters=8),
                  'torch': dict(values=[1.0, 1.0, 5.0])},
        'repeats': 3, 'load': [0.5, 2.0], 'seconds': 14, 'when': 'at ten, at noon'}
    assert one['sides']['ours']['values'] == [1.0, 2.0]
    assert results.together(both, other | {'when': 'at six', 'commit': 'def'})['when'] == 'at ten, at noon, at six'
    assert results.together(one, other | {'commit': 'def'})['commit'] == 'abc, def'
    with_torch = other | {'versions': other['versions'] | {'torch': '3'}}  # a worker had been asked by then
    assert results.together(one, with_torch)['versions'] == one['versions'] | {'torch': '3'}
    for wrong in ({'machine': 'Q, 4 cores'}, {'shape': {'width': 3}}, {'versions': {'jax': '2'}}, {'repeats': 5},
                  {'sides': {name: side | {'values': [5.0, 6.0]} for name, side in other['sides'].items()}},
                  {'sides': {'ours': other['sides']['ours']}},
                  {'sides': other['sides'] | {'torch': {'error': 'no memory'}}}):
        assert results.together(one, other | wrong) is None, wrong
        assert results.together(other | wrong, one) is None, wrong
    assert results.together(one, other | {'turns': False}) is None, 'quartiles, say'


def test_memory_of_this_process_is_read():
    assert start.most_memory() > 50 << 20
    assert start.most_memory(10 ** 9) == 0


def test_an_item_of_commands_that_fail_says_why():
    """In a process of its own, for this one has threads of jax, which a fork may stop half way."""
    done = subprocess.run([sys.executable, '-c', """if True:
        from benchmarks import commands, translation
        item = commands.Timed('some', 'seconds', {}, lambda repeats, threads: commands.told(
            'benchmarks.steps', ['--ways=nothing'], threads))
        print(translation.alone(item, 1, 1))
    """], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("{'ours': {'error': 'steps.py: error: --ways=nothing: choose of as it is, with")


def test_what_a_step_does_otherwise_is_there_to_be_replaced():
    replaced = [parts for changes in steps.OTHERWISE.values() for parts in changes]
    usual = [getattr(place, name) for place, name, _ in replaced]
    with steps.changed(steps.WAYS['without all of these']):
        assert all(getattr(place, name) is other for place, name, other in replaced)
    assert [getattr(place, name) for place, name, _ in replaced] == usual
    assert not any(other is own for (_, _, other), own in zip(replaced, usual))
