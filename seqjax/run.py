"""The ordered life of a run: prepare, restore, train, evaluate, save, summarise. Usable from a notebook, with no flags:

    from experiments.translation import numerals
    from seqjax.run import train
    summary = train(numerals('gru').replace('training', steps=500), 'runs/mine')
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from seqjax import compilation, figures, files, rundir
from seqjax.data.batches import Batches
from seqjax.errors import UserError
from seqjax.experiment import Experiment
from seqjax.tasks.evaluation import Evaluation, Evaluator
from seqjax.tasks.translation import Codec, Data
from seqjax.training.checkpoint import Checkpoints, digest
from seqjax.training.loop import History, Rhythm, Stop, fit
from seqjax.training.metrics import JsonLines, TensorBoard, Writer
from seqjax.training.parallel import Placement
from seqjax.training.progress import Progress
from seqjax.training.step import GradientDescent, State

SHOWN = 5  # translations printed at the end, and drawn


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An experiment whose model knows its sizes, with the devices and functions to run it."""

    experiment: Experiment
    placement: Placement
    learner: GradientDescent
    steps: int
    batches_per_epoch: int


def prepare(experiment: Experiment, codec: Codec, batches_per_epoch: int) -> Prepared:
    """Fills in what the data tells and builds learner and placement. Touches no parameter."""
    experiment = experiment.sized(**experiment.task.sizes(codec))
    training, model = experiment.training, experiment.model
    steps = training.total_steps(batches_per_epoch)
    optimizer, schedule = experiment.optimizer.build(steps)
    placement = Placement(training.parallel, training.mesh, model.partition_rules())
    placement.check_batch('--training.batch_size', training.batch_size, training.accumulate)
    placement.check_batch('--decoding.batch_size', experiment.decoding.batch_size)
    tokens = np.ones((1, 2), np.int32)

    def initialise(rng: jax.Array) -> Any:
        return model.init(rng, tokens, tokens)['params']

    learner = GradientDescent(initialise, functools.partial(experiment.task.loss, model), optimizer, schedule,
                              training.seed, training.accumulate)
    return Prepared(experiment, placement, learner, steps, batches_per_epoch)


def plan_batches(experiment: Experiment, data: Data) -> Batches:
    """The training batches: number n is a pure function of the seed and n."""
    return Batches(*data.ids['train'], experiment.training.batch_size, data.codec.shapes, experiment.training.seed)


def train(experiment: Experiment, workdir: str | pathlib.Path, *, name: str = '', model: str = '',
          argv: Sequence[str] = (), init_from: str | None = None, writers: Sequence[Writer] = (),
          say: Callable[[str], None] = print) -> dict[str, Any]:
    """Trains, or goes on training, in `workdir`, and evaluates on the test split.

    Args:
      name, model, argv: how the launcher was called, for config.json and flags.txt.
      init_from: a run's folder, whose parameters of equal path and shape are taken over.
      writers: further takers of the metrics.
      say: takes lines for the person who watches.

    Returns:
      The content of summary.json.

    Raises:
      UserError: a mistake in the options, the data or the folder; nothing of an existing run is lost.
      Interrupted: SIGTERM or SIGINT came; the state has been saved.
    """
    workdir = pathlib.Path(workdir)
    began = time.monotonic()
    with files.locked(workdir), compilation.counted() as compiled, Stop() as stop:
        started = (workdir / 'config.json').exists() and (workdir / 'vocabulary.json').exists()
        data = experiment.task.prepare(rundir.load_codec(workdir) if started else None)
        batches = plan_batches(experiment, data)
        ready = prepare(experiment, data.codec, batches.batches_per_epoch)
        experiment = ready.experiment
        rundir.claim(workdir, rundir.record(experiment, data.sha256, name, model, tuple(argv), init_from), experiment)
        if not started:
            rundir.save_codec(workdir, data.codec)
        for note in data.notes:
            say(note)
        training = experiment.training
        evaluate_every = training.evaluate_every or batches.batches_per_epoch
        checkpoints = Checkpoints(workdir / 'checkpoints', training.keep, training.average, training.checkpoint_every)
        state, history = begin(ready, checkpoints, init_from, say)
        step = int(state.step)
        if step > ready.steps:
            raise UserError(f'--training.steps={ready.steps} lies behind the checkpoint at step {step} in {workdir}; '
                            'ask for more steps, or choose another folder')
        outputs = [JsonLines(workdir / 'metrics.jsonl'), TensorBoard(workdir), *writers]
        for output in outputs[:2]:
            output.cut(step)

        def write(record: dict) -> None:
            for output in outputs:
                output.write(record)

        evaluator = Evaluator(experiment.task, experiment.model, data.codec, ready.placement, stop.check)
        validation = dataclasses.replace(experiment.decoding, method='greedy', nbest=1)

        def evaluate_valid(state: State, step: int) -> tuple[dict, float]:
            metrics = evaluator.evaluate(state.params, data.text['valid'], data.ids['valid'], validation,
                                         experiment.task.valid_sentences).metrics
            score = metrics[experiment.task.metric] * (-1 if experiment.task.metric == 'loss' else 1)
            progress.note(f'step {step}: ' + '  '.join(f'{key} {metrics[key]:.4g}' for key in (
                'loss', 'perplexity', 'bleu', 'exact_match') if key in metrics))
            return metrics, score

        def stream(start: int):
            share = training.batch_size // jax.process_count()
            mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
            return map(ready.placement.place_batch, batches.iterate(start, ready.steps + 1, mine))

        progress = Progress(ready.steps, step, training.log_every)
        say(f'{ready.placement.describe()}; {parameter_count(state.params):,} parameters; {ready.steps:,} steps of '
            f'{training.batch_size} sentences, {batches.batches_per_epoch:,} an epoch'
            + (f'; going on after step {step:,}' if step else ''))
        rhythm = Rhythm(ready.steps, evaluate_every, training.checkpoint_every, training.log_every, training.patience)
        try:
            with contextlib.closing(progress):
                state = fit(state, ready.placement.step(ready.learner.step), stream, rhythm, history, evaluate_valid,
                            checkpoints, write, progress, stop,
                            trace=str(workdir / 'profile') if training.profile else None)
            state = ready.learner.finish(state, data)
            params, chosen = final_parameters(checkpoints, experiment, abstract(ready).params, ready.placement)
            summary = {'parameters': parameter_count(params), 'parameters_from': chosen, 'steps': int(state.step),
                       'params_sha256': digest(params),
                       'time': {'training_seconds': history.seconds + progress.clock()['seconds']}}
            tests = conclude(workdir, experiment, data, evaluator, params, write, int(state.step), say)
            summary |= {'test': tests.metrics, 'signatures': tests.signatures}
            summary['time'] |= {'seconds_in_all': time.monotonic() - began, 'compilations': compiled.count,
                                'compile_seconds': compiled.seconds}
            files.write(workdir / 'summary.json', json.dumps(summary, indent=1) + '\n')
        finally:
            checkpoints.close()
            for output in outputs:
                output.close()
    return summary


