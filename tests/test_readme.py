"""README and docs name no command that the launcher does not take, and no file that is not there."""

import json
import pathlib
import re
import shlex
import shutil

import pytest
from tiny import ROOT, launch

from seqjax import plan, reuse, run, rundir
from seqjax.studies import command, docs

DOCUMENTS = [path for path in (ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted(ROOT.glob('docs/*.md')))
             if path.exists()]
README = DOCUMENTS[0].read_text(encoding='utf-8')


def commands(document):
    """The launcher's command lines in blocks marked sh: words, without what a shell does with the rest."""
    found = []
    for block in re.findall(r'^```sh\n(.*?)^```', document, re.MULTILINE | re.DOTALL):
        for line in block.replace('\\\n', ' ').splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r'\w+=.*', words[0]):  # variables of the environment
                words = words[1:]
            if words[:2] == ['python', 'launch.py']:
                found.append([word for word in words[2:] if word not in ('|', '<', '>', '&')])
    return found


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_every_command_is_taken(document, tmp_path, monkeypatch, capsys):
    """All flags are read, checked and composed to an experiment; only what would take minutes is left out."""
    taken = []

    def begun(experiment, workdir, *, name, model, argv, init_from=None, **options):
        workdir = pathlib.Path(workdir)
        rundir.claim(workdir, rundir.record(experiment, 'a', name, model, argv, init_from), experiment)
        taken.append(name)

    def seen(workdir, *args):
        taken.append(json.loads((workdir / 'config.json').read_text())['experiment'])
        return []

    monkeypatch.setattr(run, 'train', begun)
    monkeypatch.setattr(plan, 'plan', lambda experiment: taken.append('plan'))
    monkeypatch.setattr(reuse, 'evaluate', seen)
    monkeypatch.setattr(reuse, 'predict', lambda workdir, lines, change: seen(workdir))
    monkeypatch.setattr(command.work, 'work', lambda *args: None)
    monkeypatch.setattr(command, 'oversee', lambda *args, **options: None)
    monkeypatch.setattr(command, 'conclude', lambda wanted, *args: taken.append(wanted.name) or 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'src.txt').write_text('')
    (tmp_path / 'DIR').mkdir()
    (tmp_path / 'other.tsv').write_text('a line\teine Zeile\n')
    listed = commands(document.read_text(encoding='utf-8'))
    for words in listed:
        assert launch(*words, '--compilation_cache=none') == 0, (words, capsys.readouterr().err)
    if document.name == 'README.md':
        assert len(taken) >= 6, 'the README lost its commands, or their mark: ```sh'
    for words in (['--experiment=numerals', '--training.stepz=1'], ['--mode=evaluate', '--workdir=runs/nothing']):
        assert launch(*words, '--compilation_cache=none') == 2, 'a wrong command would be seen'


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_every_file_is_there(document):
    links = re.findall(r'\]\(([^)#]+)\)', document.read_text(encoding='utf-8'))
    assert not [link for link in links if '://' not in link and not (document.parent / link).exists()]


@pytest.mark.parametrize('target', re.findall(r'^make (\w+)', README, re.MULTILINE))
def test_every_target_is_there(target):
    assert re.search(rf'^{target}:', (ROOT / 'Makefile').read_text(), re.MULTILINE)


def test_the_notebook_runs():
    """The Python of the README is Python, and what it imports is there."""
    for block in re.findall(r'^```python\n(.*?)^```', README, re.MULTILINE | re.DOTALL):
        code = compile(block, 'README.md', 'exec')
        assert code
        for line in block.splitlines():
            if re.match('(from|import) (seqjax|experiments)', line):
                exec(line, {})


def test_the_story_is_that_of_the_results(tmp_path):
    """What the README tells first is what the sections of docs/results.md say."""
    copy = tmp_path / 'README.md'
    copy.write_text(README, encoding='utf-8')
    (tmp_path / 'docs').mkdir()
    shutil.copy(ROOT / 'docs' / 'results.md', tmp_path / 'docs')
    docs.story(copy, tmp_path / 'docs' / 'results.md')
    assert copy.read_text(encoding='utf-8') == README, 'python -m seqjax.studies.docs --story README.md docs/results.md'
