"""Results made up for each study's verdict: numbers that support its claim, and those that change the answer.

A function that makes a study's results has the study's name and, for arguments, the numbers that its verdict heeds.
What it makes besides is there to be left unread: a verdict that heeds it comes out otherwise.
"""

import itertools
from collections import namedtuple

import numpy as np

from experiments.studies import ladder as ladders
from experiments.studies import recipes as recipe
from experiments.studies import scaling as scale
from seqjax import catalogue
from seqjax.studies.axes import SEED
from seqjax.studies.table import Table

NOISE = (-1.0, 0.0, 1.0)  # each seed's share of `spread`

# What makes the results; the effect of those that it makes by default; how far off it may be, as a share (the mean of
# ratios and logarithms of moved numbers is not theirs); [(numbers, answer)].
Made = namedtuple('Made', 'results effect rel cases')
MADE: dict[str, Made] = {}


def study(effect, against, undecided, supported=(), rel=1e-6):
    """Enters a function in MADE; the numbers that it has by default support the claim."""
    def enter(function):
        answers = {'supported': [{}, *supported], 'not supported': against, 'undecided': [undecided]}
        MADE[function.__name__] = Made(function, effect, rel, [
            (numbers, answer) for answer, cases in answers.items() for numbers in cases])
        return function

    return enter


def verdict(name, results):
    """What the study of this name says of results."""
    return catalogue.load('study', name)('full').verdict(results)


def seeds(lines, moved):
    """Rows of three seeds, of [(settings, {column: value})]: moved(value, line's place, settings, noise)."""
    return Table.of({**settings, SEED: seed, **{
        name: moved(value, line, settings, noise) for name, value in numbers.items()}}
        for (line, (settings, numbers)), (seed, noise) in itertools.product(enumerate(lines), enumerate(NOISE)))


def table(lines, spread, ours):
    """Numbers moved by the seed's share of `spread`.

    Lines whose settings agree with `ours` move one way, the others the other way, so that a difference is no surer than
    what it is made of.
    """
    return seeds(lines, lambda value, line, settings, noise: value + (
        1 if ours.items() <= settings.items() else -1) * noise * spread)


def scaled(lines, spread):
    """Every number times 1 + the seed's share of `spread`, the other way in every second line."""
    return seeds(lines, lambda value, line, settings, noise: value * (1 + (-1) ** line * noise * spread))


@study(93.0, undecided=dict(long=68.0, spread=5.0), against=[
    dict(long=80.0), dict(short=80.0), dict(held=(30.0, 30.0)), dict(held=(30.0, 10.0))])
def bottleneck(short=100.0, long=5.0, attention=98.0, held=(10.0, 30.0), spread=0.5):
    """Fixed vectors of which the gru is the best, narrow and wide ones, and Bahdanau's attention."""
    lines = [({'experiment': 'reverse', 'model': model, 'model.hidden_size': 128},
              {'short': short, 'long': long - less, 'held': sum(held) / 2})
             for model, less in (('rnn', 3), ('lstm', 1), ('gru', 0))]
    lines += [({'experiment': 'reverse', 'model': 'gru', 'model.hidden_size': width},
               {'short': short, 'long': long, 'held': tokens}) for width, tokens in zip((32, 256), held)]
    lines += [({'experiment': 'reverse', 'model': 'bahdanau', 'model.hidden_size': 64},
               {'short': 100.0, 'long': attention, 'held': 59.0}),
              # Reads backwards: another question, and no fixed vector of the comparison.
              ({'experiment': 'reverse', 'model': 'gru', 'model.hidden_size': 128, 'model.reverse_source': True},
               {'short': 100.0, 'long': 99.0, 'held': 60.0})]
    return table(lines, spread, {'model': 'bahdanau'})


@study(20.0, undecided=dict(tau=0.5, spread=0.1), against=[
    dict(location=21.0), dict(tau=0.2), dict(permuted=90.0)])
def scores(content=20.0, location=40.0, tau=0.7, plain=95.0, permuted=5.0, spread=0.02):
    """Each score asked from each state, and Bahdanau's attention, which the verdict does not read."""
    lines = [({'model': 'luong', 'model.score': score, 'model.state': state},
              {'aer': location if score == 'location' else content, 'tau_left_out': tau, 'plain': plain,
               'permuted': permuted})
             for score in ('dot', 'general', 'concat', 'location') for state in ('current', 'previous')]
    lines.append(({'model': 'bahdanau'}, {'aer': 99.0, 'tau_left_out': 0.0, 'plain': 0.0, 'permuted': 99.0}))
    return table(lines, spread, {'model.score': 'location'})


