"""Runs of a second or two, and what is left of a run, to be compared with what is left of another."""

import json
import os
import pathlib
import re
import struct
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from tensorboardX.proto.event_pb2 import Event

from experiments.translation import numerals
from seqjax.experiment import Experiment
from seqjax.launcher import main
from seqjax.layers.dropout import Dropout
from seqjax.models.contract import Translator
from seqjax.options import option
from seqjax.prepared import prepare
from seqjax.tasks.evaluation import Evaluator
from seqjax.training.optimizer import Optimizer

ROOT = pathlib.Path(__file__).parents[1]
TEXT = dict(train_size=60, valid_size=9, test_size=9, highest=999, buckets=1)
DEVICES = ['--training.mesh=data=1', '--training.batch_size=8', '--decoding.batch_size=8', '--decoding.max_length=6',
           '--compilation_cache=none']  # none: that of the tests stays


def environment_of(devices: int) -> dict[str, str]:
    """That of a process which has so many devices, and is the tests' own in all else."""
    return {**os.environ, 'XLA_FLAGS': re.sub(r'(?<=device_count=)\d+', str(devices), os.environ['XLA_FLAGS'])}


class Bigram(Translator):
    """The smallest translator: the next word from the last one and the mean of the source."""

    hidden_size: int = option(8, 'width')
    dropout: float = option(0.5, 'probability of dropping a unit')

    def setup(self):
        self.source = nn.Embed(self.source_size, self.hidden_size)
        self.target = nn.Embed(self.target_size, self.hidden_size)
        self.drop = Dropout(self.dropout)
        self.out = nn.Dense(self.target_size)

    def encode(self, source_BS):
        there_BS1 = (source_BS != 0)[:, :, None]
        return (self.source(source_BS) * there_BS1).sum(1) / jnp.maximum(there_BS1.sum(1), 1)

    def start(self, memory_BD, max_length):
        return ()

    def decode(self, tokens_BT, memory_BD, carry=None):
        return self.out(self.drop(self.target(tokens_BT) + memory_BD[:, None])), carry


def bigrams(metric: str = 'exact_match', optimizer: Optimizer | None = None, **training) -> Experiment:
    """Number words for the smallest translator: what a run costs is what the run itself does."""
    experiment = numerals('gru')
    return Experiment(
        task=experiment.task, model=Bigram(), optimizer=optimizer or Optimizer(learning_rate=0.05, clip_norm=1.0),
    ).replace('task', **TEXT, metric=metric).replace('decoding', batch_size=8, max_length=6).replace(
        'training', **(dict(batch_size=8, mesh='data=1') | training))


def at_random(experiment: Experiment) -> tuple:
    """An evaluator, parameters at random (biases too, or a lost one would not show), the test split's ids, decoding."""
    data = experiment.task.prepare()
    ready = prepare(experiment, data.codec)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.asarray(rng.normal(0, 1, x.shape), np.float32),
                          ready.abstract_params())
    evaluator = Evaluator(ready.experiment.task, ready.experiment.model, data.codec, ready.placement)
    return evaluator, ready.placement.place_state(params), data.ids['test'], ready.experiment.decoding


def counting(metric: str = 'exact_match', **training) -> Experiment:
    """The same of a model that learns by counting: a pass is eight batches, and its last result is made after all."""
    return numerals('smt').replace('task', **TEXT, metric=metric).replace(
        'model', model1_passes=1, tuning_rounds=1, tuning_nbest=5).replace(
        'decoding', batch_size=8, max_length=6, beam_size=5).replace(
        'training', **(dict(epochs=None, batch_size=8, mesh='data=1') | training))


def flags(workdir: pathlib.Path, *more: str, model: str = 'gru') -> list[str]:
    """The command line of a small run of number words; later flags win."""
    return ['--experiment=numerals', f'--model={model}', f'--workdir={workdir}',
            *(f'--task.{name}={value}' for name, value in TEXT.items()),
            '--model.hidden_size=8', '--model.num_layers=1', '--optimizer.warmup_steps=2', *DEVICES, *more]


def launch(*argv: str) -> int:
    """The launcher's exit code, in this process."""
    return main(list(map(str, argv)))


def child(argv: list[str], log: pathlib.Path) -> subprocess.Popen:
    """The launcher in a process of its own; what it prints goes to `log`."""
    with open(log, 'ab') as file:
        return subprocess.Popen([sys.executable, 'launch.py', *argv], cwd=ROOT, stdout=file, stderr=file)


def records(workdir: pathlib.Path) -> list[dict]:
    """metrics.jsonl without clock values."""
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != 'time'} for line in lines]


def scalars(workdir: pathlib.Path) -> list[tuple[int, str, float]]:
    """TensorBoard's (step, tag, value) in the order in which they were written, without clock values."""
    found = []
    for path in sorted(workdir.glob('events.out.tfevents.*')):
        content, at = path.read_bytes(), 0
        while at < len(content):  # TFRecord: length (8 bytes), its checksum (4), data, its checksum (4)
            length, = struct.unpack('<Q', content[at:at + 8])
            event = Event.FromString(content[at + 12:at + 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value
                      if '/time/' not in value.tag]
            at += length + 16
    return found


def summary(workdir: pathlib.Path) -> dict:
    """summary.json."""
    return json.loads((workdir / 'summary.json').read_text())


def outcome(workdir: pathlib.Path) -> dict:
    """All of a run that has to be the same, bit for bit, however often it was stopped."""
    final = summary(workdir)
    final.pop('time')
    return final | {'records': records(workdir), 'scalars': scalars(workdir),
                    'predictions': (workdir / 'predictions' / 'test.txt').read_bytes(),
                    'vocabulary': (workdir / 'vocabulary.json').read_bytes()}


def steps_of(workdir: pathlib.Path) -> list[int]:
    """Steps that have a finished checkpoint."""
    return sorted(int(path.name) for path in (workdir / 'checkpoints').glob('*') if path.name.isdecimal())


def snapshot(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}
