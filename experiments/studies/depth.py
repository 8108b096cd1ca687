"""How deep a stack of attention can be: residual connections, and normalisation before and after each sub-layer."""

from typing import Any

import numpy as np

from seqjax.studies import charts, evidence, gradients
from seqjax.studies.attended import first
from seqjax.studies.axes import Settings, cross, grid, lasting
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row, Table, difference

__all__ = ['depth']

BEFORE, AFTER = {'model.norm': 'before'}, {'model.norm': 'after'}
BARE = {'model.normalisation': 'none'}
KEYS = ('model.residual', 'model.normalisation', 'model.norm')


def depth(form: Form = 'full') -> Study:
    """Deep stacks learn with residual connections and normalisation before each sub-layer, and hardly without.

    He et al. 2016, section 3, for residual connections; Vaswani et al. 2017, section 3.1, normalises after them, Xiong
    et al. 2020 ("On layer normalization in the Transformer architecture", section 3) before, and say that the other
    needs a warm-up. One causal stack of width 32 is to recall the first of up to 16 words: a question that one
    layer answers, so that what is measured is whether depth can be trained, not what it is good for. All have the same
    recipe, whose warm-up is short; normalisation after is also run with one over half of the steps. The gradient
    of each layer is that of the first batch, before training.

    python launch.py --study=depth [--quick | --smoke]
    Cost: 78 runs of 300 steps, 22 minutes on two cores with --workers=2, beside other work.
    """
    steps = {'full': 300, 'quick': 200, 'smoke': 3}[form]
    deep = {'full': (1, 6, 12, 24), 'quick': (1, 12), 'smoke': (2,)}[form]
    kinds: list[Settings] = [BEFORE, AFTER, BARE]
    kinds = cross(grid({'model.residual': (True, False)}), kinds)
    kinds = kinds if form == 'full' else [kinds[0], kinds[1], kinds[3]] if form == 'quick' else kinds[:1]
    short, long = min(15, steps // 2), steps // 2
    axes = cross(kinds, grid({'model.num_layers': deep}), [{'optimizer.warmup_steps': short}])
    if form == 'full':
        axes += cross([{'model.residual': True} | AFTER], grid({'model.num_layers': deep[-2:]}),
                      [{'optimizer.warmup_steps': long}])
    return Study(
        claim='A stack of 24 layers learns what a single layer does if residual connections go around its sub-layers '
              'and normalisation comes before them, and not where either is missing or normalisation comes after.',
        source='He et al. 2016, section 3; Vaswani et al. 2017, section 3.1; Xiong et al. 2020, section 3',
        expect='Without residual connections nothing is learned in a deep stack; normalisation after them fails under '
               'a short warm-up; without any normalisation, but with them, 24 layers may still learn.',
        base={'experiment': 'puzzles', 'model': 'decoderonly', 'task.kind': 'recall', 'task.metric': 'loss',
              'task.length': 15, 'task.max_length': 17, 'task.train_size': 10_000 if form != 'smoke' else 60,
              'task.valid_size': 100 if form != 'smoke' else 8, 'task.test_size': 500 if form != 'smoke' else 16,
              'model.hidden_size': 32 if form != 'smoke' else 8, 'model.feedforward_size': 64,
              'training.batch_size': 32, **lasting(steps), 'optimizer.learning_rate': 2e-3, 'optimizer.beta2': 0.98},
        axes=axes, measure=measure, verdict=lambda table: verdict(table, short), figures=figures,
        seeds={'full': 3, 'quick': 2, 'smoke': 1}[form],
        floors=lambda subject: [{'floor': 'a word at random', 'recall': 100 / subject.composed.task.symbols}],
        shown=((*KEYS, 'model.num_layers', 'optimizer.warmup_steps'), ('recall', 'nll', 'tilt', 'parameters')))


def measure(subject: Subject) -> list[Row]:
    """Recall; and the gradient of each layer at the start, with the decades from the first layer's to the last's."""
    batch = evidence.batch_of(*first(subject.data.ids['train'], 32))
    task, model = subject.composed.task, subject.model

    def loss(params: Any) -> Any:
        total, count = task.loss(model, params, batch, None, 0)[0]['loss']
        return total / count

    norms = np.log10(np.maximum(gradients.by_layer(loss, subject.fresh, 'decoder'), gradients.SMALLEST))
    test = subject.summary['test']
    return [{'recall': test['exact_match'], 'nll': test['nll'], 'tilt': float(norms[-1] - norms[0]),
             'parameters': subject.summary['parameters']},
            *({'layer': (i + 0.5) / len(norms), 'log_gradient': float(x)} for i, x in enumerate(norms))]


def kind(table: Table, residual: bool, settings: Settings) -> Table:
    """The trials with or without residual connections and with one normalisation."""
    return table.where({'model.residual': residual} | settings)


def verdict(table: Table, short: int) -> Verdict:
    """The deepest stacks against each other, and against one layer; all with the short warm-up."""
    table = table.where({'optimizer.warmup_steps': short})
    layers = table.values('model.num_layers')
    deep = table.where({'model.num_layers': max(layers)})
    ours = kind(deep, True, BEFORE)
    found = []
    alone = [part for part in (kind(deep, False, settings) for settings in (BEFORE, AFTER, BARE)) if len(part)]
    if alone:
        best = max(alone, key=lambda part: np.mean(part.column('recall')))
        gap = difference(ours, best, 'recall')
        found.append(decide(gap, 30, f'At {max(layers)} layers residual connections are worth {gap.mean:.1f} points of '
                                     'recall, against the best without.', 'points of exact match'))
    kept = difference(ours, kind(table.where({'model.num_layers': min(layers)}), True, BEFORE), 'recall')
    found.append(decide(kept, -5, f'With normalisation before, {max(layers)} layers are at {kept.mean:+.1f} points to '
                                  f'{min(layers)}.', 'points of exact match'))
    for settings, text in ((AFTER, 'normalising after'), (BARE, 'not normalising')):
        other = kind(deep, True, settings)
        if len(other):
            loss = difference(ours, other, 'recall')
            found.append(decide(loss, 10, f'There {text} costs {loss.mean:.1f} points.'))
    return all_of(found)


def called(row: Row) -> str:
    """What a kind of stack is called in figures."""
    norm = {'before': 'normalised before', 'after': 'normalised after'}.get(row.get('model.norm'), 'not normalised')
    return norm + ('' if row['model.residual'] else ', no residual')


def figures(table: Table) -> dict[str, Any]:
    """Recall over depth, by warm-up, and the gradient of each layer of the deepest stacks before training."""
    named = Table.of({**row, 'stack': called(row)} for row in table.rows)
    warm = sorted(table.values('optimizer.warmup_steps'))
    usual = named.where({'optimizer.warmup_steps': warm[0]})
    rows = [*usual.rows, *({**row, 'stack': row['stack'] + ', long warm-up'} for row in named.where(
        lambda row: row['optimizer.warmup_steps'] > warm[0]).rows)]
    figure, axes = charts.panels(1, 2, width=5.2)
    charts.lines(Table.of(rows), 'model.num_layers', 'recall', 'stack', axis=axes[0, 0], ylim=(-3, 103),
                 xlabel='layers', ylabel='exact match, %', title='after training')
    charts.lines(usual.where({'model.num_layers': max(table.values('model.num_layers'))}), 'layer', 'log_gradient',
                 'stack', axis=axes[0, 1], xlabel='place in the stack: 0 first layer, 1 last',
                 ylabel='log10 of the gradient', title='before training')
    return {'depth': figure}
