"""Questions of one word's answer as a translation task."""

import dataclasses

from seqjax.data import puzzles
from seqjax.errors import UserError
from seqjax.options import option
from seqjax.tasks.translation import Text, Translation


@dataclasses.dataclass(frozen=True)
class Puzzle(Translation):
    """Questions of one kind (data/puzzles.py), each answered by one word; those of the splits are drawn alike."""

    kind: puzzles.Kind = option('recall', 'recall the first word, weigh witnesses, or follow links')
    train_size: int = option(20_000, 'questions to train on', at_least=1)
    valid_size: int = option(200, 'questions to validate on', at_least=1)
    test_size: int = option(1000, 'questions to test on', at_least=1)
    symbols: int = option(8, 'words there are', at_least=2, at_most=26)
    length: int = option(30, 'most words behind the first, or most witnesses', at_least=1,
                         when={'kind': ('recall', 'witnesses')})
    reliabilities: tuple[float, float, float] = option(
        (0.7, 0.15, 0.05), 'how often a witness of level 0, 1 and 2 is right', at_least=0, at_most=1,
        when={'kind': ('witnesses',)})
    hops: int = option(4, 'most links to follow; fewer than there are words', at_least=1, when={'kind': ('hops',)})
    data_seed: int = option(0, 'seed of the questions', at_least=0)

    def splits(self) -> dict[str, Text]:
        """Random questions, as text.

        Raises:
          UserError: links that are as many as words lead back to the beginning.
        """
        if self.kind == 'hops' and self.hops >= self.symbols:
            raise UserError(f'--task.hops={self.hops} leads around the {self.symbols} words of --task.symbols; '
                            f'choose at most {self.symbols - 1}')
        sizes = {'train': self.train_size, 'valid': self.valid_size, 'test': self.test_size}
        return puzzles.splits(self.kind, sizes, self.symbols, self.length, self.hops, self.reliabilities,
                              self.data_seed)

    def difficulty(self, source: str) -> int:
        """What makes a question hard: words behind the first, witnesses less one, or links to follow."""
        return puzzles.difficulty(source)

    def polled(self, source: str, answer: str, weighted: bool) -> float:
        """How often a poll of the witnesses gives the answer; 'weighted' by log odds it is the best there is."""
        share_K = puzzles.vote(source, self.symbols, self.reliabilities, weighted)
        return float(share_K[puzzles.LETTERS.index(answer)])

    def retold(self, source: str) -> float:
        """How often the last of as many speakers is right who have each heard the one before alone."""
        return puzzles.retold(puzzles.difficulty(source) + 1, self.symbols, self.reliabilities)