@study(0.8, undecided=dict(exponent=1.5, spread=0.2), against=[
    dict(exponent=1.1), dict(quick=4.0), dict(long=50.0), dict(generation=50.0)])
def parallelism(exponent=1.8, quick=1.0, long=200.0, generation=300.0, spread=0.01, sizes=(1,)):
    """A gru of exponent 1, and a transformer."""
    lines = []
    for rows in sizes:
        for model, slope, short, longest, written in (('gru', 1.0, 2.0, 100.0, 150.0),
                                                      ('transformer', exponent, quick, long, generation)):
            where = {'model': model, 'training.batch_size': rows}
            lines += [(where | {'phase': 'training step'}, {'slope_long': slope, 'short': short, 'long': longest}),
                      (where | {'phase': 'generation'}, {'slope_long': slope, 'short': short, 'long': written})]
            lines += [(where | {'phase': 'training step', 'length': length}, {'milliseconds_at': time * short})
                      for length, time in ((16, 1.0), (64, 4.0 ** slope))]
    return table(lines, spread, {'model': 'transformer'})


@study(97.5, rel=1e-5, undecided=dict(match=(80.0, 80.1, 80.1), spread=0.1), against=[
    dict(errors=(8.0, 7.0)), dict(match=(80.0, 79.0, 79.0)), dict(match=(80.0, 82.0, 85.0))])
def decoding(errors=(8.0, 0.2), match=(80.0, 82.0, 82.1), spread=0.01):
    """Greedy search, a beam of 5 and one of 30, over digits and over French."""
    return table([({'task.target': target, 'beam': beam, 'penalty': 0.0},
                   {'search_errors': (*errors, 0.0)[i], 'exact_match': match[i]})
                  for target in ('digits', 'fr') for i, beam in enumerate((1, 5, 30))], spread, {'beam': 5})


@study(3.0, undecided=dict(gap=(4.0, 3.0), spread=0.5), against=[
    dict(gap=(6.0, 6.0)), dict(gap=(0.5, -3.0)), dict(growth=0.0), dict(lost=(10.0, 10.0)),
    dict(steps=(130.0, 100.0))])
def exposure(gap=(6.0, 3.0), growth=4.0, lost=(10.0, 6.0), steps=(100.0, 130.0), spread=0.2):
    """Two models taught with true words and with some of their own, and with own words alone, which nothing reads."""
    rows = []
    for seed, noise in enumerate(NOISE):
        for model in ('gru', 'transformer'):
            for i, (way, sign) in enumerate((('none', 1), ('linear', -1))):
                moved = sign * noise * spread
                rows.append({'model': model, 'task.sampling': way, SEED: seed, 'gap': gap[i] + moved,
                             'gap_beginning': 1.0, 'gap_end': 1.0 + growth + moved, 'lost': lost[i] + moved,
                             'steps_to_loss': steps[i] + 10 * moved})
            rows.append({'model': model, 'task.sampling': 'constant', SEED: seed, 'gap': 99.0, 'gap_beginning': 0.0,
                         'gap_end': 0.0, 'lost': 99.0, 'steps_to_loss': 1.0})
    return Table.of(rows)


@study(0.7, rel=0.01, undecided=dict(bahdanau=0.9, spread=0.05), against=[
    dict(bahdanau=1.2), dict(gru=1.2), dict(compute=(0.1, 0.6, 0.4))])
