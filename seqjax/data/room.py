"""How many tokens without padding there are in the parts of a batch, and how rows are dealt so that none has more.

Programs are compiled for so many tokens, as they are for a shape. The fewer, the less is done for nothing.
"""

import dataclasses
import math

import jax
import numpy as np

TRIED = 8  # groups that are asked to help another


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Room:
    """Tokens, EOS counted, of which no part of a batch has more."""

    source: int
    target: int


def room_for(lengths: np.ndarray, rows: int, width: int) -> int:
    """Places for `rows` sentences of these lengths: a standard deviation above their mean sum, rounded up to 16."""
    most = rows * lengths.mean() + math.sqrt(rows) * lengths.std()
    return min(math.ceil(most / 16) * 16, rows * width)


def tokens_of(rows_GN: np.ndarray, lengths: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Source and target tokens (2, G) of each group of rows; a row of -1 has none."""
    return np.stack([np.where(rows_GN < 0, 0, side[rows_GN]).sum(axis=1) for side in lengths])


def balanced(rows_GN: np.ndarray, lengths: tuple[np.ndarray, np.ndarray], room: Room) -> tuple[np.ndarray, np.ndarray]:
    """The same rows in groups of the same sizes, a few of them exchanged, so that each has room; and which have (G,).

    While one has too many tokens, it exchanges the two rows that help most with another: the first that can help at
    all, of those with the fewest tokens on the side of which there are too many. Where none can, groups are left with
    too many. Fillers, rows of -1, stay.
    """
    rows_GN = rows_GN.copy()
    spare = np.array([[room.source], [room.target]]) - tokens_of(rows_GN, lengths)  # (2, G), negative: too many
    for _ in range(4 * len(rows_GN)):
        worst = np.minimum(spare, 0).sum(axis=0).argmin()
        if (spare[:, worst] >= 0).all():
            break
        for other in np.argsort(-spare[spare[:, worst].argmin()], kind='stable')[:TRIED]:
            out_N, in_N = rows_GN[worst], rows_GN[other]
            gain = np.stack([side[out_N][:, None] - side[in_N] for side in lengths])  # (2, N, N), for the worst
            lack = (np.minimum(spare[:, worst, None, None] + gain, 0)
                    + np.minimum(spare[:, other, None, None] - gain, 0)).sum(axis=0)
            lack = np.where((out_N[:, None] < 0) | (in_N < 0), -np.inf, lack)
            i, j = np.unravel_index(lack.argmax(), lack.shape)
            if lack[i, j] > np.minimum(spare[:, [worst, other]], 0).sum():
                rows_GN[worst, i], rows_GN[other, j] = in_N[j], out_N[i]
                spare[:, worst] += gain[:, i, j]
                spare[:, other] -= gain[:, i, j]
                break
        else:
            break
    return rows_GN, (spare >= 0).all(axis=0)
