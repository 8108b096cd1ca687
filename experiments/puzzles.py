"""Questions made up for what they ask of a model; the studies of memory and of attention train on them."""

from experiments.translation import ATTENTION_ONLY, build, counted
from seqjax.experiment import Experiment
from seqjax.tasks.puzzles import Puzzle
from seqjax.training.optimizer import Optimizer
from seqjax.training.training import Training

__all__ = ['puzzles']


def puzzles(model: str = 'gru') -> Experiment:
    """Questions of one word's answer: recall the first word, weigh witnesses, follow links.

    python launch.py --experiment=puzzles --task.kind=recall --model=MODEL
    """
    task = Puzzle(max_length=64, buckets=1, metric='exact_match')
    if model == 'smt':
        return counted(task)
    attention = model in ATTENTION_ONLY
    return Experiment(
        task=task,
        model=build(model, num_layers=2 if attention else 1, hidden_size=64, num_heads=2, feedforward_size=256,
                    dropout=0.0),
        optimizer=Optimizer(learning_rate=2e-3, schedule='linear', warmup_steps=50, clip_norm=1.0),
        training=Training(steps=1000, batch_size=64, evaluate_every=500, checkpoint_every=500))
