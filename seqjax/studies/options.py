"""The launcher's flags that are about studies: which one, in what form, and who runs its trials."""

import dataclasses
from typing import Literal

from seqjax.options import option


@dataclasses.dataclass(frozen=True)
class Conduct:
    """How a study is run."""

    study: str | None = option(None, 'the study, see --list')
    sweep: str | None = option(None, "axes of a study of one's own over --experiment, as 'model.num_layers=1,2,4 "
                                     "training.seed=0..2'")
    quick: bool = option(False, "the study's short form: two minutes on two cores")
    smoke: bool = option(False, "the study's shortest form: some seconds, its answer worth nothing")
    text: str | None = option(None, 'real text for a study that can be run on it (ladder, recipes): a folder '
                                    'as --experiment=multi30k reads it', free=True)
    abroad: str = option('', "with --text, files of other text to test on (ladder), two columns each: 'a.tsv "
                         "b.tsv:2,1'",
                         free=True)
    seeds: int | None = option(None, "seeds of each setting, from 0; none: the study's own number", at_least=1)
    workers: int = option(1, 'processes that share the trials', at_least=1)
    launcher: Literal['local', 'slurm', 'ray'] = option(
        'local', 'who starts the workers: this machine, Slurm (needs submitit) or a Ray cluster (needs ray)')
    resources: str = option('', "what Slurm or Ray shall give each worker, as 'timeout_min=240 cpus_per_task=4 "
                                "slurm_partition=gpu' or 'num_cpus=2 address=HOST:PORT'")
    retry: bool = option(False, 'run the trials again that failed')
    attached: bool = option(False, 'a worker that ends when its stdin does, so that it does not outlive who started it')

    worker: str | None = option(None, "the worker's name in the study's folder; none: HOST-PROCESS")

    @property
    def form(self) -> str:
        """'full', 'quick' or 'smoke'."""
        return 'quick' if self.quick else 'smoke' if self.smoke else 'full'


# The flags that each mode reads.
READ = {
    'train': ('study', 'sweep', 'quick', 'smoke', 'text', 'abroad', 'seeds', 'workers', 'launcher', 'resources',
              'retry'),
    'plan': ('study', 'sweep', 'quick', 'smoke', 'text', 'abroad', 'seeds'),
    'report': ('study', 'quick', 'smoke'),
    'work': ('attached', 'worker'),
}