def abstract(ready: Prepared) -> State:
    """The state's shapes and shardings, without a value."""
    shapes = jax.eval_shape(ready.learner.init, jax.random.key(0))
    return jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                        shapes, ready.placement.shardings(shapes))


def begin(ready: Prepared, checkpoints: Checkpoints, init_from: str | None, say: Callable) -> tuple[State, History]:
    """The newest intact checkpoint's state and history, or the initial ones."""
    restored = checkpoints.restore(abstract(ready))
    if restored is not None:
        _, state, host = restored
        return state, History(**host)
    state = jax.jit(ready.learner.init)(jax.random.key(ready.experiment.training.seed))
    if init_from is not None:
        state = state._replace(params=take_over(state.params, init_from, say))
    return ready.placement.place_state(state), History()


def take_over(params: Any, init_from: str, say: Callable) -> Any:
    """`params` with the leaves of another run's that have the same path and shape; says which did not match."""
    theirs = {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
              for path, leaf in jax.tree_util.tree_flatten_with_path(parameters_of(pathlib.Path(init_from)))[0]}
    fresh, matched = [], 0

    def choose(path: tuple, leaf: jax.Array) -> Any:
        nonlocal matched
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        other = theirs.get(name)
        if other is None or other.shape != leaf.shape:
            fresh.append(name + ('' if other is None else f' ({other.shape} there, {leaf.shape} here)'))
            return leaf
        matched += 1
        return other

    params = jax.tree_util.tree_map_with_path(choose, params)
    if not matched:
        raise UserError(f'--init_from={init_from}: none of its parameters has a path and shape of this model '
                        f'({fresh[0]}, …); name a run of the same kind of model')
    say(f'--init_from={init_from}: {matched} parameters taken over'
        + (f', {len(fresh)} start afresh: {", ".join(fresh)}' if fresh else ''))
    return params


def parameters_of(workdir: pathlib.Path) -> Any:
    """The final parameters of a run (or the best so far), whole, on one device."""
    experiment, codec, _ = reopen(workdir)
    experiment = experiment.replace('training', parallel='jit', mesh='data=1')
    ready = prepare(experiment, codec, 1)
    checkpoints = Checkpoints(workdir / 'checkpoints', experiment.training.keep, experiment.training.average,
                              experiment.training.checkpoint_every)
    try:
        return final_parameters(checkpoints, experiment, abstract(ready).params, ready.placement)[0]
    finally:
        checkpoints.close()


def final_parameters(checkpoints: Checkpoints, experiment: Experiment, shapes: Any,
                     placement: Placement) -> tuple[Any, str]:
    """What a run is judged by: the average of the last checkpoints if asked for, else the best one; and which it is."""
    checkpoints.wait()
    if experiment.training.average:
        return (placement.place_state(checkpoints.averaged(shapes)),
                f'average of {experiment.training.average} checkpoints')
    best = checkpoints.best()
    restored = checkpoints.restore({'params': shapes}, best)
    if restored is None:
        raise UserError(f'{checkpoints.directory} holds no checkpoint yet; train the run first')
    step, params = restored[0], restored[1]['params']
    return params, f'checkpoint {step}' + (', the best on validation' if step == best else '')


