"""How well a statistical system aligns number words whose alignment is known: error rates, %, on the test split.

    python -m benchmarks.alignment RUN

RUN is a run of --experiment=numerals --model=smt between two languages that `seqjax/data/alignments.py` knows.
"""

import pathlib
import sys

import jax

from seqjax.data.alignments import alignment_error_rate
from seqjax.models.smt import tables_of
from seqjax.reuse import opened, reopen
from seqjax.statistical import ibm, system
from seqjax.statistical.symmetry import symmetrise


def error_rates(workdir: pathlib.Path) -> dict[str, float]:
    """Of each direction's best alignment, of their symmetrisations, and of the diagonal."""
    experiment, codec, _ = reopen(workdir)
    task, data = experiment.task, experiment.task.prepare(codec)
    params = jax.device_get(opened(workdir, experiment, codec)[1])
    direct, inverse = (tables_of(params, way) for way in ('direct', 'inverse'))
    count = data.ids['test'][0].count()
    pairs = [tuple(system.words_of(side, row) for side in data.ids['test']) for row in range(count)]
    gold = [task.alignment(*pair) for pair in zip(*data.text['test'])]
    best = [(ibm.best_alignment(direct, f, e), ibm.best_alignment(inverse, e, f)) for f, e in pairs]
    found = {
        'direct': [{(int(j), t) for t, j in enumerate(one) if j < len(f)} for (one, _), (f, _) in zip(best, pairs)],
        'inverse': [{(s, int(j)) for s, j in enumerate(two) if j < len(e)} for (_, two), (_, e) in zip(best, pairs)],
        'diagonal': [{(round(t * (len(f) - 1) / max(len(e) - 1, 1)), t) for t in range(len(e))} for f, e in pairs]}
    found |= {name: [symmetrise(*both, name) for both in best]
              for name in ('intersection', 'union', 'grow-diag-final-and')}
    return {name: 100 * alignment_error_rate(links, [g.sure for g in gold], [g.possible for g in gold])
            for name, links in found.items()}


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name, rate in error_rates(pathlib.Path(sys.argv[1])).items():
        print(f'{name:<20} {rate:5.1f}')
