"""Statistical machine translation: words aligned by counting, phrases, n-grams, a log-linear model and its search."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.errors import UserError
from seqjax.models.contract import Translator
from seqjax.options import option
from seqjax.statistical import ibm
from seqjax.statistical.search import PhraseSearch, WordSearch
from seqjax.statistical.symmetry import Method
from seqjax.statistical.system import Recipe, align, build

__all__ = ['SMT']
PAD, EOS = 0, 2
ORDERS = (1, 2, 3, 4, 5, 6, 7)  # of n-gram models
LARGEST = 120_000_000  # entries of a word table; it is dense, and four are held while counting


class SMT(Translator):
    """Phrase-based statistical translation (Brown et al. 1993, Koehn et al. 2003): counting in place of gradients.

    While training, IBM Models 1 and 2 are fitted in both directions by expectation maximisation, a pass over the
    training split an update (`statistical/ibm.py`). To tasks and decoders the model of the target given the source is a
    translator like any other, one token at a time, and its likelihood is the loss that is reported.

    When training has ended the two are aligned into one (`statistical/symmetry.py`), phrases are extracted and scored
    (`statistical/phrases.py`), an n-gram model is counted (`statistical/ngram.py`), and the weights of the log-linear
    model are tuned on the validation split (`statistical/tuning.py`). --decoding.method=beam searches with these
    (`statistical/stack.py`). A word that was never seen is written <unk>.
    """

    learner = 'counts'
    searches = 'phrases'

    model1_passes: int = option(5, 'passes of Model 1, before those of Model 2', at_least=0)
    smoothing: float = option(1e-3, 'share of the alignment model that is spread evenly, where it is read as a loss',
                              above=0.0, below=1.0)
    symmetrisation: Method = option('grow-diag-final-and', 'one alignment from those of both directions')
    phrase_length: int = option(5, 'longest phrase, words; 1: word by word', at_least=1)
    phrase_options: int = option(20, 'translations kept for a phrase', at_least=1)
    language_model: int = option(3, 'order of the n-gram model; 0: none', at_least=0, at_most=max(ORDERS))
    language_model_text: str = option('', 'file of text for the language model, in place of the targets of training',
                                      when={'language_model': ORDERS})
    language_model_smoothing: Literal['modified-kneser-ney', 'kneser-ney'] = option(
        'modified-kneser-ney', 'discounts of the n-gram model', when={'language_model': ORDERS})
    lexical_weights: bool = option(True, 'score phrases by their words too')
    distortion: bool = option(True, 'score jumps')
    distortion_limit: int | None = option(6, 'words that may be jumped over, forwards or back; 0: monotone; none: any '
                                             'number', at_least=0)
    word_penalty: bool = option(True, 'score the number of words')
    phrase_penalty: bool = option(True, 'score the number of phrases')
    tuning: bool = option(True, 'tune the weights on the validation split')
    tuning_sentences: int = option(200, 'validation sentences to tune on', at_least=1, when={'tuning': (True,)})
    tuning_rounds: int = option(5, 'times they are decoded again', at_least=1, when={'tuning': (True,)})
    tuning_nbest: int = option(100, 'translations of each that are ranked', at_least=1, when={'tuning': (True,)})

    def check(self) -> None:
        """Refuses vocabularies whose table of word pairs would not fit."""
        if (self.source_size or 0) * (self.target_size or 0) > LARGEST:
            raise UserError(f'a table of {self.source_size} x {self.target_size} words is too large for --model=smt '
                            f'({LARGEST:,} at most); lower --task.vocabulary_size or raise --task.min_frequency')

    def setup(self) -> None:
        """Declares the tables, which know nothing yet."""
        sizes = self.source_size, self.target_size
        for direction, (given, predicted) in (('direct', sizes), ('inverse', sizes[::-1])):
            tables = ibm.uniform(given, predicted, self.source_length)
            setattr(self, direction, {name: self.param(f'{direction}_{name}', lambda _, table=table: jnp.asarray(table))
                                      for name, table in tables.items()})

    def encode(self, source_BS: jax.Array) -> Any:
        """t(. | f_j) (B, S, V), a(. | ., l) of the source's length (B, L, S), p(. | l) (B, L)."""
        direct = self.direct
        length_B = ibm.count_words(source_BS)
        there_BS = (source_BS != PAD)[:, :, None]
        j_S = jnp.minimum(jnp.arange(source_BS.shape[1]), self.source_length - 1)
        positions_BLS = direct['positions'][length_B][:, :, j_S] * there_BS[:, None, :, 0]
        return {'words': direct['words'][source_BS] * there_BS, 'positions': positions_BLS,
                'lengths': direct['lengths'][length_B]}

    def start(self, memory: Any, max_length: int) -> Any:
        """The position of the next word, (B,): nothing else of the target matters to this model."""
        return jnp.zeros(memory['lengths'].shape[:1], jnp.int32)

    def decode(self, tokens_BT: jax.Array, memory: Any, carry: Any = None) -> tuple[jax.Array, Any]:
        """log p (B, T, V) of the word at each position, and the position after the last."""
        carry = self.start(memory, tokens_BT.shape[1]) if carry is None else carry
        position_BT = carry[:, None] + jnp.arange(tokens_BT.shape[1])
        place_BT1 = jnp.minimum(position_BT, self.source_length - 1)[:, :, None]
        positions_BTS = jnp.take_along_axis(memory['positions'], place_BT1, axis=1)
        logits_BTV = ibm.step_log_probs(memory['words'], positions_BTS, memory['lengths'], position_BT, self.smoothing)
        return logits_BTV, carry + tokens_BT.shape[1]

    def partition_rules(self):
        """The tables of word pairs are split over both sides."""
        return (('words$', ('fsdp', 'tensor')),)

    def capture(self, params: Any, batch: Any) -> dict[str, jax.Array]:
        """Which source word each target word came from: p(a_i = j | e, f) as 'decoder/cross_attention'.

        The column of the source's EOS stands for NULL; the target's EOS, which no word is linked to, looks at it.
        """
        evidence, _ = ibm.expect(tables_of(params, 'direct'), batch.source, batch.target, batch.weight)
        null_BS = jnp.arange(batch.source.shape[1]) == ibm.count_words(batch.source)[:, None]
        no_word_BT = ibm.count_words(batch.target)[:, None] <= jnp.arange(batch.target.shape[1])
        weights_BTS = jnp.where(no_word_BT[:, :, None], null_BS[:, None, :], evidence.posterior_BTS)
        return {'decoder/cross_attention': weights_BTS[None, :, None]}

    def expect(self, params: Any, batch: Any) -> tuple[Any, dict]:
        """The E-step of both directions on a batch: evidence by row; and -log p(target | source) by target token."""
        direct, nll_B = ibm.expect(tables_of(params, 'direct'), batch.source, batch.target, batch.weight)
        inverse, _ = ibm.expect(tables_of(params, 'inverse'), batch.target, batch.source, batch.weight)
        tokens = ((batch.target != PAD) * batch.weight[:, None]).sum()
        return {'direct': direct, 'inverse': inverse}, {'loss': (nll_B.sum(), tokens), 'nll': (nll_B.sum(), tokens)}

    def collect(self, counts: Any, evidence: Any) -> Any:
        """`counts` with those of a batch."""
        return params_of({direction: ibm.collect(tables_of(counts, direction), evidence[direction])
                          for direction in ('direct', 'inverse')})

    def maximise(self, params: Any, counts: Any, passes: jax.Array) -> Any:
        """The parameters after `passes` passes."""
        model2 = passes > self.model1_passes
        return params_of({direction: ibm.maximise(tables_of(params, direction), tables_of(counts, direction), model2)
                          for direction in ('direct', 'inverse')})

    def conclude(self, params: Any, data: Any) -> dict[str, np.ndarray]:
        """Phrases, n-grams and tuned weights from the final parameters (numpy), as arrays by name."""
        recipe = Recipe(**{name: getattr(self, name) for name in Recipe.__dataclass_fields__})
        return build(recipe, tables_of(params, 'direct'), tables_of(params, 'inverse'), data)

    def links(self, params: Any, source: np.ndarray, target: np.ndarray) -> set[tuple[int, int]]:
        """The word alignment that phrases are extracted from: (source, target) positions.

        Args:
          source, target: ids of the words of a pair, without EOS.
        """
        both = (tables_of(params, direction) for direction in ('direct', 'inverse'))
        return align(*both, source, target, self.symmetrisation)

    def search(self, params: Any, tables: dict[str, np.ndarray], decoding: Any, max_length: int) -> Any:
        """The stack decoder with `tables`, or word by word; None for 'greedy', which any decoder can do."""
        if decoding.method == 'greedy':
            return None
        if decoding.method == 'words':
            return WordSearch(jax.device_get(params['direct_words']), max_length)
        if not tables:
            raise UserError('this run has no phrases yet, for its training has not ended: give the same command again; '
                            'or read it by --decoding.method=greedy')
        return PhraseSearch(tables, decoding, self.distortion_limit, max_length)


def tables_of(params: Any, direction: str) -> ibm.Tables:
    """The tables of one direction among the parameters."""
    return {name: params[f'{direction}_{name}'] for name in ('words', 'positions', 'lengths')}


def params_of(tables: dict[str, ibm.Tables]) -> dict[str, jax.Array]:
    """The inverse of `tables_of`, of both directions."""
    return {f'{direction}_{name}': table for direction, named in tables.items() for name, table in named.items()}
