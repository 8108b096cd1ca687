"""The ordered life of a run: prepare, restore, train, evaluate, save, summarise. Usable from a notebook, with no flags:

    from experiments.translation import numerals
    from seqjax.run import train
    summary = train(numerals('gru').replace('training', steps=500), 'runs/mine')
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from seqjax import compilation, figures, files, rundir
from seqjax.data.batches import Batches
from seqjax.errors import UserError
from seqjax.experiment import Experiment
from seqjax.prepared import Prepared, checkpoints_of, final_parameters, parameter_count, plan_batches, prepare
from seqjax.reuse import parameters_of
from seqjax.tasks.evaluation import Evaluation, Evaluator
from seqjax.tasks.translation import Data
from seqjax.training.checkpoint import Checkpoints, digest
from seqjax.training.loop import History, Rhythm, Stop, fit
from seqjax.training.metrics import JsonLines, TensorBoard, Writer
from seqjax.training.progress import Progress
from seqjax.training.step import State


def train(experiment: Experiment, workdir: str | pathlib.Path, *, name: str = '', model: str = '',
          argv: Sequence[str] = (), init_from: str | None = None, writers: Sequence[Writer] = (),
          say: Callable[[str], None] = print,
          read: Callable[[Any, Any], Data] = lambda task, codec: task.prepare(codec)) -> dict[str, Any]:
    """Trains, or goes on training, in `workdir`, and evaluates on the test split.

    Args:
      name, model, argv: how the launcher was called, for config.json and flags.txt.
      init_from: a run's folder, whose parameters of equal path and shape are taken over.
      writers: further takers of the metrics.
      say: takes lines for the person who watches.
      read: (task, codec or None) -> data; for many runs in one process, which read equal data once.

    Returns:
      The content of summary.json.

    Raises:
      UserError: a mistake in the options, the data or the folder; nothing of an existing run is lost.
      Interrupted: SIGTERM or SIGINT came; the state has been saved.
    """
    workdir = pathlib.Path(workdir)
    began = time.monotonic()
    leads = jax.process_index() == 0  # of several processes, one writes
    lock = files.locked(workdir) if leads else contextlib.nullcontext()
    with lock, compilation.counted() as compiled, Stop() as stop:
        started = (workdir / 'config.json').exists() and (workdir / 'vocabulary.json').exists()
        config = rundir.record(experiment, None, name, model, tuple(argv), init_from)
        if leads:  # before the data are read by the rules of another run
            rundir.check(workdir, config, experiment)
        data = read(experiment.task, rundir.load_codec(workdir) if started else None)
        config['data_sha256'] = data.sha256
        if leads:
            rundir.check(workdir, config, experiment)
        ready = prepare(experiment, data.codec)
        experiment, training = ready.experiment, ready.experiment.training
        batches = plan_batches(experiment, data, ready.placement)
        steps = training.total_steps(batches.batches_per_epoch)
        learner = ready.learner(steps, batches.batches_per_epoch)
        with contextlib.ExitStack() as stack:
            checkpoints = stack.enter_context(contextlib.closing(checkpoints_of(workdir, experiment)))
            newest = max(checkpoints.steps(), default=0)
            if newest > steps:
                raise UserError(f'--training.steps={steps} lies behind the checkpoint at step {newest} in {workdir}; '
                                'ask for more steps, or choose another folder')
            for note in data.notes:
                say(note)
            if experiment.optimizer.learner == 'counts' and steps % batches.batches_per_epoch:
                say(f'the last {steps % batches.batches_per_epoch} of {steps} steps change nothing: a pass has '
                    f'{batches.batches_per_epoch}, at whose end counts become parameters; give --training.epochs')
            step_fn = ready.step(learner)
            with concurrent.futures.ThreadPoolExecutor(1) as aside:  # compiles while the state is made
                if newest < steps:
                    aside.submit(ready.placement.compiling(
                        step_fn, ready.abstract_state(learner), next(stream(ready, batches, steps, newest))))
                state, history = begin(ready, learner, checkpoints, init_from, say)
            step = int(state.step)
            if leads:  # now that no mistake can be found any more, which a second try would mend
                rundir.claim(workdir, config, experiment)
                rundir.save_codec(workdir, data.codec)
            outputs = [JsonLines(workdir / 'metrics.jsonl'), TensorBoard(workdir), *writers] if leads else []
            for output in outputs:
                stack.enter_context(contextlib.closing(output))
                output.cut(step, history.evaluated)

            def write(record: dict) -> None:
                for output in outputs:
                    output.write(record)

            evaluator = Evaluator(experiment.task, experiment.model, data.codec, ready.placement, stop.check)
            progress = stack.enter_context(contextlib.closing(Progress(steps, step, training.log_every)))
            say(f'{ready.placement.describe()}; {parameter_count(state.params):,} parameters; {steps:,} steps of '
                f'{training.batch_size} sentences, {batches.batches_per_epoch:,} an epoch'
                + (f'; going on after step {step:,}' if step else ''))
            rhythm = Rhythm(steps, training.evaluate_every or batches.batches_per_epoch, training.checkpoint_every,
                            training.log_every, training.patience)
            state = fit(state, step_fn, functools.partial(stream, ready, batches, steps),
                        rhythm, history, validation(evaluator, experiment, data, progress), checkpoints, write,
                        progress, stop,
                        trace=str(workdir / 'profile') if training.profile else None)
            params, chosen = final_parameters(checkpoints, ready)
            # After the choice: what is made of the parameters goes with those that the run is judged by.
            evaluator.tables = learner.finish(params, data)
            if leads and evaluator.tables:
                rundir.save_tables(workdir, evaluator.tables)
            now = progress.clock()
            clock = {'training_seconds': history.seconds + now['seconds'],
                     # None where all steps were made before.
                     'tokens_per_second': now['tokens_per_second'] or None}
            result = conclude(workdir, data, experiment, evaluator, params, say)
        summary = {'parameters': parameter_count(params), 'parameters_from': chosen, 'params_sha256': digest(params),
                   'steps': int(state.step), 'test': result.metrics, 'signatures': result.signatures,
                   'time': clock | {'seconds_in_all': time.monotonic() - began, 'compilations': compiled.count,
                                    'compile_seconds': compiled.seconds}}
        if leads:
            files.write(workdir / 'summary.json', json.dumps(summary, indent=1) + '\n')
    return summary


def begin(ready: Prepared, learner: Any, checkpoints: Checkpoints, init_from: str | None,
          say: Callable) -> tuple[State, History]:
    """The newest intact checkpoint's state and history, or the initial ones."""
    restored = checkpoints.restore(ready.abstract_state(learner))
    if restored is not None:
        _, state, host = restored
        return state, History(**host)
    state = ready.begin(learner)
    if init_from is not None:
        state = state._replace(params=take_over(state.params, init_from, say))
    return ready.placement.place_state(state), History()


