"""Every experiment with every model, from the command line to the last file; and what can be done with a run after."""

import dataclasses
import gzip
import io
import json
import re
import sys
import threading

import jax
import numpy as np
import pytest
from tiny import DEVICES, bigrams, counting, flags, launch, outcome, records, scalars, snapshot, steps_of, summary

from experiments.translation import ATTENTION_ONLY, numerals
from seqjax import catalogue, figures
from seqjax.data import tfds
from seqjax.plan import plan
from seqjax.prepared import prepare
from seqjax.reuse import evaluate, predict
from seqjax.run import train
from seqjax.training.parallel import Placement

SMALL = {'hidden_size': 8, 'num_layers': 1, 'num_heads': 2, 'feedforward_size': 8, 'embedding_size': 8}
# What is drawn of a model's inside.
PICTURES = dict.fromkeys(('smt', 'bahdanau', 'luong', 'convs2s', 'transformer', 'decoderonly'), 'attention'
                         ) | dict.fromkeys(('rnn', 'lstm', 'gru', 'rctm'), 'states')
EXPERIMENTS, MODELS = list(catalogue.experiments()), list(catalogue.models())
COLOURS = ['rot', 'grün', 'blau', 'gelb', 'weiß'], ['red', 'green', 'blue', 'yellow', 'white']
THINGS = ['Hund', 'Hut', 'Ball', 'Stuhl', 'Baum'], ['dog', 'hat', 'ball', 'chair', 'tree']


def corpus(count):
    """Captions, by number."""
    return [[f'ein {a[i % 5]} {b[i // 5 % 5]} {i} .' if side == 0 else f'a {a[i % 5]} {b[i // 5 % 5]} {i} .'
             for i in range(count)] for side, (a, b) in enumerate(zip(COLOURS, THINGS))]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """The flags that say where each experiment's data are: files laid out as the published ones."""
    folder = tmp_path_factory.mktemp('data')
    sizes = {'train': 200, 'val': 6, 'test_2016_flickr': 7}  # as many as `parallel` holds out of 400 lines
    for name, count in sizes.items():
        for language, lines in zip(('de', 'en'), corpus(count)):
            with gzip.open(folder / f'{name}.{language}.gz', 'wt', encoding='utf-8') as file:
                file.writelines(f'{line}\n' for line in lines)
    table = folder / 'own.tsv'
    table.write_text(''.join(f'{de}\t{en}\n' for de, en in zip(*corpus(400))), encoding='utf-8')
    splits = {'train': corpus(200), 'validation': corpus(6), 'test': corpus(7)}
    tfds.write(splits, 'captions', str(folder), 'de', 'en')
    small = ['--task.train_size=60', '--task.valid_size=6', '--task.test_size=7']
    pieces = ['--task.vocabulary_size=270', '--task.buckets=1']
    return {'numerals': [*small, '--task.highest=999'], 'reverse': [*small, '--task.buckets=1'],
            'puzzles': [*small, '--task.length=6'],
            'colours': [*small, '--task.buckets=1'],
            'multi30k': [f'--task.path={folder}', *pieces], 'parallel': [f'--task.path={table}', *pieces],
            'tfds': ['--task.dataset=captions', f'--task.data_dir={folder}', *pieces]}


def counts(model):
    """Whether a model learns by counting; it has no sizes then, and no gradient."""
    return catalogue.load('model', model).learner == 'counts'


def sizes(model):
    """The flags of a small model, of those that it has, and of a warm-up that a few steps hold."""
    if counts(model):
        return ['--model.tuning_rounds=1', '--model.tuning_nbest=5']
    has = {field.name for field in dataclasses.fields(catalogue.load('model', model))}
    return ['--optimizer.warmup_steps=1', *(f'--model.{name}={size}' for name, size in SMALL.items() if name in has)]


# Every model on one task, and three that differ most on all the others. (That the other pairs compose, the golden
# files hold; a run of each would be most of the time that all tests take.)
PAIRS = [(experiment, model) for experiment in EXPERIMENTS for model in MODELS
         if experiment == 'numerals' or model in ('smt', 'luong', 'transformer')]


