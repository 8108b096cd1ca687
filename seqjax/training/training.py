"""How long, how often and where: the options `--training.*`."""

import dataclasses
from typing import Literal

from seqjax.errors import UserError
from seqjax.options import option, unparse


@dataclasses.dataclass(frozen=True)
class Training:
    """The length of a run, its rhythm, and the devices it is spread over."""

    steps: int | None = option(1000, 'updates; instead of epochs', at_least=1, instead_of='epochs')
    epochs: int | None = option(None, 'passes over the training split; instead of steps', at_least=1,
                                instead_of='steps')
    batch_size: int = option(64, 'sentences an update, over all devices', at_least=1)
    seed: int = option(0, 'seed of parameters, data order and dropout', at_least=0, at_most=2**32 - 1)
    evaluate_every: int | None = option(None, 'steps between evaluations on the validation split; none: once an epoch',
                                        at_least=1)
    checkpoint_every: int = option(500, 'steps between checkpoints', at_least=1)
    log_every: int = option(50, 'steps between records of the training loss', at_least=1, free=True)
    keep: int = option(2, 'newest checkpoints to keep, besides the best', at_least=1, free=True)
    patience: int | None = option(None, 'stop after this many evaluations without improvement; none: never', at_least=1)
    average: int = option(0, 'average the parameters of this many last checkpoints; 0: use the best one', at_least=0)
    accumulate: int = option(1, 'micro-batches an update is computed in', at_least=1)
    unpad: bool | None = option(None, 'leave padding out of what is done for each token by itself; none: where the '
                                'model can, and not under jit over several devices')
    profile: bool = option(False, 'trace ten steps for TensorBoard or Perfetto, into WORKDIR/profile', free=True)
    parallel: Literal['pmap', 'shard_map', 'jit'] = option('pmap', 'how a step is spread over devices', free=True)
    mesh: str = option('', "devices of each axis, as 'data=2,fsdp=4' (axes data, fsdp, tensor); empty: all on data",
                       free=True)

    def check(self) -> None:
        """Refuses a run with no length or two, and a batch that micro-batches do not divide."""
        if (self.steps is None) == (self.epochs is None):
            raise UserError(f'--training.steps={unparse(self.steps)} and --training.epochs={unparse(self.epochs)}: '
                            'exactly one of them says how long to train, and the other is none')
        if self.batch_size % self.accumulate:
            raise UserError(f'--training.accumulate={self.accumulate} does not divide --training.batch_size='
                            f'{self.batch_size}; choose a divisor')

    def total_steps(self, batches_per_epoch: int) -> int:
        """Updates in the whole run."""
        return self.steps if self.steps is not None else self.epochs * batches_per_epoch
