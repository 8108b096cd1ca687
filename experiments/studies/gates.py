"""How far back a gradient reaches in recurrent networks, and what of a gate it takes to remember."""

from typing import Any

import numpy as np

from seqjax.studies import charts, gradients
from seqjax.studies.axes import chain, cross, grid, lasting
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Interval, Row, Table, difference, interval

__all__ = ['gates']

GAINS = (0.5, 1.0, 2.0, 4.0, 8.0)
FAR = 100  # words between the first and the end, where gradients are compared
DISTANCES = (0, 1, 2, 5, 10, 20, 30, 50, FAR)
PLAIN = ('model.without', 'model.cut', 'model.gate_activation', 'model.time_skip')


def gates(form: Form = 'full') -> Study:
    """A plain network's gradient vanishes or explodes with distance; what an LSTM's does depends on its forget bias.

    Bengio et al. 1994; Hochreiter and Schmidhuber 1997, section 3; Pascanu et al. 2013, section 2. The gradient of the
    first target word's logits by the first source word, so many words before the end, over the factor ("gain") of the
    recurrent matrices, which start orthogonal: before training, and after it on recalling the first of up to 31 words.
    Forget biases (Jozefowicz et al. 2015, section 3), clipping, skips in time and attention beside it; and an LSTM with
    each gate removed (Greff et al. 2017), the path of c or of h cut, and other activations of the gates.

    The textbook's sentence needs its conditions: a forget gate of bias 0 halves the cell at every step. Uniform
    matrices within 1/sqrt(H), as torch has them, are as large as those of a gain of 0.58 here.

    python launch.py --study=gates [--quick | --smoke]
    Cost: 69 runs of 800 steps, five and a half minutes on two cores with --workers=2.
    """
    steps = {'full': 800, 'quick': 300, 'smoke': 4}[form]
    tiny = {'task.train_size': 100, 'task.valid_size': 8, 'task.test_size': 30, 'training.batch_size': 8}
    lstm, gains = {'model': 'lstm'}, {'rnn': 2.0, 'lstm': 4.0}
    axes = [{'model': 'rnn'}, *grid({'model': ('lstm',), 'model.forget_bias': (0.0, 1.0, 3.0)})]
    if form == 'full':
        axes = chain(
            axes, [{'model': 'gru'}, {'model': 'rnn', 'model.time_skip': 10}, {'model': 'bahdanau'},
                   {'model': 'transformer', 'model.num_layers': 1}],
            cross(grid({'model': ('rnn', 'lstm')}), [{'optimizer.clip_norm': None}]),
            [{'model': model, 'model.recurrent_gain': gain, 'optimizer.clip_norm': clip}
             for model, gain in gains.items() for clip in (1.0, None)],
            cross([lstm], chain(*([{f'model.{name}': value} for value in values] for name, values in (
                ('without', ('input', 'forget', 'output')), ('cut', ('cell', 'hidden')),
                ('gate_activation', ('hard_sigmoid', 'relu')))))),
            grid({'model': ('gru',), 'model.without': ('reset', 'update')}))
    elif form == 'smoke':
        axes = [axes[2]]
    return Study(
        claim='With distance the gradient of a plain recurrent network vanishes or explodes, that of an LSTM does '
              'neither, and so it recalls what the plain one has forgotten.',
        source='Hochreiter and Schmidhuber 1997, section 3; Pascanu et al. 2013, section 2',
        expect='Of the plain network, yes. Of an LSTM only under conditions: at forget bias 0 its gradient vanishes '
               'too, faster than that of an orthogonal plain network; at gain 8 it explodes like the other.',
        base={'experiment': 'puzzles', 'task.kind': 'recall', 'task.metric': 'loss', 'task.length': 30,
              'task.max_length': 32, 'task.train_size': 20_000 if form == 'full' else 4000, 'task.test_size': 1000,
              'model.hidden_size': 32 if form != 'smoke' else 8, **lasting(steps), 'optimizer.clip_norm': 1.0,
              'optimizer.warmup_steps': min(50, steps // 2)}
             | (tiny if form == 'smoke' else {}),
        axes=axes, measure=lambda subject: measure(subject, GAINS), verdict=verdict, figures=figures,
        seeds={'full': 3, 'quick': 2, 'smoke': 1}[form],
        floors=lambda subject: [{'floor': 'a word at random', 'recall': 100 / subject.composed.task.symbols,
                                 'far': 100 / subject.composed.task.symbols}],
        shown=(('model', 'model.forget_bias', *(['model.recurrent_gain', 'optimizer.clip_norm', *PLAIN]
                                                if form == 'full' else [])),
               ('recall', 'far', 'start_30', 'trained_30', 'start_100', 'steepest', 'parameters')))


def measure(subject: Subject, gains: tuple[float, ...]) -> list[Row]:
    """Recall of all questions, and of the sixth with most words behind the first; decades that the gradient gains over
    30 and 100 words ('start', 'trained'), and the greatest gradient that 50 steps had on average."""
    task, model, summary = subject.composed.task, subject.model, subject.summary
    right = subject.right
    hard = np.array([task.difficulty(source) for source in subject.data.text['test'][0]])
    rows: list[Row] = []
    reached = {}
    for when, params, factors in (('start', subject.fresh, gains), ('trained', subject.params, (1.0,))):
        for gain in factors:
            found = gradients.reach(model, gradients.amplified(params, gain), DISTANCES)
            rows += [{'when': when, 'gain': gain, 'distance': d, 'log_gradient': float(x)} for d, x in zip(
                DISTANCES, found)]
            rows.append({'when': when, 'gain': gain, 'over': float(found[-1] - found[0])})
            reached[when, gain] = dict(zip(DISTANCES, found - found[0]))
    far = hard >= task.length - task.length // 6
    return [{'recall': float(right.mean()), 'far': float(right[far].mean()),
             **{f'{when}_{d}': float(reached[when, 1.0][d]) for when in ('start', 'trained') for d in (30, FAR)},
             'steepest': max(record.get('gradient_norm', 0.0) for record in subject.records),
             'parameters': summary['parameters']}, *rows]


def plain(table: Table) -> Table:
    """The systems as they are: clipped, with all gates, paths and usual matrices."""
    return table.where(lambda row: row.get('optimizer.clip_norm') == 1.0 and row.get('model.recurrent_gain', 1.0) == 1.0
                       and not any(row.get(name) for name in PLAIN))


def over(table: Table, gain: float) -> Interval:
    """Decades that the gradient gains over `FAR` words before training."""
    return table.where({'when': 'start', 'gain': gain}).interval('over')


def verdict(table: Table) -> Verdict:
    """The plain network's gradient over gains, the LSTM's at each forget bias and at the greatest gain, and recall."""
    rnn, lstm = (plain(table.where({'model': model})) for model in ('rnn', 'lstm'))
    usual = lstm.where({'model.forget_bias': 1.0})
    low, high = over(rnn, 0.5), over(rnn, 4.0)
    found = [decide(interval([-x for x in rnn.where({'when': 'start', 'gain': 0.5}).column('over')]), 6,
                    f"At gain 0.5 the plain network's gradient is 10^{low.mean:.0f} times itself {FAR} words away.",
                    'decades lost'),
             decide(high, 3, f'At gain 4 it is 10^{high.mean:.0f} times.')]
    for bias in sorted(lstm.values('model.forget_bias')):
        kept = over(lstm.where({'model.forget_bias': bias}), 1.0)
        found.append(decide(kept, -3, f"At gain 1 and forget bias {bias:g} an LSTM's is 10^{kept.mean:.1f} times; kept "
                                      'would be a thousandth or more.'))
    burst = over(usual, 8.0)
    found.append(decide(interval([-x for x in usual.where({'when': 'start', 'gain': 8.0}).column('over')]), -3,
                        f'At gain 8 it is 10^{burst.mean:.0f} times.'))
    gap = difference(usual, rnn, 'far')
    found.append(decide(gap, 20, f'Of words as far as trained for, the LSTM recalls {gap.mean:.1f} points more.'))
    return all_of(found)


def name(row: Row) -> str:
    """What a system is called in figures."""
    said = [str(row['model'])]
    said += [f'bias {row["model.forget_bias"]:g}'] if row.get('model.forget_bias') is not None else []
    said += [f'without {row["model.without"]}'] if row.get('model.without') else []
    said += [f'{row["model.cut"]} cut'] if row.get('model.cut') else []
    said += [str(row['model.gate_activation'])] if row.get('model.gate_activation') else []
    said += [f'skip {row["model.time_skip"]}'] if row.get('model.time_skip') else []
    said += [f'gain {row["model.recurrent_gain"]:g}'] if row.get('model.recurrent_gain') else []
    said += ['not clipped'] if row.get('optimizer.clip_norm', 1.0) is None else []
    return ', '.join(said)


def figures(table: Table) -> dict[str, Any]:
    """The gradient over distance before and after training, over the gain, and recall of each system."""
    named = Table.of({**row, 'system': name(row)} for row in table.rows)
    usual = named.where(lambda row: row.get('optimizer.clip_norm') == 1.0 and not row.get('model.recurrent_gain')
                        and not any(row.get(key) for key in PLAIN[:3]))
    figure, axes = charts.panels(1, 3, width=4.4)
    for axis, when in zip(axes[0], ('start', 'trained')):
        charts.lines(usual.where({'when': when, 'gain': 1.0}), 'distance', 'log_gradient', 'system', axis=axis,
                     xlabel='words between the first and the end', ylabel='log10 of the gradient', title=when)
    charts.lines(usual.where({'when': 'start'}), 'gain', 'over', 'system', axis=axes[0, 2], logx=True,
                 xlabel='factor of the recurrent matrices', ylabel=f'decades gained over {FAR} words', title='start')
    return {'gradient by distance': figure, 'recall of each system': charts.bars(
        named, 'system', 'far', ylabel='recall of the farthest, %', limits=(0, 100))}
