"""The whole ladder on one page: from counted phrases to one stack of attention, at home and abroad."""

from typing import Any

import numpy as np

from seqjax.studies import charts
from seqjax.studies.axes import Settings, lasting
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row, Table, difference
from seqjax.tasks import floors
from seqjax.tasks import scores as metrics

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


def ladder(form: Form = 'full') -> Study:
    """Every system on the same numbers, at equal parameters and equal steps, where it was trained and where it was not.

    Nine networks of 150,000 parameters, within a tenth, get equal batches, steps, optimizer and rate; the statistical
    system, whose tables have no such number, its ten passes and its tuning. At home are numbers below 100,000. Abroad
    are those from 30,000 to 49,999, left out of every split, and those of one digit more, made of words that all were
    seen. The usual history has it that statistical systems adapt badly; Koehn and Knowles 2017, section 3.1, found that
    networks do, "to the point that they completely sacrifice adequacy for the sake of fluency".

    On real text: --experiment=multi30k --task.path=DIR --sweep='model=smt,gru,bahdanau,luong,transformer', and of each
    run --mode=predict on lines of another corpus. Not run.

    python launch.py --study=ladder [--quick | --smoke]
    Cost: 30 runs of 800 steps, an estimated 15 minutes on two idle cores with --workers=2.
    """
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
              'the statistical system loses more than they.',
        source='Bahdanau et al. 2015, table 1, and the usual history; against its second half, Koehn and Knowles 2017, '
               'section 3.1',
        expect='The rungs climb at home, closely. Abroad the statistical system, whose phrases are small, loses least.',
        base={'experiment': 'numerals', 'task.highest': HIGHEST, 'task.left_out': HOLE, 'task.metric': 'loss',
              'task.train_size': 6000 if form == 'full' else 2000, 'task.valid_size': min(200, rows),
              'task.test_size': rows, 'task.max_length': 24, 'task.buckets': 1},
        axes=axes, measure=lambda subject: measure(subject, rows), verdict=verdict, figures=figures,
        seeds={'full': 3, 'quick': 2, 'smoke': 1}[form], floors=lambda subject: trivial(subject, rows),
        published=[{'published': f'{name}, WMT en-fr', 'bleu': bleu} for name, bleu in (
            ('Moses (Cho et al. 2014, table 1)', 33.30), ('RNNencdec-50 (Bahdanau et al. 2015, table 1)', 17.82),
            ('LSTM, source reversed, beam 12 (Sutskever et al. 2014, table 1)', 30.59),
            ('RNNsearch-50* (Bahdanau et al. 2015, table 1)', 28.45), ('ConvS2S (Vaswani et al. 2017, table 2)', 40.46),
            ('Transformer, base (Vaswani et al. 2017, table 2)', 38.1))],
        shown=(('model',), ('exact_match', 'hole', 'beyond', 'bleu', 'bleu_hole', 'bleu_beyond', 'nll', 'parameters',
                            'steps', 'seconds')))


def abroad(task: Any, count: int) -> dict[str, tuple[list[str], list[str]]]:
    """`count` numbers of each domain in the languages of the task, drawn evenly; the same for every system."""
    rng = np.random.default_rng(0)
    return {name: task.pairs(low + rng.choice(high - low + 1, count, replace=False))
            for name, (low, high) in DOMAINS.items()}


def measure(subject: Subject, count: int) -> list[Row]:
    """One row: at home from the run itself, abroad from its parameters, and what it took."""
    summary = subject.summary
    row = {**{name: summary['test'][name] for name in ('exact_match', 'bleu', 'nll')},
           'parameters': summary['parameters'], 'steps': summary['steps'],
           'seconds': summary['time']['training_seconds']}
    for name, (sources, references) in abroad(subject.composed.task, count).items():
        found = subject.evaluator.predict(subject.params, sources, subject.composed.decoding)
        lines = [best[0].text for best in found]
        row |= {name: metrics.exact_match(lines, references).value,
                f'bleu_{name}': metrics.bleu(lines, references).value}
    return [row]


def trivial(subject: Subject, count: int) -> list[Row]:
    """What needs no model, in each domain."""
    rows: dict[str, Row] = {}
    domains = {'': subject.data.text['test'], **abroad(subject.composed.task, count)}
    for domain, text in domains.items():
        for found in floors.scored(subject.data.text['train'], text):
            row = rows.setdefault(found['floor'], {'floor': found['floor']})
            row |= {domain or 'exact_match': found['exact_match'], f'bleu_{domain}'.rstrip('_'): found['bleu']}
    return list(rows.values())


def verdict(table: Table) -> Verdict:
    """The attentive above fixed vectors and above the statistical system at home; what each loses abroad."""
    lost = Table.of({**row, **{f'lost_{name}': row['exact_match'] - row[name] for name in DOMAINS}}
                    for row in table.rows)
    attentive, counted = lost.where(lambda row: row['model'] in ATTENTIVE), lost.where({'model': 'smt'})
    fixed = lost.where(lambda row: row['model'] in FIXED)
    over_fixed, over_counted = (difference(attentive, other, 'exact_match') for other in (fixed, counted))
    found = [
        decide(over_counted, 0, f'At home systems with attention are {over_counted.mean:+.1f} points of exact match '
                                'from the statistical one.', 'points of exact match'),
        decide(over_fixed, 0, f'They are {over_fixed.mean:+.1f} points from fixed vectors.')]
    for name, words in (('hole', 'in a range that was left out'), ('beyond', 'beyond the longest number')):
        theirs, ours = (part.interval(f'lost_{name}').mean for part in (counted, attentive))
        more = difference(counted, attentive, f'lost_{name}')
        found.append(decide(more, 0, f'Abroad, {words}, the statistical system loses {theirs:.1f} points, they lose '
                                     f'{ours:.1f}.'))
    return all_of(found)


def figures(table: Table) -> dict[str, Any]:
    """Exact match of each system at home and abroad."""
    where = {'at home': 'exact_match', 'left out': 'hole', 'beyond': 'beyond'}
    rows = Table.of({**row, 'match': row[column], 'domain': name}
                    for row in table.rows for name, column in where.items())
    return {'exact match at home and abroad': charts.bars(rows, 'model', 'match', 'domain', ylabel='exact match, %',
                                                          limits=(0, 103))}
