"""Chinese whispers: a chain that retells, against one that may ask everybody before it, once or several times."""

from typing import Any

import numpy as np

from seqjax.studies import charts
from seqjax.studies.axes import chain, cross, lasting
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row, Table, difference

__all__ = ['whispers']

HOPPING = 1800  # steps until two layers have seen that a link leads to a link, with some to spare
MEAN = {'model': 'gru', 'model.bidirectional': True, 'model.context': 'mean', 'model.feed': 'every'}


def whispers(form: Form = 'full') -> Study:
    """A chain that retells forgets the first word; who asks everybody before it does not, and better if it weighs.

    The story that is told to explain attention, as three questions of one word's answer (data/puzzles.py). *Recall*:
    the first of up to 61 words, by recurrent networks (a chain), by the mean of their states (everybody asked, each as
    much), and by attention. *Witnesses*: up to 20 speakers of known reliability, by the same; beside them a poll, the
    poll weighted by log odds, which is Bayes' rule and the best there is, and a chain in which each speaker heard
    the one before it alone. *Hops*: a link or two to be followed, by one layer of attention and by two of as
    many parameters in all (a chance that one layer might learn the few maps of six words by heart is left to it).

    python launch.py --study=whispers [--quick | --smoke]
    Cost: 27 runs of 600 to 1,800 steps, some five minutes on two cores with --workers=2.
    """
    steps = {'full': 600, 'quick': 300, 'smoke': 3}[form]
    far = {'full': 60, 'quick': 30, 'smoke': 6}[form]
    chains = [{'model': model} for model in ('rnn', 'gru')]
    attention = [{'model': 'bahdanau'}]
    recall = {'task.kind': 'recall', 'task.length': far, 'task.max_length': far + 2}
    most = 20 if form == 'full' else 10
    # A witness is two tokens, who and what.
    voices = {'task.kind': 'witnesses', 'task.length': most, 'task.max_length': 2 * most + 2}
    # As many parameters in the layers: twice 4 D^2 + 2 D F (and biases) against once.
    links = cross([{'task.kind': 'hops', 'task.hops': 2, 'task.symbols': 6, 'task.max_length': 12,
                    'task.train_size': 40_000, 'model': 'decoderonly', 'model.prefix_mask': 'prefix',
                    'model.positions': 'none',
                    'optimizer.learning_rate': 4e-3, 'optimizer.beta2': 0.98} | lasting(HOPPING)],
                  [{'model.num_layers': 2, 'model.hidden_size': 32, 'model.feedforward_size': 64},
                   {'model.num_layers': 1, 'model.hidden_size': 46, 'model.feedforward_size': 92}])
    if form == 'full':
        axes = chain(cross([recall], [*chains, MEAN, *attention]), cross([voices], [chains[1], MEAN, *attention]),
                     links)
    elif form == 'quick':
        axes = chain(cross([recall], [chains[1], *attention]), cross([voices], [MEAN, *attention]))
    else:
        axes = cross([recall], [chains[1]])
    tiny = {'task.train_size': 80, 'task.valid_size': 8, 'task.test_size': 20, 'model.hidden_size': 8,
            'training.batch_size': 8}
    return Study(
        claim='A chain that retells forgets the first word with distance and one that may ask everybody does not; '
              'weighing whom to ask beats asking all alike; and what takes several questions, several layers do and '
              'one of as many parameters does not.',
        source='Bahdanau et al. 2015, section 1, and Vaswani et al. 2017, section 4, as they are usually explained',
        expect='A gated chain may learn to keep one word, so that its loss is one of learning and shows early. A mean '
               'can weigh as well, by the length of what it is a mean of. One layer may not follow even one link, for '
               'it has first to be told which.',
        base={'experiment': 'puzzles', 'task.metric': 'loss', 'model.hidden_size': 32, **lasting(steps),
              'optimizer.warmup_steps': min(50, steps // 2)} | (tiny if form == 'smoke' else {}),
        axes=axes, measure=measure, verdict=verdict, figures=figures, seeds={'full': 3, 'quick': 2, 'smoke': 1}[form],
        floors=trivial,
        shown=(('task.kind', 'model', *(['model.context', 'model.num_layers'] if form == 'full' else [])),
               ('right', 'hard', 'parameters')))


def shares(task: Any, sources: Any, right: np.ndarray) -> list[Row]:
    """The share of right answers, of all questions and of the hard ones, and a row for each of some difficulties.

    Hard is two links, or the third of the questions that have most words or witnesses.
    """
    hard = np.array([task.difficulty(source) for source in sources])
    least = 2 if task.kind == 'hops' else 2 * task.length // 3
    width = 1 if task.kind == 'hops' else max(1, task.length // 6)
    rows: list[Row] = [{'right': float(right.mean()), 'hard': float(right[hard >= least].mean())}]
    for part in sorted(set(hard // width)):
        inside = hard // width == part
        rows.append({'difficulty': float(hard[inside].mean()), 'right_at': float(right[inside].mean())})
    return rows


def measure(subject: Subject) -> list[Row]:
    """Answers that are right, in per cent."""
    overall, *rows = shares(subject.composed.task, subject.data.text['test'][0], subject.right)
    return [overall | {'parameters': subject.summary['parameters']}, *rows]


def trivial(subject: Subject) -> list[Row]:
    """A word at random, for each question; and of witnesses a poll, the best of polls, and the last of a chain."""
    task = type(subject.composed.task)(kind='witnesses', length=20)
    sources, targets = task.splits()['test']
    even = 100 / task.symbols
    rows: list[Row] = [{'floor': 'a word at random', 'right': even, 'hard': even}]
    for name, guess in (
            ('a poll of the witnesses', lambda *pair: task.polled(*pair, weighted=False)),
            ('a poll weighted by log odds (the best there is)', lambda *pair: task.polled(*pair, weighted=True)),
            ('the last of as many who retell', lambda source, answer: task.retold(source))):
        right = np.array([100 * guess(*pair) for pair in zip(sources, targets)])
        rows.append({'floor': name, 'task.kind': 'witnesses', **shares(task, sources, right)[0]})
    return rows


def verdict(table: Table) -> Verdict:
    """Attention against the chain and against the mean, and several layers against one, on the hard questions."""
    found = []
    recall, voices, links = (table.where({'task.kind': kind}) for kind in ('recall', 'witnesses', 'hops'))
    if len(recall):
        asked, told = recall.where({'model': 'bahdanau'}), recall.where(
            lambda row: row['model'] == 'gru' and 'model.context' not in row)
        gap = difference(asked, told, 'hard')
        found.append(decide(gap, 20, f'Over the longest distances asking recalls {gap.mean:.1f} points more than a '
                                     'gated chain.', 'points of right answers'))
    if len(voices):
        better = difference(voices.where({'model': 'bahdanau'}), voices.where({'model.context': 'mean'}), 'hard')
        found.append(decide(better, 5, f'Of many witnesses, weighing gives {better.mean:.1f} points more than the '
                                       'mean.'))
    if len(links):
        layers = difference(*(links.where({'model.num_layers': n}) for n in (2, 1)), 'hard')
        found.append(decide(layers, 20, f'On two links two layers are {layers.mean:.1f} points above one.'))
    return all_of(found)


def called(row: Row) -> str:
    """What a system is called in figures."""
    if row['task.kind'] == 'hops':
        return f'{row["model.num_layers"]} layers' if row['model.num_layers'] > 1 else 'one layer'
    return 'everybody alike (gru, mean)' if row.get('model.context') else str(row['model'])


def figures(table: Table) -> dict[str, Any]:
    """Right answers over the number of words, of witnesses and of links."""
    named = Table.of({**row, 'system': called(row)} for row in table.rows)
    kinds = named.values('task.kind')
    figure, axes = charts.panels(1, len(kinds), width=4.8)
    for axis, kind in zip(axes[0], kinds):
        charts.lines(named.where({'task.kind': kind}), 'difficulty', 'right_at', 'system', axis=axis, ylim=(-3, 103),
                     ylabel='right answers, %', title=kind, xlabel={
                         'recall': 'words behind the first', 'witnesses': 'witnesses less one', 'hops': 'links'}[kind])
    return {'right answers by difficulty': figure}
