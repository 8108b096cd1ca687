"""The verdicts of ladder, prefix and inversion on made-up results, each way; and the sizes that they promise."""

import jax
import numpy as np
import pytest
from test_studies_verdicts import table

from experiments.studies import ladder as ladders
from experiments.studies import prefix as prefixes
from seqjax import catalogue
from seqjax.data import numerals
from seqjax.prepared import parameter_count, prepare
from seqjax.studies import trials
from seqjax.studies.passes import random_batch, step_flops
from seqjax.studies.subject import Subject
from seqjax.studies.table import Table
from seqjax.tasks.corpora import Numerals


def ladder(smt=95.0, fixed=90.0, attentive=99.0, lost=(40.0, 90.0), lost_smt=(60.0, 95.0), spread=0.1):
    """The statistical system, three fixed vectors and five systems with attention, at home and abroad."""
    lines = []
    for model in ('smt', *ladders.SIZES):
        match = smt if model == 'smt' else attentive if model in ladders.ATTENTIVE else fixed
        away = lost_smt if model == 'smt' else lost
        lines.append(({'model': model}, {'exact_match': match, 'hole': match - away[0], 'beyond': match - away[1]}))
    made = table(lines, spread, {'model': 'smt'})
    # What is lost moves by the seeds too, not only what it is lost from.
    return Table.of({**row, 'hole': row['hole'] - (row['model'] == 'smt') * 2 * spread * (row['training.seed'] - 1)}
                    for row in made.rows)


def prefix(two=0.10, same_size=0.11, same_cost=0.15, mask=0.7, aer=(20.0, 21.0), spread=0.0005):
    """An encoder-decoder, and stacks of as many parameters and of as much compute with either mask."""
    lines = [({'model': 'transformer', 'model.num_layers': 2}, {'nll': two, 'aer_head': aer[0]})]
    for layers, loss in ((4, same_size), (2, same_cost)):
        lines += [({'model': 'decoderonly', 'model.num_layers': layers, 'model.prefix_mask': kind},
                   {'nll': loss * gain, 'aer_head': aer[1]}) for kind, gain in (('causal', 1.0), ('prefix', mask))]
    return table(lines, spread, {'model.prefix_mask': 'causal'})


def inversion(bahdanau=90.0, luong=95.0, transformer=97.0, spread=0.5):
    """Three systems with attention and the statistical one."""
    return table([({'model': model}, {'crossings_found': found, 'exact_crossing': 99.0}) for model, found in (
        ('smt', 99.0), ('bahdanau', bahdanau), ('luong', luong), ('transformer', transformer))], spread, {})


MADE = {'ladder': ladder, 'prefix': prefix, 'inversion': inversion}
CASES = [
    ('ladder', {}, 'supported'),
    ('ladder', dict(smt=99.5), 'not supported'),
    ('ladder', dict(fixed=99.5), 'not supported'),
    ('ladder', dict(lost_smt=(5.0, 95.0)), 'not supported'),
    ('ladder', dict(lost_smt=(60.0, 20.0)), 'not supported'),
    ('ladder', dict(smt=98.9, spread=1.0), 'undecided'),
    ('prefix', {}, 'supported'),
    ('prefix', dict(same_cost=0.10), 'not supported'),
    ('prefix', dict(mask=1.0), 'not supported'),
    ('prefix', dict(aer=(20.0, 40.0)), 'not supported'),
    ('prefix', dict(aer=(40.0, 20.0)), 'supported'),
    ('prefix', dict(same_cost=0.11, spread=0.01), 'undecided'),
    ('inversion', {}, 'supported'),
    ('inversion', dict(bahdanau=10.0), 'not supported'),
    ('inversion', dict(luong=10.0), 'not supported'),
    ('inversion', dict(transformer=10.0), 'not supported'),
    ('inversion', dict(transformer=75.0, spread=3.0), 'undecided'),
]


@pytest.mark.parametrize(('name', 'numbers', 'answer'), CASES, ids=str)
def test_verdicts_come_out_each_way(name, numbers, answer):
    found = catalogue.load('study', name)('full').verdict(MADE[name](**numbers))
    assert found.answer == answer, found.sentence
    assert found.low <= found.effect <= found.high


@pytest.mark.parametrize('name', list(MADE))
def test_one_seed_decides_nothing(name):
    one = MADE[name]().where({'training.seed': 0})
    assert catalogue.load('study', name)('full').verdict(one).answer == 'undecided'


def test_effects_are_those_of_the_numbers():
    effect = {name: catalogue.load('study', name)('full').verdict(made()).effect for name, made in MADE.items()}
    assert effect == pytest.approx({'ladder': 4.0, 'prefix': 100 * np.log(1.5), 'inversion': 90.0}, rel=0.01)


def test_the_sentence_says_who_loses_more():
    sentence = catalogue.load('study', 'ladder')('full').verdict(ladder()).sentence
    assert 'in a range that was left out, the statistical system loses 60.0 points, they lose 40.0.' in sentence
    assert 'beyond the longest number, the statistical system loses 95.0 points, they lose 90.0.' in sentence


def sized(name, tmp_path, keep):
    """{trial's name: its subject} of the first seed, on the study's own data, read once."""
    study, read = catalogue.load('study', name)('full'), trials.once()
    return {job.name: Subject(tmp_path, job.recipe.experiment, False, read) for job in trials.jobs(study)
            if job.trial.settings['training.seed'] == 0 and keep(job)}


def parameters(subject):
    return parameter_count(jax.eval_shape(prepare(subject.composed, subject.codec).initialise, jax.random.key(0)))


def test_the_networks_of_the_ladder_are_equally_large(tmp_path):
    sizes = {name: parameters(subject) for name, subject in
             sized('ladder', tmp_path, lambda job: job.trial.model != 'smt').items()}
    assert len(sizes) == 9
    assert all(size == pytest.approx(150_000, rel=0.1) for size in sizes.values()), sizes
    steps = {job.recipe.experiment.training.steps for job in trials.jobs(ladders.ladder()) if job.trial.model != 'smt'}
    assert steps == {800}


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
    away = ladders.abroad(Numerals(), 50)
    assert away == ladders.abroad(Numerals(), 50)
    low, beyond = (sources for sources, _ in away.values())
    assert all(line.split()[0].partition('-')[0] in ('thirty', 'forty') for line in low)
    assert all('hundred' in line.partition(' thousand')[0] for line in beyond)
    known = {word for line in numerals.words(range(1000), 'en') for word in line.split()} | {'thousand'}
    assert {word.rstrip(',') for line in low + beyond for word in line.split()} <= known
