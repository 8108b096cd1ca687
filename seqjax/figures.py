"""Pictures of a run, each with its arrays beside it (.npz): attention, states, learning curve, the sinusoid table."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from seqjax import files

SHOWN = 5  # translations that are drawn


def pyplot() -> Any:
    """matplotlib without a screen, in the house's style."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    plt.rcParams.update({'figure.dpi': 110, 'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False,
                         'savefig.bbox': 'tight', 'image.interpolation': 'nearest',
                         'text.parse_math': False})  # pieces of text have dollars
    return plt


def save(figure: Any, path: pathlib.Path, arrays: dict[str, Any]) -> pathlib.Path:
    """Writes a figure as .png and its arrays as .npz, whole or not at all; returns the path of the picture."""
    with files.whole(path, 'wb') as file:
        figure.savefig(file, format='png')
    pyplot().close(figure)
    with files.whole(path.with_suffix('.npz'), 'wb') as file:
        np.savez_compressed(file, **arrays)
    return path


def draw_run(workdir: pathlib.Path, evaluator: Any, params: Any, source: Any, hypotheses: Sequence[Any],
             suffix: str = '') -> list[pathlib.Path]:
    """Draws what the first translations look like from inside, and the learning curve; returns the pictures' paths."""
    shown = [hypothesis for hypothesis in hypotheses[:SHOWN] if len(hypothesis.ids)]
    chosen = source.take(np.array([i for i, hypothesis in enumerate(hypotheses[:SHOWN]) if len(hypothesis.ids)], int))
    captured = evaluator.look_inside(params, chosen, shown) if shown else {}
    if jax.process_index() or not shown:  # of several processes, one draws
        return []
    targets = [hypothesis.ids for hypothesis in shown]
    rows = [np.trim_zeros(chosen.row(i), 'b') for i in range(chosen.count())]
    labels = [(evaluator.codec.source.pieces(row), evaluator.codec.target.pieces(ids))
              for row, ids in zip(rows, targets)]
    folder = workdir / 'figures'
    drawn = []
    cross = next((value for name, value in captured.items() if name.endswith('cross_attention')), None)
    arrays = captured | {f'source_{i}': np.array(s) for i, (s, _) in enumerate(labels)} \
        | {f'target_{i}': np.array(t) for i, (_, t) in enumerate(labels)}
    windows = next((value for name, value in captured.items() if name.endswith('/window')), None)
    if cross is not None:
        drawn.append(save(attention_maps(cross, labels, windows), folder / f'attention{suffix}.png', arrays))
    elif any(name.startswith('decoder') and value.ndim == 3 for name, value in captured.items()):
        drawn.append(save(state_maps(captured, labels[0][1]), folder / f'states{suffix}.png', arrays))
    if (workdir / 'metrics.jsonl').exists():
        drawn.append(draw_learning_curve(workdir / 'metrics.jsonl', folder / 'learning_curve.png'))
    return drawn


def attention_maps(weights_NBHTS: np.ndarray, labels: list[tuple[list[str], list[str]]],
                   windows_BTE: np.ndarray | None = None) -> Any:
    """Each layer and head of the first sentence, and each sentence averaged over the heads of the last layer.

    Args:
      weights_NBHTS: attention on the source of N layers, B sentences, H heads.
      labels: the pieces of source and target of each sentence.
      windows_BTE: left edge, centre and right edge of local attention, in source positions from 1; None without.
    """
    plt = pyplot()
    N, B, H = weights_NBHTS.shape[:3]
    several = N * H > 1
    rows = [[(f'sentence {b + 1}' + (f', layer {N}, mean of heads' if several else ''), weights_NBHTS[-1, b].mean(0),
              labels[b], b) for b in range(B)]]
    if several:
        rows += [[(f'sentence 1, layer {n + 1}, head {h + 1}', weights_NBHTS[n, 0, h], labels[0], 0)
                  for h in range(H)]
                 for n in range(N)]
    across = max(map(len, rows))
    figure, axes = plt.subplots(len(rows), across, figsize=(2.6 * across, 2.6 * len(rows)), squeeze=False,
                                layout='constrained')
    for axis in axes.flat:
        axis.axis('off')
    for panels, row in zip(rows, axes):
        for (title, weights_TS, (source, target), b), axis in zip(panels, row):
            axis.axis('on')
            image = axis.imshow(weights_TS[:len(target), :len(source)], vmin=0, vmax=1, cmap='magma_r', aspect='auto')
            axis.set_xticks(range(len(source)), source, rotation=90, fontsize=6)
            axis.set_yticks(range(len(target)), target, fontsize=6)
            axis.set_title(title, fontsize=7)
            if windows_BTE is not None:
                draw_window(axis, windows_BTE[b, :len(target)], len(source))
    figure.colorbar(image, ax=axes, shrink=min(1.0, 2.0 / len(rows)), pad=0.01, label='attention weight')
    return figure


