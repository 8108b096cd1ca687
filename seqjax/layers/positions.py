"""Position encodings."""

import numpy as np


def sinusoids(length: int, width: int) -> np.ndarray:
    """The sinusoid table (length, width) of Vaswani et al. 2017, section 3.5, in float32.

    PE[pos, 2i] = sin(pos / 10000^(2i / width)) and PE[pos, 2i + 1] = cos(pos / 10000^(2i / width)): sines and cosines
    interleave, as in the paper. (tensor2tensor, Marian and BART lay them side by side.) An odd width drops the last
    cosine.
    """
    pair = np.arange((width + 1) // 2)
    angle = np.arange(length)[:, None] / 10000.0 ** (2.0 * pair / width)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(length, -1)[:, :width].astype(np.float32)
