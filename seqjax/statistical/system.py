"""From aligned words to a system: phrases, a language model, and weights; as arrays that a run keeps."""

import dataclasses
from typing import Any

import numpy as np

from seqjax.data.parallel import read_lines
from seqjax.statistical import ibm, ngram, phrases, tuning
from seqjax.statistical.stack import FEATURES, Decoder
from seqjax.statistical.symmetry import Method, symmetrise

# Before tuning: the translation model's four share what the language model has, words cost what they gain in it.
UNTUNED = dict(phrase_inverse=0.2, lexical_inverse=0.2, phrase=0.2, lexical=0.2, phrases=-0.2, words=0.3,
               distortion=0.3, language_model=0.5)
TUNING_BEAM = 50  # hypotheses in a stack while tuning


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The options of `SMT` that are read when training has ended; what they mean is said there."""

    symmetrisation: Method
    phrase_length: int
    phrase_options: int
    language_model: int
    language_model_text: str
    language_model_smoothing: ngram.Smoothing
    lexical_weights: bool
    distortion: bool
    distortion_limit: int | None
    word_penalty: bool
    phrase_penalty: bool
    tuning: bool
    tuning_sentences: int
    tuning_rounds: int
    tuning_nbest: int

    def active(self) -> np.ndarray:
        """Which of FEATURES are there, (F,) bool."""
        there = dict(lexical_inverse=self.lexical_weights, lexical=self.lexical_weights, phrases=self.phrase_penalty,
                     words=self.word_penalty, distortion=self.distortion, language_model=self.language_model > 0)
        return np.array([there.get(name, True) for name in FEATURES])


def words_of(ids: Any, row: int) -> np.ndarray:
    """The words of a row of ids that ends in EOS."""
    return ids.row(row)[:-1]


def align(direct: ibm.Tables, inverse: ibm.Tables, source: np.ndarray, target: np.ndarray,
          method: Method) -> set[tuple[int, int]]:
    """The links (source position, target position) of a pair, from the likeliest alignments in both directions."""
    return symmetrise(ibm.best_alignment(direct, source, target), ibm.best_alignment(inverse, target, source), method)


def build(recipe: Recipe, direct: ibm.Tables, inverse: ibm.Tables, data: Any) -> dict[str, np.ndarray]:
    """The tables of a system by name: 'phrases/...', 'language_model/...', 'weights', and how tuning went.

    Args:
      direct, inverse: tables of the two alignment models, as numpy.
      data: has `ids` of 'train' and 'valid' (pairs of ragged ids) and `codec.target`.
    """
    sides = data.ids['train']
    sources, targets = ([words_of(side, row) for row in range(side.count())] for side in sides)
    links = [align(direct, inverse, *pair, recipe.symmetrisation) for pair in zip(sources, targets)]
    table = phrases.build(sources, targets, links, recipe.phrase_length, recipe.phrase_options)
    model = None
    if recipe.language_model:
        text = targets
        if recipe.language_model_text:
            lines = [line for line in read_lines(recipe.language_model_text) if line.strip()]
            encoded = data.codec.target.encode(lines)
            text = [words_of(encoded, row) for row in range(encoded.count())]
        model = ngram.learn(text, data.codec.target.size, recipe.language_model, recipe.language_model_smoothing)
    active = recipe.active()
    weights = np.where(active, [UNTUNED[name] for name in FEATURES], 0.0)
    history = np.zeros(0)
    if recipe.tuning:
        sides = data.ids['valid']
        some = range(min(recipe.tuning_sentences, sides[0].count()))
        to_decode, references = ([words_of(side, row) for row in some] for side in sides)
        ranges = table.ranges()

        def decode(weights: np.ndarray) -> list:
            decoder = Decoder(table, ranges, model, weights, recipe.distortion_limit)
            return [decoder.decode(source, TUNING_BEAM, recipe.tuning_nbest) for source in to_decode]

        weights, history = tuning.tune(decode, [reference.tolist() for reference in references], weights, active,
                                       recipe.tuning_rounds)
    return to_arrays(table, model, weights) | {'tuning_bleu': np.asarray(history, np.float64)}


def to_arrays(table: phrases.PhraseTable, model: ngram.NGrams | None, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays by name, from which `from_arrays` makes the system again."""
    named = {f'phrases/{field.name}': getattr(table, field.name) for field in dataclasses.fields(table)}
    named |= {f'language_model/{name}': array for name, array in (model.to_arrays() if model else {}).items()}
    return named | {'weights': np.asarray(weights, np.float64)}


def from_arrays(arrays: dict[str, np.ndarray], distortion_limit: int | None) -> Decoder:
    """A decoder with the tables of `build`."""
    def part(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    table, model = phrases.PhraseTable(**part('phrases/')), part('language_model/')
    return Decoder(table, table.ranges(), ngram.NGrams.from_arrays(model) if model else None, arrays['weights'],
                   distortion_limit)
