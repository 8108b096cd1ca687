"""Puts the results of studies into Markdown documents:

    python -m seqjax.studies.docs docs/results.md runs/studies/*
    python -m seqjax.studies.docs --story README.md docs/results.md

The first writes the sections of reports on disk into a document. A section stands between <!-- study:NAME --> and
<!-- end study:NAME -->; what was there is replaced, and a study that has no such place yet comes to the end. The second
tells the story of the sections in a document in another one, claim by claim with its answer, between <!-- story -->
and <!-- end story -->; each claim leads to its section.
"""

import json
import os
import pathlib
import re
import sys
from collections.abc import Sequence

from seqjax import files
from seqjax.errors import UserError
from seqjax.studies import index, page

SECTION = re.compile(r'<!-- study:(?P<study>\S+) -->\n(?P<text>.*?)\n<!-- end study:(?P=study) -->', re.DOTALL)
CLAIM = re.compile(r'^> (.*)$', re.MULTILINE)
ANSWER = re.compile(r'^\*\*(?P<answer>Supported|Not supported|Undecided)\.\*\* (?P<sentence>.*?)'
                    r'(?: Effect: (?P<effect>.*))?$', re.MULTILINE)


def insert(document: pathlib.Path, folders: Sequence[pathlib.Path]) -> list[str]:
    """Writes the sections of the reports in `folders` into a document; returns the studies' names.

    Raises:
      UserError: a folder has no report.json, or the document is not there or marks the beginning of a study and no end.
    """
    text, names = read(document), []
    for folder in folders:
        try:
            report = json.loads((folder / 'report.json').read_text(encoding='utf-8'))
        except FileNotFoundError:
            raise UserError(f'{folder} holds no report.json; write one with --mode=report --workdir={folder}') from None
        text = put(text, f'study:{report["study"]}', report['section'], document)
        names.append(report['study'])
    files.write(document, text)
    return names


def story(document: pathlib.Path, sections: pathlib.Path) -> list[str]:
    """Writes the story that the sections in another document tell into a document; returns the studies' names.

    Raises:
      UserError: `sections` holds no section of a study, `document` marks the beginning of the story and no end, or one
        of them is not there.
    """
    found = {one['study']: one for one in map(summary, SECTION.finditer(read(sections)))}
    if not found:
        raise UserError(f'{sections} holds no section of a study; write some with python -m seqjax.studies.docs '
                        f'{sections} FOLDER...')
    chapters = index.told(found)
    path = pathlib.Path(os.path.relpath(sections, document.parent)).as_posix()
    files.write(document, put(read(document), 'story', told(chapters, path), document))
    return [one.name for _, claims in chapters for one in claims]


def summary(section: re.Match[str]) -> index.Report:
    """What a section says in short, as Markdown: the claim, the answer and what decided it."""
    claim, answer = CLAIM.search(section['text']), ANSWER.search(section['text'])
    return {'study': section['study'], 'claim': claim[1] if claim else section['study'],
            'verdict': answer and {'answer': answer['answer'].lower(), 'why': why(**answer.groupdict())}}


def why(answer: str, sentence: str, effect: str | None) -> str:
    """The effect that supports a claim; of one that is not supported, the first of its parts that decided so."""
    decisive = [part for part, of_part in page.parts(sentence) if of_part == answer.lower() != 'supported']
    return decisive[0] if decisive else effect or ''


def told(chapters: list[tuple[index.Chapter, list[index.Claim]]], sections: str) -> str:
    """The story as a page's beginning: every claim in a sentence, with its answer; `sections` is where each is told."""
    parts = [index.tally(chapters)]
    for chapter, claims in chapters:
        lines = [f'**{chapter.title}.** {chapter.about}\n']
        for number, name, report in claims:
            verdict = report['verdict']
            found = f' **{page.SIGNS[verdict["answer"]]} {verdict["answer"].capitalize()}**' + (
                f': {verdict["why"]}' if verdict['why'] else '.') if verdict else ''
            lines.append(f'{number}. {report["claim"]}{found} ([{name}]({sections}#{name}))')
        parts.append('\n'.join(lines))
    return '\n\n'.join(parts)


def read(document: pathlib.Path) -> str:
    """The text of a document that is to be written into."""
    try:
        return document.read_text(encoding='utf-8')
    except FileNotFoundError:
        raise UserError(f'{document} is not there; name the document that takes the results') from None


def between(text: str, name: str) -> str:
    """What stands between those marks; '' where there are none."""
    return text.partition(f'<!-- {name} -->')[2].partition(f'<!-- end {name} -->')[0].strip()


def put(text: str, name: str, section: str, document: pathlib.Path) -> str:
    """The `text` of a document with `section` between the marks <!-- NAME --> and <!-- end NAME -->, or at its end."""
    begin, end = f'<!-- {name} -->', f'<!-- end {name} -->'
    section = '\n'.join([begin, section.strip('\n'), end])  # a first line may be a code block's, whose spaces stay
    if begin not in text:
        return f'{text.rstrip()}\n\n{section}\n'
    if end not in text:
        raise UserError(f'{document}: {begin} has no {end}; write it where the section ends')
    before, _, rest = text.partition(begin)
    return before + section + rest.partition(end)[2]


def main(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    paths = [pathlib.Path(text) for text in argv if text != '--story']
    wanted = len(paths) == 2 if '--story' in argv else len(paths) >= 2
    if not wanted or any(text.startswith('-') and text != '--story' for text in argv):
        print(__doc__)
        return 0 if '--help' in argv else 2
    try:
        names = story(*paths) if '--story' in argv else insert(paths[0], paths[1:])
        print(f'{paths[0]}: {", ".join(names)}')
        return 0
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
