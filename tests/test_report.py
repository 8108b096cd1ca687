"""A report says what is on disk: values, verdicts, failures; nothing in it becomes markup or asks the network."""

import base64
import csv
import dataclasses
import hashlib
import html.parser
import io
import itertools
import json
import math
import re

import numpy as np
import pytest
import study_folder as made

from seqjax import catalogue
from seqjax.errors import UserError
from seqjax.studies import docs, gaze, index, report
from seqjax.studies.axes import SEED, grid
from seqjax.studies.findings import read
from seqjax.studies.markup import Markup, cell, data, element
from seqjax.studies.markup import grid as markdown_table
from seqjax.studies.page import effect, short
from seqjax.studies.sheet import decimals, number, sheet
from seqjax.studies.study import Verdict, all_of
from seqjax.studies.table import interval


class Page(html.parser.HTMLParser):
    """A page taken apart: elements with attributes, text by element, rows of tables."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.tables, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f'not closed: {self.open}'

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ('meta', 'link'):
            self.open.append(tag)
        if tag == 'table':
            self.tables.append([])
        elif tag == 'tr':
            self.tables[-1].append([])
        elif tag in ('th', 'td'):
            self.tables[-1][-1].append('')

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, 'elements overlap'

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else '', data))
        if 'td' in self.open or 'th' in self.open:
            self.tables[-1][-1][-1] += data

    def text(self, *tags):
        return ' '.join(data for tag, data in self.texts if (
            tag in tags if tags else tag not in ('style', 'script')))


@pytest.fixture(scope='module')
def study():
    return made.study()


@pytest.fixture(scope='module')
def folder(study, tmp_path_factory):
    folder = made.write(tmp_path_factory.mktemp('story') / 'bottleneck', study)
    assert report.write('bottleneck', study, folder) == folder / 'report.html'
    return folder


@pytest.fixture(scope='module')
def page(folder):
    return Page((folder / 'report.html').read_text(encoding='utf-8'))


def written(tmp_path, study, name='bottleneck', **how):
    folder = made.write(tmp_path / name, study, name, **how)
    return Page(report.write(name, study, folder).read_text(encoding='utf-8')), folder


def expected(model, length, seeds):
    """What a cell of the table must say, from the made-up scores, in numpy."""
    scores = [made.score(model, length, seed) for seed in seeds]
    return f'{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f}'


def test_the_table_holds_means_and_deviations_over_seeds(page):
    rows = page.tables[0]
    assert rows[0] == ['model', 'length', 'exact match', 'milliseconds', 'seeds']
    for place, (model, length) in enumerate((model, length) for model in made.MODELS for length in made.LENGTHS):
        seeds = (0, 1) if model == 'transformer' else (0, 1, 2)  # one trial failed
        times = [0.5 * length + seed for seed in seeds]
        assert rows[1 + place] == [model, str(length), expected(model, length, seeds),
                                   f'{np.mean(times):.1f} ± {np.std(times, ddof=1):.1f}', str(len(seeds))]


def test_floors_published_figures_and_failures_are_rows(page):
    rows = page.tables[0][10:]
    assert rows[:6] == [['Floors: what trivial methods reach'], ['copy the source', '3.5', '–', '–'],
                        ['most frequent word', '0.2', '–', '–'], ['Published by others'],
                        ['Bahdanau 2015, RNNsearch-50 (bahdanau)', '61.2', '–', '–'], ['Trials without results']]
    assert rows[6][0] == 'transformer'
    assert rows[6][1] == f'seed 2: loss is not finite at step 12 {made.NASTY}'
    assert '8 of 9 trials finished, 1 failed.' in page.text('p')


def test_trials_that_were_not_run_are_rows_too(tmp_path, study):
    page, folder = written(tmp_path, study, missing=('gru,seed=1',), failed=())
    assert ['gru', 'seed 1: not run'] in page.tables[0]
    assert '8 of 9 trials finished, 1 not run yet. What stands here is provisional.' in page.text('p')
    assert expected('gru', 60, (0, 2)) in page.tables[0][3]
    assert '| gru | – | seed 1: not run |' in (folder / 'report.md').read_text()


def test_trials_that_the_columns_do_not_tell_apart_are_named(tmp_path, study):
    """Two that were not run, of one model and one seed; a third has a line to itself."""
    changed = dataclasses.replace(study, axes=[*study.axes, {**study.axes[0], 'model.dropout': 0.5}])
    missing = [trial.name for trial in changed.trials() if trial.settings['training.seed'] == 1]
    page, _ = written(tmp_path, changed, missing=missing, failed=())
    reasons = [row[-1] for row in page.tables[0] if row[-1].endswith('not run')]
    assert sorted(reasons) == sorted([*(f'{name}: not run' for name in missing if study.axes[0]['model'] in name), *(
        'seed 1: not run' for name in missing if study.axes[0]['model'] not in name)])
    assert len(reasons) == 4


def test_the_page_is_in_the_order_in_which_it_is_read(page):
    order = [text for tag, text in page.texts if tag in ('h1', 'h2')]
    assert order == ['A fixed vector forgets long sentences; attention does not.', 'What was measured', 'Figures',
                     'Where it looks', 'The commands', 'What it cost', 'Made with']
    text = page.text()
    for before, after in [('Supported', 'What was measured'), ('95 % interval', 'Expected'),
                          ('at least 30 points', 'Bahdanau 2015, section 5.2.2'), ('Claimed by', 'What was measured')]:
        assert text.index(before) < text.index(after)


def test_commands_cost_and_provenance(page):
    code = page.text('code').splitlines()
    assert code[0].startswith('python launch.py --study=bottleneck --workers=2')
    assert 'python launch.py --experiment=reverse --model=transformer --training.seed=2' in code
    cost = page.tables[1]
    assert cost[0] == ['model', 'parameters', 'steps', 'training, seconds', 'compiling, seconds', 'in all, seconds',
                       'tokens/s', 'seeds']
    assert cost[1] == ['gru', '10,003', '100', '11.0 ± 1.0', '2.5 ± 0.0', '20.0 ± 0.0', '5,000', '3']
    assert cost[3][3] == '10.5 ± 0.7'
    text = page.text()
    assert 'All trials together: 2.7 minutes' in text
    for part in ('Python 3.11.2, jax 0.10.2, flax 0.12.0', 'abc1234', 'cpu cpu'):
        assert part in text


def test_trials_without_a_config_have_a_command_from_their_settings(tmp_path, study):
    folder = made.write(tmp_path / 'bottleneck', study)
    (folder / 'trials' / 'gru,seed=0' / 'config.json').unlink()
    page = Page(report.write('bottleneck', study, folder).read_text())
    assert ('python launch.py --experiment=reverse --model=gru --training.steps=100 --training.seed=0 '
            f"'--workdir={folder}/trials/gru,seed=0'").replace("'", '') in page.text('code').replace("'", '')


def test_results_csv_holds_all_rows_with_settings(folder):
    rows = list(csv.DictReader(io.StringIO((folder / 'results.csv').read_text())))
    assert len(rows) == 8 * 3 + 2 + 1 + 1
    one, = [row for row in rows if (row['model'], row[SEED], row['length']) == ('gru', '1', '60')]
    assert float(one['exact_match']) == made.score('gru', 60, 1)
    assert (one['experiment'], one['training.steps']) == ('reverse', '100')
    assert [row['floor'] for row in rows if row['floor']] == ['copy the source', 'most frequent word']
    assert [row['failure'] for row in rows if row['failure']] == [f'loss is not finite at step 12 {made.NASTY}']


def columns(line):
    """The cells of a line of a Markdown table."""
    return [part.strip() for part in re.split(r'(?<!\\)\|', line.strip())[1:-1]]


def test_markdown_says_the_same_and_its_tables_are_tables(folder, page):
    text = (folder / 'report.md').read_text()
    tables = [block.splitlines() for block in text.split('\n\n') if block.startswith('|')]
    assert len(tables) == 2
    for lines in tables:
        assert set(columns(lines[1])) == {'---'}
        assert {len(columns(line)) for line in lines} == {len(columns(lines[0]))}
    assert [columns(line) for line in tables[0][2:11]] == page.tables[0][1:10]
    assert '<script' not in text
    assert '**Supported.** On 60 tokens' in text
    assert '    python launch.py --study=bottleneck --workers=2\n' in text
    for picture in re.findall(r'!\[.*?\]\((.*?)\)', text):
        assert (folder / picture).read_text().startswith('<?xml')


def assert_asks_for_nothing(text):
    """No element that loads, no address in an attribute or a style, one script of its own that the policy knows."""
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ('img', 'iframe', 'object', 'embed', 'base', 'form', 'audio', 'video', 'foreignobject')
        for name, value in attributes.items():
            assert not name.startswith('on'), (tag, name)
            if name != 'aria-label':
                assert not re.search(r'https?:|//|javascript:|@import', value or ''), (tag, name, value)
            assert name not in ('src', 'srcset', 'action', 'background'), (tag, value)
            if name == 'href':
                assert re.match(r'#|data:,$|[\w.,=-]+(/report)?\.(html|csv|md)$', value), value
    assert not re.search(r'url\((?!#)|@import|https?:', page.text('style'))
    policy, = [attributes['content'] for tag, attributes in page.elements
               if attributes.get('http-equiv') == 'Content-Security-Policy']
    assert "default-src 'none'" in policy
    scripts = re.findall(r'<script>(.*?)</script>', text, re.DOTALL)
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in policy
    assert len(scripts) <= 1
    ids = [attributes['id'] for _, attributes in page.elements if 'id' in attributes]
    assert len(ids) == len(set(ids))
    return page


def test_the_page_asks_for_nothing(folder):
    assert_asks_for_nothing((folder / 'report.html').read_text())


def test_whatever_a_study_says_is_text(tmp_path):
    nasty = made.NASTY + ' | `code` http://example.org <img src=x onerror=alert(1)> ]]> --> \\ * _'
    study = made.study(
        claim=nasty, source=nasty, expect=nasty, published=[{'published': nasty, 'exact_match': 1.0}],
        verdict=lambda table: Verdict('supported', nasty, 1.0, 0.5, 1.5, nasty),
        figures=lambda table: {nasty: made.figures(table)['Score against source length']},
        base={'experiment': 'reverse', 'task.path': nasty})
    folder = made.write(tmp_path / 'bottleneck', study)
    (folder / 'floors.json').write_text(json.dumps([{'floor': nasty, 'exact_match': 2.0}]))
    (folder / 'study.json').write_text(json.dumps({'argv': [nasty], 'devices': [nasty]}))
    (folder / 'trials' / 'gru,seed=0' / 'config.json').write_text(json.dumps({
        'argv': [nasty], 'git_commit': nasty, 'versions': {nasty: nasty}, 'devices': [nasty]}))
    text = report.write('bottleneck', study, folder).read_text()
    page = assert_asks_for_nothing(text)
    shown = page.text()
    assert shown.count(nasty) >= 8
    assert [tag for tag, _ in page.elements if tag in ('script', 'b')] == ['script', 'script']
    report.write_index(tmp_path)
    assert (tmp_path / 'index.html').read_text().count('<script') == 0
    assert_asks_for_nothing((tmp_path / 'index.html').read_text())
    for text in ((folder / 'report.md').read_text(), (tmp_path / 'index.md').read_text()):
        outside = '\n'.join(line for line in text.splitlines() if not line.startswith('    '))
        assert not re.search(r'<(?!\S*/(report\.md|figures/\S*\.svg)>)', outside), 'a tag outside code'
        for block in outside.split('\n\n'):
            if block.startswith('|'):
                assert len({len(columns(line)) for line in block.splitlines()}) == 1


def test_attention_reaches_the_page_whole(folder, page):
    stored = json.loads(next(text for tag, text in page.texts if tag == 'script' and text.startswith('{')))
    assert stored['digits'] == gaze.DIGITS
    assert [run['name'] for run in stored['runs']] == ['bahdanau', 'transformer']
    for run, layers, heads in zip(stored['runs'], (1, 2), (1, 4)):
        weights_NBHTS = made.attention(layers, heads)['decoder/cross_attention/cross_attention']
        first, second = run['sentences']
        assert (first['source'], first['target']) == (made.SOURCE, made.TARGET)
        assert second['target'] == [made.NASTY, '</s>']
        for n, h, (b, sentence) in itertools.product(range(layers), range(heads), enumerate((first, second))):
            T, S = len(sentence['target']), len(sentence['source'])
            ranks = np.array([gaze.DIGITS.index(letter) for letter in sentence['layers'][n][h]])
            np.testing.assert_allclose(ranks.reshape(T, S) / 61, weights_NBHTS[n, b, h, :T, :S], atol=0.5 / 61 + 1e-9)


def test_attention_that_cannot_be_read_is_left_out(tmp_path, study):
    folder = made.write(tmp_path / 'bottleneck', study)
    pictures = folder / 'trials' / 'transformer,seed=0' / 'figures' / 'attention.npz'
    pictures.write_bytes(b'PK nothing')
    np.savez(folder / 'trials' / 'bahdanau,seed=0' / 'figures' / 'attention.npz', other=np.zeros(3))
    views, _ = gaze.views(read('bottleneck', study, folder))
    assert [(view['name'], view['seed']) for view in views] == [('bahdanau', 1), ('transformer', 1)]
    assert gaze.letters(np.array([[0, 1], [math.nan, 2]])) == '0Z0Z'


# A run has a sixth of all; sentences are 24 and 6, 192 and 48.
@pytest.mark.parametrize(('letters', 'sizes', 'without'), [
    (10_000, [30, 240], 0), (300, [30, 48], 0), (60, [6], 1)])
def test_the_page_stays_small_whatever_is_attended_to(tmp_path, monkeypatch, letters, sizes, without):
    monkeypatch.setattr(gaze, 'LETTERS', letters)
    study = made.study()
    views, left_out = gaze.views(read('bottleneck', study, made.write(tmp_path / 'bottleneck', study)))
    assert [sum(map(gaze.size_of, view['sentences'])) for view in views] == sizes
    assert left_out == without


@pytest.mark.parametrize(('answer', 'low', 'high'), [('supported', 31, 50), ('not supported', -5, 12), (
    'undecided', 10, 50)])
def test_each_answer_has_its_words(tmp_path, answer, low, high):
    study = made.study(verdict=lambda table: Verdict(answer, 'So it is.', (low + high) / 2, low, high, 'points'))
    page, folder = written(tmp_path, study)
    assert answer.capitalize() in page.text('span')
    assert 'So it is.' in page.text('p')
    assert f'(95 % interval {short(low)} to {short(high)})' in page.text()
    assert answer.replace(' ', '-') in next(attributes['class'] for tag, attributes in page.elements
                                            if attributes.get('aria-label') == 'Answer').split()
    assert f'**{answer.capitalize()}.** So it is. Effect: ' in (folder / 'report.md').read_text()
    stored = json.loads((folder / 'report.json').read_text())['verdict']
    assert (stored['answer'], stored['low'], stored['high']) == (answer, low, high)


def test_a_verdict_of_several_parts_is_a_list_with_a_sign_each(tmp_path):
    parts = [Verdict('supported', 'Short ones (of 4) are equal.', 0.0), Verdict('not supported', 'Long ones differ.')]
    page, folder = written(tmp_path, made.study(verdict=lambda table: all_of(parts)))
    assert page.text('li') == 'Short ones (of 4) are equal. Long ones differ.'
    signs = [attributes['aria-label'] for tag, attributes in page.elements if attributes.get('class') == 'mark']
    assert signs == ['supported', 'not supported']
    assert 'Short ones (of 4) are equal. (supported) Long ones differ. (not supported)' in (
        folder / 'report.md').read_text()


def test_an_effect_in_words():
    assert effect(Verdict('supported', '', 41.25, 35.1, -47.3e-5, 'points')) == (
        '41.2 points (95 % interval 35.1 to −0.000473)')
    assert effect(Verdict('undecided', '', 12345.6)) == '12,346'
    assert effect(Verdict('undecided', '')) == ''


def test_a_study_that_claims_nothing_has_no_answer(tmp_path):
    study = made.study(claim='', source='', expect='', verdict=None, shown=((), ()), figures=lambda table: {})
    page, folder = written(tmp_path, study, 'mine')
    assert 'Mine: what was measured' in page.text('h1')
    assert not [attributes for _, attributes in page.elements if attributes.get('aria-label') == 'Answer']
    rows = page.tables[0]
    assert rows[0] == ['model', 'length', 'exact match', 'milliseconds', 'seeds']
    assert rows[1][0] == 'gru'
    brief = json.loads((folder / 'report.json').read_text())
    assert brief['verdict'] is None
    assert '\n\n\n' not in brief['section'] + (folder / 'report.md').read_text()


def test_the_time_of_a_run_that_was_trained_before_counts(tmp_path, study):
    """The study's own clock has seen two of the nine trials, one for longer than its run's last process took."""
    folder = made.write(tmp_path / 'bottleneck', study)
    for name, seconds in (('gru,seed=0', 3.0), ('gru,seed=1', 50.0)):
        (folder / 'trials' / name / '.clock.json').write_text(json.dumps({'seconds': seconds}))
    spent = {found.folder.name: found.seconds for found in read('bottleneck', study, folder).trials}
    assert spent['gru,seed=0'] == spent['gru,seed=2'] == 20.0
    assert spent['gru,seed=1'] == 50.0


def test_results_that_decide_nothing_are_said_to(tmp_path):
    def fails(table):
        return table.where({'model': 'gru'}).rows[0]['what nobody measured']

    page, _ = written(tmp_path, made.study(verdict=fails, figures=fails))
    assert '? Undecided' in page.text('span')
    assert "KeyError: 'what nobody measured'" in page.text()
    assert 'The figures cannot be drawn from these results' in page.text()


def test_a_study_of_which_nothing_was_run_has_a_report(tmp_path, study):
    names = [trial.name for trial in study.trials()]
    page, _ = written(tmp_path, study, missing=names)
    assert '0 of 9 trials finished, 9 not run yet' in page.text()
    assert len([row for row in page.tables[0] if row[-1].endswith('not run')]) == 9
    assert 'Nothing has been measured yet.' in page.text('p')
    assert 'cannot be drawn' not in page.text()


def test_what_is_no_count_is_no_count_in_the_page_either(tmp_path, study):
    folder = made.write(tmp_path / 'bottleneck', study, failed=())
    for seed, value in ((0, math.nan), (1, None), (2, math.inf)):
        path = folder / 'trials' / f'gru,seed={seed}' / 'measures.json'
        path.write_text(json.dumps([row | {'exact_match': value} if row['length'] == 4 or seed == 0 else row
                                    for row in json.loads(path.read_text())]))
    text = report.write('bottleneck', study, folder).read_text()
    rows = Page(text).tables[0]
    assert rows[1] == ['gru', '4', '–', '3.0 ± 1.0', '3']
    assert rows[3][2] == expected('gru', 60, (1, 2)) + ' (2 of 3)'
    assert not re.search(r'\b(nan|inf)\b', Page(text).text('td', 'text', 'small'))


def test_measures_that_cannot_be_read_are_a_failure(tmp_path, study):
    folder = made.write(tmp_path / 'bottleneck', study)
    (folder / 'trials' / 'gru,seed=0' / 'measures.json').write_text('[{"exact')
    page = Page(report.write('bottleneck', study, folder).read_text())
    assert any('seed 0: measures.json cannot be read' in row[-1] for row in page.tables[0])


def test_trials_that_are_none_of_the_study_are_named(tmp_path, study):
    folder = made.write(tmp_path / 'bottleneck', study)
    fewer = dataclasses.replace(study, seeds=2)
    page = Page(report.write('bottleneck', fewer, folder).read_text())
    assert 'none of this study: bahdanau,seed=2, gru,seed=2, transformer,seed=2' in page.text('dd')


def test_lines_stand_together_by_their_first_column(tmp_path):
    study = made.study(axes=grid({'model.hidden_size': (128, 64), 'model': ('luong', 'gru')}), seeds=1, published=(),
                       shown=(('model', 'model.hidden_size'), ('exact_match',)))
    for trial in study.trials():
        home = tmp_path / 'trials' / trial.name
        home.mkdir(parents=True)
        (home / 'measures.json').write_text(json.dumps([{'exact_match': 1.0}]))
    lines = sheet(read('mine', study, tmp_path)).lines
    assert [line.about for line in lines] == [('luong', '64'), ('luong', '128'), ('gru', '64'), ('gru', '128')]


def test_whole_numbers_stay_whole(tmp_path):
    study = made.study(axes=grid({'model': ('gru',)}), seeds=2, published=(), shown=(('model',), ('beam', 'errors')))
    for count, trial in enumerate(study.trials()):
        home = tmp_path / 'trials' / trial.name
        home.mkdir(parents=True)
        (home / 'measures.json').write_text(json.dumps([{'beam': 5, 'errors': 3 + count}]))
    assert sheet(read('mine', study, tmp_path)).lines[0].cells == ('5', '3.50 ± 0.71')


def test_one_tiny_seed_does_not_make_a_column_powers_of_ten(tmp_path):
    study = made.study(axes=({'model': 'gru'}, {'model': 'lstm'}), seeds=2, shown=(('model',), ('bleu',)))
    for trial, value in zip(study.trials(), (99.5, 98.5, 2e-5, 5.0)):
        home = tmp_path / 'trials' / trial.name
        home.mkdir(parents=True)
        (home / 'measures.json').write_text(json.dumps([{'bleu': value}]))
    assert {line.about: line.cells for line in sheet(read('mine', study, tmp_path)).lines} == {
        ('gru',): ('49.8 ± 70.4',), ('lstm',): ('51.8 ± 66.1',)}


@pytest.mark.parametrize(('values', 'digits'), [
    ([99.5, 0.1], 1), ([100.0, 3.25], 1), ([100.0, 250.0], 0), ([5.0, 12.0], 1),
    ([7.24], 2), ([0.0123], 4), ([12000.0, 3.0], 0), ([1e-9, 1e5], -1), ([], 0),
    ([1e12], -1), ([0.0, 0.0], 0)])
def test_decimals(values, digits):
    assert decimals(values) == digits


def test_numbers_with_their_deviation():
    assert number(interval([1.0, 3.0]), 2) == '2.00 ± 1.41'
    assert number(interval([1234.5]), 1) == '1,234.5'
    assert number(interval([]), 1) == '–'
    assert number(interval([150.0, 150.0]), 0) == '150'
    assert number(interval([0.0, 0.0]), 1) == '0.0 ± 0.0'
    assert number(interval([1e-9, 3e-9]), -1) == '2.00e-09 ± 1.41e-09'


def test_the_index_tells_the_story_in_order(tmp_path):
    for name, answer in (('scaling', 'undecided'), ('bottleneck', 'supported'), ('mine', 'not supported'),
                         ('scores', 'not supported')):
        study = made.study(claim=f'The claim of {name}.', seeds=1, verdict=lambda table, answer=answer: Verdict(
            answer, f'It is {answer}.', 12.0, 10.0, 14.0, 'points'))
        report.write(name, study, made.write(tmp_path / name, study, name))
    (tmp_path / 'later').mkdir()
    (tmp_path / 'later' / 'study.json').write_text('{}')
    assert report.write_index(tmp_path) == tmp_path / 'index.html'
    page = assert_asks_for_nothing((tmp_path / 'index.html').read_text())
    claims = [f'The claim of {name}.' for name in ('bottleneck', 'scores', 'scaling', 'mine')]
    links = [attributes['href'] for tag, attributes in page.elements if tag == 'a']
    assert links[4::2] == [f'{name}/report.html' for name in ('bottleneck', 'scores', 'scaling', 'mine')]
    text = page.text()
    assert [text.index(claim) for claim in claims] == sorted(text.index(claim) for claim in claims)
    assert '4 claims: 1 supported, 2 not supported, 1 undecided.' in text
    assert text.count('12 points (95 % interval 10 to 14)'.partition(' (')[0]) == 4
    assert len([tag for tag, _ in page.elements if tag == 'figure']) == 4
    assert 'Begun, and without a report yet: later.' in text
    lines = (tmp_path / 'index.md').read_text().splitlines()
    table = [columns(line) for line in lines if line.startswith('|')]
    assert [row[1:3] for row in table[2:]] == [[claims[0], 'supported'], [claims[1], 'not supported'],
                                               [claims[2], 'undecided'], [claims[3], 'not supported']]
    assert [row[3] for row in table[2:]] == ['12 points (95 % interval 10 to 14)'] * 4


def test_the_index_has_chapters(tmp_path):
    for name in ('scaling', 'mine', 'gates', 'bottleneck', 'prefix'):
        study = made.study(claim=f'The claim of {name}.', seeds=1)
        report.write(name, study, made.write(tmp_path / name, study, name))
    report.write_index(tmp_path)
    page = assert_asks_for_nothing((tmp_path / 'index.html').read_text())
    levels = [(tag, attributes.get('id')) for tag, attributes in page.elements if tag in ('h1', 'h2', 'h3')]
    assert levels == [('h1', None), ('h2', 'chapter-1'), ('h3', 'heading-1'), ('h3', 'heading-2'), ('h2', 'chapter-2'),
                      ('h3', 'heading-3'), ('h3', 'heading-4'), ('h2', 'chapter-3'), ('h3', 'heading-5')]
    assert [attributes['start'] for tag, attributes in page.elements if tag == 'ol'] == ['1', '3', '5']
    lines = (tmp_path / 'index.md').read_text().splitlines()
    assert [line for line in lines if line.startswith('##')] == [
        '## Recurrence', '### 1. The claim of gates.', '### 2. The claim of bottleneck.', '## One stack, and larger',
        '### 3. The claim of prefix.', '### 4. The claim of scaling.', '## Besides', '### 5. The claim of mine.']


def test_every_study_has_its_place_in_the_story():
    told = [study for chapter in index.STORY for study in chapter.studies]
    assert len(told) == len(set(told))
    assert set(catalogue.studies()) <= set(told), 'say in seqjax/studies/index.py in which chapter it is told'


def test_the_story_goes_into_a_document(tmp_path, capsys):
    folders = []
    for name, answer, sentence in (
            ('scaling', 'undecided', 'It is undecided.'), ('bottleneck', 'supported', 'More rises. (supported)'),
            ('gates', 'not supported', 'More rises. (supported) Less falls. (not supported) No more. (not supported) '
                                       'The law is 2.')):
        found = Verdict(answer, sentence, 12.0, 10.0, 14.0, 'points')
        study = made.study(claim=f'The d_k of {name}.', seeds=1, verdict=lambda table, found=found: found)
        folders.append(report.write(name, study, made.write(tmp_path / 'runs' / name, study, name)).parent)
    document, sections = tmp_path / 'README.md', tmp_path / 'docs' / 'results.md'
    document.write_text('# Mine\n\n<!-- story -->\n<!-- end story -->\n\nafter\n')
    sections.parent.mkdir()
    sections.write_text('# Results\n')
    command = ['--story', str(document), str(sections)]
    assert docs.main(command) == 2
    assert 'holds no section of a study' in capsys.readouterr().err
    docs.insert(sections, folders)
    assert docs.main(command) == 0
    assert capsys.readouterr().out == f'{document}: gates, bottleneck, scaling\n'
    text = document.read_text()
    assert text.startswith('# Mine\n\n<!-- story -->\n3 claims: 1 supported, 1 not supported, 1 undecided.\n\n'
                           '**Recurrence.** ')
    assert text.endswith('<!-- end story -->\n\nafter\n')
    assert [line for line in text.splitlines() if line[:1].isdigit()][1:] == [
        f'{number}. The d\\_k of {name}. **{answer}**: {why} ([{name}](docs/results.md#{name}))'
        for number, answer, name, why in (
            (1, '✗ Not supported', 'gates', 'Less falls.'),
            (2, '✓ Supported', 'bottleneck', '12 points (95 % interval 10 to 14).'),
            (3, '? Undecided', 'scaling', '12 points (95 % interval 10 to 14).'))]
    docs.main(command)
    assert document.read_text() == text, 'the second time changes nothing'
    assert docs.main(['--story', str(document), str(tmp_path / 'none.md')]) == 2
    assert f'{tmp_path}/none.md is not there' in capsys.readouterr().err
    assert docs.main(['--story', str(document)]) == 2


def test_an_index_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match='holds no report of a study'):
        report.write_index(tmp_path)


def test_sections_go_into_a_document_and_are_replaced_there(folder, tmp_path, capsys):
    document = tmp_path / 'results.md'
    document.write_text('# Results\n\nbefore\n\n<!-- study:bottleneck -->\nwhat stood here\n'
                        '<!-- end study:bottleneck -->\n\nafter\n')
    assert docs.main([str(document), str(folder)]) == 0
    text = document.read_text()
    assert 'what stood here' not in text
    assert text.startswith('# Results\n\nbefore\n\n<!-- study:bottleneck -->\n### bottleneck\n\n'
                           '> A fixed vector forgets')
    assert text.endswith('<!-- end study:bottleneck -->\n\nafter\n')
    assert f'| gru | 60 | {expected("gru", 60, (0, 1, 2))} |' in text
    assert docs.main([str(document), str(folder)]) == 0
    assert document.read_text() == text, 'the second time changes nothing'
    document.write_text('# Results\n')
    docs.main([str(document), str(folder)])
    assert document.read_text().startswith('# Results\n\n<!-- study:bottleneck -->\n')
    document.write_text('<!-- study:bottleneck -->\n')
    capsys.readouterr()
    assert docs.main([str(document), str(folder)]) == 2
    assert capsys.readouterr().err.startswith(f'error: {document}: <!-- study:bottleneck --> has no ')
    assert docs.main([str(document), str(tmp_path)]) == 2
    assert 'holds no report.json' in capsys.readouterr().err


def test_markup_escapes_all_that_it_did_not_make():
    assert element('p', '<b>', Markup('<i></i>'), class_='"x"', hidden=True, id=None) == (
        '<p class="&quot;x&quot;" hidden>&lt;b&gt;<i></i></p>')
    assert json.loads(re.sub('<.*?>', '', data({'a': made.NASTY}, 'x'))) == {'a': made.NASTY}
    assert data(made.NASTY, 'x').count('<') == 2
    assert cell('a|b\nc <d> `e`') == 'a\\|b c &lt;d&gt; \\`e\\`'
    assert markdown_table(['a', 'b'], [['1']]) == '| a | b |\n|---|---|\n| 1 |  |\n'
