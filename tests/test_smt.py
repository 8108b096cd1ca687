"""Statistical translation: expectation maximisation by an independent library and by its formula, the alignment model
as a translator like any other, and the system that is made of it.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest
from nltk.translate import AlignedSent, IBMModel1, IBMModel2
from tiny import launch, records, summary

from experiments.translation import numerals
from seqjax.data import alignments
from seqjax.data.batches import Batch, Batches
from seqjax.decoding.options import Decoding
from seqjax.errors import UserError
from seqjax.experiment import Experiment
from seqjax.models.contract import shift_right
from seqjax.models.smt import SMT, tables_of
from seqjax.models.transformer import Transformer
from seqjax.prepared import initialise, prepare
from seqjax.reuse import opened, predict, reopen
from seqjax.statistical import ibm
from seqjax.tasks.corpora import Numerals
from seqjax.training.em import ExpectationMaximisation

EOS = 2
RNG = np.random.default_rng(0)
V, W, L = 9, 11, 7
# Two source lengths, each with one target length: only there is nltk's a(j | i, l, m) ours, which does not read m.
# No word comes twice in a sentence: nltk counts such words once.
PAIRS = [(RNG.permutation(np.arange(3, V))[:l].tolist(), RNG.permutation(np.arange(3, W))[:m].tolist())
         for l, m in ((3, 4), (5, 2)) * 8]


def batch_of(pairs, shape=(7, 6), filler=0):
    """A batch of pairs of words, with rows of filler."""
    def rows(side, width):
        return np.array([[*pair[side], EOS] + [0] * (width - 1 - len(pair[side])) for pair in pairs]
                        + [[0] * width] * filler, np.int32)
    weight = np.array([1.0] * len(pairs) + [0.0] * filler, np.float32)
    return Batch(rows(0, shape[0]), rows(1, shape[1]), weight, np.arange(len(weight), dtype=np.int32))


def model(**options):
    return SMT(source_size=V, target_size=W, source_length=L, **options)


def begun(net, batches=1, accumulate=1):
    """A learner and the state that it begins with."""
    learn = ExpectationMaximisation(net, batches, accumulate)
    return learn, learn.init(initialise(net, 0))


def fitted(passes, model1_passes, batches=(PAIRS,), **options):
    """Parameters after so many passes, and the negative log likelihood of each pass (of its beginning)."""
    learn, state = begun(model(model1_passes=model1_passes, **options), len(batches))
    nll = []
    step = jax.jit(learn.step)
    for _ in range(passes):
        sums = []
        for pairs in batches:
            state, out = step(state, batch_of(pairs, filler=1))
            sums.append([float(x) for x in out['nll']])
        nll.append(np.sum(sums, axis=0))
    return state.params, np.array(nll)


def aligned(direction='direct'):
    """The corpus as nltk has it: the predicted side first."""
    sides = [(f, e) if direction == 'direct' else (e, f) for f, e in PAIRS]
    return [AlignedSent(list(map(str, e)), list(map(str, f))) for f, e in sides]


def compared(words_VW, theirs):
    """Our t(e | f) against nltk's table, NULL being None there and EOS here."""
    checked = 0
    for e, row in theirs.items():
        for f, p in row.items():
            np.testing.assert_allclose(words_VW[EOS if f is None else int(f), int(e)], p, rtol=1e-4, atol=1e-6)
            checked += 1
    return checked


@pytest.mark.parametrize('direction', ['direct', 'inverse'])
def test_model_1_is_nltks(direction):
    params, _ = fitted(4, 99)
    assert compared(np.asarray(params[f'{direction}_words']), IBMModel1(aligned(direction), 4).translation_table) > 50
    positions = np.asarray(params[f'{direction}_positions'])
    np.testing.assert_allclose(positions[3, 1], [0.25] * 4 + [0] * 3, rtol=1e-6)