def draw_window(axis: Any, window_TE: np.ndarray, length: int) -> None:
    """Marks on an attention map: a dot at the centre of each row's window, and a stroke at each edge that is in sight.

    A predicted centre lies up to one position left of the first word.
    """
    rows = np.arange(len(window_TE))
    for column, mark in ((0, '|'), (1, '.'), (2, '|')):
        axis.plot(window_TE[:, column] - 1, rows, mark, color='tab:cyan', markersize=5, clip_on=column != 1)
    axis.set(xlim=(-0.5, length - 0.5), ylim=(len(rows) - 0.5, -0.5))


def state_maps(captured: dict[str, np.ndarray], target: list[str]) -> Any:
    """Gates, cells and hidden states of the decoder over the first sentence: units down, target tokens along."""
    plt = pyplot()
    shown = {name: value for name, value in captured.items() if name.startswith('decoder') and value.ndim == 3}
    figure, axes = plt.subplots(len(shown), 1, figsize=(max(5, 0.4 * len(target)), 1.8 * len(shown)), squeeze=False,
                                layout='constrained')
    for axis, (name, value_BTD) in zip(axes.flat, shown.items()):
        image = axis.imshow(value_BTD[0, :len(target)].T, aspect='auto', cmap='RdBu_r', vmin=-1, vmax=1)
        axis.set_ylabel('unit')
        axis.set_title(name, fontsize=8)
        axis.set_xticks(range(len(target)), target, rotation=90, fontsize=6)
        figure.colorbar(image, ax=axis)
    return figure


def draw_learning_curve(metrics: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """Loss of training and validation, and the validation scores, over steps."""
    plt = pyplot()
    records = [json.loads(line) for line in metrics.read_text(encoding='utf-8').splitlines()]

    def series(split: str, name: str) -> np.ndarray:
        return np.array([(r['step'], r[name]) for r in records if r['split'] == split and name in r]).reshape(-1, 2)

    curves = {f'{split}_{name}': series(split, name) for split in ('train', 'valid') for name in (
        'nll', 'bleu', 'exact_match')}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout='constrained')
    for split in ('train', 'valid'):
        left.plot(*curves[f'{split}_nll'].T, label=split, marker='o' if split == 'valid' else None, markersize=3)
    left.set(xlabel='step', ylabel='nats a token', title='cross entropy', yscale='log')
    left.legend(frameon=False)
    for name in ('bleu', 'exact_match'):
        right.plot(*curves[f'valid_{name}'].T, marker='o', markersize=3, label=name.replace('_', ' '))
    right.set(xlabel='step', ylabel='percent', title='validation, greedy', ylim=(0, 101))
    right.legend(frameon=False)
    return save(figure, path, curves)


def draw_sinusoids(path: pathlib.Path, length: int = 20, width: int = 512) -> pathlib.Path:
    """The sinusoid table as a picture: positions down, dimensions along, with a colour bar."""
    from seqjax.layers.positions import sinusoids
    plt = pyplot()
    table = sinusoids(length, width)
    figure, axis = plt.subplots(figsize=(9, 4), layout='constrained')
    image = axis.pcolormesh(np.arange(width + 1), np.arange(length + 1), table, cmap='RdBu', vmin=-1, vmax=1)
    axis.set(xlabel='dimension', ylabel='position', xlim=(0, width), ylim=(length, 0),
             title=f'PE[pos, 2i] = sin(pos / 10000^(2i/{width})), PE[pos, 2i+1] = cos')
    figure.colorbar(image, ax=axis, label='value')
    return save(figure, path, {'table': table})
