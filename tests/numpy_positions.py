"""Position encodings written down from their papers in float64 numpy, one element at a time where that is plainer."""

import cmath
import math

import numpy as np


def rotary(x_TK, position_T):
    """Su et al. 2021, equation 12, on each pair of units as a complex number: x e^(i m theta)."""
    width = x_TK.shape[1]
    turned = np.empty_like(x_TK)
    for t, m in enumerate(position_T):
        for i in range(width // 2):
            z = complex(x_TK[t, 2 * i], x_TK[t, 2 * i + 1]) * cmath.exp(1j * m * 10000 ** (-2 * i / width))
            turned[t, 2 * i], turned[t, 2 * i + 1] = z.real, z.imag
    return turned


def slopes(heads):
    """Press et al. 2022, section 3, and the authors' program for heads that are no power of 2."""
    if math.log2(heads).is_integer():
        start = 2 ** (-8 / heads)
        return [start ** (i + 1) for i in range(heads)]
    power = 2 ** math.floor(math.log2(heads))
    return slopes(power) + slopes(2 * power)[::2][:heads - power]


def bucket(relative, bidirectional):
    """Raffel et al. 2020, section 2.1: 32 buckets up to a distance of 128, of key's less query's position."""
    count, first, relative = 32, 0, int(relative)  # whose powers no int64 holds
    if bidirectional:
        count, first, distance = 16, 16 if relative > 0 else 0, abs(relative)
    else:
        distance = max(0, -relative)
    exact = count // 2
    if distance < exact:
        return first + distance
    # The logarithm in exact numbers: a bucket further for each factor (128 / exact)^(1 / (count - exact)).
    step = 0
    while step + 1 < count - exact and distance ** (count - exact) * exact ** (step + 1) >= \
            exact ** (count - exact) * 128 ** (step + 1):
        step += 1
    return first + exact + step


class Told:
    """What self-attention is told of positions: `kind`, T5's table, and whether the stack looks both ways."""

    def __init__(self, kind, params=None, bidirectional=False):
        self.kind, self.bidirectional = kind, bidirectional
        self.table = params['relative_bias'] if kind == 't5' else None

    def turn(self, x_TK):
        """Queries or keys of a head, by position."""
        return rotary(x_TK, range(len(x_TK))) if self.kind == 'rotary' else x_TK

    def bias(self, head, heads, length):
        """(T, T): added to the scaled scores of a head."""
        bias_TT = np.zeros((length, length))
        for i in range(length):
            for j in range(length):
                if self.kind == 'alibi':
                    bias_TT[i, j] = -slopes(heads)[head] * abs(i - j)
                elif self.kind == 't5':
                    bias_TT[i, j] = self.table[bucket(j - i, self.bidirectional), head]
        return bias_TT
