"""What order is to attention: what becomes of outputs when inputs change places, and what a shift is to a table of
positions."""

import functools
from typing import Any

import jax
import numpy as np

from seqjax.layers.positions import shift, sinusoids
from seqjax.prepared import initialise
from seqjax.studies.passes import random_batch
from seqjax.studies.table import Row
from seqjax.tasks.forced import logits_of


def apart(a: Any, b: Any) -> float:
    """The greatest difference between two arrays, in standard deviations of the second."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.abs(a - b).max() / b.std())


@functools.partial(jax.jit, static_argnums=0)  # equal models share the program
def _encode(model: Any, params: Any, source_BS: jax.Array) -> Any:
    return model.apply({'params': params}, source_BS, method='encode')


def source_order(model: Any, params: Any, length: int, seed: int = 0, rows: int = 8) -> float:
    """How far the encoder's keys and values for a source in another order are from those of the source, reordered.

    Zero, up to rounding, where the encoder is equivariant under permutations: where a word is not told where it stands.
    """
    source_BS = random_batch(model, rows, length, length, seed).source
    order_S = derangement(length, seed)
    plain, moved = (_encode(model, params, source_BS[:, order]) for order in (slice(None), order_S))
    return max(apart(moved[name], plain[name][:, :, :, order_S]) for name in ('keys', 'values'))


def prefix_order(model: Any, params: Any, length: int, seed: int = 0, rows: int = 8) -> float:
    """How far the logits after a target's last token move when the tokens before it change places.

    BOS stays the first and the last token the last. Zero, up to rounding, where the decoder sees a bag of words.
    """
    batch = random_batch(model, rows, length, length, seed)
    # The decoder reads BOS and all targets but the last; the last that it reads, and the one that it does not, stay.
    order_T = np.concatenate([derangement(length - 2, seed), [length - 2, length - 1]])
    moved = batch._replace(target=batch.target[:, order_T])
    return apart(*(logits_of(model, params, one)[:, -1] for one in (moved, batch)))


def fresh_prefix_order(model: Any, layers: int, length: int, seed: int = 0) -> float:
    """`prefix_order` of a decoder of so many layers that nobody has trained."""
    model = model.clone(num_layers=layers)
    return prefix_order(model, initialise(model, seed), length, seed)


def derangement(length: int, seed: int) -> np.ndarray:
    """A permutation that leaves nothing where it was: a cycle through all places (length 2 or more)."""
    cycle = np.random.default_rng(seed).permutation(length)
    order = np.empty(length, int)
    order[cycle] = np.roll(cycle, 1)
    return order


def turned_error(table_LD: np.ndarray, offset: int) -> float:
    """|PE[pos + offset] - PE[pos] M| / |PE[pos + offset]| over all positions, M the rotation of `layers.positions`."""
    table_LD = np.asarray(table_LD, np.float64)
    later = table_LD[offset:]
    return float(np.linalg.norm(later - table_LD[:-offset] @ shift(offset, table_LD.shape[1])) / np.linalg.norm(later))


def fitted_error(table_LD: np.ndarray, offset: int, seed: int = 0) -> float:
    """The same of the best M for half of the positions (least squares), on the other half.

    1 is what M = 0 would reach. The halves are drawn; there must be more positions in one than dimensions.
    """
    table_LD = np.asarray(table_LD, np.float64)
    now, later = table_LD[:-offset], table_LD[offset:]
    order = np.random.default_rng(seed).permutation(len(now))
    seen, unseen = np.split(order, [len(now) // 2])
    M = np.linalg.lstsq(now[seen], later[seen], rcond=None)[0]
    return float(np.linalg.norm(later[unseen] - now[unseen] @ M) / np.linalg.norm(later[unseen]))


def shift_errors(length: int, width: int, offset: int, seed: int = 0) -> Row:
    """How nearly a shift is a linear map: of sinusoids, as a rotation and fitted, and of a random table, fitted."""
    table_LD, random_LD = sinusoids(length, width), np.random.default_rng(seed).normal(size=(length, width))
    return {'turned_error': turned_error(table_LD, offset), 'fitted_error': fitted_error(table_LD, offset, seed),
            'random_error': fitted_error(random_LD, offset, seed)}
