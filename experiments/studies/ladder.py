"""The whole ladder on one page: from counted phrases to one stack of attention, at home and abroad."""

import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from seqjax.errors import UserError
from seqjax.studies import charts
from seqjax.studies.axes import Settings, lasting
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row, Table, difference
from seqjax.tasks import floors
from seqjax.tasks import scores as metrics
from seqjax.tasks.corpora import Parallel

__all__ = ['ladder']

FIXED, ATTENTIVE = ('rnn', 'lstm', 'gru'), ('bahdanau', 'luong', 'convs2s', 'transformer', 'decoderonly')
HOLE, HIGHEST = (30_000, 49_999), 99_999  # never seen in training; the highest number that is
BEYOND = 999_999  # a digit more than any number of training, made of words that are all known
DOMAINS = {'hole': (HOLE[0], HOLE[1]), 'beyond': (HIGHEST + 1, BEYOND)}
# About 150,000 parameters each, within a tenth: what is wide differs.
SIZES: dict[str, Settings] = {
    'rctm': {'model.hidden_size': 220, 'model.embedding_size': 128},
    'rnn': {'model.hidden_size': 148, 'model.embedding_size': 64, 'model.bidirectional': True},
    'lstm': {'model.hidden_size': 72, 'model.embedding_size': 64, 'model.bidirectional': True},
    'gru': {'model.hidden_size': 88, 'model.embedding_size': 64, 'model.bidirectional': True},
    'bahdanau': {'model.hidden_size': 62, 'model.embedding_size': 64},
    'luong': {'model.hidden_size': 72, 'model.embedding_size': 64, 'model.bidirectional': True, 'model.cell': 'gru'},
    'convs2s': {'model.hidden_size': 56, 'model.embedding_size': 48, 'model.num_layers': 3},
    'transformer': {'model.hidden_size': 56, 'model.num_layers': 2, 'model.feedforward_size': 144},
    'decoderonly': {'model.hidden_size': 64, 'model.num_layers': 4, 'model.feedforward_size': 144}}
# About 5.3 million each, within a tenth, with a joint vocabulary of 8,000 pieces. The study's own, rates too: recipes
# change with what is learned of them, what was compared here does not.
TEXT_SIZES: dict[str, Settings] = {
    'gru': {'model.hidden_size': 224, 'model.embedding_size': 160, 'model.num_layers': 1, 'model.bidirectional': True,
            'model.feed': 'once', 'model.tie_embeddings': False, 'optimizer.learning_rate': 2e-3},
    'bahdanau': {'model.hidden_size': 200, 'model.embedding_size': 168, 'optimizer.learning_rate': 2e-3},
    'transformer': {'model.hidden_size': 208, 'model.feedforward_size': 832, 'model.num_layers': 3,
                    'model.num_heads': 4, 'optimizer.learning_rate': 1.6e-3}}
LONGEST = 75  # characters of a side, each of which may be a piece; a sentence has at most 80 with its end
Domains = dict[str, tuple[list[str], list[str]]]  # name -> (sources, references)
SOURCE = ('Bahdanau et al. 2015, table 1, and the usual history; against its second half, Koehn and Knowles 2017, '
          'section 3.1')


