"""Charts show means and deviations over seeds, and a model looks the same in all of them."""

import itertools
import math
import re

import numpy as np
import pytest

from seqjax.studies import charts, svg
from seqjax.studies.axes import SEED
from seqjax.studies.table import Table

SCORES = {('gru', 0, 1): 90.0, ('gru', 1, 1): 94.0, ('gru', 0, 8): 10.0, ('gru', 1, 8): 30.0,
          ('luong', 0, 1): 95.0, ('luong', 1, 1): 97.0, ('luong', 0, 8): 80.0}
TABLE = Table.of({'model': model, SEED: seed, 'length': length, 'exact_match': score}
                 for (model, seed, length), score in SCORES.items())


def curves(figure):
    """The lines by name: (xs, ys)."""
    return {line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist())
            for line in figure.axes[0].lines if not line.get_label().startswith('_')}


def test_lines_are_means_over_seeds_and_bands_are_a_standard_deviation():
    figure = charts.lines(TABLE, 'length', 'exact_match')
    assert curves(figure) == {'gru': ([1, 8], [92, 20]), 'luong': ([1, 8], [96, 80])}
    gru, luong = (band.get_paths()[0].vertices for band in figure.axes[0].collections)
    std = np.std([10, 30], ddof=1)
    assert sorted({y for x, y in gru if x == 8}) == pytest.approx([20 - std, 20 + std])
    assert {y for x, y in luong if x == 8} == {80}, 'one seed has no band'


def test_bands_can_be_the_interval_of_the_mean():
    figure = charts.lines(TABLE, 'length', 'exact_match', band='interval')
    gru = figure.axes[0].collections[0].get_paths()[0].vertices
    half = 12.706204736 * np.std([10, 30], ddof=1) / math.sqrt(2)  # Student's t, 97.5 %, one degree of freedom
    assert max(y for x, y in gru if x == 8) == pytest.approx(20 + half)


@pytest.mark.parametrize('missing', [math.nan, None, math.inf])
def test_what_was_not_measured_is_left_out(missing):
    table = Table.of([*TABLE.rows, {'model': 'gru', SEED: 2, 'length': 8, 'exact_match': missing},
                      {'model': 'gru', SEED: 2, 'exact_match': 1.0}, {'model': 'gru', SEED: 2, 'length': 8}])
    assert curves(charts.lines(table, 'length', 'exact_match'))['gru'] == ([1, 8], [92, 20])


def test_levels_are_lines_with_names_apart():
    figure = charts.lines(TABLE, 'length', 'exact_match', levels={'copy': 3.0, 'frequent': 3.5})
    assert [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_label().startswith('_')] == [3.0, 3.5]
    heights = {text.get_text(): text.xy[1] for text in figure.axes[0].texts}
    assert heights['frequent'] - heights['copy'] == pytest.approx(0.055)
    assert {'gru', 'luong'} < set(heights)


def test_bars_are_means_with_a_dot_for_each_seed():
    figure = charts.bars(TABLE.where({'length': 8}), 'model', 'exact_match')
    axis = figure.axes[0]
    assert [bar.get_width() for bar in axis.patches] == [20, 80]
    assert [label.get_text() for label in axis.get_yticklabels()] == ['gru', 'luong']
    assert [10, 30] in [line.get_xdata().tolist() for line in axis.lines if isinstance(line.get_xdata(), np.ndarray)] \
        + [list(line.get_xdata()) for line in axis.lines]


def test_bars_in_groups_have_a_colour_for_each_kind():
    figure = charts.bars(TABLE, 'length', 'exact_match', by='model')
    axis = figure.axes[0]
    assert sorted(bar.get_width() for bar in axis.patches) == [20, 80, 92, 96]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ['gru', 'luong']
    colours = {bar.get_facecolor()[:3] for bar in axis.patches}
    assert len(colours) == 2


def test_logarithmic_axes_have_ticks_where_something_was_measured():
    axis = charts.lines(TABLE, 'length', 'exact_match', logx=True, logy=True).axes[0]
    assert (axis.get_xscale(), axis.get_yscale()) == ('log', 'log')
    assert axis.get_xticks().tolist() == [1, 8]
    axis.figure.canvas.draw()
    assert [label.get_text() for label in axis.get_xticklabels()] == ['1', '8']


def test_several_columns_tell_lines_apart_in_the_models_colour():
    rows = [row | {'model.hidden_size': size} for row in TABLE.rows for size in (64, 128)]
    figure = charts.lines(Table.of(rows), 'length', 'exact_match', by=('model', 'model.hidden_size'))
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines) == ['gru, hidden size 64', 'gru, hidden size 128', 'luong, hidden size 64',
                           'luong, hidden size 128']
    for name, line in lines.items():
        assert line.get_color() == charts.MODELS[name.partition(',')[0]].colour
    assert len({line.get_linestyle() for line in lines.values()}) == 2


