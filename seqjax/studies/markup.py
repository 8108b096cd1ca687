"""HTML and Markdown from text that nobody vouches for: everything is escaped unless it was made here."""

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

EMPTY = ('br', 'meta', 'hr', 'img', 'link')


class Markup(str):
    """HTML that may stand in a page as it is."""


def element(tag: str, /, *children: Any, **attributes: Any) -> Markup:
    """An HTML element.

    Args:
      children: what stands inside; what is not `Markup` is text.
      attributes: `class_` is class, `data_x` is data-x; True stands without a value, None and False not at all.
    """
    written = ''
    for key, value in attributes.items():
        if value is not None and value is not False:
            written += ' ' + key.rstrip('_').replace('_', '-')
            written += '' if value is True else f'="{html.escape(str(value))}"'
    return Markup(f'<{tag}{written}>' if tag in EMPTY else f'<{tag}{written}>{join(children)}</{tag}>')


def join(children: Iterable[Any]) -> Markup:
    """Markup one after the other; text among it is escaped."""
    return Markup(''.join(child if isinstance(child, Markup) else html.escape(str(child)) for child in children))


def data(value: Any, id_: str) -> Markup:
    """A value as JSON inside a script element; no text in it can end the element or begin another."""
    text = json.dumps(value, ensure_ascii=True, separators=(',', ':'))
    for letter in '<>&':
        text = text.replace(letter, f'\\u{ord(letter):04x}')
    return Markup(f'<script type="application/json" id="{html.escape(id_)}">{text}</script>')


def cell(text: Any) -> str:
    """Text that can stand in a cell of a Markdown table, or in a line: no markup and no line end of its own."""
    escaped = html.escape(' '.join(str(text).split()), quote=False)
    for letter in '\\`*_[]|#':
        escaped = escaped.replace(letter, '\\' + letter)
    return escaped


def grid(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; short rows are filled up."""
    lines = [header, *rows]
    written = ['| ' + ' | '.join([*map(cell, line), *[''] * (len(header) - len(line))]) + ' |' for line in lines]
    return '\n'.join([written[0], '|' + '---|' * len(header), *written[1:]]) + '\n'


def block(text: str) -> str:
    """A Markdown code block by indentation, which nothing inside can end."""
    return ''.join(f'    {line}\n' for line in text.splitlines())