def stream(ready: Prepared, batches: Batches, steps: int, start: int) -> Iterator[Any]:
    """The batches from number `start` on, this process's rows of each, on the devices."""
    share = ready.experiment.training.batch_size // jax.process_count()
    mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    return map(ready.placement.place_batch, batches.iterate(start, steps, mine))


def validation(evaluator: Evaluator, experiment: Experiment, data: Data, progress: Progress) -> Callable:
    """The function (state, step) -> (metrics, score) that the loop evaluates with; it decodes greedily."""
    task = experiment.task
    decoding = dataclasses.replace(experiment.decoding, method='greedy', nbest=1)
    shown = dict.fromkeys(('loss', 'perplexity', 'bleu', 'exact_match', task.metric))  # the last chooses a checkpoint

    def evaluate(state: State, step: int) -> tuple[dict[str, float], float]:
        metrics = evaluator.evaluate(state.params, data.text['valid'], data.ids['valid'], decoding,
                                     task.valid_sentences).metrics
        progress.note(f'step {step}: ' + '  '.join(f'{name} {metrics[name]:.4g}' for name in shown))
        return metrics, metrics[task.metric] * (-1 if task.metric == 'loss' else 1)

    return evaluate


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


def conclude(workdir: pathlib.Path, data: Data, experiment: Experiment, evaluator: Evaluator, params: Any,
             say: Callable) -> Evaluation:
    """Test scores, predictions, a few translations, and figures."""
    result = evaluator.evaluate(params, data.text['test'], data.ids['test'], experiment.decoding)
    if jax.process_index() == 0:
        files.write(workdir / 'predictions' / 'test.txt', result.text())
    examples = zip(data.text['test'][0], result.hypotheses, data.text['test'][1])
    for source, hypothesis, reference in itertools.islice(examples, figures.SHOWN):
        say(f'\n  source      {source}\n  hypothesis  {hypothesis.text}\n  reference   {reference}')
    say('')
    say(result.table())
    for path in figures.draw_run(workdir, evaluator, params, data.ids['test'][0], result.hypotheses):
        say(f'drew {path}')
    return result
