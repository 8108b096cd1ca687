"""How a decoder looks for a word: scores and the state they are asked from, and whether the answer can be believed."""

from typing import Any

import numpy as np

from seqjax.studies import attended, charts
from seqjax.studies.axes import chain, cross, grid, lasting
from seqjax.studies.passes import random_batch, stepping
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row, Table, difference
from seqjax.studies.timing import alternating

__all__ = ['scores']

CONTENT = ('dot', 'general', 'concat')
WINDOW = 3  # source words to either side, of some ten; Luong et al. have 10 to either side, of some 25


def scores(form: Form = 'full') -> Study:
    """Scores that compare contents align better than position alone, and their weights are evidence of influence.

    Luong et al. 2015, equations 8 and 9 (dot, general, concat, location), each of the decoder's state of this step and
    of the one before it (concat of the state before is Bahdanau's additive score), and Bahdanau et al. 2015 whole; and
    their local attention, section 3.2, whose windows the claim leaves out. The weights are held against the
    known alignments of number words, against influence (gradient times input; leave one out), and permuted, as Jain and
    Wallace 2019 do it ("Attention is not explanation").

    python launch.py --study=scores [--quick | --smoke]
    Cost: 39 runs of 600 steps one after the other; the 27 without windows took 13 minutes on two cores (2026-11-25),
    the others an estimated six more.
    """
    sizes = {'full': dict(steps=600, width=64, rows=1000), 'quick': dict(steps=300, width=32, rows=200),
             'smoke': dict(steps=4, width=8, rows=12)}[form]
    base = {'experiment': 'numerals', 'task.metric': 'loss', 'task.valid_size': 100, 'task.test_size': sizes['rows'],
            **lasting(sizes['steps']), 'model.hidden_size': sizes['width'], 'model.num_layers': 1,
            'model.dropout': 0.0, 'optimizer.learning_rate': 3e-3, 'optimizer.schedule': 'linear',
            'optimizer.warmup_steps': min(50, sizes['steps'] // 2)}
    luong = [{'model': 'luong', 'model.cell': 'gru', 'model.bidirectional': form != 'smoke'}]
    both = ('current', 'previous')
    if form == 'full':
        axes = chain(cross(luong, grid({'model.score': (*CONTENT, 'location'), 'model.state': both})),
                     [{'model': 'bahdanau'}],
                     cross(luong, grid({'model.attention': ('monotonic', 'predictive'), 'model.score': (
                         'dot', 'general'), 'model.state': ('current',), 'model.window': (WINDOW,)})))
    elif form == 'quick':
        axes = cross(luong, grid({'model.score': ('dot', 'location'), 'model.state': ('current',)}))
        base |= {'task.highest': 9999, 'task.train_size': 5000, 'task.buckets': 1, 'task.max_length': 20}
    else:
        axes = cross(luong, grid({'model.score': ('general',), 'model.state': ('previous',)}))
        base |= {'task.highest': 999, 'task.train_size': 100, 'task.valid_size': 10, 'task.buckets': 1,
                 'task.max_length': 16, 'training.batch_size': 16, 'model.input_feeding': False}
    return Study(
        claim='A score that compares contents aligns better than one of position alone, and its weights are evidence: '
              "they rank the source's words as their influence does, and permuted they destroy the output.",
        source='Luong et al. 2015, section 3.1 and table 6; against its second half, Jain and Wallace 2019',
        expect='Location aligns worst; content scores differ little in quality; weights follow influence, since here a '
               'word is needed where it is translated; permuting them is fatal.',
        base=base, axes=axes, measure=measure, verdict=verdict, figures=figures,
        seeds={'full': 3, 'quick': 2, 'smoke': 1}[form], floors=trivial, workers=1,
        published=[{'published': f'{name} (Luong et al. 2015, tables 4 and 6), WMT en-de', 'aer': aer, 'bleu': bleu}
                   for name, aer, bleu in (('global, location', 39.0, 19.3), ('local-m, general', 34.0, 20.4),
                                           ('local-p, general', 36.0, 20.9))],
        shown=(('model', 'model.score', 'model.state', 'model.attention'),
               ('exact_match', 'bleu', 'aer', 'aer_threshold', 'tau_gradient', 'tau_left_out', 'tau_influences',
                'permuted', 'evened', 'milliseconds', 'parameters')))


def measure(subject: Subject) -> list[Row]:
    """One row: quality, alignment, evidence, time."""
    count = max(4, subject.data.ids['test'][0].count() // 10)
    batch = random_batch(subject.model, subject.composed.training.batch_size, 16, 16)
    seconds = alternating({'step': stepping(subject, batch)}, repeats=9)['step']
    summary = subject.summary
    return [{'exact_match': summary['test']['exact_match'], 'bleu': summary['test']['bleu'],
             'nll': summary['test']['nll'], **attended.alignment(subject, 3 * count),
             **attended.explanation(subject, count), **attended.intervention(subject, 3 * count),
             'milliseconds': 1000 * seconds.median, 'parameters': summary['parameters']}]


def trivial(subject: Subject) -> list[Row]:
    """Floors of translation, and of alignment: the diagonal."""
    count = len(subject.data.text['test'][0])
    return [*subject.floors(), {'floor': 'diagonal alignment', **attended.diagonal(subject, count)}]


def verdict(table: Table) -> Verdict:
    """Alignment against location; rank correlation with leaving out; points that permuting costs."""
    everywhere = table.where(lambda row: row.get('model.attention', 'global') == 'global')  # windows stand beside it
    contents = everywhere.where(lambda row: row.get('model.score') in CONTENT)
    location = everywhere.where({'model.score': 'location'})
    better = difference(location, contents, 'aer')
    tau = contents.interval('tau_left_out')
    cost = difference(contents, renamed(contents, 'permuted', 'plain'), 'plain')
    return all_of([
        decide(better, 5, f'Contents align {better.mean:.1f} points of error rate better than location.',
               'points of alignment error rate'),
        decide(tau, 0.5, f"Kendall's tau of weight and influence is {tau.mean:.2f}; asked for was 0.5."),
        decide(cost, 50, f'Permuted weights cost {cost.mean:.1f} points of exact match.')])


def renamed(table: Table, name: str, to: str) -> Table:
    """The table with a column under another's name, to be set against it."""
    return Table.of({**row, to: row[name]} for row in table.rows if name in row)


def figures(table: Table) -> dict[str, Any]:
    """Quality and alignment, evidence, and time, a bar for each score and state."""
    names = ('model.score', 'model.state', 'model.attention')
    named = Table.of({**row, 'system': ' '.join(str(row[name]) for name in names if row.get(name)) or str(row['model'])}
                     for row in table.rows)
    tall = 0.9 + 0.3 * len(named.values('system'))
    figure, axes = charts.panels(1, 3, width=3.6, height=tall)
    for axis, (column, label, log) in zip(axes[0], (
            ('exact_match', 'exact match, %', False), ('aer', 'alignment error rate, %', False),
            ('milliseconds', 'milliseconds a step', False))):
        charts.bars(named, 'system', column, axis=axis, ylabel=label, log=log)
    found = {'quality, alignment and time of a training step': figure}
    figure, axes = charts.panels(1, 2, width=4.6, height=tall * 1.6)
    taus = Table.of({**row, 'tau': row[column], 'influence': name} for row in named.rows for column, name in (
        ('tau_gradient', 'gradient times input'), ('tau_left_out', 'leave one out')) if np.isfinite(row[column]))
    charts.bars(taus, 'system', 'tau', 'influence', axis=axes[0, 0], ylabel="Kendall's tau with the weight")
    kinds = Table.of({**row, 'match': row[column], 'weights': name} for row in named.rows for column, name in (
        ('plain', 'as they are'), ('permuted', 'permuted'), ('evened', 'all equal')))
    charts.bars(kinds, 'system', 'match', 'weights', axis=axes[0, 1], ylabel='exact match, %')
    return found | {'weights as evidence': figure}