@pytest.mark.parametrize(('experiment', 'model'), PAIRS)
def test_two_steps(experiment, model, data, tmp_path, monkeypatch, capsys):
    if experiment != 'numerals':  # pictures take most of the time; once a model is enough
        monkeypatch.setattr(figures, 'draw_run', lambda *args: [])
    workdir = tmp_path / 'run'
    command = [f'--experiment={experiment}', f'--model={model}', f'--workdir={workdir}', *data[experiment],
               *sizes(model), '--training.steps=2', '--training.log_every=1', *DEVICES]
    jax.random.key(0)  # its program is compiled once in a process, by whichever run comes first
    assert launch(*command) == 0
    said = capsys.readouterr()
    assert 'Traceback' not in said.err

    config = json.loads((workdir / 'config.json').read_text())
    assert (config['experiment'], config['model'], config['argv']) == (experiment, model, command)
    assert counts(model) or config['fields']['optimizer.warmup_steps'] == 1
    assert all(config['fields'].get(f'model.{name}', size) == size for name, size in SMALL.items())
    assert config['versions']['jax'] == jax.__version__
    assert len(config['devices']) == jax.device_count()
    assert re.fullmatch('[0-9a-f]{64}', config['data_sha256'])
    assert f'--experiment={experiment}\n--model={model}\n' in (workdir / 'flags.txt').read_text()
    assert not re.search('--(workdir|mode|compilation_cache)=', (workdir / 'flags.txt').read_text())

    assert [(r['step'], r['split']) for r in records(workdir)] == [(1, 'train'), (2, 'train'), (2, 'valid')]
    train_record, valid_record = records(workdir)[0], records(workdir)[-1]
    assert {'loss', 'nll'} < train_record.keys()
    assert counts(model) or {'accuracy', 'gradient_norm', 'learning_rate'} < train_record.keys()
    assert {'loss', 'nll', 'perplexity', 'bleu', 'chrf', 'exact_match'} < valid_record.keys()
    assert all(np.isfinite(value) for r in records(workdir) for value in r.values() if not isinstance(value, str))
    assert sorted(scalars(workdir)) == sorted(
        (r['step'], f'{r["split"]}/{name}', np.float32(value)) for r in records(workdir)
        for name, value in r.items() if name not in ('step', 'split'))

    final = summary(workdir)
    assert final['steps'] == 2
    assert steps_of(workdir) == [2]
    assert re.fullmatch('[0-9a-f]{64}', final['params_sha256'])
    assert 0 < final['parameters'] < (20_000 if not counts(model) else 2_500_000), 'L^3 positions in the latter'
    assert {'bleu', 'bleu_lowercase', 'chrf', 'exact_match'} <= final['signatures'].keys() & final['test'].keys()
    assert 'version:' in final['signatures']['bleu']
    assert final['signatures']['bleu'] in said.out
    clock = final['time']
    assert clock['tokens_per_second'] > 0
    assert 0 < clock['compile_seconds'] < 2 * clock['seconds_in_all'], 'of two threads'
    assert 0 < clock['training_seconds'] < clock['seconds_in_all']
    assert clock['compilations'] <= 12, 'step, loss, search, initial parameters, checks; each shape once'
    predictions = (workdir / 'predictions' / 'test.txt').read_bytes()
    assert predictions.count(b'\n') == 7

    if experiment == 'numerals':
        picture = PICTURES.get(model)
        for name in ('learning_curve', *([picture] if picture else [])):
            assert (workdir / 'figures' / f'{name}.png').read_bytes()[:4] == b'\x89PNG'
            assert str(workdir / 'figures' / f'{name}.png') in said.out
        arrays = dict(np.load(workdir / 'figures' / f'{picture}.npz')) if picture else {}
        assert not picture or {'source_0', 'target_0'} < set(arrays)
        maps = [arrays[name] for name in arrays if name.endswith('cross_attention')]
        assert len(maps) == (picture == 'attention')
        for weights_NBHTS in maps:
            assert weights_NBHTS.shape[2] == (2 if model in ATTENTION_ONLY else 1)
            there = len(arrays['target_0'])
            whole_NHT = weights_NBHTS[:, 0, :, :there].sum(-1)
            if model == 'decoderonly':  # one softmax over the source and the target's own past
                whole_NHT += arrays['target/decoder/self_attention/self_attention'][:, 0, :, :there].sum(-1)
            np.testing.assert_allclose(whole_NHT, 1, atol=1e-5)
    assert {path.name for path in workdir.iterdir()} == {
        '.lock', 'config.json', 'flags.txt', 'metrics.jsonl', 'checkpoints', 'predictions', 'summary.json',
        'vocabulary.json', *({'tables.npz'} if counts(model) else {}),
        *({'figures'} if experiment == 'numerals' else {}),
        *(path.name for path in workdir.glob('events.*'))}
    assert not list(workdir.rglob('.*.*')), 'nothing half-written'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A small run with attention."""
    workdir = tmp_path_factory.mktemp('run') / 'run'
    assert launch(*flags(workdir, '--training.steps=4', '--model.hidden_size=16', model='bahdanau')) == 0
    return workdir


def revisit(mode, workdir, *more):
    return launch(f'--mode={mode}', f'--workdir={workdir}', '--compilation_cache=none', *more)


LINES = ['twenty-one', '', 'two\u2028hundred', 'one\x0bthousand', '   ', 'x\x85y \x1c z', 'three\rfour', '\ufeffseven',
         'nine hundred', '一百']


def translate(run, tmp_path, *more, lines=LINES):
    """Lines through `--mode=predict`, by files."""
    source, target = tmp_path / 'source.txt', tmp_path / 'target.txt'
    source.write_bytes(''.join(f'{line}\n' for line in lines).encode())
    assert revisit('predict', run, f'--input={source}', f'--output={target}', *more) == 0
    return target.read_bytes().decode().split('\n')


def test_one_line_in_one_line_out(run, tmp_path, monkeypatch, capsys):
    """Whatever a line holds that others take for its end."""
    found = translate(run, tmp_path)
    assert len(found) == len(LINES) + 1
    assert found[-1] == ''
    assert (found[1], found[4]) == ('', ''), 'nothing is translated by nothing'
    assert all(found[i] for i in (0, 2, 3, 5, 6, 8))
    assert not re.search('[\r\t]', ''.join(found))
    for text in (''.join(f'{line}\n' for line in LINES), '\r\n'.join(LINES)):  # with and without an end; DOS
        monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(text.encode())))
        capsys.readouterr()
        assert revisit('predict', run) == 0
        assert capsys.readouterr().out == '\n'.join(found)
    assert translate(run, tmp_path, lines=[]) == ['']
    assert predict(run, LINES) == found[:-1]


def test_a_line_too_long_is_refused_and_not_cut(run, tmp_path, capsys):
    source, target = tmp_path / 'source.txt', tmp_path / 'target.txt'
    source.write_text('one\n\n' + ' '.join(['one'] * 32) + '\n')
    target.write_text('what was there before')
    assert revisit('predict', run, f'--input={source}', f'--output={target}') == 2
    assert capsys.readouterr().err == (
        'error: line 3 of the input has 33 tokens with EOS and the model takes 32; shorten or split it '
        '(--task.max_length is fixed when training)\n')
    assert target.read_text() == 'what was there before'
    assert len(predict(run, [' '.join(['one'] * 31)])) == 1


def test_a_link_to_write_to_stays_one(run, tmp_path):
    real, link = tmp_path / 'real.txt', tmp_path / 'target.txt'
    real.write_text('what was there before')
    link.symlink_to(real.name)
    assert len(translate(run, tmp_path)) == len(LINES) + 1
    assert link.is_symlink()
    assert real.read_text().count('\n') == len(LINES)
    with open(tmp_path / 'open.txt', 'w') as file:  # as /dev/stdout is one
        assert revisit('predict', run, f'--input={tmp_path / "source.txt"}', f'--output=/dev/fd/{file.fileno()}') == 0
    assert (tmp_path / 'open.txt').read_text() == real.read_text()


BEAM = ('--decoding.method=beam', '--decoding.beam_size=3')


def test_n_best_with_scores(run, tmp_path):
    found = [line.split('\t') for line in translate(run, tmp_path, *BEAM, '--decoding.nbest=3')[:-1]]
    assert found[1] == ['0.0000', ''], 'nothing'
    asked = [line for line, source in zip(found, LINES) if source.strip()]
    assert {len(line) for line in asked} == {6}
    scores = np.array([line[::2] for line in asked], float)
    assert (np.diff(scores) <= 0).all()
    assert (scores < 0).all()
    assert len(set(scores[:, 0])) > 3, 'the scores depend on the source'
    assert all(len({*line[1::2]}) > 1 for line in asked), 'hypotheses of a sentence differ'
    best = translate(run, tmp_path, *BEAM)[:-1]
    assert [line[1] for line in found] == best


def test_translations_do_not_depend_on_the_batch(run, tmp_path):
    one, three, all_ = (translate(run, tmp_path, *BEAM, '--decoding.nbest=2', f'--decoding.batch_size={size}')
                        for size in (1, 3, 64))
    for other in (three, all_):
        for ours, theirs in zip(one, other, strict=True):
            ours, theirs = ours.split('\t'), theirs.split('\t')
            assert ours[1::2] == theirs[1::2]
            np.testing.assert_allclose([float(x or 0) for x in ours[::2]], [float(x or 0) for x in theirs[::2]],
                                       atol=2e-4)


def test_evaluate_again_and_with_a_beam(run, capsys):
    """Greedily the scores are those of the training's end; a beam's stand beside them; the run is not touched."""
    before = snapshot(run)
    assert revisit('evaluate', run) == 0
    assert revisit('evaluate', run, *BEAM, '--decoding.length_penalty=1') == 0
    greedy, beam = (json.loads((run / f'evaluation.{method}.json').read_text()) for method in ('greedy', 'beam'))
    assert greedy['test'] == summary(run)['test']
    assert beam['test']['loss'] == greedy['test']['loss']
    assert (beam['decoding']['beam_size'], beam['decoding']['length_penalty']) == (3, 1)
    assert beam['signatures']['bleu'] in capsys.readouterr().out
    assert (run / 'predictions' / 'test.greedy.txt').read_bytes() == before['predictions/test.txt']
    assert (run / 'predictions' / 'test.beam.txt').read_bytes().count(b'\n') == 9
    after = snapshot(run)
    assert {name: after[name] for name in before if name != 'figures/learning_curve.png'} == {
        name: content for name, content in before.items() if name != 'figures/learning_curve.png'}
    one, other = (np.load(run / 'figures' / f'attention{suffix}.npz') for suffix in ('', '.beam'))
    assert set(one) == set(other), 'the same maps, however it was decoded'
    assert 'decoder/cross_attention' in one
    assert (run / 'figures' / 'attention.beam.png').exists()


@pytest.mark.parametrize(('flag', 'words'), [
    ('--model.hidden_size=8', '--model.hidden_size=8: --mode=evaluate reads it from'),
    ('--experiment=reverse', 'holds a run of numerals'),
    ('--task.highest=5', '--task.highest=5: --mode=evaluate reads it from'),
    ('--decoding.beam_size=3', '--decoding.beam_size=3 is not read with --decoding.method=greedy')])
def test_evaluate_refuses_what_it_would_not_read(run, capsys, flag, words):
    assert revisit('evaluate', run, flag) == 2
    line, = capsys.readouterr().err.splitlines()
    assert words in line


def test_init_from(run, tmp_path, capsys):
    """The parameters are the other run's at step 0, and it is said which are; none fits: refused, nothing begun."""
    still = ['--training.steps=1', '--optimizer.learning_rate=1e-30', '--optimizer.schedule=constant',
             f'--init_from={run}']
    size = '--model.hidden_size=16'
    assert launch(*flags(tmp_path / 'equal', *still, size, model='bahdanau')) == 0
    said = capsys.readouterr().out
    assert re.search(rf'--init_from={run}: \d+ parameters taken over\n', said)
    assert summary(tmp_path / 'equal')['params_sha256'] == summary(run)['params_sha256']
    assert summary(tmp_path / 'equal')['test'] == summary(run)['test']
    # Again, without the other run's help: its checkpoint is the beginning now.
    assert launch(*flags(tmp_path / 'equal', *still, size, model='bahdanau')) == 0

    assert launch(*flags(tmp_path / 'part', *still, size, '--model.readout=linear', model='bahdanau')) == 0
    said = capsys.readouterr().out
    assert re.search(rf'--init_from={run}: \d+ parameters taken over, \d+ start afresh: output_embedding', said), said

    assert launch(*flags(tmp_path / 'other', *still, model='transformer'), '--model.num_heads=2') == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: --init_from={run}: none of its parameters has a path and shape of this model (')
    assert not (tmp_path / 'other' / 'config.json').exists()
    assert launch(*flags(tmp_path / 'none', '--init_from=nowhere')) == 2
    assert 'nowhere holds no run' in capsys.readouterr().err


@pytest.mark.parametrize(('parallel', 'mesh', 'whole'), [('pmap', '', True), ('jit', 'data=2,fsdp=2,tensor=2', False)])
def test_plan(tmp_path, monkeypatch, capsys, parallel, mesh, whole):
    """It trains nothing and writes nothing, and a device's bytes are those that it will hold."""
    monkeypatch.chdir(tmp_path)
    more = ['--model.num_heads=2', f'--training.parallel={parallel}', f'--training.mesh={mesh}']
    assert launch(*flags(tmp_path / 'run', *more, '--mode=plan', model='transformer')) == 0
    said = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    experiment = numerals('transformer')
    experiment = experiment.replace('task', train_size=60, valid_size=9, test_size=9, highest=999, buckets=1).replace(
        'model', hidden_size=8, num_layers=1, num_heads=2).replace(
        'training', batch_size=8, parallel=parallel, mesh=mesh).replace('decoding', batch_size=8)
    counts = plan(experiment, say=lambda text: None)
    ready = prepare(experiment, experiment.task.prepare().codec)
    state = ready.placement.place_state(ready.begin(ready.learner(9)))
    real = {'parameters': sum(leaf.size for leaf in jax.tree.leaves(state.params)),
            'parameter_bytes': held(state.params), 'state_bytes': held(state)}
    assert {name: counts[name] for name in real} == real
    assert (counts['parameter_bytes'] == 4 * counts['parameters']) == whole
    assert f'{counts["parameters"]:,} parameters' in said
    assert f'{counts["flops"]:,} FLOPs' in said
    assert 'target  ' in said
    assert '</s>' in said


def held(tree):
    """Bytes on the first device."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def test_profile(tmp_path, monkeypatch):
    """A trace of some steps, also of a run that is over sooner than it would have ended."""
    monkeypatch.setattr(figures, 'draw_run', lambda *args: [])
    train(bigrams(steps=6, profile=True), tmp_path / 'run', say=lambda text: None)
    trace, = (tmp_path / 'run' / 'profile').rglob('*.trace.json.gz')
    names = {event.get('name', '') for event in json.loads(gzip.decompress(trace.read_bytes()))['traceEvents']}
    assert any('update' in name for name in names), 'the step is in it'


def test_a_step_is_compiled_once_a_shape(tmp_path, monkeypatch):
    """The jitted step is traced when it is compiled, and only then."""
    traced = []

    def watched(placement, step, *constants, compile_step=Placement.step):
        def traced_step(state, batch, *more):
            traced.append((batch.source.shape[-1], batch.target.shape[-1]))
            return step(state, batch, *more)
        return compile_step(placement, traced_step, *constants)

    monkeypatch.setattr(figures, 'draw_run', lambda *args: [])
    monkeypatch.setattr(Placement, 'step', watched)
    experiment = bigrams(steps=24, evaluate_every=8, checkpoint_every=8).replace('task', buckets=3)
    final = train(experiment, tmp_path / 'run', say=lambda text: None)
    shapes = experiment.task.prepare().codec.shapes
    assert len(shapes) == 3
    assert sorted(traced) == sorted(shapes)
    assert final['time']['compilations'] <= 3 + 3 * 4, 'step, loss and search of each shape, and little else'


def test_steps_that_end_no_pass_are_named(tmp_path, monkeypatch):
    """In a thread of its own, too, where no signal can be caught."""
    monkeypatch.setattr(figures, 'draw_run', lambda *args: [])
    said, found = [], []
    thread = threading.Thread(target=lambda: found.append(
        train(counting(steps=11, evaluate_every=11), tmp_path / 'run', say=said.append)))
    thread.start()
    thread.join(timeout=240)
    assert found[0]['steps'] == 11
    assert ('the last 3 of 11 steps change nothing: a pass has 8, at whose end counts become parameters; '
            'give --training.epochs') in said


def test_from_python_with_no_flags(tmp_path):
    """As in a notebook: a run, its evaluation and its translations, of a model that no list names."""
    said, seen = [], []

    class Seen:
        cut = flush = close = staticmethod(lambda *args: None)
        write = staticmethod(seen.append)

    experiment = bigrams(steps=3, log_every=1)
    final = train(experiment, tmp_path / 'run', writers=[Seen], say=said.append)
    assert final == summary(tmp_path / 'run')
    assert [(r['step'], r['split']) for r in seen] == [(r['step'], r['split']) for r in records(tmp_path / 'run')]
    assert any('hypothesis' in text for text in said)
    again = evaluate(tmp_path / 'run', lambda e: e.replace('decoding', method='beam', beam_size=2), say=said.append)
    assert again.metrics['loss'] == final['test']['loss']
    assert len(predict(tmp_path / 'run', ['one', '', 'two'])) == 3
    assert outcome(tmp_path / 'run')['steps'] == 3
