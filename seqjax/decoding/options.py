"""How a trained model's distribution is turned into sequences: the flags `--decoding.*`."""

import dataclasses
from typing import Literal

from seqjax.errors import UserError
from seqjax.options import option

PAD, BOS, EOS = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Decoding:
    """The search, its size, and its limits. All of it may change between a run and its resumption."""

    searches = 'tokens'

    method: Literal['greedy', 'beam', 'sample'] = option('greedy', 'how the next token is chosen', free=True)
    beam_size: int = option(5, 'hypotheses kept a sentence', at_least=1, when={'method': ('beam',)}, free=True)
    length_penalty: float = option(
        0.6, 'alpha of ((5 + length) / 6)^alpha, which divides the log probability; 0 compares log probabilities',
        at_least=0, when={'method': ('beam',)}, free=True)
    nbest: int = option(1, 'hypotheses returned a sentence', at_least=1, when={'method': ('beam',)}, free=True)
    temperature: float = option(
        1.0, 'divides the logits before sampling; above 0', at_least=0, when={'method': ('sample',)}, free=True)
    top_k: int | None = option(
        None, 'sample among the k likeliest tokens', at_least=1, when={'method': ('sample',)}, free=True)
    top_p: float | None = option(
        None, 'sample among the likeliest tokens whose mass stays within p', at_least=0, at_most=1,
        when={'method': ('sample',)}, free=True)
    seed: int = option(0, 'seed of the samples', at_least=0, at_most=2**32 - 1, when={'method': ('sample',)}, free=True)
    max_length: int | None = option(
        None, 'longest output, tokens with EOS; none: the limit of the task', at_least=1, free=True)
    batch_size: int = option(64, 'sentences decoded at a time, over all devices', at_least=1, free=True)

    def check(self) -> None:
        """Raises UserError where fields do not fit each other."""
        if self.method == 'beam' and self.nbest > self.beam_size:
            raise UserError(f'--decoding.nbest={self.nbest} is more than --decoding.beam_size={self.beam_size}: a beam '
                            f'returns at most its size; raise beam_size or lower nbest')
        if self.method == 'sample' and not self.temperature > 0:
            raise UserError(f'--decoding.temperature={self.temperature} does not sample: it must be above 0; '
                            f'use --decoding.method=greedy for the likeliest token')
