"""Studies of seconds, over the smallest translator, and the experiment of their trials; tests can name them."""

import contextlib
import signal

import pytest
from tiny import bigrams, launch

from seqjax import catalogue, figures
from seqjax.catalogue import Entry
from seqjax.experiment import Experiment
from seqjax.studies.axes import grid
from seqjax.studies.study import Study, decide
from seqjax.studies.table import difference

ACTIONS: dict[str, object] = {}  # {trial's model.hidden_size: what measuring it does}


def pairs(model: str = 'gru') -> Experiment:
    """Number words for the smallest translator."""
    return bigrams(steps=4, log_every=1, checkpoint_every=2, evaluate_every=2)


def measure(subject):
    """The test loss, and what a test wants to happen."""
    action = ACTIONS.get(subject.composed.model.hidden_size)
    if action is not None:
        action(subject)
    sentences = subject.data.text['test'][0]
    return [{'loss': subject.summary['test']['loss'], 'sentences': len(sentences)}]


def verdict(table):
    """Whether the wider model has a lower loss."""
    narrow, wide = (table.where({'model.hidden_size': size}) for size in (4, 8))
    return decide(difference(narrow, wide, 'loss'), above=0.0, sentence='Wider is better.', unit='nats')


def widths(form: str = 'full') -> Study:
    """Wider is better."""
    sizes = {'full': (4, 8), 'quick': (4,), 'smoke': (8,)}[form]
    return Study(claim='Wider is better.', source='Nobody (1999), section 0', expect='Nothing.',
                 base={'experiment': 'pairs'}, axes=grid({'model.hidden_size': sizes}), measure=measure,
                 verdict=verdict, seeds=2 if form == 'full' else 1,
                 floors=lambda subject: [{'floor': 'sentences', 'sentences': len(subject.data.text['test'][0])}])


def fresh(form: str = 'full') -> Study:
    """Looks at parameters that nobody has trained."""
    return Study(claim='They are small.', source='Nobody', expect='Nothing.', base={'experiment': 'pairs'},
                 axes=grid({'model.hidden_size': (8,)}), seeds=1, trains=False, workers=1, verdict=None,
                 measure=lambda subject: [{'largest': float(abs(subject.params['out']['kernel']).max())}])


@contextlib.contextmanager
def named():
    """The experiment and the studies of this file can be named; pictures are left out."""
    def and_here(kind, *names):
        known = catalogue.KINDS[kind]
        return lambda: known() | {name: Entry(name, 'little', name, '') for name in names}

    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGUSR1, signal.SIGUSR2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, 'KINDS', catalogue.KINDS | {
            'experiment': and_here('experiment', 'pairs'), 'study': and_here('study', 'widths', 'fresh')})
        patch.setattr(figures, 'draw_run', lambda *args: [])
        ACTIONS.clear()
        yield
        ACTIONS.clear()
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.fixture
def in_catalogue():
    """Within `named`."""
    with named():
        yield


def study(workdir, *more, name: str = 'widths') -> int:
    """The launcher's exit code for a study."""
    return launch(f'--study={name}', f'--workdir={workdir}', '--compilation_cache=none', *more)