def scaling(gru=0.2, bahdanau=0.5, transformer=0.9, spread=0.01, compute=(0.1, 0.2, 0.4), data=0.3):
    """Losses by laws of these exponents, moved by a share; the law of data is the same for all."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(3):
        for model, exponent, cost in zip(scale.FAMILIES, (gru, bahdanau, transformer), compute):
            for width in (8, 16, 24, 48):
                where = {'model': model, 'model.hidden_size': width, SEED: seed}
                size = 10.0 * width ** 2
                full = where | {'task.train_size': 20000}
                rows.append(full | {'non_embedding': size, 'flops': size * 1e6, 'milliseconds': 1.0,
                                    'loss': 50 * size ** -exponent * np.exp(spread * rng.normal())})
                # All on one line: whichever width is the cheapest, the frontier is the law.
                rows += [full | {'compute': x, 'loss_at': 100 * x ** -cost * np.exp(spread * rng.normal())}
                         for x in size * 1e5 * np.array([1, 2, 4, 8])]
            at_all = next(row['loss'] for row in rows if row['model'] == model and row[SEED] == seed
                          and row['model.hidden_size'] == scale.WIDTH and 'loss' in row)
            rows += [{'model': model, 'model.hidden_size': scale.WIDTH, SEED: seed, 'task.train_size': size,
                      'non_embedding': 10.0 * scale.WIDTH ** 2, 'loss': at_all * (20000 / size) ** data}
                     for size in (250, 1000)]
    return Table.of(rows)


@study(30.0, undecided=dict(kept=-3.0, spread=1.0), against=[
    dict(low=-1.0), dict(high=-5.0), dict(kept=-13.0), dict(burst=10.0), dict(lstm=45.0)])
def gates(low=-30.0, high=15.0, kept=-0.5, burst=2.0, lstm=95.0, spread=0.1):
    """A plain network and LSTMs of three forget biases, over gains; and what the verdict does not read."""
    def lines(settings, over, far):
        return [(settings | {'when': 'start', 'gain': gain}, {'over': x}) for gain, x in over.items()] + [
            (settings, {'far': far})]

    plain = {'model': 'rnn', 'optimizer.clip_norm': 1.0}
    usual = {'model': 'lstm', 'optimizer.clip_norm': 1.0}
    found = lines(plain, {0.5: low, 1.0: -4.0, 4.0: high, 8.0: 30.0}, 40.0)
    for bias in (0.0, 1.0, 3.0):
        found += lines(usual | {'model.forget_bias': bias}, {1.0: kept, 8.0: burst}, lstm)
    for other in ({'model.cut': 'cell'}, {'optimizer.clip_norm': None}, {'model.recurrent_gain': 4.0}):
        found += lines(usual | other, {1.0: -99.0, 8.0: 99.0}, 0.0)
        found += lines(plain | other, {0.5: 0.0, 4.0: 0.0}, 100.0)
    return table(found, spread, {'model': 'lstm'})


@study(85.0, undecided=dict(bare=90.0, spread=5.0), against=[
    dict(alone=95.0), dict(deep=60.0, bare=10.0), dict(after=99.0), dict(bare=99.0)])
def depth(deep=100.0, alone=15.0, after=20.0, bare=60.0, spread=0.5):
    """Stacks of 1 and 24 layers; a long warm-up mends what the short one spoils and is not read."""
    kinds = [(True, {'model.norm': 'before'}, deep), (True, {'model.norm': 'after'}, after),
             (True, {'model.normalisation': 'none'}, bare), (False, {'model.norm': 'before'}, alone),
             (False, {'model.norm': 'after'}, alone - 3), (False, {'model.normalisation': 'none'}, alone - 3)]
    found = [({'model.residual': residual, 'model.num_layers': layers, 'optimizer.warmup_steps': 15} | norm,
              {'recall': value if layers == 24 else 99.0}) for residual, norm, value in kinds for layers in (1, 24)]
    found.append(({'model.residual': True, 'model.norm': 'after', 'model.num_layers': 24,
                   'optimizer.warmup_steps': 150}, {'recall': 100.0}))
    return table(found, spread, {'model.norm': 'before', 'model.residual': True, 'model.num_layers': 24})


@study(60.0, undecided=dict(told=80.0, spread=5.0), against=[
    dict(told=99.0), dict(mean=89.0), dict(one=94.0)])
def whispers(asked=100.0, told=40.0, weighed=90.0, mean=70.0, several=95.0, one=30.0, spread=0.5):
    """A chain, the mean and attention; two layers and one."""
    found = [({'task.kind': 'recall', 'model': 'gru'}, {'hard': told}),
             ({'task.kind': 'recall', 'model': 'gru', 'model.context': 'mean'}, {'hard': 50.0}),
             ({'task.kind': 'recall', 'model': 'bahdanau'}, {'hard': asked}),
             ({'task.kind': 'witnesses', 'model': 'gru'}, {'hard': 99.0}),
             ({'task.kind': 'witnesses', 'model': 'gru', 'model.context': 'mean'}, {'hard': mean}),
             ({'task.kind': 'witnesses', 'model': 'bahdanau'}, {'hard': weighed}),
             ({'task.kind': 'hops', 'model.num_layers': 2}, {'hard': several}),
             ({'task.kind': 'hops', 'model.num_layers': 1}, {'hard': one})]
    return table(found, spread, {'model': 'bahdanau'})


@study(4.0, undecided=dict(smt=98.9, spread=1.0), against=[
    dict(smt=99.5), dict(fixed=99.5), dict(lost_smt=(5.0, 95.0)), dict(lost_smt=(60.0, 20.0))])
def ladder(smt=95.0, fixed=90.0, attentive=99.0, lost=(40.0, 90.0), lost_smt=(60.0, 95.0), spread=0.1):
    """The statistical system, three fixed vectors and five systems with attention, at home and abroad."""
    lines = []
    for model in ('smt', *ladders.SIZES):
        match = smt if model == 'smt' else attentive if model in ladders.ATTENTIVE else fixed
        away = lost_smt if model == 'smt' else lost
        lines.append(({'model': model}, {'exact_match': match, 'hole': match - away[0], 'beyond': match - away[1]}))
    made = table(lines, spread, {'model': 'smt'})
    # What is lost moves by the seeds too, not only what it is lost from.
    return Table.of({**row, 'hole': row['hole'] - (row['model'] == 'smt') * 2 * spread * (row[SEED] - 1)}
                    for row in made.rows)


@study(1.0, undecided=dict(bpe=0.05, spread=0.1), against=[
    dict(bpe=-1.0), dict(warm_up=-1.0), dict(smoothing=-1.0), dict(averaging=-0.1), dict(beam=-0.1),
    dict(penalty=-0.1)])
def recipes(bpe=1.0, warm_up=2.0, smoothing=0.5, averaging=0.4, beam=1.0, penalty=0.2, spread=0.05):
    """A Transformer with all that helps, read four ways, and without one ingredient of its training at a time."""
    readings = np.cumsum([90.0, -penalty, -beam, -averaging])[::-1]
    lines = [({'without': 'none', 'weights': weights, 'search': search}, {'bleu_lowercase': score})
             for (weights, search), score in zip(recipe.READINGS, readings)]
    lines += [({'without': name, 'weights': 'averaged', 'search': 'beam, penalised'}, {'bleu_lowercase': 90.0 - gain})
              for name, gain in zip(recipe.WITHOUT, (bpe, warm_up, smoothing))]
    return table(lines, spread, {'without': 'none'})


@study(100 * np.log(1.5), rel=2e-5, undecided=dict(same_cost=0.11, spread=0.01), against=[
    dict(same_cost=0.10), dict(mask=1.0), dict(aer=(20.0, 40.0))], supported=[dict(aer=(40.0, 20.0))])
def prefix(two=0.10, same_size=0.11, same_cost=0.15, mask=0.7, aer=(20.0, 21.0), spread=0.0005):
    """An encoder-decoder, and stacks of as many parameters and of as much compute with either mask."""
    lines = [({'model': 'transformer', 'model.num_layers': 2}, {'nll': two, 'aer_head': aer[0]})]
    for layers, loss in ((4, same_size), (2, same_cost)):
        lines += [({'model': 'decoderonly', 'model.num_layers': layers, 'model.prefix_mask': kind},
                   {'nll': loss * gain, 'aer_head': aer[1]}) for kind, gain in (('causal', 1.0), ('prefix', mask))]
    return table(lines, spread, {'model.prefix_mask': 'causal'})


@study(90.0, undecided=dict(transformer=75.0, spread=3.0), against=[
    dict(bahdanau=10.0), dict(luong=10.0), dict(transformer=10.0)])
def inversion(bahdanau=90.0, luong=95.0, transformer=97.0, spread=0.5):
    """Three systems with attention and the statistical one."""
    return table([({'model': model}, {'crossings_found': found, 'exact_crossing': 99.0}) for model, found in (
        ('smt', 99.0), ('bahdanau', bahdanau), ('luong', luong), ('transformer', transformer))], spread, {})


@study(93.0, undecided=dict(beyond=85.0, spread=0.05), against=[
    dict(none=80.0), dict(source=0.1), dict(shallow=0.1), dict(deep=0.1), dict(stack=90.0), dict(turned=0.1),
    dict(random=0.1), dict(beyond=30.0)])
def positions(none=2.0, told=95.0, beyond=93.0, source=1e-6, shallow=1e-6, deep=1e-6, stack=5.0, turned=3e-8,
              random=1.1, spread=0.005):
    """A bag of words, as the claim has it, whose sinusoids go on."""
    def of(model, name):
        return {'model': model, 'model.positions': name}

    both = of('transformer', 'none')
    return scaled([
        (both, {'within': none, 'beyond': 0.0, 'source_order': source}),
        (of('transformer', 'sinusoidal'), {'within': told, 'beyond': beyond, 'source_order': 3.0}),
        (of('transformer', 'alibi'), {'within': 0.0, 'beyond': 99.0, 'source_order': 3.0}),
        (both | {'layers': 1}, {'prefix_order_of': shallow}), (both | {'layers': 2}, {'prefix_order_of': deep}),
        (of('decoderonly', 'none') | {'layers': 1}, {'prefix_order_of': 1.0}),
        (of('decoderonly', 'none'), {'within': stack, 'beyond': 0.0}),
        (of('decoderonly', 'sinusoidal'), {'within': told, 'beyond': beyond}),
        (both | {'offset': 7}, {'turned_error': turned, 'random_error': random})], spread)


@study(0.5, undecided=dict(several=0.1, spread=0.05), against=[
    dict(entropy=(0.2, 0.7)), dict(slope=(0.05, 0.05)), dict(narrow=0.06), dict(gradient=(0.01, 0.02)),
    dict(after=(0.3, 0.6)), dict(nll=(0.2, 0.1)), dict(several=0.2)])
def heads(entropy=(0.7, 0.2), slope=(0.4, 0.05), narrow=0.3, gradient=(0.02, 0.01), after=(0.6, 0.3), nll=(0.1, 0.2),
          several=0.08, spread=0.005):
    """One head with and without scaling, wide and narrow ones, and four."""
    lines = []
    for i, scaling in enumerate((True, False)):
        one = {'model.num_heads': 1, 'model.scale_scores': scaling}
        lines += [(one, {'nll': nll[i], 'entropy': after[i]}),
                  (one | {'width': 16}, {'entropy_of': 0.8, 'slope_of': narrow, 'gradient_of': 9.0}),
                  (one | {'width': 256}, {'entropy_of': entropy[i], 'slope_of': slope[i], 'gradient_of': gradient[i]})]
        lines.append(({'model.num_heads': 4, 'model.scale_scores': scaling}, {'nll': several if scaling else 9.0,
                                                                             'entropy': 0.5}))
    return scaled(lines, spread)


@study(97.0, undecided=dict(stacks=(0.05, 0.05), spread=0.05), against=[
    dict(match=(98.0, 97.0)), dict(nll=(0.01, 0.05)), dict(masked=0.02), dict(change=1e-4), dict(cost=1.0),
    dict(stacks=(0.04, 0.06))])
def masks(match=(98.0, 1.0), nll=(0.05, 0.01), masked=6.0, change=0.2, cost=40.0, stacks=(0.06, 0.04), spread=0.005):
    """All masks, those that are off, and both of one stack."""
    whole = {'model': 'transformer'}
    return scaled([
        (whole, {'exact_match': match[0], 'nll': nll[0], 'nll_masked': nll[0], 'padding_change': 0.0,
                 'padding_cost': 0.0}),
        (whole | {'model.causal': False}, {'exact_match': match[1], 'nll': nll[1], 'nll_masked': masked,
                                           'padding_change': 0.0, 'padding_cost': 0.0}),
        (whole | {'model.padding_mask': False}, {'exact_match': 97.0, 'nll': 9.0, 'nll_masked': 9.0,
                                                 'padding_change': change, 'padding_cost': cost}),
        ({'model': 'decoderonly', 'model.prefix_mask': 'causal'}, {'exact_match': 90.0, 'nll': stacks[0]}),
        ({'model': 'decoderonly', 'model.prefix_mask': 'prefix'}, {'exact_match': 90.0, 'nll': stacks[1]})], spread)
