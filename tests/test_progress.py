"""What is shown, at a terminal and elsewhere, and that a resumed run starts where it was."""

import io

from seqjax.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def run(stream, total=100, initial=0, to=100, every=20):
    clock = Clock()
    progress = Progress(total, initial, every, stream, clock)
    for step in range(initial + 1, to + 1):
        clock.now += 0.5
        progress.advance(step, {'nll': (2.0 * 40, 40.0), 'accuracy': (1.0, 40.0)}, 'nll')
    return progress


def test_plain_lines():
    stream = io.StringIO()
    progress = run(stream, to=50)
    assert stream.getvalue().splitlines() == ['step 20/100  nll 2.0000  80 tokens/s  00:40 left',
                                              'step 40/100  nll 2.0000  80 tokens/s  00:30 left']
    assert progress.clock() == {'seconds': 25.0, 'tokens_per_second': 80.0, 'steps_per_second': 2.0}
    progress.note('valid BLEU 12.3')
    assert stream.getvalue().endswith('left\nvalid BLEU 12.3\n')
    progress.close()


def test_a_resumed_run_knows_its_place():
    stream = io.StringIO()
    run(stream, initial=50)
    lines = stream.getvalue().splitlines()
    assert lines[0] == 'step 60/100  nll 2.0000  80 tokens/s  00:20 left', 'at the pace of this process'
    assert lines[-1].startswith('step 100/100')
    assert lines[-1].endswith('00:00 left')


def test_bar():
    stream = Terminal()
    progress = run(stream, initial=50, to=75)
    progress.note('valid BLEU 12.3')
    progress.close()
    assert '50/100' in stream.getvalue()
    assert '75/100' in stream.getvalue()
    assert 'nll 2.000, 80 tokens/s' in stream.getvalue()
    assert 'valid BLEU 12.3\n' in stream.getvalue()


def test_nothing_counted():
    stream = io.StringIO()
    Progress(1, every=1, stream=stream, clock=Clock()).advance(1, {'nll': (0.0, 0.0)}, 'nll')
    assert stream.getvalue().startswith('step 1/1  nll nan  0 tokens/s')
