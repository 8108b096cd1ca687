"""Figures as vector pictures: files of their own, or elements of an HTML page, in its colours and fonts."""

import io
import re
from typing import Any
from xml.etree import ElementTree

from seqjax.studies import charts

SVG, XLINK = 'http://www.w3.org/2000/svg', 'http://www.w3.org/1999/xlink'
FONT = re.compile(r"'DejaVu Sans'[^;]*sans-serif|'DejaVu Sans'[^;]*")
NAMED = {charts.INK: 'currentColor', '#000000': 'currentColor', charts.FAINT: 'var(--grid)'}


def drawing(figure: Any, salt: str) -> str:
    """A matplotlib figure as an .svg file's text: letters stay letters, and the same figure gives the same text."""
    import matplotlib
    file = io.StringIO()
    with matplotlib.rc_context(charts.STYLE | {'svg.hashsalt': salt}):
        figure.savefig(file, format='svg', metadata={'Date': None})
    return file.getvalue()


def inline(text: str, prefix: str, name: str) -> str:
    """The text of an .svg file as an element of an HTML page.

    Args:
      text: what `drawing` returns. prefix: goes before each id, so that many can stand in one page.
      name: what the picture shows, for those who do not see it.

    Returns:
      An element without namespaces, metadata, sizes or addresses; colours of the house are the page's.
    """
    tree = ElementTree.fromstring(text)
    for parent in list(tree.iter()):
        for child in list(parent):
            if child.tag in (f'{{{SVG}}}metadata', f'{{{SVG}}}style'):
                parent.remove(child)
    width = float(tree.get('viewBox').split()[2])
    for element in tree.iter():
        element.tag = element.tag.removeprefix(f'{{{SVG}}}')
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            element.set(key.removeprefix(f'{{{XLINK}}}'), _local(key, value, prefix))
    for key in ('width', 'height', 'version'):
        tree.attrib.pop(key, None)
    wide = width * (5 / 3 if width < 400 else 4 / 3)
    for key, value in {'role': 'img', 'aria-label': name, 'fill': 'currentColor',
                       'style': f'width:{wide:.0f}px;min-width:{width:.0f}px'}.items():
        tree.set(key, value)
    return ElementTree.tostring(tree, encoding='unicode')


def _local(key: str, value: str, prefix: str) -> str:
    """An attribute's value with the page's own ids, colours and font."""
    if key == 'id':
        return f'{prefix}-{value}'
    if key.endswith('href'):
        return f'#{prefix}-{value[1:]}' if value.startswith('#') else value
    value = re.sub(r'url\(#([^)]*)\)', rf'url(#{prefix}-\1)', value)
    if key == 'style':
        value = FONT.sub('var(--sans)', value)
        value = re.sub(r'#[0-9a-f]{6}\b', lambda match: paint(match[0]), value)
    return value


def paint(colour: str) -> str:
    """A colour as the page has it: of the house's own there is a lighter one for the dark page."""
    if colour in NAMED:
        return NAMED[colour]
    return f'var(--c{colour[1:]})' if colour in charts.COLOURS else colour


def palette(dark: bool) -> str:
    """The house's colours as CSS variables, for the light or the dark page."""
    def lifted(colour: str) -> str:
        parts = (int(colour[i:i + 2], 16) for i in (1, 3, 5))
        return '#' + ''.join(f'{round(part + 0.4 * (255 - part)):02x}' for part in parts)

    on_dark = {charts.MODELS[name].colour: colour for name, colour in charts.DARK.items()}
    return ''.join(f'--c{colour[1:]}:{on_dark.get(colour) or lifted(colour) if dark else colour};'
                   for colour in dict.fromkeys(charts.COLOURS))
