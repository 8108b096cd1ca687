"""Puts the results of studies into Markdown documents, from what is on disk:

    python -m seqjax.studies.docs docs/results.md runs/studies/*
    python -m seqjax.studies.docs --story README.md docs/results.md runs/studies

The section of a study stands between <!-- study:NAME --> and <!-- end study:NAME -->; what was there is replaced, and a
study that has no such place yet comes to the end of the document. The story, claim by claim with its answer, stands
between <!-- story --> and <!-- end story -->, and each claim leads to its section in the second document.
"""

import json
import os
import pathlib
import sys
from collections.abc import Sequence

from seqjax import files
from seqjax.errors import UserError
from seqjax.studies import index


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


def story(document: pathlib.Path, sections: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Writes the story that the reports in `folder` tell into a document; returns the studies' names.

    Args:
      sections: the document that holds the studies' sections, which the claims lead to.

    Raises:
      UserError: `folder` holds no report, or `document` is not there or marks the beginning of the story and no end.
    """
    chapters = index.read(folder)[0]
    path = pathlib.Path(os.path.relpath(sections, document.parent)).as_posix()
    files.write(document, put(read(document), 'story', index.told_in_short(chapters, path), document))
    return [one.report['study'] for _, claims in chapters for one in claims]


def read(document: pathlib.Path) -> str:
    """The text of a document that is to be written into."""
    try:
        return document.read_text(encoding='utf-8')
    except FileNotFoundError:
        raise UserError(f'{document} is not there; name the document that takes the results') from None


def put(text: str, name: str, section: str, document: pathlib.Path) -> str:
    """The `text` of a document with `section` between the marks <!-- NAME --> and <!-- end NAME -->, or at its end."""
    begin, end = f'<!-- {name} -->', f'<!-- end {name} -->'
    section = f'{begin}\n{section.strip()}\n{end}'
    if begin not in text:
        return f'{text.rstrip()}\n\n{section}\n'
    if end not in text:
        raise UserError(f'{document}: {begin} has no {end}; write it where the section ends')
    before, _, rest = text.partition(begin)
    return before + section + rest.partition(end)[2]


def main(argv: Sequence[str]) -> int:
    """The command; returns the exit code."""
    paths = [pathlib.Path(text) for text in argv if text != '--story']
    wanted = len(paths) == 3 if '--story' in argv else len(paths) >= 2
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
