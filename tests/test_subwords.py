"""BPE-dropout: without dropout it is byte pair encoding; with it the cuts are those of the paper's algorithm 1."""

import collections
import itertools

import numpy as np
import pytest
from test_vocabulary import TEXTS
from tiny import flags, launch, records

from experiments.translation import numerals
from seqjax.data.batches import Batches, choose_shapes, longest_lengths
from seqjax.data.subwords import Cutter
from seqjax.data.vocabulary import EOS, Ragged, Vocabulary
from seqjax.prepared import plan_batches, prepare

RNG = np.random.default_rng(0)
WORDS = [''.join(RNG.choice(list('abcdeé漢'), RNG.integers(1, 12))) for _ in range(300)]


@pytest.fixture(scope='module')
def vocabulary():
    """Pieces of words with many pairs that repeat."""
    return Vocabulary.learn([*TEXTS, *WORDS, 'aaaa aaaaaaa abab ababab'], 'bpe', 400)


@pytest.mark.parametrize('lowercase', [False, True])
def test_without_dropout_it_is_byte_pair_encoding(lowercase):
    vocabulary = Vocabulary.learn(TEXTS + WORDS, 'bpe', 400, lowercase=lowercase)
    texts = [*TEXTS, *WORDS, 'aaaa aaa aaaaaaaaa', 'bbbbb abababa', '']
    ids, (redrawn,) = vocabulary.encode(texts), vocabulary.redraw(texts, 0.0, 1, 0)
    np.testing.assert_array_equal(redrawn.flat, ids.flat)
    np.testing.assert_array_equal(redrawn.offsets, ids.offsets)
    assert redrawn.flat.dtype == ids.flat.dtype


def test_with_all_merges_passed_over_it_is_bytes(vocabulary):
    redrawn, = vocabulary.redraw(WORDS, 1.0, 1, 0)
    assert redrawn.lengths.tolist() == [len(f' {word}'.encode()) + 1 for word in WORDS]


def test_no_text_has_no_rows(vocabulary):
    assert [draw.count() for draw in vocabulary.redraw([], 0.1, 2, 0)] == [0, 0]


def test_every_draw_decodes_to_the_text(vocabulary):
    ids = vocabulary.encode(TEXTS)
    draws = vocabulary.redraw(TEXTS, 0.3, 4, 0)
    assert len({tuple(draw.flat.tolist()) for draw in draws}) == 4
    for draw in draws:
        assert [vocabulary.decode(draw.row(i)) for i in range(len(TEXTS))] == [
            vocabulary.decode(ids.row(i)) for i in range(len(TEXTS))]
        assert (draw.flat == EOS).sum() == len(TEXTS)
        assert draw.flat[draw.offsets[1:] - 1].tolist() == [EOS] * len(TEXTS)


def test_draws_are_those_of_the_seed_and_differ_by_place(vocabulary):
    texts = ['ababab ababab ababab ababab'] * 20
    first, again, other = (vocabulary.redraw(texts, 0.3, 3, seed) for seed in ((1, 0), (1, 0), (1, 1)))
    assert all((a.flat == b.flat).all() for a, b in zip(first, again, strict=True))
    assert first[0].flat.tolist() != other[0].flat.tolist()
    assert len({tuple(first[0].row(i).tolist()) for i in range(20)}) > 3, 'places of a draw take cuts of their own'


def test_words_have_no_merges():
    with pytest.raises(ValueError, match='a word vocabulary has no merges to pass over'):
        Vocabulary.learn(['a b'], 'word', None).redraw(['a'], 0.1, 1, 0)


def outcomes(pieces, merges, dropout):
    """{pieces at the end: probability}, by every way in which merges can be passed over (Provilkov et al. 2020,
    algorithm 1)."""
    possible = [(merges.index(pair), i) for i, pair in enumerate(itertools.pairwise(pieces)) if pair in merges]
    found = collections.Counter()
    for passed in itertools.product((False, True), repeat=len(possible)):
        probability = np.prod([dropout if p else 1 - dropout for p in passed])
        left = [merge for merge, p in zip(possible, passed) if not p]
        if not left:
            found[pieces] += probability
            continue
        _, i = min(left)
        for end, share in outcomes((*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2:]), merges, dropout).items():
            found[end] += probability * share
    return found