def test_a_model_looks_the_same_in_whatever_company():
    for company in itertools.permutations(['gru', 'something', 'transformer', 'rnn'], 3):
        for name, look in zip(company, charts.looks(company)):
            if name in charts.MODELS:
                assert look == charts.MODELS[name]
        assert len(set(charts.looks(company))) == 3


def test_more_series_than_colours_stay_apart():
    assert len(set(charts.looks([f'series {i}' for i in range(20)]))) == 20


def linear(colour):
    """sRGB to linear light (IEC 61966-2-1)."""
    parts = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG 2.2, contrast ratio."""
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def page(dark):
    """The house's colours on a page, by what they are on paper."""
    return {f'#{entry[3:9]}': entry.partition(':')[2] for entry in svg.palette(dark).split(';') if entry}


def test_colours_can_be_read_as_text():
    assert set(page(False)) == set(charts.COLOURS)
    assert all(contrast(colour, '#fcfbf8') >= 4.5 for colour in page(False).values())
    assert all(contrast(colour, '#16181c') >= 4.5 for colour in page(True).values())
    assert contrast(charts.INK, '#ffffff') > 7


# What dichromats see of linear light (Machado, Oliveira and Fernandes 2009, severity 1).
SIGHT = {
    'all': np.eye(3),
    'no green': np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                          [-0.011820, 0.042940, 0.968881]]),
    'no red': np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                        [-0.003882, -0.048116, 1.051998]])}


def lab(light):
    """CIE L*a*b* of linear sRGB light, D65."""
    xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                    [0.0193339, 0.1191920, 0.9503041]]) @ np.clip(light, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize('sight', SIGHT)
@pytest.mark.parametrize('dark', [False, True])
def test_models_differ_for_the_colour_blind(sight, dark):
    """Families of models differ by far more than what is just noticed (2.3), any two by more than that."""
    colours = {name: page(dark)[charts.MODELS[name].colour] for name in (
        'rnn', 'lstm', 'gru', 'bahdanau', 'luong', 'transformer')}
    families = [('rnn', 'lstm', 'gru'), ('bahdanau', 'luong'), ('transformer',)]
    family = {name: members for members in families for name in members}
    for one, other in itertools.combinations(colours, 2):
        distance = np.linalg.norm(np.subtract(*(lab(SIGHT[sight] @ linear(colours[name])) for name in (one, other))))
        assert distance > (15 if family[one] != family[other] else 5), (one, other)


def test_markers_tell_all_models_apart():
    assert len({look.marker for look in charts.MODELS.values()}) == len(charts.MODELS)
    assert set(charts.DARK) == set(charts.MODELS)


@pytest.mark.parametrize('heights', [[0.5, 0.5, 0.5], [0.0, 0.9, 0.91], [0.3], [], [0.2, 0.21, 0.1, 0.95]])
def test_labels_are_moved_apart_no_further_than_needed(heights):
    moved = charts.apart(heights, 0.1)
    assert [moved[i] for i in np.argsort(heights, kind='stable')] == sorted(moved)
    assert all(b - a > 0.1 - 1e-9 for a, b in itertools.pairwise(sorted(moved)))
    if len(heights) > 1:  # a common shift cannot make it better
        assert np.mean(moved) == pytest.approx(np.mean(heights))
    if heights == [0.0, 0.9, 0.91]:
        assert moved == pytest.approx([0.0, 0.855, 0.955])


def test_names_with_dollars_and_letters_that_no_page_holds_are_drawn():
    table = Table.of([{'model': '$x$ \x00 <b>', SEED: 0, 'length': length, 'exact_match': 1.0} for length in (1, 2)])
    text = svg.drawing(charts.lines(table, 'length', 'exact_match'), 'salt')
    assert '$x$ \ufffd &lt;b&gt;' in text


def test_drawings_are_equal_when_drawn_again_and_hold_letters():
    one, two = (svg.drawing(charts.lines(TABLE, 'length', 'exact_match'), 'salt') for _ in range(2))
    assert one == two
    assert '>exact match</text>' in one


def test_inline_drawings_have_ids_of_their_own_and_no_address():
    text = svg.drawing(charts.lines(TABLE, 'length', 'exact_match', title='id="a" url(#b)'), 'salt')
    one = svg.inline(text, 'f1', 'what "it" shows')
    ids, used = re.findall(r' id="([^"]*)"', one), re.findall(r'(?:href="|url\()#([^")]*)', one.replace(
        'id="a" url(#b)', ''))
    assert ids
    assert used
    assert len(set(ids)) == len(ids)
    assert all(name.startswith('f1-') for name in ids + used)
    assert set(used) <= set(ids)
    assert 'http' not in one
    assert 'xmlns' not in one
    assert 'id="a" url(#b)' in one, 'text stays what it is'
    assert charts.INK not in one
    assert f'var(--c{charts.MODELS["gru"].colour[1:]})' in one
    assert 'aria-label="what &quot;it&quot; shows"' in one
