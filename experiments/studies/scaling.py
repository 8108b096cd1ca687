"""What more of everything buys: loss against parameters, data and compute, for three families side by side."""

import dataclasses
import math
import statistics
from typing import Any

import jax
import numpy as np

from seqjax.studies import charts, laws
from seqjax.studies.axes import Settings, chain, cross, grid, lasting
from seqjax.studies.passes import random_batch, step_flops
from seqjax.studies.study import Form, Study, Verdict, all_of, decide
from seqjax.studies.subject import Subject
from seqjax.studies.table import SEED, Interval, Row, Table, interval
from seqjax.tasks.floors import NGrams

__all__ = ['scaling']

WIDTH, ALL = 24, 20_000  # of the trials on the axis of data; pairs of those on the axis of parameters
FAMILIES: dict[str, Settings] = {
    'gru': {'model.bidirectional': False}, 'bahdanau': {}, 'transformer': {'model.num_heads': 2}}
AXES = {'parameters': 'non_embedding', 'data': 'task.train_size', 'compute': 'compute'}


def scaling(form: Form = 'full') -> Study:
    """Loss falls as a power of parameters, of data and of compute, and by a greater one for the Transformer.

    Kaplan et al. 2020, section 3.2.1 and figure 7, Transformers against recurrence; against it Hestness et al. 2017,
    section 4: another architecture moves the error and leaves the exponent. Lists to reverse of integers as frequent as
    words are (Zipf), up to eight: a dictionary with a long tail, and an order, to be learned from so many steps. The
    source says all of the target, so that the loss without limits is 0 and L = A x^-a, as Kaplan has it; the exponent
    with a floor, L = E + A x^-a, is given as well. Parameters are without embeddings; compute is FLOPs in matrix
    products of training, and its loss the least that any width had reached by then; on each curve the rate of learning
    falls as the inverse root of steps, so that a point on it is a run that ends there. A recipe for all sizes. The
    speed of steps is what the machine gave, beside another worker where there was one.

    python launch.py --study=scaling [--quick | --smoke]
    Cost: 81 runs of 400 steps, 10 minutes on two cores with --workers=2.
    """
    sizes = {'full': dict(steps=400, widths=(8, 12, 16, WIDTH, 32, 48), data=(250, 1000, 4000), families=3),
             'quick': dict(steps=120, widths=(8, WIDTH), data=(250,), families=2),
             'smoke': dict(steps=4, widths=(4, 8), data=(), families=1)}[form]
    steps = sizes['steps']
    base = {'experiment': 'reverse', 'task.highest': 199, 'task.skew': 1.0, 'task.train_length': 8,
            'task.test_length': 8, 'task.max_length': 9, 'task.buckets': 1, 'task.metric': 'loss',
            'task.valid_sentences': 1, 'task.valid_size': 400, 'task.test_size': 400, 'task.train_size': ALL,
            'training.batch_size': 64, **lasting(steps, 8), 'model.num_layers': 1, 'model.dropout': 0.0,
            'optimizer.name': 'adam', 'optimizer.learning_rate': 3e-3,
            'optimizer.schedule': 'inverse_sqrt', 'optimizer.warmup_steps': min(50, steps // 2),
            'optimizer.clip_norm': 1.0}
    if form == 'smoke':
        base |= {'task.highest': 9, 'task.train_size': 200, 'task.valid_size': 10, 'task.test_size': 10,
                 'training.batch_size': 16}
    chosen = list(FAMILIES)[::2] if sizes['families'] == 2 else list(FAMILIES)[:sizes['families']]
    axes = chain(*([family(model, width) for model in chosen] for width in sizes['widths']),
                 cross([family(model, WIDTH) for model in chosen], grid({'task.train_size': sizes['data']})
                       if sizes['data'] else []))
    return Study(
        claim='Loss falls by a greater power of parameters and of compute for the Transformer than for a recurrent '
              'network, with attention or without.',
        source='Kaplan et al. 2020, section 3.2.1 and figure 7; against it Hestness et al. 2017, section 4',
        expect='A smaller exponent without attention, whose one vector is full; about the same with attention of '
               'either kind; with data much the same for all, since the tail of rare words is.',
        base=base, axes=axes, measure=measure, verdict=verdict, figures=figures, floors=trivial,
        seeds={'full': 3, 'quick': 2, 'smoke': 1}[form],
        published=[{'published': f'Transformers on WebText2, of {name} (Kaplan et al. 2020, equations 1.1 to 1.3)',
                    'exponent': value} for name, value in (('parameters', 0.076), ('data', 0.095), ('compute', 0.050))],
        shown=(('model', 'model.hidden_size', 'task.train_size'),
               ('loss', 'exact_match', 'non_embedding', 'parameters', 'flops', 'milliseconds')))


def family(model: str, width: int) -> Settings:
    """A member of a family: all its widths are multiples of one."""
    wide = {'model.feedforward_size': 4 * width} if model == 'transformer' else {'model.embedding_size': width}
    return {'model': model, 'model.hidden_size': width} | FAMILIES[model] | wide


def measure(subject: Subject) -> list[Row]:
    """Loss on the test split, sizes and costs; and the loss on the validation split by compute spent."""
    records, training = subject.records, subject.composed.training
    shape = subject.codec.shapes[-1]
    flops = step_flops(subject, random_batch(subject.model, training.batch_size, *shape))
    speeds = [record['time']['steps_per_second'] for record in records if record['split'] == 'train']
    sizes = {jax.tree_util.keystr(path, simple=True, separator='/'): leaf.size for path, leaf in
             jax.tree_util.tree_flatten_with_path(subject.ready.abstract_params())[0]}
    test = subject.summary['test']
    rows: list[Row] = [{
        'loss': test['nll'], 'exact_match': test['exact_match'], 'parameters': sum(sizes.values()),
        'non_embedding': sum(size for name, size in sizes.items() if 'embedding' not in name),
        'flops': float(flops * training.steps), 'milliseconds': 1000 / statistics.median(speeds)}]
    return rows + [{'compute': float(flops * record['step']), 'loss_at': record['nll']} for record in records
                   if record['split'] == 'valid']


def trivial(subject: Subject) -> list[Row]:
    """Models of the target alone; their loss is of words, the end counted, as that of the trials is."""
    train, test = (subject.data.text[name][1] for name in ('train', 'test'))
    return [{'floor': name, 'loss': math.log(NGrams(train, order).perplexity(test))}
            for name, order in (('unigram model', 1), ('bigram model', 2))]


def on_axis(table: Table, model: str, axis: str) -> Table:
    """A family's trials along one axis: all pairs at each width, or one width with so many pairs."""
    whole = max(table.values('task.train_size'))
    part = table.where({'model': model})
    return part.where({'model.hidden_size': WIDTH}) if axis == 'data' else part.where({'task.train_size': whole})


def cheapest(table: Table, count: int = 6) -> Table:
    """The least loss of any width at `count` amounts of compute, for each seed: rows of compute and loss.

    From where the smallest has left its start behind, to where the largest ends.
    """
    rows: list[Row] = []
    curves = {seed: [(part.column('compute'), part.column('loss_at')) for part in trial.where(
        lambda row: 'compute' in row).groups('model.hidden_size').values()] for (seed,), trial in
        table.groups(SEED).items()}
    every = [x for seed in curves.values() for x, _ in seed]
    first = min(x[len(x) // 4] for x in every)
    at = np.geomspace(first, max(x[-1] for x in every), count)
    for seed, found in curves.items():
        rows += [{SEED: seed, 'compute': float(x), 'loss': float(y)} for x, y in zip(at, laws.frontier(found, at))
                 if np.isfinite(y)]
    return Table.of(rows)


def exponents(table: Table, model: str, axis: str, floor: bool = False) -> laws.Estimate:
    """The law of a family along an axis."""
    part = on_axis(table, model, axis)
    return laws.estimate(laws.points_of(cheapest(part) if axis == 'compute' else part, AXES[axis], 'loss'), floor)


def each_seed(table: Table, model: str, axis: str) -> dict[int, float]:
    """A family's exponent along an axis, for each seed alone: points of one learning curve are no independent ones."""
    part = on_axis(table, model, axis)
    part = cheapest(part) if axis == 'compute' else part.where(lambda row: 'loss' in row)
    return {seed: float(laws.fit(*zip(*((row[AXES[axis]], row['loss']) for row in one.rows)), floor=False).exponent)
            for (seed,), one in part.groups(SEED).items()}


def verdict(table: Table) -> Verdict:
    """The Transformer's exponents against those of recurrence: of parameters by a bootstrap over seeds, of compute by
    the exponents of each seed, whose points hang together."""
    models = [model for model in FAMILIES if model in table.values('model')]
    ours, others = models[-1], models[:-1] or models
    of = {model: exponents(table, model, 'parameters') for model in models}
    compute = {model: each_seed(table, model, 'compute') for model in models}
    gains = {model: laws.steeper(of[ours], of[model]) for model in others}
    cheaper = {model: interval([compute[ours][seed] - value for seed, value in compute[model].items()
                                if seed in compute[ours]]) for model in others}
    told = all_of([
        *(decide(gain, 0, f"Of parameters the {ours}'s exponent is {gain.mean:+.2f} to that of {model}.",
                 'in the exponent of parameters') for model, gain in gains.items()),
        *(decide(gain, 0, f'Of compute it is {gain.mean:+.2f} to that of {model}.')
          for model, gain in cheaper.items())])
    laid = '; '.join(f'{model} {range_of(law.exponent)}, losses off the law by {100 * law.misfit:.0f} %'
                     for model, law in of.items())
    sentence = f'{told.sentence} Exponents of parameters: {laid}.'
    for axis, floor in (('parameters', True), ('data', False)):
        with_all = {model: on_axis(table, model, axis).where(lambda row: 'loss' in row) for model in models}
        if min(len(part.values(AXES[axis])) for part in with_all.values()) > 2:
            sentence += f' {"With a floor" if floor else f"Of {axis}"}: ' + '; '.join(
                f'{model} {range_of(exponents(table, model, axis, floor).exponent)}' for model in models) + '.'
    return dataclasses.replace(told, sentence=sentence)


def range_of(value: Interval) -> str:
    """A number and its interval."""
    return f'{value.mean:.2f}' + ('' if math.isnan(value.low) else f' [{value.low:.2f}, {value.high:.2f}]')


def figures(table: Table) -> dict[str, Any]:
    """Loss over parameters, data and compute, all logarithmic; exponents; what a step costs."""
    models = table.values('model')
    axes_there = [axis for axis in AXES if axis != 'data' or len(on_axis(table, models[0], axis).where(
        lambda row: 'loss' in row).values(AXES[axis])) > 1]
    figure, axes = charts.panels(1, len(axes_there), width=4.2)
    for axis, name in zip(axes[0], axes_there):
        rows = [{**row, 'model': model} for model in models for row in (
            cheapest(on_axis(table, model, name)) if name == 'compute' else on_axis(table, model, name)).rows]
        charts.lines(Table.of(rows), AXES[name], 'loss', axis=axis, logx=True, logy=True, ylabel='loss, nats a word',
                     xlabel={'parameters': 'parameters without embeddings', 'data': 'pairs of the training split',
                             'compute': 'FLOPs of training'}[name])
    found = {'loss over parameters, data and compute': figure}
    rows = [{'model': model, 'of': axis, SEED: seed, 'exponent': value} for axis in axes_there for model in models
            for seed, value in each_seed(table, model, axis).items()]
    found['exponents, each seed alone'] = charts.bars(Table.of(rows), 'of', 'exponent', 'model',
                                                      ylabel='exponent of x in loss = A x^-a')
    figure, axes = charts.panels(1, 2, width=4.2)
    whole = table.where({'task.train_size': max(table.values('task.train_size'))})
    for axis, column, label in zip(axes[0], ('flops', 'milliseconds'), ('FLOPs of training', 'milliseconds a step')):
        charts.lines(whole, 'non_embedding', column, axis=axis, logx=True, logy=True, ylabel=label,
                     xlabel='parameters without embeddings')
    return found | {'what a size costs': figure}