@pytest.mark.parametrize('direction', ['direct', 'inverse'])
def test_model_2_is_nltks(direction):
    """Three passes of Model 1, three of Model 2, from its tables and even positions."""
    first = IBMModel1(aligned(direction), 3)
    even = IBMModel2(aligned(direction), 0)  # for the form of its tables
    theirs = IBMModel2(aligned(direction), 3, {'translation_table': first.translation_table,
                                               'alignment_table': uniform_alignments(even, direction)})
    params, _ = fitted(6, 3)
    assert compared(np.asarray(params[f'{direction}_words']), theirs.translation_table) > 50
    positions, checked = np.asarray(params[f'{direction}_positions']), 0
    for l, m in {3: 4, 5: 2}.items() if direction == 'direct' else ((4, 3), (2, 5)):
        for i in range(1, m + 1):
            expected = [theirs.alignment_table[j][i][l][m] for j in (*range(1, l + 1), 0)]  # NULL is 0 there
            np.testing.assert_allclose(positions[l, i - 1, :l + 1], expected, rtol=1e-4, atol=1e-6)
            checked += np.ptp(expected) > 0.1
    assert checked > 2


def uniform_alignments(even, direction):
    even.set_uniform_probabilities(aligned(direction))
    return even.alignment_table


def likelihood(tables, pairs):
    """sum log p(e | f) in float64, straight from the formula."""
    total = 0.0
    for f, e in pairs:
        given, l = [*f, EOS], len(f)
        total += np.log(np.float64(tables['lengths'][l, len(e)]))
        for i, word in enumerate(e):
            total += np.log(sum(np.float64(tables['positions'][l, i, j]) * np.float64(tables['words'][given[j], word])
                                for j in range(l + 1)))
    return total


def test_likelihood_never_falls_and_is_what_is_reported():
    """From pass to pass, over the change from Model 1 to Model 2; and its count is tokens with EOS."""
    _, nll = fitted(9, 4)
    assert (np.diff(nll[:, 0]) < 0).all()
    assert (nll[:, 1] == sum(len(e) + 1 for _, e in PAIRS)).all()
    for passes in (0, 3, 6):
        params = {k: np.asarray(v) for k, v in (fitted(passes, 4)[0] if passes else begun(model())[1].params).items()}
        np.testing.assert_allclose(nll[passes, 0], -likelihood(tables_of(params, 'direct'), PAIRS), rtol=1e-5)


def test_a_pass_does_not_depend_on_the_batches():
    one, one_nll = fitted(4, 2)
    cut = [PAIRS[:3], PAIRS[3:4], PAIRS[4:]]
    parts, parts_nll = fitted(4, 2, cut)
    assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-6), one, parts))
    np.testing.assert_allclose(parts_nll, one_nll, rtol=1e-5)
    learn, state = begun(model(), 2, accumulate=2)
    state, _ = jax.jit(learn.step)(state, batch_of(PAIRS))
    assert not (np.asarray(state.params['direct_words']) != np.float32(1 / W)).any(), 'no pass has ended yet'
    assert float(state.counts['direct_words'].sum()) == pytest.approx(sum(len(e) for _, e in PAIRS), rel=1e-5)
    state, _ = jax.jit(learn.step)(state, batch_of(PAIRS))
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(state.counts)), 'the next pass begins from nothing'


@pytest.fixture(scope='module')
def tables():
    """A model with parameters that know something, and compiled methods."""
    net = model(model1_passes=2)
    params, _ = fitted(6, 2)
    run = {name: jax.jit(lambda *args, name=name: net.apply({'params': params}, *args, method=name))
           for name in ('encode', 'decode', '__call__')}
    return net, params, run


BATCH = batch_of(PAIRS, filler=1)


def test_logits_are_the_distribution_of_the_paper(tables):
    net, params, run = tables
    logits_BTW = np.asarray(run['__call__'](BATCH.source, shift_right(BATCH.target)), np.float64)
    np.testing.assert_allclose(np.exp(logits_BTW).sum(-1), 1, atol=1e-5)
    own = {k: np.asarray(v, np.float64) for k, v in tables_of(params, 'direct').items()}
    s = net.smoothing
    for row, (f, _) in list(enumerate(PAIRS))[:6]:
        l, given = len(f), [*f, EOS]
        lengths = (1 - s) * own['lengths'][l] + s / L
        for i in range(5):
            end = np.clip(lengths[i] / lengths[i:].sum(), 1e-6, 1 - 1e-6)
            seen = sum(own['positions'][l, i, j] * own['words'][given[j]] for j in range(l + 1))
            seen[EOS] = 0
            expected = (1 - end) * ((1 - s) * seen / seen.sum() + s / (W - 1))
            expected[EOS] = end
            np.testing.assert_allclose(np.exp(logits_BTW[row, i]), expected, rtol=2e-4, atol=1e-8)