@pytest.mark.parametrize('dropout', [0.1, 0.6])
@pytest.mark.parametrize('word', ['ab', 'aaa', 'abab', 'abcab', 'bcd'])
def test_the_cuts_have_the_probabilities_of_the_algorithm(word, dropout):
    merges = [('a', 'b'), ('a', 'a'), ('ab', 'c'), ('b', 'c'), ('ab', 'ab'), ('bc', 'd')]
    pieces = [*'abcd', *(left + right for left, right in merges)]
    cuts = Cutter({piece: i for i, piece in enumerate(pieces)}, merges).cut(
        [word] * 20_000, dropout, np.random.default_rng(0))
    seen = collections.Counter(tuple(pieces[i] for i in cut) for cut in cuts)
    expected = outcomes(tuple(word), merges, dropout)
    assert sum(expected.values()) == pytest.approx(1)
    assert seen.keys() <= expected.keys()
    for cut, probability in expected.items():
        spread = np.sqrt(probability * (1 - probability) / 20_000)
        assert abs(seen[cut] / 20_000 - probability) < 4 * spread + 1e-9, cut


def test_epochs_take_encodings_in_turn():
    rng = np.random.default_rng(1)
    encodings = [tuple(Ragged.of([[10 * draw + 5] * n for n in rng.integers(2, 20, 50)]) for _ in range(2))
                 for draw in range(3)]
    shapes = choose_shapes(*longest_lengths(encodings), count=3)
    batches = Batches(*encodings[0], 8, shapes, 0, (2, 2), encodings[1:])
    for epoch in range(7):
        rows = []
        for n in range(epoch * batches.batches_per_epoch, (epoch + 1) * batches.batches_per_epoch):
            batch = batches.batch(n)
            for side, ids in enumerate((batch.source, batch.target)):
                for row, there in zip(batch.row, ids):
                    expected = encodings[epoch % 3][side].row(row).tolist() if row >= 0 else []
                    assert there[there != 0].tolist() == expected
            rows += batch.row[batch.row >= 0].tolist()
            for part in range(4 if batch.room else 0):  # replica by replica, each dealt out to two micro-batches
                mine = slice(4 * (part // 2) + part % 2, 4 * (part // 2) + 4, 2)
                assert (batch.source[mine] != 0).sum() <= batch.room.source
                assert (batch.target[mine] != 0).sum() <= batch.room.target
        assert sorted(rows) == list(range(50))
    assert any(batches.batch(n).room for n in range(batches.batches_per_epoch))


def pieces_of(dropout, **task):
    """Number words as byte pairs, prepared, and the batches of training."""
    experiment = numerals('gru').replace('task', train_size=60, valid_size=9, test_size=9, highest=999, buckets=2,
                                         vocabulary='bpe', vocabulary_size=300, bpe_dropout=dropout, **task)
    experiment = experiment.replace('training', batch_size=8, mesh='data=1')
    data = experiment.task.prepare()
    return data, plan_batches(experiment, data, prepare(experiment, data.codec).placement)


def test_only_training_is_redrawn_and_no_row_outgrows_the_model():
    (plain, _), (_, as_it_is) = pieces_of(0.5), pieces_of(0.0)
    longest = max(int(side.lengths.max()) for pair in plain.ids.values() for side in pair)
    data, batches = pieces_of(0.5, max_length=longest)
    assert len(batches.encodings) == 8
    assert len(as_it_is.encodings) == 1
    for side, text in enumerate(data.text['train']):
        vocabulary = (data.codec.source, data.codec.target)[side]
        draws = vocabulary.redraw(text, 0.5, 8, (0, side))
        assert max(draw.lengths.max() for draw in draws) > longest, 'or nothing would be tried'
        for draw, there in zip(draws, (pair[side] for pair in batches.encodings), strict=True):
            for row in range(60):
                whole = draw.lengths[row] > longest
                np.testing.assert_array_equal(there.row(row), (data.ids['train'][side] if whole else draw).row(row))
    for name in ('valid', 'test'):
        for side, text in enumerate(data.text[name]):
            np.testing.assert_array_equal(data.ids[name][side].flat,
                                          (data.codec.source, data.codec.target)[side].encode(text).flat)


def test_a_run(tmp_path, capfd):
    losses = {}
    for dropout in (0.0, 0.5):
        workdir = tmp_path / str(dropout)
        assert launch(*flags(workdir, '--task.vocabulary=bpe', '--task.vocabulary_size=300', '--training.steps=2',
                             '--training.log_every=1', '--decoding.max_length=20',
                             f'--task.bpe_dropout={dropout}')) == 0
        losses[dropout] = [record['loss'] for record in records(workdir)]
    assert all(np.isfinite(losses[0.5]))
    assert losses[0.0] != losses[0.5]
    capfd.readouterr()
    assert launch(*flags(tmp_path / 'none', '--task.bpe_dropout=0.1')) == 2
    assert capfd.readouterr().err == ('error: --task.bpe_dropout=0.1 is not read with --task.vocabulary=word; drop it, '
                                      'or set --task.vocabulary=bpe\n')