def reopen(workdir: pathlib.Path) -> tuple[Experiment, Codec, dict]:
    """The experiment, codec and config of a run, from its folder alone."""
    config = rundir.read(workdir)
    return rundir.experiment_of(config), rundir.load_codec(workdir), config


def conclude(workdir: pathlib.Path, experiment: Experiment, data: Data, evaluator: Evaluator, params: Any,
             write: Callable, step: int, say: Callable) -> Evaluation:
    """Test scores, predictions, a few translations, and figures."""
    result = evaluator.evaluate(params, data.text['test'], data.ids['test'], experiment.decoding)
    write({'step': step, 'split': 'test', **result.metrics})
    files.write(workdir / 'predictions' / 'test.txt', ''.join(f'{line}\n' for line in result.hypotheses))
    sources, references = data.text['test']
    for source, hypothesis, reference in itertools.islice(zip(sources, result.hypotheses, references), SHOWN):
        say(f'\n  source      {source}\n  hypothesis  {hypothesis}\n  reference   {reference}')
    say('')
    say(score_lines(result))
    drawn = figures.draw_run(workdir, evaluator, params, data.ids['test'][0], experiment.decoding, SHOWN)
    for path in drawn:
        say(f'drew {path}')
    return result


def score_lines(result: Evaluation) -> str:
    """The scores of a split, each with its signature."""
    lines = [f'{name:<16} {value:8.3f}' + (f'   {result.signatures[name]}' if name in result.signatures else '')
             for name, value in result.metrics.items()]
    return '\n'.join(lines)


def parameter_count(params: Any) -> int:
    """Scalars in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def evaluate(workdir: str | pathlib.Path, change: Callable[[Experiment], Experiment] = lambda e: e,
             say: Callable[[str], None] = print) -> Evaluation:
    """Scores a run's final parameters on its test split.

    Args:
      change: options that may differ from training (decoding, devices, the path of the data).
    """
    workdir = pathlib.Path(workdir)
    experiment, codec, config = reopen(workdir)
    experiment = change(experiment)
    data = experiment.task.prepare(codec)
    if data.sha256 != config['data_sha256']:
        raise UserError(f'the data have changed since {workdir} was trained: SHA-256 {data.sha256[:12]}… is not '
                        f'{config["data_sha256"][:12]}…; restore the files, or train again')
    evaluator, params = opened(workdir, experiment, codec)
    result = evaluator.evaluate(params, data.text['test'], data.ids['test'], experiment.decoding)
    method = experiment.decoding.method
    files.write(workdir / 'predictions' / f'test.{method}.txt', ''.join(f'{line}\n' for line in result.hypotheses))
    files.write(workdir / f'evaluation.{method}.json', json.dumps({
        'decoding': dataclasses.asdict(experiment.decoding), 'test': result.metrics,
        'signatures': result.signatures}, indent=1) + '\n')
    say(score_lines(result))
    for path in figures.draw_run(workdir, evaluator, params, data.ids['test'][0], experiment.decoding, SHOWN,
                                 f'.{method}'):
        say(f'drew {path}')
    return result


def opened(workdir: pathlib.Path, experiment: Experiment, codec: Codec) -> tuple[Evaluator, Any]:
    """An evaluator and the final parameters of a run."""
    ready = prepare(experiment, codec, 1)
    checkpoints = Checkpoints(workdir / 'checkpoints', experiment.training.keep, experiment.training.average,
                              experiment.training.checkpoint_every)
    params, _ = final_parameters(checkpoints, ready.experiment, abstract(ready).params, ready.placement)
    checkpoints.close()
    return Evaluator(ready.experiment.task, ready.experiment.model, codec, ready.placement), params


def predict(workdir: str | pathlib.Path, lines: Sequence[str],
            change: Callable[[Experiment], Experiment] = lambda e: e) -> list[str]:
    """Translates `lines` with a run's final parameters: as many lines out as in.

    With nbest > 1 a line holds, for each hypothesis, its score and its text, all parted by tabs.
    """
    workdir = pathlib.Path(workdir)
    experiment, codec, _ = reopen(workdir)
    experiment = change(experiment)
    evaluator, params = opened(workdir, experiment, codec)
    found = evaluator.predict(params, lines, experiment.decoding)
    if experiment.decoding.method == 'beam' and experiment.decoding.nbest > 1:
        return ['\t'.join(f'{h.score:.4f}\t{one_line(h.text)}' for h in best) for best in found]
    return [one_line(best[0].text) for best in found]


def one_line(text: str) -> str:
    """`text` with what would end a line, or a field, made a space."""
    return ' '.join(text.replace('\t', '\n').replace('\r', '\n').split('\n'))
