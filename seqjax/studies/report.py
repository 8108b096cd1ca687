"""The report of a study, from what is on disk: report.html, report.md, results.csv, report.json and figures/*.svg.

report.html is one file: it opens from disk, asks for nothing, and can be read on a phone and printed. All text in it
that comes from data, flags or errors is escaped.
"""

import datetime
import json
import math
import pathlib
import re
import shlex
from typing import Any

from seqjax import files
from seqjax.options import unparse
from seqjax.studies import gaze, page, svg
from seqjax.studies.axes import SEED
from seqjax.studies.findings import Findings, Found, read
from seqjax.studies.index import write_index
from seqjax.studies.markup import block, cell, element, grid
from seqjax.studies.sheet import NONE, Sheet, costs, seconds, sheet
from seqjax.studies.study import Study

__all__ = ['write', 'write_index']

BANDS = 'Bands and whiskers: one standard deviation over seeds to each side.'


def write(name: str, study: Study, workdir: pathlib.Path) -> pathlib.Path:
    """Writes the report of the study in `workdir`, finished or not; returns the path of report.html.

    The study's verdict and its figures see the rows of its finished trials.
    """
    workdir = pathlib.Path(workdir)
    findings = read(name, study, workdir)
    drawn = draw(findings)
    table = sheet(findings)
    files.write(workdir / 'results.csv', findings.everything.csv())
    files.write(workdir / 'report.md', markdown(findings, table, drawn))
    files.write(workdir / 'report.json', json.dumps(brief(findings, table, drawn), indent=1) + '\n')
    path = workdir / 'report.html'
    files.write(path, html(findings, table, drawn))
    return path


def draw(findings: Findings) -> dict[str, pathlib.Path]:
    """Writes the study's figures as .svg; {what it shows: path}."""
    drawn = {}
    for name, figure in findings.drawn[0].items():
        title = name[:1].upper() + name[1:]
        name = re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')[:60] or 'figure'
        while name in [path.stem for path in drawn.values()]:
            name += '-2'
        drawn[title] = findings.workdir / 'figures' / f'{name}.svg'
        files.write(drawn[title], svg.drawing(figure, f'{findings.name} {title}'))
    return drawn


def title(findings: Findings) -> str:
    """What the page is called: the claim, or the study's name where it claims nothing."""
    return findings.study.claim or f'{findings.name[:1].upper()}{findings.name[1:]}: what was measured'


def state(findings: Findings) -> str:
    """How far the study is, where it is not whole; ''."""
    if findings.whole:
        return ''
    failed, missing = len(findings.of('failed')), len(findings.of('not run'))
    parts = [f'{len(findings.of("finished"))} of {len(findings.trials)} trials finished',
             *([f'{failed} failed'] if failed else []), *([f'{missing} not run yet'] if missing else [])]
    return ', '.join(parts) + ('. What stands here is provisional.' if missing else '.')


def form(findings: Findings) -> str:
    """What a short form has to say for itself; ''."""
    kind = findings.record.get('form')
    return f'This is the {kind} form of the study: small enough to try, too small to answer.' if kind in (
        'quick', 'smoke') else ''


def command(findings: Findings) -> str:
    """The command of the whole study, as it was typed, or as it would be."""
    argv = findings.record.get('argv') or [f'--study={findings.name}', f'--workdir={findings.workdir}']
    return shlex.join(['python', 'launch.py', *argv])


def trial_command(found: Found) -> str:
    """The command that repeats a trial by hand."""
    trial = found.trial
    argv = found.config.get('argv') or [
        f'--experiment={trial.experiment}', *([f'--model={trial.model}'] if trial.model else []),
        *(f'--{name}={unparse(value)}' for name, value in trial.settings.items()), f'--workdir={found.folder}']
    return shlex.join(['python', 'launch.py', *argv])


