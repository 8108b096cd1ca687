"""Scores told apart by how long a source is, and errors by where in the source the words stand."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def bins_of(highest: int, width: int) -> list[tuple[int, int]]:
    """Ranges of `width` whole numbers, both ends counted, that hold 1 to `highest`; the last may be narrower."""
    return [(low, min(low + width - 1, highest)) for low in range(1, highest + 1, width)]


def by_length(values: Sequence[float], lengths: Sequence[int], bins: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """The mean of the values in each range of lengths that holds any.

    Returns:
      For each such range 'from' and 'to' (both counted), 'length' (its middle), 'pairs' (how many) and 'mean'.
    """
    values, lengths = np.asarray(values, np.float64), np.asarray(lengths)
    found = []
    for low, high in bins:
        inside = (lengths >= low) & (lengths <= high)
        if inside.any():
            found.append({'from': low, 'to': high, 'length': (low + high) / 2, 'pairs': int(inside.sum()),
                          'mean': float(values[inside].mean())})
    return found


def by_place(values: Sequence[np.ndarray], places: Sequence[np.ndarray], bins: int) -> list[float]:
    """The mean of the values of all sentences in each of `bins` equal parts of 0..1; NaN where there is none.

    Args:
      values: for each sentence, a number for each of its tokens.
      places: for each sentence, where each of these tokens stands, 0 (beginning) to 1 (end).
    """
    x = np.concatenate([np.asarray(row, np.float64) for row in values])
    part = np.clip((np.concatenate(list(places)) * bins).astype(int), 0, bins - 1)
    total, count = np.bincount(part, x, bins), np.bincount(part, minlength=bins)
    return [float(t / c) if c else float('nan') for t, c in zip(total, count)]


def middle_places(length: int, backwards: bool = False) -> np.ndarray:
    """Where each of `length` tokens stands among them, the middle of its share of 0..1; from the end if `backwards`."""
    places = (np.arange(length) + 0.5) / max(length, 1)
    return places[::-1] if backwards else places
