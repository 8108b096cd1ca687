"""Translation experiments: each a function of a model's name."""

from seqjax.catalogue import load
from seqjax.experiment import Experiment
from seqjax.tasks.corpora import TFDS, Numerals, Parallel, Reverse
from seqjax.training.optimizer import Optimizer
from seqjax.training.training import Training

__all__ = ['multi30k', 'numerals', 'parallel', 'reverse', 'tfds']


def numerals(model: str = 'transformer') -> Experiment:
    """English number words to French ones: real language, nothing to download."""
    size = dict(hidden_size=128, num_layers=2, dropout=0.0)
    if model == 'transformer':
        size |= dict(num_heads=4, feedforward_size=512)
    return Experiment(
        task=Numerals(max_length=32, buckets=2, metric='exact_match'),
        model=load('model', model)(**size),
        optimizer=Optimizer(learning_rate=2e-3, schedule='inverse_sqrt', warmup_steps=200, clip_norm=1.0),
        training=Training(steps=1500, batch_size=64, evaluate_every=500, checkpoint_every=500))


def reverse(model: str = 'luong') -> Experiment:
    """Lists of integers backwards (joeynmt's rnn_reverse)."""
    return Experiment(
        task=Reverse(max_length=32, buckets=3, metric='bleu'),
        model=load('model', model)(hidden_size=64),
        optimizer=Optimizer(learning_rate=1e-3, clip_norm=1.0),
        training=Training(steps=7000, batch_size=10, evaluate_every=1000, checkpoint_every=1000))


def multi30k(model: str = 'transformer') -> Experiment:
    """Multi30k German to English (Elliott et al. 2016), from a folder of the published files."""
    return Experiment(
        task=Parallel(source='de', target='en', train='train', valid='val', test='test_2016_flickr', vocabulary='bpe',
                      vocabulary_size=8000, joint_vocabulary=True, lowercase=True, max_length=80, buckets=4,
                      label_smoothing=0.1, metric='bleu_lowercase'),
        model=load('model', model)(hidden_size=256, dropout=0.15),
        optimizer=Optimizer(learning_rate=1.6e-3, beta2=0.98, schedule='inverse_sqrt', warmup_steps=800, clip_norm=1.0),
        training=Training(steps=None, epochs=10, batch_size=128, checkpoint_every=227))


def parallel(model: str = 'transformer') -> Experiment:
    """Your own parallel text: a .tsv, two line-aligned files, or a folder of splits."""
    return Experiment(
        task=Parallel(vocabulary='bpe', vocabulary_size=8000, joint_vocabulary=True, max_length=100, buckets=4,
                      label_smoothing=0.1),
        model=load('model', model)(),
        optimizer=Optimizer(learning_rate=1e-3, schedule='inverse_sqrt', warmup_steps=800, clip_norm=1.0),
        training=Training(steps=None, epochs=10, batch_size=64))


def tfds(model: str = 'transformer') -> Experiment:
    """A translation dataset of TensorFlow Datasets, read without TensorFlow."""
    return Experiment(
        task=TFDS(vocabulary='bpe', vocabulary_size=8000, joint_vocabulary=True, max_length=100, buckets=4,
                  label_smoothing=0.1),
        model=load('model', model)(),
        optimizer=Optimizer(learning_rate=1e-3, schedule='inverse_sqrt', warmup_steps=800, clip_norm=1.0),
        training=Training(steps=None, epochs=10, batch_size=64))
