"""What a recipe is worth: published rungs like for like, and what each ingredient of the best recipe gives."""

import dataclasses
import itertools
import pathlib
from typing import Any, NamedTuple

import numpy as np

from seqjax.errors import UserError
from seqjax.studies import charts
from seqjax.studies.axes import Settings
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Interval, Row, Table, difference
from seqjax.tasks import scores as metrics

__all__ = ['recipes']

SCORE = 'bleu_lowercase'
AVERAGED = 5  # last scheduled checkpoints
# Ingredients of training: what a run without each has instead.
WITHOUT: dict[str, Settings] = {
    'BPE': {'task.vocabulary': 'word'}, 'warm-up': {'optimizer.warmup_steps': 0},
    'smoothing': {'task.label_smoothing': 0.0}}
# How a trained run is read: (weights, search), from like for like to all there is, an ingredient more each time.
LIKE_FOR_LIKE, ALL = ('best', 'greedy'), ('averaged', 'beam, penalised')
READINGS = {LIKE_FOR_LIKE: '', ('best', 'beam'): 'a beam', ('best', 'beam, penalised'): 'the length penalty',
            ALL: 'averaging'}
SEARCHES: dict[str, Settings] = {
    'greedy': {'method': 'greedy'}, 'beam': {'method': 'beam', 'beam_size': 5, 'length_penalty': 0.0},
    'beam, penalised': {'method': 'beam', 'beam_size': 5, 'length_penalty': 1.5}}  # chosen on validation


class Rung(NamedTuple):
    """What was published of a model (bentrevett: 10 epochs, batches of 128, greedy, lower-cased), and by how much more
    ours is to be better."""

    title: str
    bleu: float
    parameters: int
    margin: float


RUNGS = {'lstm': Rung('LSTM', 13.76, 13_898_501, 1.0), 'gru': Rung('GRU', 20.61, 14_219_781, 1.0),
         'bahdanau': Rung('GRU with additive attention', 28.30, 20_518_405, 1.0),
         'transformer': Rung('Transformer', 36.52, 9_038_341, 2.0)}
# In place of the rung's: of the best recipe, and of the runs that show what each of its ingredients gives.
LONG: Settings = {'training.epochs': 24, 'model.dropout': 0.25}
SMALL: Settings = {'training.epochs': 4, 'model.hidden_size': 128, 'model.num_heads': 4, 'model.feedforward_size': 512}
REACH = 41.5  # the BLEU that it is to reach


