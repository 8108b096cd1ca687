"""A study of one's own, from the command line: axes as text, no claim, the scores of the test split.

    --experiment=reverse --model=gru --training.steps=500 --sweep='model.num_layers=1,2,4 training.seed=0..2'

Axes are parted by spaces, values by commas; a..b are the integers from a to b. Where a value holds a comma itself
(a tuple, a mesh), values are parted by | instead: training.mesh='data=2,fsdp=1|data=1,fsdp=2'. Every combination is a
trial. Values are read by the types of the flags. The axis training.seed repeats; tables show means over it.
"""

import re
import shlex
from collections.abc import Sequence
from typing import Any

from seqjax.compose import given, recipe
from seqjax.errors import UserError
from seqjax.experiment import GROUPS
from seqjax.studies.axes import SEED, Settings, grid
from seqjax.studies.study import Study
from seqjax.studies.subject import Subject
from seqjax.studies.table import Row


def study(text: str, base: Settings, seeds: int | None = None) -> Study:
    """The study that a sweep over `base` describes.

    Args:
      base: 'experiment', 'model', and flags by dotted name.
      seeds: seeds 0 to seeds - 1, where the sweep has no axis of its own for them.

    Raises:
      UserError: the text is no list of axes, or a value is none of its flag's.
    """
    axes = parse(text, base)
    repeated: Any = axes.pop(SEED, None)
    if repeated is None:
        repeated = seeds or [base.get(SEED, 0)]
    elif seeds is not None:
        raise UserError(f'--seeds={seeds} and an axis {SEED}: the axis says which seeds; drop one')
    if not axes:
        axes = {'model': [base['model']]}
    return Study(claim='', source='', expect='', base=base, axes=grid(axes), measure=scores, verdict=None,
                 seeds=repeated)


def scores(subject: Subject) -> list[Row]:
    """What the summary of a trial's run says, in one row."""
    return [scored(subject.summary)]


def scored(summary: dict[str, Any]) -> Row:
    """The test scores of a run, its size and its time, from its summary.json."""
    return {**summary['test'], 'parameters': summary['parameters'], 'steps': summary['steps'],
            'seconds': summary['time']['training_seconds']}


def parse(text: str, base: Settings) -> dict[str, list[Any]]:
    """{name: values} of the axes, values typed as the flags are."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f'--sweep={text}: {error}; close the quotation') from None
    if not words:
        raise UserError("--sweep has no axis; write NAME=VALUE,VALUE, as 'model.num_layers=1,2,4 training.seed=0..2'")
    texts: dict[str, list[str]] = {}
    for word in words:
        name, equals, values = word.lstrip('-').partition('=')
        if not equals or not name:
            raise UserError(f'--sweep: {word!r} is no axis; write NAME=VALUE,VALUE')
        if name in texts:
            raise UserError(f'--sweep: the axis {name} is there twice; put its values together')
        texts[name] = list(split(name, values))
    model = texts.get('model', [base['model']])[0]
    parts = {group: getattr(recipe(texts.get('experiment', [base['experiment']])[0], model).experiment, group)
             for group in GROUPS}
    return {name: values if name in ('model', 'experiment') else [
        chosen([f'--{name}={value}'], parts)[name] for value in values] for name, values in texts.items()}


def split(name: str, values: str) -> Sequence[str]:
    """The values of an axis as text."""
    parted = [value for value in values.split('|' if '|' in values else ',') if value]
    if not parted:
        raise UserError(f'the axis {name} has no value; give at least one')
    found = []
    for value in parted:
        span = re.fullmatch(r'(-?\d+)\.\.(-?\d+)', value)
        if not span:
            found.append(value)
            continue
        first, last = map(int, span.groups())
        if last < first:
            raise UserError(f'the axis {name} has no value in {value}; write the lower number first')
        found += map(str, range(first, last + 1))
    return found


def chosen(argv: Sequence[str], parts: dict[str, Any], others: Sequence[Any] = ()) -> Settings:
    """{dotted name: value} of the flags of `parts` that are set in `argv`, flagfiles included."""
    return {f'{group}.{name}': value for stage in given(argv, parts, others)
            for group, fields in stage.items() for name, value in fields.items()}


def base(experiment: str | None, model: str | None, argv: Sequence[str], text: str, others: Sequence[Any]) -> Settings:
    """The base of a sweep: the experiment, the model and the ordinary flags of a command line."""
    if experiment is None:
        raise UserError('--sweep needs --experiment=NAME, the run whose flags it varies')
    first = re.search(r'(?:^|\s)(?:--)?model=([\w-]+)', text)
    found = recipe(experiment, model or (first and first.group(1)))
    parts = {group: getattr(found.experiment, group) for group in GROUPS}
    own = recipe(experiment, model)
    return {'experiment': experiment, 'model': own.model, **chosen(argv, parts, others)}