def made_with(findings: Findings) -> dict[str, str]:
    """Versions, hardware, commit and dates, all that differ among the trials."""
    configs = [found.config for found in findings.trials if found.config] or [findings.record]

    def every(*values: Any) -> str:
        return '; '.join(dict.fromkeys(str(value) for value in values if value))

    versions: dict[str, list[str]] = {'Python': [config.get('python') for config in configs]}
    for config in configs:
        for package, version in config.get('versions', {}).items():
            versions.setdefault(package, []).append(version)
    days = sorted({datetime.datetime.fromtimestamp(found.finished, datetime.UTC).strftime('%Y-%m-%d %H:%M')
                   for found in findings.trials if found.finished})
    found = {
        'Measured (UTC)': ' to '.join(dict.fromkeys([days[0], days[-1]])) if days else '',
        'Hardware': every(*(hardware(config) for config in configs)),
        'Git commit': every(*(config.get('git_commit') for config in configs)),
        'Versions': ', '.join(f'{package} {every(*values)}' for package, values in versions.items() if every(*values))}
    return {key: value for key, value in found.items() if value}


def hardware(config: dict[str, Any]) -> str:
    """The devices that a run had, and the machine they are in; a CPU is the machine."""
    devices = config.get('devices', [])
    parts = [f'{devices.count(device)} × {device}' if devices.count(device) > 1 else device
             for device in dict.fromkeys(devices) if device != 'cpu cpu' or 'machine' not in config]
    return ', '.join([*parts, *([config['machine']] if 'machine' in config else [])])


def spent(findings: Findings, what: str = 'trials') -> str:
    """What all of it took, in words."""
    total = seconds(findings)
    if not total:
        return ''
    text = f'{total / 3600:.1f} hours' if total >= 7200 else f'{total / 60:.1f} minutes' if total >= 120 else \
        f'{total:.0f} seconds'
    return f'All {what} together: {text} of their own time.'


def html(findings: Findings, table: Sheet, drawn: dict[str, pathlib.Path]) -> str:
    """report.html."""
    study, notes = findings.study, [text for text in (form(findings), state(findings), findings.drawn[1]) if text]
    views, left_out = gaze.views(findings)
    header, lines, about = costs(findings)
    parts = [
        element('p', f'Study: {findings.name}', class_='eyebrow'), element('h1', title(findings)),
        page.answer(findings.verdict, 'Answer'),
        *(element('p', text, class_='warning', role='note') for text in notes),
        element('dl', *(part for key, text in (('Expected', study.expect), ('Claimed by', study.source)) if text
                        for part in (element('dt', key), element('dd', text)))),
        element('h2', 'What was measured'), page.table(table),
        element('p', caption(table), class_='note')]
    if drawn:
        parts.append(element('h2', 'Figures'))
        parts += [page.figure(path.read_text(encoding='utf-8'), f'f{number}', text, BANDS)
                  for number, (text, path) in enumerate(drawn.items())]
    if views:
        parts += [element('h2', 'Where it looks'), element(
            'p', 'Choose a word of the translation, with the pointer, a finger or the arrow keys: the words of the '
                 'source that it attends to light up. A word of the source shows which words attend to it.'
                 + (f' {left_out} more runs found no room here.' if left_out else '')), page.viewer(views)]
    parts += [element('h2', 'The commands'), element('pre', element('code', command(findings))),
              element('details', element('summary', f'Each of the {len(findings.trials)} trials by hand'),
                      element('pre', element('code', '\n'.join(map(trial_command, findings.trials))))),
              element('h2', 'What it cost')]
    if lines:
        parts.append(page.plain_table(header, lines, about, 'Cost'))
    parts.append(element('p', spent(findings) or 'No trial has left its cost here.', class_='note'))
    provenance = made_with(findings)
    if findings.strangers:
        provenance['Not counted'] = 'trials in the folder that are none of this study: ' + ', '.join(findings.strangers)
    parts += [element('h2', 'Made with'), element('dl', *(
        part for key, text in provenance.items() for part in (element('dt', key), element('dd', text)))),
        element('footer', element('p', 'All rows are in ', element('a', 'results.csv', href='results.csv'),
                                  ', this page as text in ', element('a', 'report.md', href='report.md'), '.',
                                  class_='note'))]
    return page.page(f'{findings.name}: {title(findings)}', *parts, script=True)


