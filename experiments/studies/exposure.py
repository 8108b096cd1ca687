"""Does a decoder that has read true words only know what to do with its own? Teacher forcing against sampling."""

import math
from typing import Any

import numpy as np

from seqjax.studies import charts
from seqjax.studies.axes import Settings, cross, lasting
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row, Table, difference, interval, log_ratio
from seqjax.tasks.by_position import by_place, middle_places
from seqjax.tasks.prefixes import Reading, by_distance, mistakes, right_after

__all__ = ['exposure']

PLACES = 6
FARTHEST = 8
NEAR = 3  # words after a wrong one in which to recover
LEVEL = 1.5  # nats a token: the loss that is to be reached


def exposure(form: Form = 'full') -> Study:
    """A decoder taught with true words alone is worse on its own; one that was taught with some of its own, less so.

    Bengio et al. 2015: what is read in training is not what is read in use, errors add up along the sentence, and
    words of the model's own in training (a share that grows from 0 to 3/4 here; step by step, in the Transformer in two
    passes, Mihaylova and Martins 2019) mend it. Numbers below 10^9 into French, and short training, for a model that
    makes no mistakes has no gap. Places are compared as they are: after an extra word all the rest is wrong. A wrong
    word is put a third of the way along, and true ones, or the model's own, follow it.

    python launch.py --study=exposure [--quick | --smoke]
    Cost: 27 runs of 400 steps, ten minutes with one worker on one of two cores.
    """
    sizes = {'full': dict(steps=400, width=32, rows=400), 'quick': dict(steps=200, width=32, rows=200),
             'smoke': dict(steps=4, width=8, rows=12)}[form]
    steps = sizes['steps']
    base = {'experiment': 'numerals', 'task.highest': 10**9 - 1, 'task.max_length': 40, 'task.buckets': 1,
            'task.metric': 'loss', 'task.valid_size': 200, 'task.valid_sentences': 1, 'task.test_size': sizes['rows'],
            'training.batch_size': 64, **lasting(steps, 20), 'model.num_layers': 1, 'model.hidden_size': sizes['width'],
            'model.dropout': 0.0, 'optimizer.learning_rate': 3e-3, 'optimizer.schedule': 'linear',
            'optimizer.warmup_steps': min(50, steps // 2), 'optimizer.clip_norm': 1.0}
    models: list[Settings] = [
        {'model': 'gru', 'model.hidden_size': 2 * sizes['width'], 'model.embedding_size': 32},
        {'model': 'bahdanau', 'model.embedding_size': 32},
        {'model': 'transformer', 'model.num_layers': 2, 'model.num_heads': 2,
         'model.feedforward_size': 4 * sizes['width']}]
    ways: list[Settings] = [
        {'task.sampling': 'none'},
        {'task.sampling': 'linear', 'task.sampling_slope': 1 / steps, 'task.sampling_floor': 0.25},
        {'task.sampling': 'constant', 'task.sampling_share': 1.0}]
    if form != 'full':
        models, ways = (models[:2] if form == 'quick' else models[:1]), ways[:2]
    if form == 'smoke':
        base |= {'task.highest': 999, 'task.train_size': 100, 'task.valid_size': 10, 'task.max_length': 16,
                 'training.batch_size': 16, 'training.evaluate_every': 2}
    return Study(
        claim="A decoder taught with true words alone is worse on its own words, the more the further on; taught with "
              'some of its own it loses less, recovers sooner from a wrong word, and needs more steps to a given loss.',
        source='Bengio et al. 2015, sections 2.2 to 2.4 and table 1',
        expect='A gap of some points that grows along the sentence and that sampling narrows; a smaller one with '
               'attention, which finds its place in the source again; nothing gained from own words alone.',
        base=base, axes=cross(models, ways), measure=measure, verdict=verdict, figures=figures, floors=Subject.floors,
        seeds={'full': 3, 'quick': 2, 'smoke': 1}[form],
        published=[{'published': f'{name} (Bengio et al. 2015, table 1), MSCOCO captions', 'bleu': bleu}
                   for name, bleu in (('teacher forcing', 28.8), ('always sampling', 11.2),
                                      ('scheduled sampling', 30.6))],
        shown=(('model', 'task.sampling'),
               ('forced', 'free', 'gap', 'gap_beginning', 'gap_end', 'recovered', 'lost', 'steps_to_loss',
                'exact_match', 'bleu', 'nll', 'parameters')))


def measure(subject: Subject) -> list[Row]:
    """Words right after true ones and after own ones, over all and by place; by distance from a wrong word; and steps
    to the loss of `LEVEL` on the validation split."""
    source, target = subject.data.ids['test']
    wrong = mistakes(target, subject.codec.target.size)
    readings = {(reads, injected): Reading(reads == 'own', wrong if injected else None)
                for reads in ('true', 'own') for injected in (False, True)}
    rights = dict(zip(readings, right_after(subject.evaluator, subject.params, source, target,
                                            subject.composed.decoding, list(readings.values()))))
    forced, free = rights['true', False], rights['own', False]
    places = [middle_places(len(right)) for right in forced]
    at = {name: by_place([100.0 * right for right in found], places, PLACES)
          for name, found in (('forced', forced), ('free', free))}
    gaps = np.subtract(at['forced'], at['free'])
    # Own words after a wrong one are set against true ones without it, since both read true words up to there.
    after = {key: 100 * np.array(by_distance(found, wrong[0], FARTHEST)) for key, found in rights.items()}
    lost = {reads: after['true', False] - after[reads, True] for reads in ('true', 'own')}
    whole = {name: 100 * float(np.mean(np.concatenate(found))) for name, found in (('forced', forced), ('free', free))}
    curve = [record for record in subject.records if record['split'] == 'valid']
    test = subject.summary['test']
    rows: list[Row] = [{
        **whole, 'gap': whole['forced'] - whole['free'], 'gap_beginning': float(gaps[:PLACES // 3].mean()),
        'gap_end': float(gaps[-(PLACES // 3):].mean()), 'recovered': float(np.nanmean(after['true', True][:NEAR])),
        'lost': float(np.nanmean(lost['true'][:NEAR])), 'lost_own': float(np.nanmean(lost['own'][:NEAR])),
        'steps_to_loss': reached([r['step'] for r in curve], [r['nll'] for r in curve], LEVEL),
        'exact_match': test['exact_match'], 'bleu': test['bleu'], 'nll': test['nll'],
        'parameters': subject.summary['parameters']}]
    rows += [{'place': (place + 0.5) / PLACES, 'gap_at': float(gap)} for place, gap in enumerate(gaps)]
    rows += [{'reads': reads, 'distance': distance, 'lost_at': float(value)} for reads in lost
             for distance, value in enumerate(lost[reads], 1) if np.isfinite(value)]
    return rows


def reached(steps: list[int], losses: list[float], level: float) -> float:
    """The step at which a loss first is `level`, on straight lines between records; the last step where it never is:
    it takes that many at least."""
    for i, loss in enumerate(losses):
        if loss <= level:
            if not i:
                return float(steps[0])
            share = (losses[i - 1] - level) / (losses[i - 1] - loss)
            return steps[i - 1] + share * (steps[i] - steps[i - 1])
    return float(steps[-1])


def verdict(table: Table) -> Verdict:
    """The gap of teacher forcing and its growth; what sampling narrows, recovers and costs. Means over the models."""
    forced, sampled = (table.where({'task.sampling': way}) for way in ('none', 'linear'))
    models = forced.values('model')

    def each(column: str, ours: Table, theirs: Table | None = None) -> str:
        """The numbers of the models, for the sentence."""
        return ', '.join('{} {:+.1f}'.format(model, interval(ours.where({'model': model}).column(column)).mean - (
            interval(theirs.where({'model': model}).column(column)).mean if theirs else 0)) for model in models)

    gap = forced.interval('gap')
    grows = interval([forced.per_seed('gap_end')[seed] - value
                      for seed, value in forced.per_seed('gap_beginning').items()])
    narrowed = difference(forced, sampled, 'gap')
    saved = difference(forced, sampled, 'lost')
    steps = log_ratio(sampled, forced, 'steps_to_loss', math.log(2))
    return all_of([
        decide(narrowed, 1, f'Sampling narrows the gap by {narrowed.mean:.1f} points '
                            f'({each("gap", forced, sampled)}).', 'points of words right'),
        decide(gap, 1, f'Teacher forcing alone leaves one of {gap.mean:.1f} ({each("gap", forced)}).'),
        decide(grows, 1, f'It is {grows.mean:.1f} points wider at the end than at the beginning.'),
        decide(saved, 1, f'Of the {NEAR} words after a wrong one sampling saves {saved.mean:.1f} points '
                         f'({each("lost", forced, sampled)}).'),
        decide(steps, 0.05, f'To a loss of {LEVEL:g} it takes {2 ** steps.mean:.2f} times as many steps.')])


def figures(table: Table) -> dict[str, Any]:
    """The gap along the sentence, and what a wrong word costs the words after it, for each model."""
    models = table.values('model')
    figure, axes = charts.panels(1, len(models), width=4.0)
    for axis, model in zip(axes[0], models):
        charts.lines(table.where({'model': model}), 'place', 'gap_at', 'task.sampling', axis=axis, title=model,
                     xlabel='place in the target: 0 beginning, 1 end', ylabel='lost on own words, points')
    found = {'gap between true and own words, by place': figure}
    figure, axes = charts.panels(2, len(models), width=4.0)
    for line, reads in zip(axes, ('true', 'own')):
        for axis, model in zip(line, models):
            charts.lines(table.where({'model': model, 'reads': reads}), 'distance', 'lost_at', 'task.sampling',
                         axis=axis, xlabel='words after a wrong one', ylabel='lost, points',
                         title=f'{model}, {reads} words after it')
    return found | {'recovery from a wrong word': figure}
