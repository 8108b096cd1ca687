"""The index of several studies: the story of sequence models, claim by claim, each with its answer."""

import json
import math
import pathlib
from typing import Any, NamedTuple

from seqjax import files
from seqjax.errors import UserError
from seqjax.studies import page
from seqjax.studies.markup import Markup, cell, element, grid
from seqjax.studies.study import Verdict

TITLE = 'What the history of sequence models claims, and what was measured'


class Chapter(NamedTuple):
    """A part of the story: what it is about, and its studies in the order in which they are told."""

    title: str
    about: str
    studies: tuple[str, ...]


STORY = (
    Chapter('The ladder', 'Translation was counted first: phrases, and how often each stood for which. Then networks '
            'learned it, and every few years another one. Here is each of them, on the same text.',
            ('ladder', 'ladder-text', 'recipes-text', 'recipes')),
    Chapter('Recurrence', 'A network that reads word by word carries all that it has read in one state. What is held, '
            'what is lost on the way, and how the words are written down again.',
            ('gates', 'bottleneck', 'exposure', 'decoding')),
    Chapter('Attention', 'Nothing need be carried that can be looked up. The decoder asks the source, word by word, '
            'and its weights show where it looked.', ('whispers', 'scores', 'inversion')),
    Chapter('The Transformer', 'Nothing but attention, in all places at once. What that saves, and what has to be put '
            'back: order, heads, masks, depth.', ('parallelism', 'positions', 'heads', 'masks', 'depth')),
    Chapter('One stack, and larger', 'The encoder goes: one stack reads the source and goes on with the target. And '
            'what is gained by making things larger.', ('prefix', 'scaling')))
BESIDES = Chapter('Besides', 'What else was asked.', ())  # studies that are in no chapter, by name


Report = dict[str, Any]  # report.json


class Claim(NamedTuple):
    """A report in the story: its number, and the folder that it is in."""

    number: int
    name: str
    report: Report


def write_index(folder: pathlib.Path) -> pathlib.Path:
    """Writes index.html and index.md over the studies whose folders are in `folder`; returns the path of index.html.

    Raises:
      UserError: none of them has a report.
    """
    folder = pathlib.Path(folder)
    chapters, waiting = read(folder)
    path = folder / 'index.html'
    files.write(folder / 'index.md', markdown(chapters, waiting))
    files.write(path, html(folder, chapters, waiting))
    return path


def read(folder: pathlib.Path) -> tuple[list[tuple[Chapter, list[Claim]]], list[str]]:
    """The story that the reports in a folder tell, and the names of the studies that have no report yet."""
    found = {path.parent.name: json.loads(path.read_text(encoding='utf-8')) for path in folder.glob('*/report.json')}
    if not found:
        raise UserError(f'--workdir={folder} holds no report of a study; run studies into folders in it first, or '
                        'write the report of each with --mode=report')
    return told(found), sorted({path.parent.name for path in folder.glob('*/study.json')} - set(found))


def told(found: dict[str, Report]) -> list[tuple[Chapter, list[Claim]]]:
    """The reports by chapter, in the order of the story, numbered from 1; chapters without a report are left out."""
    order = [study for chapter in STORY for study in chapter.studies]

    def place(name: str) -> tuple[int, str]:
        study = found[name]['study']
        return (order.index(study) if study in order else len(order), name)

    claims = [Claim(number, name, found[name]) for number, name in enumerate(sorted(found, key=place), 1)]
    chapters = [(chapter, [one for one in claims if one.report['study'] in chapter.studies]) for chapter in STORY]
    chapters.append((BESIDES, [one for one in claims if one.report['study'] not in order]))
    return [(chapter, part) for chapter, part in chapters if part]


def verdict(report: dict[str, Any]) -> Verdict | None:
    """The answer of a report.json."""
    if report['verdict'] is None:
        return None
    return Verdict(**{key: math.nan if value is None else value for key, value in report['verdict'].items()})


def claim(report: dict[str, Any]) -> str:
    """The claim, or the name of a study that claims nothing."""
    return report['claim'] or f'{report["study"][:1].upper()}{report["study"][1:]}: what was measured'


