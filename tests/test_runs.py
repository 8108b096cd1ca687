"""A table of plain runs: what its lines, its command and its caption say of the runs' own files."""

import json
import shutil

import pytest

from seqjax import rundir
from seqjax.compose import compose
from seqjax.studies import runs

SCORES = {'bleu': 50.0, 'exact_match': 7.25}


def made(folder, model, *flags, scores=SCORES, commit='abc', seconds=60.0):
    """A run's folder as training leaves it, but for its parameters; without `scores`, as a kill leaves it."""
    experiment = compose('numerals', model, flags).experiment
    argv = [*flags, f'--workdir={folder}']
    config = rundir.record(experiment, 'digest', 'numerals', model, argv) | {'git_commit': commit, 'machine': 'P'}
    rundir.claim(folder, config, experiment)
    if scores:
        (folder / 'summary.json').write_text(json.dumps({
            'test': scores, 'parameters': 1234, 'steps': 100,
            'time': {'training_seconds': seconds, 'seconds_in_all': seconds + 4}}))
    return folder


def test_a_line_is_a_model_and_its_flags_over_seeds(tmp_path):
    small = '--model.hidden_size=64'
    folders = [
        *(made(tmp_path / f'gru-{seed}', 'gru', small, f'--training.seed={seed}', scores={'bleu': value}, commit='one')
          for seed, value in ((0, 10.0), (1, 20.0), (2, 60.0))),
        made(tmp_path / 'lstm', 'lstm', small, '--model.dropout=0.3', '--training.keep=9', commit='two'),
        made(tmp_path / 'lstm-beam', 'lstm', small, '--model.dropout=0.3', '--decoding.method=beam', scores=None)]
    document = tmp_path / 'results.md'
    document.write_text('# Results\n\nbefore\n\n<!-- runs:sizes -->\nobsolete\n<!-- end runs:sizes -->\n\nafter\n')
    runs.insert(document, 'sizes', folders)
    text = document.read_text()
    assert text.startswith('# Results\n\nbefore\n\n<!-- runs:sizes -->\n    python launch.py --experiment=numerals '
                           '--model=MODEL --model.hidden_size=64 FLAGS\n\n'), 'what all share stands in the command'
    assert [line for line in text.splitlines() if line.startswith('|')] == [
        '| model | flags | bleu | parameters | steps | seconds | exact match | seeds |',
        '|---|---|---|---|---|---|---|---|',
        '| gru | (none) | 30.0 ± 26.5 | 1,234 | 100 | 60 | – | 3 |',
        '| lstm | --model.dropout=0.3 | 50.0 | 1,234 | 100 | 60 | 7.25 | 1 |',
        '| lstm | --model.dropout=0.3 --decoding.method=beam | seed 0: not run |  |  |  |  |  |'], (
        'how many checkpoints are kept changes no result, the method of decoding does')
    assert 'Mean ± standard deviation over seeds.' in text
    assert 'All runs together: 4.3 minutes' in text
    assert 'Git commit: one; two; abc.' in text
    assert text.endswith('.\n<!-- end runs:sizes -->\n\nafter\n')
    runs.insert(document, 'sizes', folders)
    assert document.read_text() == text, 'the second time changes nothing'


def test_a_table_is_added_to_when_the_folders_are_gone(tmp_path, capsys):
    document, keep = tmp_path / 'results.md', tmp_path / 'kept' / 'runs.jsonl'
    document.write_text('# Results\n')

    def lines(*folders):
        assert runs.main([str(document), 'x', *map(str, folders), f'--keep={keep}', '--measures=bleu']) == 0
        return [line for line in document.read_text().splitlines() if line.startswith('| gru')]

    first = made(tmp_path / 'first', 'gru', scores={'bleu': 10.5}, commit='one')
    open_ = made(tmp_path / 'open', 'gru', '--training.seed=5', scores=None)
    assert lines(first, open_) == ['| gru | 10.5 | 1 |', '| gru | seed 5: not run |  |']
    assert len(keep.read_text().splitlines()) == 1, 'what has not ended is not kept'
    assert str(tmp_path) not in keep.read_text(), 'nor where it lay'
    shutil.rmtree(first)
    assert lines() == ['| gru | 10.5 | 1 |']
    assert 'Hardware: P. Git commit: one.' in document.read_text()
    assert lines(made(tmp_path / 'second', 'gru', '--training.seed=1', scores={'bleu': 30.5})) == [
        '| gru | 20.5 ± 14.1 | 2 |']
    assert lines(made(tmp_path / 'again', 'gru', scores={'bleu': 20.5}, commit='two')) == ['| gru | 25.5 ± 7.1 | 2 |']
    assert 'Git commit: abc; two.' in document.read_text(), 'the run before gave way'
    assert capsys.readouterr().out.endswith(f'{document}: x, 2 runs\n')

    before = document.read_text()
    keep.write_text(keep.read_text() + '{"folder"')
    assert runs.main([str(document), 'x', f'--keep={keep}']) == 2
    assert f'error: --keep={keep} is no file of kept runs (' in capsys.readouterr().err
    assert runs.main([str(document), 'x', f'--keep={tmp_path}/none.jsonl']) == 2
    assert capsys.readouterr().err == 'error: no run was named, and none is kept; name the folders of some\n'
    assert document.read_text() == before
    assert not (tmp_path / 'none.jsonl').exists()


def test_where_the_parameters_came_from_is_a_flag(tmp_path):
    config = rundir.read(made(tmp_path / 'run', 'rnn'))
    assert runs.flags_of(config | {'init_from': 'runs/before'}) == ['--init_from=runs/before']


def test_one_model_of_a_chosen_measure(tmp_path, capsys):
    document = tmp_path / 'results.md'
    document.write_text('# Results\n')
    folder = made(tmp_path / 'run', 'rnn')
    assert runs.main([str(document), 'one', str(folder), '--measures=exact_match']) == 0
    assert capsys.readouterr().out == f'{document}: one, 1 runs\n'
    assert document.read_text().startswith(
        '# Results\n\n<!-- runs:one -->\n    python launch.py --experiment=numerals --model=rnn\n\n'
        '| model | exact match | seeds |\n|---|---|---|\n| rnn | 7.25 | 1 |\n\nOne seed: no deviation.')


@pytest.mark.parametrize(('wrong', 'message'), [
    (['none.md', 'x', 'run'], 'none.md is not there; name the document'),
    (['results.md', 'x', 'nothing'], 'nothing holds no run (no config.json)'),
    (['results.md', 'x', 'run', 'again'], 'run and again are the same run, and would count as one seed; name one'),
    (['results.md', 'x', 'run', '--measures=bleu,rouge'], '--measures=bleu,rouge: no run has rouge; choose of bleu, '
                                                          'exact_match, parameters, seconds, steps'),
    (['results.md', 'cut', 'run'], '<!-- runs:cut --> has no <!-- end runs:cut -->')])
def test_what_cannot_be_written_is_refused_and_nothing_lost(wrong, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made(tmp_path / 'run', 'rnn')
    made(tmp_path / 'again', 'rnn', '--training.keep=9')
    (tmp_path / 'results.md').write_text('<!-- runs:cut -->\n')
    assert runs.main(wrong) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert message in error
    assert error.count('\n') == 1
    assert (tmp_path / 'results.md').read_text() == '<!-- runs:cut -->\n'
