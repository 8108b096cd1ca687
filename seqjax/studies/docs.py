"""Puts the results of studies into a Markdown document, from what is on disk:

    python -m seqjax.studies.docs docs/results.md runs/studies/*

The section of a study stands between <!-- study:NAME --> and <!-- end study:NAME -->; what was there is replaced, and a
study that has no such place yet comes to the end of the document.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from seqjax import files
from seqjax.errors import UserError


def insert(document: pathlib.Path, folders: Sequence[pathlib.Path]) -> list[str]:
    """Writes the sections of the reports in `folders` into a document; returns the studies' names.

    Raises:
      UserError: a folder has no report.json, or the document is not there or marks the beginning of a study and no end.
    """
    try:
        text = document.read_text(encoding='utf-8')
    except FileNotFoundError:
        raise UserError(f'{document} is not there; name the document that takes the results') from None
    names = []
    for folder in folders:
        try:
            report = json.loads((folder / 'report.json').read_text(encoding='utf-8'))
        except FileNotFoundError:
            raise UserError(f'{folder} holds no report.json; write one with --mode=report --workdir={folder}') from None
        text = put(text, f'study:{report["study"]}', report['section'], document)
        names.append(report['study'])
    files.write(document, text)
    return names


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
    if len(argv) < 2 or argv[0].startswith('-'):
        print(__doc__)
        return 0 if '--help' in argv else 2
    try:
        print(f'{argv[0]}: {", ".join(insert(pathlib.Path(argv[0]), [pathlib.Path(folder) for folder in argv[1:]]))}')
        return 0
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