def ladder(form: Form = 'full', text: str | None = None, abroad: str = '') -> Study:
    """Every system on the same numbers, at equal parameters and equal steps, where it was trained and where it was not.

    Nine networks of 150,000 parameters, within a tenth, get equal batches, steps, optimizer and rate; the statistical
    system, whose tables have no such number, its ten passes and its tuning. At home are numbers below 100,000. Abroad
    are those from 30,000 to 49,999, left out of every split, and those of one digit more, made of words that all were
    seen. The usual history has it that statistical systems adapt badly; Koehn and Knowles 2017, section 3.1, found that
    networks do, "to the point that they completely sacrifice adequacy for the sake of fluency".

    On real text, a system of each age: `on_text`.

    python launch.py --study=ladder [--quick | --smoke]
    python launch.py --study=ladder --text=DIR --abroad='tatoeba.tsv debian.tsv:2,1'
    Cost: 30 runs of 800 steps, 13 minutes on two cores with --workers=2; what text costs: `on_text`.
    """
    if text is not None:
        return on_text(form, text, abroad)
    steps, rows = {'full': (800, 300), 'quick': (200, 100), 'smoke': (3, 6)}[form]
    gradient = {**lasting(steps), 'model.dropout': 0.0, 'optimizer.learning_rate': 3e-3, 'optimizer.schedule': 'linear',
                'optimizer.warmup_steps': min(100, steps // 2)}
    axes = [{'model': 'smt', 'model.tuning_sentences': 100, 'model.tuning_rounds': 3}] + [
        {'model': model, **gradient, 'model.num_layers': 1, **size} for model, size in SIZES.items()]
    if form == 'quick':
        axes = [setting for setting in axes if setting['model'] in ('smt', 'gru', 'luong', 'transformer')]
    if form == 'smoke':
        axes = [{**axes[4], 'model.hidden_size': 8, 'model.embedding_size': 8}]
    return Study(
        claim='Systems with attention translate better at home than fixed vectors and counted phrases do, and abroad '
              'the statistical system loses more than they.', source=SOURCE,
        expect='The rungs climb at home, closely. Abroad the statistical system, whose phrases are small, loses least.',
        base={'experiment': 'numerals', 'task.highest': HIGHEST, 'task.left_out': HOLE, 'task.metric': 'loss',
              'task.train_size': 6000 if form == 'full' else 2000, 'task.valid_size': min(200, rows),
              'task.test_size': rows, 'task.max_length': 24, 'task.buckets': 1},
        axes=axes, measure=lambda subject: measure(subject, numbers(subject.composed.task, rows)), verdict=verdict,
        figures=figures, seeds={'full': 3, 'quick': 2, 'smoke': 1}[form],
        floors=lambda subject: trivial(subject, numbers(subject.composed.task, rows)),
        published=[{'published': f'{name}, WMT en-fr', 'bleu': bleu} for name, bleu in (
            ('Moses (Cho et al. 2014, table 1)', 33.30), ('RNNencdec-50 (Bahdanau et al. 2015, table 1)', 17.82),
            ('LSTM, source reversed, beam 12 (Sutskever et al. 2014, table 1)', 30.59),
            ('RNNsearch-50* (Bahdanau et al. 2015, table 1)', 28.45), ('ConvS2S (Vaswani et al. 2017, table 2)', 40.46),
            ('Transformer, base (Vaswani et al. 2017, table 2)', 38.1))],
        shown=(('model',), ('exact_match', 'hole', 'beyond', 'bleu', 'bleu_hole', 'bleu_beyond', 'nll', 'parameters',
                            'steps', 'seconds')))


def on_text(form: Form, text: str, abroad: str) -> Study:
    """The ladder on German to English captions, and abroad on whatever else there is.

    Counted phrases, a fixed vector, attention, and nothing but attention: networks of 5.3 million parameters, within a
    tenth, with equal batches of 128, equal steps and the vocabulary of `multi30k`; the statistical system counts words.
    Scores are lower-cased BLEU; of other text so many pairs, drawn evenly from those whose sides both fit the models,
    whatever pieces they are cut into; what is lost abroad is a share of the BLEU at home.

    Args:
      text: a folder as --experiment=multi30k reads it.
      abroad: files of other text, German and English in two columns, one after the other; ':2,1' after a name says
        which columns.

    Cost: 12 runs of 500 steps, an estimated hour and a half on two idle cores; a third of that with --seeds=1
    (run so, beside other work, in 45 minutes).

    Raises:
      UserError: `text` is no folder, two files have one name, or one cannot be read.
    """
    if not pathlib.Path(text).is_dir():
        raise UserError(f'--text={text} is no folder; name the folder of train.de, train.en, val.* and '
                        'test_2016_flickr.*, as --task.path of --experiment=multi30k')
    steps, count = {'full': (500, 500), 'quick': (20, 20), 'smoke': (2, 4)}[form]
    gradient = {**lasting(steps), 'optimizer.schedule': 'inverse_sqrt', 'optimizer.warmup_steps': min(200, steps // 2),
                'model.dropout': 0.1}
    axes = [{'model': 'smt', 'task.min_frequency': 2}] + [
        {'model': model, **gradient, **size} for model, size in TEXT_SIZES.items()]
    axes = axes[:2] if form == 'smoke' else axes
    domains = elsewhere(abroad, count)
    return Study(
        claim='On captions systems with attention translate better than fixed vectors and counted phrases do, and on '
              'text from elsewhere the statistical system loses more than they.', source=SOURCE,
        expect='After so few steps the statistical system is the best at home. It passes words through that it does '
               'not know; networks write captions, whatever they are given.',
        base={'experiment': 'multi30k', 'task.path': text, 'task.metric': 'loss', 'task.valid_sentences': 1,
              'task.buckets': 4},
        axes=axes, measure=lambda subject: measure(subject, domains, 'bleu_lowercase'),
        verdict=lambda table: verdict(table, tuple(domains), 'bleu_lowercase'),
        figures=lambda table: figures(table, tuple(domains), 'bleu_lowercase'),
        seeds={'full': 3, 'quick': 2, 'smoke': 1}[form],
        floors=lambda subject: trivial(subject, domains, 'bleu_lowercase'),
        published=[{'published': f'{name} (bentrevett, 10 epochs)', 'bleu_lowercase': bleu} for name, bleu in (
            ('GRU', 20.61), ('GRU with additive attention', 28.30), ('Transformer', 36.52))],
        shown=(('model',), ('bleu_lowercase', *(f'bleu_{name}' for name in domains), 'nll', 'parameters', 'steps',
                            'seconds')))


def elsewhere(abroad: str, count: int) -> Domains:
    """`count` pairs of each of the files that `abroad` names, those of 1 to 75 characters a side, drawn evenly."""
    found: Domains = {}
    for word in abroad.split():
        path, _, columns = word.partition(':')
        name = pathlib.Path(path).name.partition('.')[0]
        if name in found:
            raise UserError(f'--abroad={abroad} names two files {name}; give one of them another name')
        if columns and not re.fullmatch(r'\d+,\d+', columns):
            raise UserError(f'--abroad: {word} ends in no two columns; write FILE:2,1')
        first, second = (columns or '1,2').split(',')
        pairs = [pair for pair in zip(*Parallel(path=path, columns=(int(first), int(second))).pairs()) if all(
            0 < len(side.strip()) <= LONGEST for side in pair)]
        if not pairs:
            raise UserError(f'--abroad: {path} has no pair of 1 to {LONGEST} characters a side; cut its lines shorter')
        rng = np.random.default_rng(0)
        drawn = [pairs[i] for i in rng.choice(len(pairs), min(count, len(pairs)), replace=False)]
        found[name] = [source for source, _ in drawn], [target for _, target in drawn]
    return found


def numbers(task: Any, count: int) -> Domains:
    """`count` numbers of each domain in the languages of the task, drawn evenly; the same for every system."""
    rng = np.random.default_rng(0)
    return {name: task.pairs(low + rng.choice(high - low + 1, count, replace=False))
            for name, (low, high) in DOMAINS.items()}


def measure(subject: Subject, domains: Domains, score: str = 'exact_match') -> list[Row]:
    """One row: at home from the run itself, abroad from its parameters, and what it took."""
    summary = subject.summary
    row = {**{name: summary['test'][name] for name in (score, 'bleu', 'nll')},
           'parameters': summary['parameters'], 'steps': summary['steps'],
           'seconds': summary['time']['training_seconds']}
    for name, (sources, references) in domains.items():
        found = subject.evaluator.predict(subject.params, sources, subject.composed.decoding)
        row |= scored(name, [best[0].text for best in found], references, score)
    return [row]


def scored(domain: str, lines: Sequence[str], references: Sequence[str], score: str) -> Row:
    """What lines are worth in a domain; '' is home."""
    lowercase = score == 'bleu_lowercase'
    return {domain or 'exact_match': metrics.exact_match(lines, references).value,
            f'bleu_{domain}' if domain else 'bleu_lowercase' if lowercase else 'bleu': metrics.bleu(
                lines, references, lowercase).value}


def trivial(subject: Subject, domains: Domains, score: str = 'exact_match') -> list[Row]:
    """What needs no model, in each domain."""
    rows: dict[str, Row] = {}
    for domain, (sources, references) in {'': subject.data.text['test'], **domains}.items():
        for name, lines in floors.outputs(subject.data.text['train'], sources).items():
            row = rows.setdefault(name, {'floor': name})
            row |= scored(domain, lines, references, score)
    return list(rows.values())


def verdict(table: Table, domains: Sequence[str] = tuple(DOMAINS), score: str = 'exact_match') -> Verdict:
    """The attentive above fixed vectors and above the statistical system at home; what each loses abroad."""
    points = score == 'exact_match'
    lost = Table.of({**row, **{f'lost_{name}': row[score] - row[name] if points else
                               100 - 100 * row[f'bleu_{name}'] / max(row[score], 1e-9) for name in domains}}
                    for row in table.rows)
    attentive, counted = lost.where(lambda row: row['model'] in ATTENTIVE), lost.where({'model': 'smt'})
    fixed = lost.where(lambda row: row['model'] in FIXED)
    over_fixed, over_counted = (difference(attentive, other, score) for other in (fixed, counted))
    unit = 'points of exact match' if points else 'BLEU'
    found = [
        decide(over_counted, 0, f'At home systems with attention are {over_counted.mean:+.1f} {unit} from the '
                                'statistical one.', unit),
        decide(over_fixed, 0, f'They are {over_fixed.mean:+.1f} {"points" if points else unit} from fixed vectors.')]
    for name in domains:
        words = {'hole': 'in a range that was left out', 'beyond': 'beyond the longest number'}.get(name, f'on {name}')
        theirs, ours = (part.interval(f'lost_{name}').mean for part in (counted, attentive))
        more = difference(counted, attentive, f'lost_{name}')
        found.append(decide(more, 0, f'Abroad, {words}, the statistical system loses {theirs:.1f} '
                                     f'{"points" if points else "% of its BLEU"}, they lose {ours:.1f}.'))
    return all_of(found)


def figures(table: Table, domains: Sequence[str] = tuple(DOMAINS), score: str = 'exact_match') -> dict[str, Any]:
    """The score of each system at home and abroad."""
    points = score == 'exact_match'
    names = [name if points else f'bleu_{name}' for name in domains]
    where = {'at home': score, **{{'hole': 'left out'}.get(name, name): column for name, column in zip(domains, names)}}
    rows = Table.of({**row, 'score': row[column], 'domain': name}
                    for row in table.rows for name, column in where.items())
    return {f'{"exact match" if points else "BLEU"} at home and abroad': charts.bars(
        rows, 'model', 'score', 'domain', ylabel='exact match, %' if points else 'BLEU, lower-cased',
        limits=(0, 103) if points else None)}
