"""Ladder and prefix: the sizes that they promise, data that was never seen, and what the verdict says in words."""

import types

import jax
import numpy as np
import pytest
from made_results import ladder, verdict

from experiments.studies import ladder as ladders
from experiments.studies import prefix as prefixes
from seqjax import catalogue
from seqjax.data import numerals
from seqjax.errors import UserError
from seqjax.prepared import parameter_count, prepare
from seqjax.studies import trials
from seqjax.studies.passes import random_batch, step_flops
from seqjax.studies.subject import Subject
from seqjax.studies.table import Table
from seqjax.tasks.corpora import Numerals


def test_the_sentence_says_who_loses_more():
    sentence = verdict('ladder', ladder()).sentence
    assert 'in a range that was left out, the statistical system loses 60.0 points, they lose 40.0.' in sentence
    assert 'beyond the longest number, the statistical system loses 95.0 points, they lose 90.0.' in sentence


def test_on_text_the_share_of_bleu_that_is_lost_counts():
    rows = [{'model': model, 'training.seed': seed, 'bleu_lowercase': home + seed, 'bleu_tales': (home + seed) * share}
            for model, home, share in (('smt', 20.0, 0.5), ('gru', 10.0, 0.1), ('bahdanau', 30.0, 0.2),
                                       ('transformer', 30.0, 0.2)) for seed in range(3)]
    found = ladders.verdict(Table.of(rows), ('tales',), 'bleu_lowercase')
    assert found.answer == 'not supported'
    assert found.effect == pytest.approx(10.0)
    assert 'on tales, the statistical system loses 50.0 % of its BLEU, they lose 80.0. (not' in found.sentence
    more = ladders.verdict(Table.of([row if row['model'] != 'smt' else row | {'bleu_tales': 1.0} for row in rows]),
                           ('tales',), 'bleu_lowercase')
    assert more.answer == 'supported'


def test_other_text_is_read_by_columns_drawn_evenly_and_refused_in_a_line(tmp_path):
    rows = [(f'wort {i}', f'word {i}') for i in range(40)] + [('lang ' * 16, 'long'), ('', 'nothing')]
    (tmp_path / 'tales.tsv').write_text(''.join(f'{target}\t{source}\n' for source, target in rows))
    found = ladders.elsewhere(f'{tmp_path}/tales.tsv:2,1', 30)
    sources, targets = found['tales']
    assert len(set(sources)) == 30
    assert all((source, target) in rows[:40] for source, target in zip(sources, targets))
    assert max(sources.index(source) != rows.index((source, target)) for source, target in zip(sources, targets))
    assert len(ladders.elsewhere(f'{tmp_path}/tales.tsv:2,1', 100)['tales'][0]) == 40
    assert ladders.elsewhere('', 5) == {}
    (tmp_path / 'long.tsv').write_text('lang ' * 16 + '\tlong\n')
    for words, reason in ((f'{tmp_path}/long.tsv', 'long.tsv has no pair of 1 to 75'),
                          (f'{tmp_path}/tales.tsv {tmp_path}/tales.tsv', 'two files tales'),
                          (f'{tmp_path}/tales.tsv:2', 'no two columns'), (f'{tmp_path}/none.tsv', 'does not exist')):
        with pytest.raises(UserError, match=reason):
            ladders.elsewhere(words, 5)


def sized(name, tmp_path, keep):
    """{trial's name: its subject} of the first seed, on the study's own data, read once."""
    study, read = catalogue.load('study', name)('full'), trials.once()
    return {job.name: Subject(tmp_path, job.recipe.experiment, False, read) for job in trials.jobs(study)
            if job.trial.settings['training.seed'] == 0 and keep(job)}


def parameters(subject):
    return parameter_count(prepare(subject.composed, subject.codec).abstract_params())


def test_the_networks_of_the_ladder_are_equally_large(tmp_path):
    sizes = {name: parameters(subject) for name, subject in
             sized('ladder', tmp_path, lambda job: job.trial.model != 'smt').items()}
    assert len(sizes) == 9
    assert all(size == pytest.approx(150_000, rel=0.1) for size in sizes.values()), sizes
    steps = {job.recipe.experiment.training.steps for job in trials.jobs(ladders.ladder()) if job.trial.model != 'smt'}
    assert steps == {800}


def test_the_networks_on_text_are_equally_large(tmp_path):
    sizes = {}
    for job in trials.jobs(ladders.ladder('full', str(tmp_path))):
        if job.trial.model != 'smt':
            model = job.recipe.experiment.sized(source_size=8000, target_size=8000, source_length=80, target_length=80,
                                                length_ratio=1.0).model
            sizes[job.trial.model] = parameter_count(jax.eval_shape(
                model.init, jax.random.key(0), np.ones((1, 2), np.int32), np.ones((1, 2), np.int32))['params'])
    assert set(sizes) == set(ladders.TEXT_SIZES)
    assert all(size == pytest.approx(5.3e6, rel=0.02) for size in sizes.values()), sizes


def test_trivial_methods_on_text_are_scored_in_lower_case():
    text = ['Ein Hund läuft neben dem Haus'] * 5
    subject = types.SimpleNamespace(data=types.SimpleNamespace(text={'train': (text, text), 'test': (
        text, [line.upper() for line in text])}))
    home, abroad = ({row['floor']: row[column] for row in ladders.trivial(subject, {'tales': (
        text, [line.lower() for line in text])}, 'bleu_lowercase')} for column in ('bleu_lowercase', 'bleu_tales'))
    assert home['copy of the source'] == abroad['copy of the source'] == pytest.approx(100)
    assert home['most frequent word'] < 50


def test_one_stack_is_as_large_or_as_dear_as_two(tmp_path):
    found = {}
    for subject in sized('prefix', tmp_path, lambda job: True).values():
        model = subject.composed.model
        kind = prefixes.system({'model': type(model).__name__.lower(), 'model.num_layers': model.num_layers})
        found.setdefault(kind, []).append((parameters(subject), step_flops(subject, random_batch(
            subject.model, 64, 16, 16))))
    (two,), large, cheap = (found[name] for name in (prefixes.TWO, prefixes.SAME_SIZE, prefixes.SAME_COST))
    for size, cost in large:
        assert size == pytest.approx(two[0], rel=0.02)
        assert cost == pytest.approx(2 * two[1], rel=0.05)
    for size, cost in cheap:
        assert cost == pytest.approx(two[1], rel=0.02)
        assert size < 0.55 * two[0]
    # 28 D^2 weights, each used once for each of 16 + 16 tokens of 64 rows, forwards and twice backwards; the scores of
    # attention and the output come on top.
    assert 1.0 < two[1] / (3 * 2 * 28 * 64**2 * 64 * 32) < 1.2


def test_domains_were_never_seen():
    left = numerals.splits('digits', 'digits', ladders.HIGHEST, 3000, 100, 100, left_out=ladders.HOLE)
    seen = {int(line.replace(' ', '')) for sources, _ in left.values() for line in sources}
    assert not any(ladders.HOLE[0] <= n <= ladders.HOLE[1] for n in seen)
    away = ladders.numbers(Numerals(), 50)
    assert away == ladders.numbers(Numerals(), 50)
    low, beyond = (sources for sources, _ in away.values())
    assert all(line.split()[0].partition('-')[0] in ('thirty', 'forty') for line in low)
    assert all('hundred' in line.partition(' thousand')[0] for line in beyond)
    known = {word for line in numerals.words(range(1000), 'en') for word in line.split()} | {'thousand'}
    assert {word.rstrip(',') for line in low + beyond for word in line.split()} <= known