def test_one_at_a_time_is_all_at_once(tables):
    net, params, run = tables
    tokens_BT = shift_right(BATCH.target)
    memory = run['encode'](BATCH.source)
    full = np.asarray(run['__call__'](BATCH.source, tokens_BT))
    carry = net.apply({'params': params}, memory, 9, method='start')
    for i in range(tokens_BT.shape[1]):
        logits, carry = run['decode'](tokens_BT[:, i:i + 1], memory, carry)
        np.testing.assert_allclose(np.asarray(logits)[:, 0], full[:, i], atol=1e-6)
    assert np.ptp(full[0, :, 5]) > 0.1, 'positions differ'


def test_padding_and_batch_do_not_matter(tables):
    _, _, run = tables
    wide = batch_of(PAIRS[3:5], shape=(12, 10))
    one, all_ = (np.asarray(run['__call__'](x.source, shift_right(x.target))) for x in (wide, BATCH))
    np.testing.assert_allclose(one[:, :6], all_[3:5], atol=1e-6)


def test_capture_is_the_posterior(tables):
    """p(a_i = j | e, f); NULL is the source's EOS, at which the target's EOS looks."""
    net, params, _ = tables
    weights_BTS = np.asarray(jax.jit(net.capture)(params, BATCH)['decoder/cross_attention'])[0, :, 0]
    own = {k: np.asarray(v, np.float64) for k, v in tables_of(params, 'direct').items()}
    for row, (f, e) in enumerate(PAIRS):
        joint = np.array([[own['positions'][len(f), i, j] * own['words'][[*f, EOS][j], word]
                           for j in range(len(f) + 1)] for i, word in enumerate(e)])
        np.testing.assert_allclose(weights_BTS[row, :len(e), :len(f) + 1], joint / joint.sum(1, keepdims=True),
                                   rtol=1e-4, atol=1e-7)
        np.testing.assert_array_equal(weights_BTS[row, len(e)], np.arange(7) == len(f))


def test_best_alignments_are_the_posteriors_greatest(tables):
    net, params, _ = tables
    weights_BTS = np.asarray(net.capture(params, BATCH)['decoder/cross_attention'])[0, :, 0]
    own = {k: np.asarray(v) for k, v in tables_of(params, 'direct').items()}
    for row, (f, e) in enumerate(PAIRS):
        chosen = ibm.best_alignment(own, np.array(f), np.array(e))
        reached = weights_BTS[row, np.arange(len(e)), chosen]
        np.testing.assert_allclose(reached, weights_BTS[row, :len(e)].max(1), rtol=1e-5)
    even = {k: np.asarray(v) for k, v in ibm.uniform(V, W, L).items()}
    assert ibm.best_alignment(even, np.array([4, 5, 6]), np.array([4, 5, 6])).tolist() == [0, 1, 2], 'the diagonal'


def alignment_error(passes, model1_passes, count=600):
    """AER of the symmetrised alignments of numbers, after so many passes on them."""
    task = Numerals(train_size=count, valid_size=9, test_size=9, highest=999_999, max_length=32)
    data = task.prepare()
    net = SMT(model1_passes=model1_passes, **task.sizes(data.codec))
    batches = Batches(*data.ids['train'], 100, data.codec.shapes, 0)
    learn, state = begun(net, batches.batches_per_epoch)
    step = jax.jit(learn.step)
    for n in range(passes * batches.batches_per_epoch):
        state, _ = step(state, batches.batch(n))
    params = jax.device_get(state.params)
    gold = [alignments.align(*pair, 'en', 'fr') for pair in zip(*data.text['train'])]
    found = [net.links(params, *(side.row(i)[:-1] for side in data.ids['train'])) for i in range(count)]
    return alignments.alignment_error_rate(found, [g.sure for g in gold], [g.possible for g in gold])


