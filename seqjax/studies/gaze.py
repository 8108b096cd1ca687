"""Attention to look at: the weights of each setting's first run, small enough to stand in a page."""

import pathlib
import zipfile
from typing import Any

import numpy as np

from seqjax.studies import charts
from seqjax.studies.axes import SEED
from seqjax.studies.findings import Findings

DIGITS = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'  # a weight w is the letter round(61 w)
LETTERS = 400_000  # of weights in a page


def views(findings: Findings) -> tuple[list[dict[str, Any]], int]:
    """The runs that have attention on the source, the first seed of each setting.

    Returns:
      For each {'name', 'seed', 'sentences': [{'source', 'target', 'layers': [[letters of a head]]}]}, where a head's
      letters are its weights row by row, a row a target piece; and how many runs found no room.
    """
    shown, left_out, seen, room = [], 0, set(), LETTERS
    for found in findings.trials:
        names = [name for name in found.trial.varying if name != SEED]
        key = tuple(found.trial.row().get(name) for name in names)
        setting = charts.titles([key], names)[0].replace(r'\$', '$') or found.trial.name
        if setting in seen or found.state != 'finished':
            continue
        sentences = read(found.folder / 'figures' / 'attention.npz')
        if not sentences:
            continue
        seen.add(setting)
        fitting = []
        for sentence in sentences:
            size = size_of(sentence)
            if size <= room and sum(map(size_of, fitting)) + size <= LETTERS // 6:
                fitting.append(sentence)
                room -= size
        if fitting:
            shown.append({'name': setting, 'seed': found.trial.settings.get(SEED), 'sentences': fitting})
        else:
            left_out += 1
    return shown, left_out


def size_of(sentence: dict[str, Any]) -> int:
    """How many letters a sentence's weights are."""
    return sum(len(head) for layer in sentence['layers'] for head in layer)


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The sentences of an attention.npz, see `figures.draw_run`; none where it has no attention on the source."""
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (FileNotFoundError, zipfile.BadZipFile, ValueError):
        return []
    weights_NBHTS = next((value for name, value in arrays.items()
                          if name.endswith('cross_attention') and value.ndim == 5), None)
    if weights_NBHTS is None:
        return []
    sentences = []
    for b in range(weights_NBHTS.shape[1]):
        if f'source_{b}' in arrays and f'target_{b}' in arrays:
            source, target = arrays[f'source_{b}'].tolist(), arrays[f'target_{b}'].tolist()
            weights_NHTS = weights_NBHTS[:, b, :, :len(target), :len(source)]
            if source and target and weights_NHTS.shape[2:] == (len(target), len(source)):
                sentences.append({'source': source, 'target': target,
                                  'layers': [[letters(head_TS) for head_TS in layer] for layer in weights_NHTS]})
    return sentences


def letters(weights_TS: np.ndarray) -> str:
    """Weights of 0 to 1 as a letter each."""
    steps = len(DIGITS) - 1
    ranks = np.clip(np.nan_to_num(weights_TS.astype(np.float64)), 0, 1) * steps
    return ''.join(DIGITS[rank] for rank in np.rint(ranks).astype(int).ravel())
