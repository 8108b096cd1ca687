"""The pages' parts: the page itself, the answer, the table, figures and the viewer of attention, as HTML."""

import base64
import hashlib
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from seqjax.studies import svg
from seqjax.studies.gaze import DIGITS
from seqjax.studies.markup import Markup, data, element, join
from seqjax.studies.sheet import NONE, Line, Sheet
from seqjax.studies.study import Verdict

HERE = pathlib.Path(__file__).parent
SIGNS = {'supported': '✓', 'not supported': '✗', 'undecided': '?'}


def page(title: str, *parts: Any, script: bool = False) -> str:
    """A whole page in one file, which asks for no other: its policy allows nothing but its own style and script."""
    style = (HERE / 'page.css').read_text(encoding='utf-8') + (
        f':root{{{svg.palette(False)}}}@media screen and (prefers-color-scheme:dark){{:root{{{svg.palette(True)}}}}}')
    code = (HERE / 'page.js').read_text(encoding='utf-8') if script else ''
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src " + (
        f"'sha256-{digest}'" if script else "'none'") + "; base-uri 'none'; form-action 'none'"
    head = element('head', element('meta', charset='utf-8'),
                   element('meta', http_equiv='Content-Security-Policy', content=policy),
                   element('meta', name='viewport', content='width=device-width, initial-scale=1'),
                   element('meta', name='color-scheme', content='light dark'),
                   element('link', rel='icon', href='data:,'),
                   element('title', title), element('style', Markup(style)))
    body = element('body', element('main', *parts), Markup(f'<script>{code}</script>') if script else Markup())
    return f'<!doctype html>\n{element("html", head, body, lang="en")}\n'


def effect(verdict: Verdict) -> str:
    """An effect and its interval in words; '' where there is none."""
    if math.isnan(verdict.effect):
        return ''
    return short(verdict.effect) + (f' {verdict.unit}' if verdict.unit else '') + (
        '' if math.isnan(verdict.low) else f' (95 % interval {short(verdict.low)} to {short(verdict.high)})')


def short(value: float) -> str:
    """A number in three digits, with a true minus."""
    return (f'{value:,.0f}' if 1000 <= abs(value) < 1e6 else f'{value:.3g}').replace('-', '−')


def answer(verdict: Verdict | None, title: str) -> Markup:
    """The answer: a badge, the sentence, the effect with its interval in words and drawn."""
    if verdict is None:
        return Markup()
    parts = [element('span', f'{SIGNS[verdict.answer]} {verdict.answer.capitalize()}', class_='badge'),
             sentences(verdict.sentence)]
    words = effect(verdict)
    if words:
        number, _, interval = words.partition(' (')
        parts.append(element('p', element('strong', number), f'({interval}' if interval else '', strip(verdict),
                             class_='effect'))
    return element('section', *parts, class_='answer ' + verdict.answer.replace(' ', '-'), aria_label=title)


def sentences(text: str) -> Markup:
    """A verdict's sentence; one of several parts, as `study.all_of` puts them together, is a list with a sign each."""
    marked = parts(text)
    if not marked:
        return element('p', text)
    signs = {answer: element('span', SIGNS[answer], class_='mark', role='img', aria_label=answer) for answer in SIGNS}
    return element('ul', *(element('li', signs.get(answer, ''), part) for part, answer in marked), class_='parts')


def parts(text: str) -> list[tuple[str, str]]:
    """The parts of a verdict's sentence, each with its own answer, and with '' what is added behind them; none where it
    is in one piece."""
    *pieces, rest = re.split(r'\s*\((supported|not supported|undecided)\)\s*', text)
    return list(zip(pieces[::2], pieces[1::2])) + ([(rest, '')] if pieces and rest else [])


