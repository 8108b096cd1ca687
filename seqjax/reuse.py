"""What can be done with a run that is there: evaluate it, predict with it, take its parameters over."""

import contextlib
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax

from seqjax import figures, files, rundir
from seqjax.data.vocabulary import EOS
from seqjax.errors import UserError
from seqjax.experiment import Experiment
from seqjax.prepared import checkpoints_of, final_parameters, prepare
from seqjax.tasks.evaluation import Evaluation, Evaluator, one_line
from seqjax.tasks.translation import Codec


def reopen(workdir: pathlib.Path) -> tuple[Experiment, Codec, dict]:
    """The experiment, codec and config of a run, from its folder alone."""
    config = rundir.read(workdir)
    return rundir.experiment_of(config), rundir.load_codec(workdir), config


def parameters_of(workdir: pathlib.Path) -> Any:
    """The final parameters of a run (or the best so far), whole, on one device of this process."""
    experiment, codec, _ = reopen(workdir)
    experiment = experiment.replace('training', parallel='jit', mesh='data=1')
    return opened(workdir, experiment, codec, jax.local_devices()[:1])[1]


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
    if jax.process_index() == 0:
        files.write(workdir / 'predictions' / f'test.{method}.txt', result.text())
        files.write(workdir / f'evaluation.{method}.json', json.dumps({
            'decoding': dataclasses.asdict(experiment.decoding), 'test': result.metrics,
            'signatures': result.signatures}, indent=1) + '\n')
    say(result.table())
    for path in figures.draw_run(workdir, evaluator, params, data.ids['test'][0], result.hypotheses, f'.{method}'):
        say(f'drew {path}')
    return result


def opened(workdir: pathlib.Path, experiment: Experiment, codec: Codec,
           devices: Sequence[jax.Device] | None = None) -> tuple[Evaluator, Any]:
    """An evaluator and the final parameters of a run, on all devices or on these."""
    ready = prepare(experiment, codec, devices)
    with contextlib.closing(checkpoints_of(workdir, ready.experiment)) as checkpoints:
        params, _ = final_parameters(checkpoints, ready)
    return Evaluator(ready.experiment.task, ready.experiment.model, codec, ready.placement,
                     tables=rundir.load_tables(workdir)), params


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
    cut = sum(best[0].ids[-1:].tolist() != [EOS] for best in found)
    if cut:
        limit = evaluator.max_length(experiment.decoding)
        print(f'{cut} of {len(found)} translations had no end after {limit} tokens and were cut there; '
              'raise --decoding.max_length, or train longer', file=sys.stderr)
    if experiment.decoding.method == 'beam' and experiment.decoding.nbest > 1:
        return ['\t'.join(f'{h.score:.4f}\t{one_line(h.text)}' for h in best) for best in found]
    return [one_line(best[0].text) for best in found]
