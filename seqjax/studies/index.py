"""The index of several studies: the story of sequence models, claim by claim, each with its answer."""

import json
import math
import pathlib
from typing import Any

from seqjax import files
from seqjax.errors import UserError
from seqjax.studies import page
from seqjax.studies.markup import cell, element, grid
from seqjax.studies.study import Verdict

TITLE = 'What the history of sequence models claims, and what was measured'
# The order in which the story is told; studies that are not in it follow by name.
STORY = ('ladder', 'bottleneck', 'gates', 'whispers', 'scores', 'parallelism', 'positions', 'heads', 'masks', 'depth',
         'prefix', 'exposure', 'decoding', 'scaling')


def write_index(folder: pathlib.Path) -> pathlib.Path:
    """Writes index.html and index.md over the studies whose folders are in `folder`; returns the path of index.html.

    Raises:
      UserError: none of them has a report.
    """
    folder = pathlib.Path(folder)
    found = {path.parent.name: json.loads(path.read_text(encoding='utf-8')) for path in folder.glob('*/report.json')}
    waiting = sorted({path.parent.name for path in folder.glob('*/study.json')} - set(found))
    if not found:
        raise UserError(f'--workdir={folder} holds no report of a study; run studies into folders in it first, or '
                        'write the report of each with --mode=report')

    def place(name: str) -> tuple[int, str]:
        study = found[name]['study']
        return (STORY.index(study) if study in STORY else len(STORY), name)

    chapters = {name: found[name] for name in sorted(found, key=place)}
    path = folder / 'index.html'
    files.write(folder / 'index.md', markdown(chapters, waiting))
    files.write(path, html(folder, chapters, waiting))
    return path


def verdict(report: dict[str, Any]) -> Verdict | None:
    """The answer of a report.json."""
    if report['verdict'] is None:
        return None
    return Verdict(**{key: math.nan if value is None else value for key, value in report['verdict'].items()})


def claim(report: dict[str, Any]) -> str:
    """The claim, or the name of a study that claims nothing."""
    return report['claim'] or f'{report["study"][:1].upper()}{report["study"][1:]}: what was measured'


def tally(chapters: dict[str, dict[str, Any]]) -> str:
    """How many claims came out how."""
    answers = [report['verdict']['answer'] for report in chapters.values() if report['verdict']]
    parts = [f'{answers.count(answer)} {answer}' for answer in page.SIGNS if answer in answers]
    return f'{len(answers)} {"claim" if len(answers) == 1 else "claims"}: {", ".join(parts)}.' if answers else ''


def html(folder: pathlib.Path, chapters: dict[str, dict[str, Any]], waiting: list[str]) -> str:
    """index.html."""
    contents, articles = [], []
    for number, (name, report) in enumerate(chapters.items(), 1):
        answer, target = verdict(report), f'{name}/report.html'
        contents.append(element('li', element('a', claim(report), href=f'#study-{number}'), *(
            [' ', element('span', f'{page.SIGNS[answer.answer]} {answer.answer}',
                          class_=f'mark {answer.answer.replace(" ", "-")}')] if answer else [])))
        drawn = list(report['figures'].items())[:1]
        articles.append(element(
            'article', element('p', f'{number} · {report["study"]}', class_='eyebrow'),
            element('h2', element('a', claim(report), href=target), id=f'heading-{number}'),
            *([element('p', report['source'], class_='note')] if report['source'] else []),
            page.answer(answer, f'Answer to claim {number}'),
            *(element('p', text, class_='warning', role='note') for text in (report['form'], report['state']) if text),
            *(page.figure((folder / name / path).read_text(encoding='utf-8'), f's{number}', text)
              for text, path in drawn if (folder / name / path).exists()),
            element('p', element('a', f'The whole study of {report["study"]}', href=target),
                    ': table, figures, commands, cost.'),
            id=f'study-{number}', aria_labelledby=f'heading-{number}'))
    left = [element('p', f'Begun, and without a report yet: {", ".join(waiting)}.', class_='note')] if waiting else []
    return page.page(TITLE, element('p', 'seqjax: the story, claim by claim', class_='eyebrow'), element('h1', TITLE),
                     element('p', tally(chapters)), element('nav', element('ol', *contents), aria_label='Claims'),
                     *articles, *left)


def markdown(chapters: dict[str, dict[str, Any]], waiting: list[str]) -> str:
    """index.md: all claims in a table, then each with its answer and figure."""
    rows, parts = [], []
    for number, (name, report) in enumerate(chapters.items(), 1):
        answer = verdict(report)
        rows.append([number, claim(report), answer.answer if answer else 'no claim',
                     page.effect(answer) if answer else '', report['study']])
        parts.append(f'## {number}. {cell(claim(report))}\n')
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
