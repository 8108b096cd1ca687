"""How a phrase-based system is turned into translations: the flags `--decoding.*` of such a system."""

import dataclasses
from typing import Literal

from seqjax.errors import UserError
from seqjax.options import option


@dataclasses.dataclass(frozen=True)
class PhraseDecoding:
    """The search over phrases and their order, and its size. All of it may change between a run and its resumption."""

    searches = 'phrases'

    method: Literal['beam', 'words', 'greedy'] = option(
        'beam', "beam: the stack decoder; words: each word's likeliest translation, in the order of the source; "
                'greedy: the likeliest next word of the alignment model', free=True)
    beam_size: int = option(100, 'hypotheses kept in a stack', at_least=1, when={'method': ('beam',)}, free=True)
    nbest: int = option(1, 'translations returned a sentence', at_least=1, when={'method': ('beam',)}, free=True)
    search_errors: int = option(5, 'longest sentence, words, that is searched exhaustively too, to count the errors of '
                                   'the search; 0: none', at_least=0, when={'method': ('beam',)}, free=True)
    max_length: int | None = option(
        None, 'longest output, tokens with EOS; none: the limit of the task', at_least=1, free=True)
    batch_size: int = option(64, 'sentences at a time, over all devices', at_least=1, free=True)

    def check(self) -> None:
        """Raises UserError where fields do not fit each other."""
        if self.method == 'beam' and self.nbest > self.beam_size:
            raise UserError(f'--decoding.nbest={self.nbest} is more than --decoding.beam_size={self.beam_size}; raise '
                            'beam_size or lower nbest')