def tally(chapters: list[tuple[Chapter, list[Claim]]]) -> str:
    """How many claims came out how."""
    answers = [one.report['verdict']['answer'] for _, part in chapters for one in part if one.report['verdict']]
    parts = [f'{answers.count(answer)} {answer}' for answer in page.SIGNS if answer in answers]
    return f'{len(answers)} {"claim" if len(answers) == 1 else "claims"}: {", ".join(parts)}.' if answers else ''


def html(folder: pathlib.Path, chapters: list[tuple[Chapter, list[Claim]]], waiting: list[str]) -> str:
    """index.html."""
    contents, sections = [], []
    for rank, (chapter, part) in enumerate(chapters, 1):
        contents += [element('p', chapter.title, class_='eyebrow'),
                     element('ol', *(entry(one) for one in part), start=part[0].number)]
        sections.append(element(
            'section', element('h2', chapter.title, id=f'chapter-{rank}'), element('p', chapter.about, class_='about'),
            *(article(folder, one) for one in part), class_='chapter', aria_labelledby=f'chapter-{rank}'))
    left = [element('p', f'Begun, and without a report yet: {", ".join(waiting)}.', class_='note')] if waiting else []
    return page.page(TITLE, element('p', 'seqjax: the story, claim by claim', class_='eyebrow'), element('h1', TITLE),
                     element('p', tally(chapters)), element('nav', *contents, aria_label='Claims'), *sections, *left)


def entry(one: Claim) -> Markup:
    """A claim's line in the contents, with its answer."""
    answer = verdict(one.report)
    return element('li', element('a', claim(one.report), href=f'#study-{one.number}'), *(
        [' ', element('span', f'{page.SIGNS[answer.answer]} {answer.answer}',
                      class_=f'mark {answer.answer.replace(" ", "-")}')] if answer else []))


def article(folder: pathlib.Path, one: Claim) -> Markup:
    """A claim, its answer, and the first figure of its study."""
    number, report, target = one.number, one.report, f'{one.name}/report.html'
    drawn = [(text, folder / one.name / path) for text, path in list(report['figures'].items())[:1]]
    return element(
        'article', element('p', f'{number} · {report["study"]}', class_='eyebrow'),
        element('h3', element('a', claim(report), href=target), id=f'heading-{number}'),
        *([element('p', report['source'], class_='note')] if report['source'] else []),
        page.answer(verdict(report), f'Answer to claim {number}'),
        *(element('p', text, class_='warning', role='note') for text in (report['form'], report['state']) if text),
        *(page.figure(path.read_text(encoding='utf-8'), f's{number}', text) for text, path in drawn if path.exists()),
        element('p', element('a', f'The whole study of {report["study"]}', href=target),
                ': table, figures, commands, cost.'),
        id=f'study-{number}', aria_labelledby=f'heading-{number}')


def markdown(chapters: list[tuple[Chapter, list[Claim]]], waiting: list[str]) -> str:
    """index.md: all claims in a table, then chapter by chapter each with its answer and figure."""
    rows, parts = [], []
    for chapter, claims in chapters:
        parts.append(f'## {chapter.title}\n\n{chapter.about}\n')
        for number, name, report in claims:
            answer = verdict(report)
            rows.append([number, claim(report), answer.answer if answer else 'no claim',
                         page.effect(answer) if answer else '', report['study']])
            parts.append(f'### {number}. {cell(claim(report))}\n')
            parts += [f'{cell(text)}\n' for text in (report['source'], report['form'], report['state']) if text]
            if answer:
                effect = page.effect(answer)
                parts.append(f'**{answer.answer.capitalize()}.** {cell(answer.sentence)}'
                             + (f' Effect: {cell(effect)}.' if effect else '') + '\n')
            parts += [f'![{cell(text)}](<{name}/{path}>)\n' for text, path in list(report['figures'].items())[:1]]
            parts.append(f'[The whole study](<{name}/report.md>)\n')
    if waiting:
        parts.append(f'Begun, and without a report yet: {cell(", ".join(waiting))}.\n')
    return '\n'.join([f'# {TITLE}\n', *([tally(chapters) + '\n'] if tally(chapters) else []),
                      grid(['', 'claim', 'answer', 'effect', 'study'], rows), *parts])