def strip(verdict: Verdict) -> Markup:
    """The interval as a line with the effect as a dot, against no effect at all."""
    numbers = (verdict.effect, verdict.low, verdict.high)
    if not all(map(math.isfinite, numbers)):
        return Markup()
    low, high = min(0.0, *numbers), max(0.0, *numbers)
    room = (high - low) * 0.08 or 1.0
    zero, middle, left, right = (
        round(20 + 360 * (x - low + room) / (high - low + 2 * room), 1) for x in (0.0, *numbers))
    return Markup(
        f'<svg class="strip" viewBox="0 0 400 36" aria-hidden="true">'
        f'<path d="M20 14H380" stroke="currentColor" stroke-opacity=".25"/>'
        f'<path d="M{zero} 5V23" stroke="currentColor" stroke-opacity=".6"/>'
        f'<text x="{zero}" y="34" text-anchor="middle" fill="currentColor">0</text>'
        f'<path d="M{left} 14H{right}M{left} 9V19M{right} 9V19" stroke="currentColor" stroke-width="2" fill="none"/>'
        f'<circle cx="{middle}" cy="14" r="5" fill="currentColor"/></svg>')


SECTIONS = {'floor': 'Floors: what trivial methods reach', 'published': 'Published by others',
            'failed': 'Trials without results'}


def table(sheet: Sheet) -> Markup:
    """The table of results: a body each for what was measured, for floors, for published figures, for failures."""
    keys = len(sheet.keys) or 1
    head = element('thead', element('tr', *(
        element('th', name, scope='col', class_=None if i < keys else 'number')
        for i, name in enumerate(sheet.header))))
    bodies = [element('tbody', *map(_row, sheet.of('result')))]
    for kind, title in SECTIONS.items():
        lines = sheet.of(kind)
        if lines:
            heading = element('tr', element('th', title, colspan=len(sheet.header), scope='rowgroup'), class_='section')
            bodies.append(element('tbody', heading, *(_row(line, len(sheet.measures) + 1) for line in lines)))
    return element('div', element('table', head, *bodies), class_='scroll tall' if len(sheet.lines) > 30 else 'scroll',
                   tabindex=0, role='region', aria_label='Results')


def _row(line: Line, rest: int = 0) -> Markup:
    span = 1
    while line.kind in SECTIONS and line.about[span:span + 1] == (NONE,):  # a long name takes their place
        span += 1
    about = [element('th', line.about[0], scope='row', colspan=span if span > 1 else None),
             *(element('td', text, class_='about') for text in line.about[span:])]
    if line.kind == 'failed':
        return element('tr', *about, element('td', line.reason, colspan=rest, class_='reason'))
    return element('tr', *about, *map(_cell, line.cells), element('td', str(line.seeds) if line.seeds else NONE))


def _cell(text: str) -> Markup:
    mean, sign, std = text.partition(' ± ')
    return element('td', mean, element('span', f' ± {std}', class_='std') if sign else '')


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]], about: int, name: str) -> Markup:
    """A table of texts, whose first `about` columns say what a line is about."""
    head = element('tr', *(element('th', text, scope='col', class_=None if i < about else 'number')
                           for i, text in enumerate(header)))
    lines = [element('tr', element('th', row[0], scope='row'), *(
        element('td', text, class_='about' if i < about else None) for i, text in enumerate(row[1:], 1)))
        for row in rows]
    return element('div', element('table', element('thead', head), element('tbody', *lines)), class_='scroll',
                   tabindex=0, role='region', aria_label=name)


def figure(text: str, prefix: str, caption: str, note: str = '') -> Markup:
    """An .svg file's text as a figure with a caption."""
    return element('figure', Markup(svg.inline(text, prefix, caption)), element('figcaption', f'{caption}. {note}'))


def viewer(views: Sequence[dict[str, Any]]) -> Markup:
    """Attention to look at: a word under the pointer, the finger or the focus lights up the words that it looks at."""
    choices = [element('label', f'{name.capitalize()} ', element('select', name=name)) for name in (
        'run', 'sentence', 'layer', 'head')]
    room = element(
        'div', element('div', *choices, class_='choices'),
        element('p', 'Translation', class_='note', id='gaze-target'),
        element('div', class_='words target', role='group', aria_labelledby='gaze-target'),
        element('p', 'Source', class_='note', id='gaze-source'),
        element('div', class_='words source', role='group', aria_labelledby='gaze-source'),
        element('p', class_='note spoken', aria_live='polite'), id='gaze', hidden=True)
    return join([room, element('noscript', element('p', 'This part needs scripts, which are switched off here.')),
                 data({'digits': DIGITS, 'runs': list(views)}, 'gaze-data')])
