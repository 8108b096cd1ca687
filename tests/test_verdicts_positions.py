"""The verdicts of positions, heads and masks on made-up results: each way, by what the numbers say."""

import itertools

import pytest

from seqjax import catalogue
from seqjax.studies.table import Table

NOISE = (-1.0, 0.0, 1.0)


def table(lines, spread):
    """Rows of three seeds; every number times 1 + the seed's share of `spread`, the other way in every second line."""
    return Table.of({**settings, 'training.seed': seed, **{
        name: value * (1 + (-1) ** line * noise * spread) for name, value in numbers.items()}}
        for (line, (settings, numbers)), (seed, noise) in itertools.product(enumerate(lines), enumerate(NOISE)))


def positions(none=2.0, told=95.0, beyond=93.0, source=1e-6, shallow=1e-6, deep=1e-6, stack=5.0, turned=3e-8,
              random=1.1, spread=0.005):
    """A bag of words, as the claim has it, whose sinusoids go on."""
    def of(model, name):
        return {'model': model, 'model.positions': name}

    both = of('transformer', 'none')
    return table([
        (both, {'within': none, 'beyond': 0.0, 'source_order': source}),
        (of('transformer', 'sinusoidal'), {'within': told, 'beyond': beyond, 'source_order': 3.0}),
        (of('transformer', 'alibi'), {'within': 0.0, 'beyond': 99.0, 'source_order': 3.0}),
        (both | {'layers': 1}, {'prefix_order_of': shallow}), (both | {'layers': 2}, {'prefix_order_of': deep}),
        (of('decoderonly', 'none') | {'layers': 1}, {'prefix_order_of': 1.0}),
        (of('decoderonly', 'none'), {'within': stack, 'beyond': 0.0}),
        (of('decoderonly', 'sinusoidal'), {'within': told, 'beyond': beyond}),
        (both | {'offset': 7}, {'turned_error': turned, 'random_error': random})], spread)


def heads(entropy=(0.7, 0.2), slope=(0.4, 0.05), narrow=0.3, gradient=(0.02, 0.01), after=(0.6, 0.3), nll=(0.1, 0.2),
          several=0.08, spread=0.005):
    """One head with and without scaling, wide and narrow ones, and four."""
    lines = []
    for i, scale in enumerate((True, False)):
        one = {'model.num_heads': 1, 'model.scale_scores': scale}
        lines += [(one, {'nll': nll[i], 'entropy': after[i]}),
                  (one | {'width': 16}, {'entropy_of': 0.8, 'slope_of': narrow, 'gradient_of': 9.0}),
                  (one | {'width': 256}, {'entropy_of': entropy[i], 'slope_of': slope[i], 'gradient_of': gradient[i]})]
        lines.append(({'model.num_heads': 4, 'model.scale_scores': scale}, {'nll': several if scale else 9.0,
                                                                             'entropy': 0.5}))
    return table(lines, spread)


def masks(match=(98.0, 1.0), nll=(0.05, 0.01), masked=6.0, change=0.2, cost=40.0, stacks=(0.06, 0.04), spread=0.005):
    """All masks, those that are off, and both of one stack."""
    whole = {'model': 'transformer'}
    return table([
        (whole, {'exact_match': match[0], 'nll': nll[0], 'nll_masked': nll[0], 'padding_change': 0.0,
                 'padding_cost': 0.0}),
        (whole | {'model.causal': False}, {'exact_match': match[1], 'nll': nll[1], 'nll_masked': masked,
                                           'padding_change': 0.0, 'padding_cost': 0.0}),
        (whole | {'model.padding_mask': False}, {'exact_match': 97.0, 'nll': 9.0, 'nll_masked': 9.0,
                                                 'padding_change': change, 'padding_cost': cost}),
        ({'model': 'decoderonly', 'model.prefix_mask': 'causal'}, {'exact_match': 90.0, 'nll': stacks[0]}),
        ({'model': 'decoderonly', 'model.prefix_mask': 'prefix'}, {'exact_match': 90.0, 'nll': stacks[1]})], spread)


MADE = {'positions': positions, 'heads': heads, 'masks': masks}
CASES = [
    ('positions', {}, 'supported'),
    ('positions', dict(none=80.0), 'not supported'),
    ('positions', dict(source=0.1), 'not supported'),
    ('positions', dict(shallow=0.1), 'not supported'),
    ('positions', dict(deep=0.1), 'not supported'),
    ('positions', dict(stack=90.0), 'not supported'),
    ('positions', dict(turned=0.1), 'not supported'),
    ('positions', dict(random=0.1), 'not supported'),
    ('positions', dict(beyond=30.0), 'not supported'),
    ('positions', dict(beyond=85.0, spread=0.05), 'undecided'),
    ('heads', {}, 'supported'),
    ('heads', dict(entropy=(0.2, 0.7)), 'not supported'),
    ('heads', dict(slope=(0.05, 0.05)), 'not supported'),
    ('heads', dict(narrow=0.06), 'not supported'),
    ('heads', dict(gradient=(0.01, 0.02)), 'not supported'),
    ('heads', dict(after=(0.3, 0.6)), 'not supported'),
    ('heads', dict(nll=(0.2, 0.1)), 'not supported'),
    ('heads', dict(several=0.2), 'not supported'),
    ('heads', dict(several=0.1, spread=0.05), 'undecided'),
    ('masks', {}, 'supported'),
    ('masks', dict(match=(98.0, 97.0)), 'not supported'),
    ('masks', dict(nll=(0.01, 0.05)), 'not supported'),
    ('masks', dict(masked=0.02), 'not supported'),
    ('masks', dict(change=1e-4), 'not supported'),
    ('masks', dict(cost=1.0), 'not supported'),
    ('masks', dict(stacks=(0.04, 0.06)), 'not supported'),
    ('masks', dict(stacks=(0.05, 0.05), spread=0.05), 'undecided'),
]


@pytest.mark.parametrize(('name', 'numbers', 'answer'), CASES, ids=str)
def test_verdicts_come_out_each_way(name, numbers, answer):
    found = catalogue.load('study', name)('full').verdict(MADE[name](**numbers))
    assert found.answer == answer, found.sentence
    assert found.low <= found.effect <= found.high


@pytest.mark.parametrize('name', list(MADE))
def test_one_seed_decides_nothing(name):
    one = MADE[name]().where({'training.seed': 0})
    assert catalogue.load('study', name)('full').verdict(one).answer == 'undecided'


def test_effects_are_those_of_the_numbers():
    effect = {name: catalogue.load('study', name)('full').verdict(made()).effect for name, made in MADE.items()}
    assert effect == pytest.approx({'positions': 93.0, 'heads': 0.5, 'masks': 97.0})