def test_alignments_of_numbers():
    """Far better than the diagonal, which nothing learned gives."""
    assert alignment_error(0, 0) > 0.2
    assert alignment_error(5, 5) < 0.05
    assert alignment_error(10, 5) < 0.07


SMALL = ['--experiment=numerals', '--model=smt', '--task.train_size=400', '--task.valid_size=20', '--task.test_size=20',
         '--task.highest=99999', '--task.buckets=1', '--training.epochs=7', '--training.batch_size=64',
         '--model.tuning_rounds=1', '--model.tuning_nbest=10', '--decoding.beam_size=20', '--decoding.search_errors=6',
         '--training.mesh=data=1',
         '--decoding.batch_size=20', '--compilation_cache=none']


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('smt') / 'run'
    assert launch(*SMALL, f'--workdir={workdir}') == 0
    return workdir


def score(run, *more):
    assert launch('--mode=evaluate', f'--workdir={run}', '--compilation_cache=none', *more) == 0
    method = next((word.partition('=')[2] for word in more if 'method' in word), 'beam')
    return json.loads((run / f'evaluation.{method}.json').read_text())['test']


def test_phrases_beat_words(run):
    final = summary(run)['test']
    assert score(run) == final
    words, greedy = score(run, '--decoding.method=words'), score(run, '--decoding.method=greedy')
    assert final['chrf'] > 85
    assert final['chrf'] > words['chrf'] + 5, 'the floor'
    assert words['loss'] == greedy['loss'] == final['loss']
    assert 'search_errors' not in words
    assert final['search_errors'] == 0
    assert final['searched_exhaustively'] > 3
    assert score(run, '--decoding.search_errors=0').keys() == words.keys()
    valid = [record['nll'] for record in records(run) if record['split'] == 'valid']
    train = [record['nll'] for record in records(run) if record['split'] == 'train']
    assert valid[-1] < 0.7 * valid[0]
    assert train


def test_what_a_run_can_do(run, capsys):
    lines = ['two hundred and three', '', 'nineteen', 'eleven elephants']
    found = predict(run, lines)
    assert len(found) == 4
    assert found[1] == ''
    assert '<unk>' in found[3]
    assert not any('<unk>' in line for line in found[:3])
    both = predict(run, lines, lambda e: e.replace('decoding', nbest=3))
    assert [line.split('\t')[1] for line in both] == found
    scores = np.array([[float(x) for x in line.split('\t')[::2]] for line in both if line.count('\t') == 5])
    assert len(scores) >= 2
    assert (np.diff(scores) <= 0).all()
    one = predict(run, lines[:1], lambda e: e.replace('decoding', max_length=3))
    assert len(one[0].split()) <= 3
    assert launch('--mode=evaluate', f'--workdir={run}', '--decoding.length_penalty=1') == 2
    assert 'length_penalty' in capsys.readouterr().err


def test_a_run_whose_training_has_not_ended(run, tmp_path, capsys):
    import shutil
    shutil.copytree(run, tmp_path / 'run')
    (tmp_path / 'run' / 'tables.npz').unlink()
    command = ['--mode=evaluate', f'--workdir={tmp_path}/run', '--compilation_cache=none']
    assert launch(*command) == 2
    assert 'this run has no phrases yet' in capsys.readouterr().err
    assert launch(*command, '--decoding.method=words') == 0
    (tmp_path / 'run' / 'tables.npz').write_bytes((run / 'tables.npz').read_bytes()[:1000])
    assert launch(*command) == 2
    line, = capsys.readouterr().err.splitlines()
    assert 'tables.npz cannot be read' in line
    # The same command again makes them anew, and the same.
    assert launch(*SMALL, f'--workdir={tmp_path}/run') == 0
    assert summary(tmp_path / 'run')['test'] == summary(run)['test']
    ours, theirs = (np.load(folder / 'tables.npz') for folder in (tmp_path / 'run', run))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def rebuilt(run, **options):
    """The tables of the same parameters under other options."""
    experiment, codec, _ = reopen(run)
    data = experiment.task.prepare(codec)
    ready = prepare(experiment.replace('model', **options), codec)
    _, params = opened(run, experiment, codec)
    return ready.learner(1).finish(params, data), ready