def caption(table: Sheet) -> str:
    """What the numbers of the table are."""
    counts = {line.seeds for line in table.of('result')}
    return ('Mean ± standard deviation over seeds.' if max(counts, default=0) > 1 else 'One seed: no deviation.') + (
        f' {NONE}: not measured, or not a number.')


def below(findings: Findings, table: Sheet, what: str = 'trials') -> str:
    """What stands below a table in a document: what its numbers are, what they took, when, where, by which commit."""
    made = (f'{key}: {cell(value)}.' for key, value in made_with(findings).items() if key != 'Versions')
    return ' '.join(filter(None, (caption(table), spent(findings, what), *made)))


def results(table: Sheet) -> str:
    """The table as Markdown; trials without results are lines with their reason."""
    rows = []
    for line in table.lines:
        about = list(line.about)
        if line.kind in ('floor', 'published'):
            about[0] = f'{about[0]} ({line.kind})'
        rows.append([*about, line.reason] if line.kind == 'failed' else [
            *about, *line.cells, line.seeds or NONE])
    return grid(table.header, rows)


def summary(findings: Findings) -> str:
    """The answer as Markdown: a line each for the answer, what was expected, and whose claim it is."""
    verdict, lines = findings.verdict, []
    if verdict is not None:
        words = page.effect(verdict)
        lines.append(f'**{verdict.answer.capitalize()}.** {cell(verdict.sentence)}'
                     + (f' Effect: {cell(words)}.' if words else ''))
    lines += [f'*{cell(text)}*' for text in (form(findings), state(findings), findings.drawn[1]) if text]
    lines += [f'{key}: {cell(text)}' for key, text in (
        ('Expected', findings.study.expect), ('Claimed by', findings.study.source)) if text]
    return '\n\n'.join(lines) + '\n' if lines else ''


def markdown(findings: Findings, table: Sheet, drawn: dict[str, pathlib.Path]) -> str:
    """report.md."""
    header, lines, _ = costs(findings)
    parts = [f'# {cell(title(findings))}\n', summary(findings), '## What was measured\n', results(table),
             caption(table) + '\n',
             *(f'![{cell(text)}](figures/{path.name})\n\n*{cell(text)}. {BANDS}*\n' for text, path in drawn.items()),
             '## The commands\n', block(command(findings)), 'Each trial by hand:\n',
             block('\n'.join(map(trial_command, findings.trials))), '## What it cost\n',
             *([grid(header, lines)] if lines else []), (spent(findings) or 'No trial has left its cost here.') + '\n',
             '## Made with\n', ''.join(f'- {key}: {cell(text)}\n' for key, text in made_with(findings).items())]
    return '\n'.join(filter(None, parts))


def brief(findings: Findings, table: Sheet, drawn: dict[str, pathlib.Path]) -> dict[str, Any]:
    """report.json: what the index and the documentation need of a study, without the study."""
    verdict = findings.verdict
    answer = None if verdict is None else {
        'answer': verdict.answer, 'sentence': verdict.sentence, 'unit': verdict.unit,
        **{key: None if math.isnan(value) else value for key, value in (
            ('effect', verdict.effect), ('low', verdict.low), ('high', verdict.high))}}
    section = [f'### {findings.name}\n', f'> {cell(title(findings))}\n', block(command(findings)), summary(findings),
               results(table), below(findings, table) + '\n']
    return {'study': findings.name, 'claim': findings.study.claim, 'source': findings.study.source,
            'verdict': answer, 'state': state(findings), 'form': form(findings), 'seeds': len({
                row[SEED] for row in findings.results.rows}),
            'figures': {text: f'figures/{path.name}' for text, path in drawn.items()},
            'section': '\n'.join(filter(None, section))}