def recipes(form: Form = 'full', text: str | None = None) -> Study:
    """What subwords, warm-up, smoothing, averaging and a beam each give a Transformer; on captions, against published.

    A Transformer on number words with all five ingredients, and without one of them at a time. Averaging and the search
    are read off the same runs: the best checkpoint greedily, with a beam of five that compares log probabilities, with
    one that divides them by ((5 + length) / 6)^1.5 (Wu et al. 2016, equation 14); then the mean of the last five so.

    On real text the published rungs like for like, and the best recipe: `on_text`.

    python launch.py --study=recipes [--quick | --smoke]
    python launch.py --study=recipes --text=DIR --seeds=1
    Cost: 12 runs of 400 steps, 14 minutes on two cores with --workers=2; what text costs: `on_text`.
    """
    if text is not None:
        return on_text(form, text)
    steps, rows = {'full': (400, 500), 'quick': (150, 200), 'smoke': (6, 6)}[form]
    every = max(1, steps // 20)
    axes = [{}, *WITHOUT.values()] if form != 'smoke' else [{}, WITHOUT['smoothing']]
    small = {'model.hidden_size': 8, 'model.feedforward_size': 8, 'model.num_layers': 1} if form == 'smoke' else {}
    return Study(
        claim='Subwords, warm-up, label smoothing, averaged checkpoints and a beam each make the translations of a '
              'Transformer better.',
        source='Sennrich et al. 2016; Vaswani et al. 2017, sections 5.3, 5.4 and 6.1; Wu et al. 2016, section 7',
        expect='On number words, of which all are known, subwords change nothing, and hardly anything else does.',
        base={'experiment': 'numerals', 'model': 'transformer', 'training.steps': steps, 'training.keep': AVERAGED + 1,
              'training.evaluate_every': every, 'training.checkpoint_every': every, 'task.vocabulary': 'bpe',
              'task.vocabulary_size': 320, 'task.label_smoothing': 0.1, 'task.metric': SCORE, 'task.train_size':
              3000 if form == 'full' else 1000, 'task.valid_size': min(200, rows), 'task.test_size': rows,
              'task.buckets': 1, 'optimizer.schedule': 'linear', 'optimizer.warmup_steps': min(100, steps // 2),
              'optimizer.beta2': 0.98, **small},
        axes=axes, measure=measure, verdict=verdict, figures=figures,
        seeds={'full': 3, 'quick': 2, 'smoke': 1}[form],
        shown=(('without', 'weights', 'search'), (SCORE, 'chrf', 'exact_match', 'parameters', 'steps', 'seconds')))


def on_text(form: Form, text: str) -> Study:
    """The rungs of the published ladder on Multi30k, like for like, and what its best recipe is made of.

    Like for like: the recipes of --experiment=multi30k, whose models are smaller than the published ones and see the
    text no more often, read greedily at their best checkpoint. The best recipe: the Transformer for 24 epochs with
    more dropout, averaged, with a penalised beam. Ingredients: a Transformer of half the width for four epochs, with
    all of them, and without each.

    Args:
      text: a folder as --experiment=multi30k reads it.

    Cost: 9 runs a seed, five hours of a core; --workers=2 uses two.

    Raises:
      UserError: `text` is no folder.
    """
    if not pathlib.Path(text).is_dir():
        raise UserError(f'--text={text} is no folder; name the folder of train.de, train.en, val.* and '
                        'test_2016_flickr.*, as --task.path of --experiment=multi30k')
    axes = [*({'model': model} for model in RUNGS),
            *({'model': 'transformer', **SMALL, **settings} for settings in ({}, *WITHOUT.values())),
            {'model': 'transformer', **LONG}]
    if form != 'full':  # steps, in place of epochs
        steps = {'quick': 20, 'smoke': 5}[form]
        short = {'training.epochs': None, 'training.steps': steps, 'training.checkpoint_every': steps // 5,
                 'task.valid_sentences': 2, 'optimizer.warmup_steps': steps // 2}
        axes = [short | {'model': model} for model in RUNGS][:None if form == 'quick' else 1]
    return Study(
        claim='An LSTM, a GRU, a GRU with attention and a Transformer, each smaller than published and trained no '
              'longer, translate captions at least a BLEU better than published, the Transformer two, and with the '
              f'best recipe {REACH}.',
        source='bentrevett, pytorch-seq2seq, notebooks 1 to 3 and legacy 6; what helps: Sennrich et al. 2016; Vaswani '
               'et al. 2017, sections 5.3, 5.4 and 6.1; Wu et al. 2016, section 7',
        expect='Rungs of fixed vectors gain most by their recipe, for they were trained on their own outputs half of '
               'the time; the Transformer gains by a rate that falls, by smoothing and by a beam, about one each.',
        base={'experiment': 'multi30k', 'task.path': text, 'training.keep': AVERAGED + 1},
        axes=axes, measure=measure, verdict=verdict_on_text, figures=figures_on_text,
        seeds={'full': 3, 'quick': 1, 'smoke': 1}[form],
        published=[{'published': f'{rung.title} (bentrevett)', 'epochs': 10, 'weights': 'best', 'search': 'greedy',
                    SCORE: rung.bleu, 'parameters': rung.parameters} for rung in RUNGS.values()],
        shown=(('model', 'epochs', 'without', 'weights', 'search'),
               (SCORE, 'bleu', 'chrf', 'nll', 'parameters', 'steps', 'seconds')))


def measure(subject: Subject) -> list[Row]:
    """A row for each reading of the run's parameters: scores of the test split, and BLEU of resampled ones.

    Runs without an ingredient are read with all that is left.
    """
    composed, summary = subject.composed, subject.summary
    missing = lacking(composed)
    sources, references = subject.data.text['test']
    params = {'best': subject.params, 'averaged': subject.averaged(AVERAGED)}
    rows = []
    for weights, search in [ALL] if missing else READINGS:
        decoding = dataclasses.replace(composed.decoding, **SEARCHES[search])
        lines = [best[0].text for best in subject.evaluator.predict(params[weights], sources, decoding)]
        values, _ = metrics.summary(lines, references)
        found = metrics.resampled(lines, references, lowercase=True)
        rows.append({'epochs': composed.training.epochs, 'without': missing or 'none', 'weights': weights,
                     'search': search, **values, 'resampled': [round(float(value), 3) for value in found.values],
                     'parameters': summary['parameters'], 'steps': summary['steps'],
                     'seconds': summary['time']['training_seconds'],
                     **({'nll': summary['test']['nll']} if weights == 'best' else {})})
    return rows


def lacking(composed: Any) -> str:
    """The ingredient that an experiment is trained without; ''."""
    def has(settings: Settings) -> bool:
        parts = ((*name.split('.'), value) for name, value in settings.items())
        return all(getattr(getattr(composed, group), option) == value for group, option, value in parts)

    return next((name for name, settings in WITHOUT.items() if has(settings)), '')


def read(table: Table, reading: tuple[str, str] = ALL, without: str = 'none', **settings: Any) -> Table:
    """The rows of one reading of the runs with these settings."""
    return table.where({'without': without, 'weights': reading[0], 'search': reading[1], **settings})


def gains(table: Table) -> dict[str, tuple[Table, Table]]:
    """{ingredient: (rows with it, rows without it)}, of those that have both."""
    pairs = {name: (read(table), read(table, without=name)) for name in WITHOUT}
    for before, after in itertools.pairwise(READINGS):
        pairs[READINGS[after]] = read(table, after), read(table, before)
    return {name: pair for name, pair in pairs.items() if all(pair)}


def given(table: Table) -> list[Verdict]:
    """What each ingredient gives, over seeds."""
    found = []
    for name, (ours, theirs) in gains(table).items():
        gain = difference(ours, theirs, SCORE)
        found.append(decide(gain, 0, f'{name[:1].upper()}{name[1:]} gives {gain.mean:+.2f} BLEU.', 'BLEU'))
    return found


def verdict(table: Table) -> Verdict:
    """Each ingredient gives something."""
    return all_of(given(table))


def sure(table: Table) -> metrics.Resampled:
    """BLEU of the test split and of resampled ones, the mean over seeds."""
    return metrics.Resampled(float(np.mean(table.column(SCORE))), np.mean(table.column('resampled'), axis=0))


def rung(table: Table, model: str, reading: tuple[str, str] = LIKE_FOR_LIKE) -> Table:
    """The rows of a model's own recipe, and of no other length."""
    return read(table, reading, model=model).where(lambda row: row.get('training.epochs') is None)


def ingredients(table: Table) -> Table:
    """The rows of the runs that show what an ingredient gives."""
    return table.where({'model': 'transformer', **SMALL})


def verdict_on_text(table: Table) -> Verdict:
    """Each rung above the published one, and the best recipe above its mark; how sure the order is, and what each
    ingredient gave, in words."""
    parts = [over(rung(table, model), RUNGS[model].bleu, RUNGS[model].margin, f'{RUNGS[model].title} like for like')
             for model in reversed(RUNGS)]
    best = max(read(table, model='transformer').groups('training.epochs').values(), default=Table.of([]),
               key=lambda part: part.interval(SCORE).mean)
    found = all_of([*parts, over(best, REACH, 0, 'The best recipe')])
    run = [model for model in RUNGS if rung(table, model)]
    told = [against(rung(table, second), rung(table, first), f'{RUNGS[second].title} over {RUNGS[first].title}')
            for first, second in itertools.pairwise(run)]
    told += [against(*pair, name) for name, pair in gains(ingredients(table)).items()]
    return dataclasses.replace(found, sentence=' '.join([found.sentence, *told]))


def over(ours: Table, published: float, margin: float, name: str) -> Verdict:
    """Whether rows are better by a margin than a published number."""
    if not ours:
        return Verdict('undecided', f'{name}: not run.')
    score, resampled = ours.interval(SCORE), sure(ours)
    low, high = np.percentile(resampled.values, [2.5, 97.5])
    return decide(Interval(score.mean - published, score.low - published, score.high - published, score.std,
                           score.count), margin,
                  f'{name}: {score.mean:.2f} BLEU ({low:.1f} to {high:.1f} over resampled test sets), '
                  f'{score.mean - published:+.2f} over {published:.2f}.', 'BLEU')


def against(ours: Table, theirs: Table, name: str) -> str:
    """The paired bootstrap of two systems, in words."""
    found = metrics.paired(sure(theirs), sure(ours))
    return (f'{name[:1].upper()}{name[1:]}: {found.difference:+.2f} BLEU ({found.low:+.2f} to {found.high:+.2f}, '
            f'p = {found.p_value:.3f}).')


def figures(table: Table) -> dict[str, Any]:
    """What each ingredient gives."""
    rows = [{'ingredient': name, 'gain': mine[SCORE] - other, 'training.seed': mine['training.seed']}
            for name, (ours, theirs) in gains(table).items() for mine in ours.rows
            for other in theirs.where({'training.seed': mine['training.seed']}).column(SCORE)]
    return {'BLEU that each ingredient gives': charts.bars(Table.of(rows), 'ingredient', 'gain',
                                                           ylabel='BLEU, lower-cased')} if rows else {}


def figures_on_text(table: Table) -> dict[str, Any]:
    """The rungs like for like and with all there is, beside the published ones; and the ingredients."""
    rows = [{'model': model, 'recipe': 'published', SCORE: one.bleu} for model, one in RUNGS.items()]
    rows += [{'model': model, 'recipe': name, SCORE: row[SCORE], 'training.seed': row['training.seed']}
             for model in RUNGS for name, reading in (('ours, like for like', LIKE_FOR_LIKE), ('ours, all', ALL))
             for row in rung(table, model, reading).rows]
    return {'Rungs, published and ours': charts.bars(
        Table.of(rows), 'model', SCORE, 'recipe', ylabel='BLEU, lower-cased')} | figures(ingredients(table))
