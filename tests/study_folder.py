"""A study's folder as a runner would leave it, made up in a second: scores fall with length, one trial failed."""

import json

import numpy as np

from seqjax.studies import charts
from seqjax.studies.axes import SEED, grid
from seqjax.studies.study import Study, decide
from seqjax.studies.table import difference

MODELS = ('gru', 'bahdanau', 'transformer')
LENGTHS = (4, 16, 60)
SOURCE, TARGET = ['eighty', '-', 'seven', '</s>'], ['quatre', '-', 'vingt', '-', 'sept', '</s>']
NASTY = '</script><script>alert("1")</script> & \'quoted\' <b>bold</b>'


def verdict(table):
    """At least 30 points between attention and the fixed vector at the greatest length."""
    longest = table.where({'length': 60})
    gap = difference(longest.where({'model': 'bahdanau'}), longest.where({'model': 'gru'}), 'exact_match')
    return decide(gap, 30, f'On 60 tokens attention is {gap.mean:.1f} points ahead.', 'points')


def figures(table):
    """Score against length."""
    return {'Score against source length': charts.lines(
        table, 'length', 'exact_match', levels={'copy the source': 3.5, 'most frequent word': 0.25}, ylim=(0, 103))}


def study(**changes):
    """A study of three models and three seeds."""
    return Study(**dict(
        claim='A fixed vector forgets long sentences; attention does not.', source='Bahdanau 2015, section 5.2.2',
        expect='No gap on short inputs, at least 30 points on the longest.',
        base={'experiment': 'reverse', 'training.steps': 100}, axes=grid({'model': MODELS}), measure=lambda subject: [],
        verdict=verdict, figures=figures, seeds=3, shown=(('model', 'length'), ('exact_match', 'milliseconds')),
        published=[{'published': 'Bahdanau 2015, RNNsearch-50', 'model': 'bahdanau', 'exact_match': 61.25}]) | changes)


def score(model, length, seed):
    """The made-up score."""
    slope = {'gru': 1.5, 'bahdanau': 0.1, 'transformer': 0.02}[model]
    return round(100 - slope * length - (seed * len(model) % 3) * (1 + length / 30), 3)


def attention(layers, heads, seed=0):
    """Arrays of an attention.npz: two sentences, padded."""
    rng = np.random.default_rng(seed)
    weights_NBHTS = rng.dirichlet(np.full(7, 0.3), (layers, 2, heads, 8)).astype(np.float32)
    return {'decoder/cross_attention/cross_attention': weights_NBHTS,
            'source_0': np.array(SOURCE), 'target_0': np.array(TARGET),
            'source_1': np.array(['<i>', '&', '</s>']), 'target_1': np.array([NASTY, '</s>'])}


def write(folder, made, name='bottleneck', failed=('transformer,seed=2',), missing=()):
    """Fills `folder` with what a run of the study `made` would leave; some trials failed, some have not been run."""
    def dump(path, value):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding='utf-8')

    dump(folder / 'study.json', {'study': name, 'form': 'full', 'argv': [f'--study={name}', '--workers=2']})
    dump(folder / 'floors.json', [{'floor': 'copy the source', 'exact_match': 3.5}, {
        'floor': 'most frequent word', 'exact_match': 0.25}])
    for trial in made.trials():
        home, seed = folder / 'trials' / trial.name, trial.settings[SEED]
        if trial.name in missing:
            continue
        dump(home / 'config.json', {
            'argv': [f'--experiment={trial.experiment}', f'--model={trial.model}', f'--{SEED}={seed}'],
            'versions': {'jax': '0.10.2', 'flax': '0.12.0'}, 'python': '3.11.2', 'git_commit': 'abc1234',
            'devices': ['cpu cpu']})
        if trial.name in failed:
            dump(home / 'failure.json', {'reason': f'loss is not finite at step 12 {NASTY}'})
            continue
        dump(home / 'summary.json', {
            'parameters': 10_000 + len(trial.model), 'steps': 100, 'time': {
                'training_seconds': 10.0 + seed, 'seconds_in_all': 20.0, 'compile_seconds': 2.5,
                'tokens_per_second': 5000.0}})
        dump(home / 'measures.json', [
            {'length': length, 'exact_match': score(trial.model, length, seed), 'milliseconds': 0.5 * length + seed}
            for length in LENGTHS])
        if trial.model != 'gru':
            (home / 'figures').mkdir()
            layers, heads = (1, 1) if trial.model == 'bahdanau' else (2, 4)
            np.savez(home / 'figures' / 'attention.npz', **attention(layers, heads, seed))
    return folder