def test_each_feature_can_be_left_out(run):
    """Its weight is 0 and stays so; without a language model there is none; phrases of one word are of one word."""
    names = ['phrase_inverse', 'lexical_inverse', 'phrase', 'lexical', 'phrases', 'words', 'distortion',
             'language_model']
    every = np.load(run / 'tables.npz')
    assert (every['weights'] != 0).all()
    for option, gone in (('lexical_weights', {1, 3}), ('phrase_penalty', {4}), ('word_penalty', {5}),
                         ('distortion', {6})):
        tables, _ = rebuilt(run, **{option: False}, tuning_sentences=8)
        assert set(np.flatnonzero(tables['weights'] == 0)) == gone, (option, names)
    tables, _ = rebuilt(run, language_model=0, phrase_length=1, tuning=False)
    assert tables['weights'][7] == 0
    assert not any('language_model' in name for name in tables)
    assert tables['phrases/source_PN'].shape[1] == 1
    assert tables['tuning_bleu'].shape == (0,)


def test_another_text_for_the_language_model(run, tmp_path):
    """It is counted from the file alone; words that the vocabulary has not are unknown in it."""
    (tmp_path / 'text').write_text('cent deux\n\ncent elephants\n' * 3, encoding='utf-8')
    tables, _ = rebuilt(run, language_model_text=str(tmp_path / 'text'), language_model=2, tuning=False)
    assert len(tables['language_model/grams_2']) == 5  # BOS cent, cent deux, cent UNK, deux EOS, UNK EOS
    with pytest.raises(UserError, match='does not exist'):
        rebuilt(run, language_model_text=str(tmp_path / 'nothing'), tuning=False)


def test_tuning_improves_on_the_validation_split(run):
    history = np.load(run / 'tables.npz')['tuning_bleu']
    assert len(history) == 2
    from sacrebleu.metrics import BLEU
    experiment, codec, _ = reopen(run)
    data = experiment.task.prepare(codec)
    scores = {}
    for tuning in (False, True):
        tables, ready = rebuilt(run, tuning=tuning, tuning_rounds=3, tuning_nbest=30)
        search = ready.experiment.model.search(None, tables, experiment.decoding, 64)
        lines = [codec.target.decode(search(data.ids['valid'][0].row(i))[0][0]) for i in range(20)]
        scores[tuning] = BLEU(force=True).corpus_score(lines, [data.text['valid'][1]]).score
    assert scores[True] > scores[False]


def test_what_does_not_go_together():
    smt = numerals('smt')
    with pytest.raises(UserError, match='SMT and Optimizer do not go together'):
        Experiment(task=Numerals(), model=SMT())
    with pytest.raises(UserError, match='SMT and Decoding do not go together'):
        dataclasses.replace(smt, decoding=Decoding())
    with pytest.raises(UserError, match='Transformer and Counting do not go together'):
        dataclasses.replace(smt, model=Transformer())
    with pytest.raises(UserError, match=r'--task.label_smoothing=0.1 is not read by SMT'):
        smt.replace('task', label_smoothing=0.1)
    with pytest.raises(UserError, match=r'--task.sampling=linear is not read by SMT'):
        smt.replace('task', sampling='linear')
    with pytest.raises(UserError, match='a table of 20000 x 10000 words is too large'):
        smt.sized(source_size=20_000, target_size=10_000, source_length=20)


def test_flags_of_gradient_descent_are_refused(tmp_path, capsys):
    for flag in ('--optimizer.learning_rate=1', '--model.hidden_size=8', '--decoding.temperature=2',
                 '--model.language_model_text=x', '--model.tuning_nbest=3'):
        off = ['--model.language_model=0', '--model.tuning=false']
        few = [word for word in SMALL if 'tuning' not in word]
        assert launch(*few, *off, f'--workdir={tmp_path}/run', flag) == 2
        assert flag.partition('=')[0].strip('-') in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()
