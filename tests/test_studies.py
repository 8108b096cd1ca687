"""Every study of the catalogue: its forms are sound, and its shortest one runs from the command to the report."""

import dataclasses
import inspect
import json
import subprocess
import sys

import pytest
from tiny import ROOT, environment_of

from seqjax import catalogue
from seqjax.studies import trials
from seqjax.studies.folder import Folder
from seqjax.studies.study import Study

STUDIES = list(catalogue.studies())


@pytest.mark.parametrize('name', STUDIES)
def test_forms(name):
    """Each composes: no axis names a flag that is not there or not read."""
    function = catalogue.load('study', name)
    assert inspect.getdoc(function).partition('\n')[0] == catalogue.studies()[name].summary != ''
    assert f'--study={name}' in inspect.getdoc(function), 'the docstring gives the command'
    taken = {parameter.name: parameter.default for parameter in inspect.signature(function).parameters.values()}
    assert taken in ({'form': 'full'}, {'form': 'full', 'text': None}, {'form': 'full', 'text': None, 'abroad': ''})
    sizes = {}
    for form in ('full', 'quick', 'smoke'):
        study = function(form)
        assert isinstance(study, Study)
        assert study.claim.endswith('.')
        assert study.source
        assert study.expect
        sizes[form] = len(trials.jobs(study))
    assert sizes['smoke'] <= sizes['quick'] <= sizes['full']


@pytest.mark.parametrize('name', STUDIES)
def test_what_is_evaluated_fits(name):
    """The lengths that a form gives hold its own test data; the smoke form shows nothing of the others."""
    study = catalogue.load('study', name)
    tasks = {job.recipe.experiment.task for form in ('full', 'quick') for job in trials.jobs(study(form))}
    for task in tasks:
        data = dataclasses.replace(task, train_size=min(task.train_size, 500)).prepare()
        assert all(len(side) == task.test_size for side in data.text['test']), 'nothing is left out'


@pytest.mark.parametrize('name', STUDIES)
def test_smoke(name, tmp_path):
    """On one device, as people have it; a process of its own, for the tests' has eight."""
    folder = Folder(tmp_path / name)
    done = subprocess.run([sys.executable, 'launch.py', f'--study={name}', '--smoke', f'--workdir={folder.path}'],
                          cwd=ROOT, env=environment_of(devices=1), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert folder.failures() == {}
    study = catalogue.load('study', name)('smoke')
    results = folder.results()
    assert {job.name for job in trials.jobs(study)} == set(folder.study()['trials'])
    assert len(results) >= len(study.trials())
    answer = study.answer(results)
    if answer is not None and answer.raised is not None:  # the verdict reads what was measured
        raise answer.raised
    assert study.figures(results), 'a study shows something'
    for column in study.shown[1]:
        assert any(column in row for row in results.rows), f'{column} is shown and not measured'
    assert (folder.path / 'report.html').stat().st_size > 1000
    assert json.loads((folder.path / 'floors.json').read_text()) == folder.floors()


def test_new_studies_are_found(tmp_path, monkeypatch):
    (tmp_path / 'experiments' / 'studies').mkdir(parents=True)
    (tmp_path / 'experiments' / 'studies' / 'new.py').write_text(
        '__all__ = ["new"]\n\n\ndef new(form="full"):\n    """One line."""\n')
    monkeypatch.setattr(catalogue, 'ROOT', tmp_path)
    assert catalogue.studies() == {'new': ('new', 'experiments.studies.new', 'new', 'One line.')}
    assert catalogue.experiments() == {}
    assert 'new' in catalogue.listing()
