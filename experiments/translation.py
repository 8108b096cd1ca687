"""Translation experiments: each a function of a model's name."""

import dataclasses
from typing import Any

from seqjax.catalogue import load
from seqjax.decoding.phrases import PhraseDecoding
from seqjax.experiment import Experiment
from seqjax.options import options
from seqjax.tasks.corpora import TFDS, Colours, Numerals, Parallel, Reverse
from seqjax.tasks.translation import Translation
from seqjax.training.em import Counting
from seqjax.training.optimizer import Optimizer
from seqjax.training.training import Training

__all__ = ['colours', 'multi30k', 'numerals', 'parallel', 'reverse', 'tfds']


def build(model: str, **fields: Any) -> Any:
    """The model of that name, with those of the recipe's fields that it has."""
    kind = load('model', model)
    return kind(**{option.name: fields[option.name] for option in options(kind) if option.name in fields})


ATTENTION_ONLY = ('transformer', 'decoderonly')


def depth(model: str, layers: int) -> int:
    """`layers` of an encoder and of a decoder; a single stack has as many as both together."""
    return 2 * layers if model == 'decoderonly' else layers


def counted(task: Translation, batch_size: int = 256, **fields: Any) -> Experiment:
    """The statistical system: ten passes, and the alignment model that explains the validation split best.

    The size of a batch changes nothing but the time it takes: the larger, the less often large tables are passed on.
    """
    return Experiment(task=dataclasses.replace(task, metric='loss', label_smoothing=0.0), model=build('smt', **fields),
                      optimizer=Counting(), training=Training(steps=None, epochs=10, batch_size=batch_size),
                      decoding=PhraseDecoding())


def numerals(model: str = 'transformer') -> Experiment:
    """English number words to French ones: real language, nothing to download.

    python launch.py --experiment=numerals --model=MODEL
    Exact match on 1,000 held-out numbers: transformer, decoderonly with either mask, convs2s, bahdanau and luong 100 %,
    gru and lstm 99.9 %, smt 97.9 %, rctm 97.8 %, rnn 89.5 % (one or two minutes each on a CPU core).
    """
    task = Numerals(max_length=32, metric='exact_match')
    if model == 'smt':
        return counted(task, phrase_length=7)
    return Experiment(
        task=task,
        model=build(model, num_layers={'bahdanau': 1, 'convs2s': 3, 'rctm': 1}.get(model, depth(model, 2)),
                    hidden_size=128, num_heads=4, feedforward_size=512, dropout=0.0),
        optimizer=Optimizer(learning_rate=2e-3, schedule='inverse_sqrt', warmup_steps=200, clip_norm=1.0),
        training=Training(steps={'convs2s': 800, 'rctm': 3000}.get(model, 800 if model in ATTENTION_ONLY else 1500),
                          batch_size=64, evaluate_every=200, checkpoint_every=400))


def colours(model: str = 'transformer') -> Experiment:
    """The blue car, la voiture bleue: word order that French turns around, from a grammar whose alignments are known.

    python launch.py --experiment=colours --model=MODEL
    What attention makes of it: --study=inversion.
    """
    task = Colours(max_length=32, metric='exact_match')
    if model == 'smt':
        return counted(task, phrase_length=4)
    return Experiment(
        task=task,
        model=build(model, num_layers={'convs2s': 3}.get(model, depth(model, 1)), hidden_size=64, num_heads=4,
                    feedforward_size=256, dropout=0.0),
        optimizer=Optimizer(learning_rate=3e-3, schedule='inverse_sqrt', warmup_steps=100, clip_norm=1.0),
        training=Training(steps=600, batch_size=64, evaluate_every=200, checkpoint_every=200))


def reverse(model: str = 'luong') -> Experiment:
    """Lists of integers backwards, tested on longer ones; for luong, joeynmt's rnn_reverse recipe.

    python launch.py --experiment=reverse --training.seed=SEED
    Validation BLEU of luong at step 4,000, three seeds: 96.9, 94.7, 95.1; best by step 7,000: 96.9, 99.0, 98.3 (a
    minute on a CPU core). With --model=transformer 99.8 % exact match up to the lengths of training and 10 % beyond
    (eight minutes).
    """
    task = Reverse(max_length=32, buckets=3, metric='bleu')
    if model == 'smt':
        return counted(task, distortion_limit=None)
    if model in ATTENTION_ONLY:
        size = dict(num_layers=depth(model, 2), hidden_size=128, num_heads=4, feedforward_size=512, dropout=0.0)
        # Falling to 0: a constant rate keeps losing one list in ten of those that it has learned.
        optimizer = Optimizer(learning_rate=1.5e-3, schedule='linear', warmup_steps=500, clip_norm=1.0)
        training = Training(steps=6000, batch_size=64, evaluate_every=1000, checkpoint_every=1000)
    elif model == 'convs2s':
        size = dict(num_layers=3, hidden_size=128, dropout=0.1)
        optimizer = Optimizer(learning_rate=1e-3, schedule='linear', warmup_steps=200, clip_norm=1.0)
        training = Training(steps=6000, batch_size=64, evaluate_every=1000, checkpoint_every=1000)
    else:
        size = dict(num_layers=1, hidden_size=64, embedding_size=16, dropout=0.1, bidirectional=True)
        optimizer = Optimizer(name='adamw', learning_rate=1e-3, clip_norm=1.0)
        training = Training(steps=7000, batch_size=10, evaluate_every=1000, checkpoint_every=1000)
    return Experiment(task=task, model=build(model, **size), optimizer=optimizer, training=training)


def multi30k(model: str = 'transformer') -> Experiment:
    """Multi30k German to English (Elliott et al. 2016), from a folder of the published files.

    python launch.py --experiment=multi30k --task.path=DIR --model=MODEL
    What it reaches, beside what was published, and what more of it gives: --study=recipes, docs/results.md.
    """
    task = Parallel(source='de', target='en', train='train', valid='val', test='test_2016_flickr', vocabulary='bpe',
                    vocabulary_size=8000, joint_vocabulary=True, lowercase=True, max_length=80, buckets=6,
                    label_smoothing=0.1, metric='bleu_lowercase')
    if model == 'smt':
        return counted(dataclasses.replace(task, **WORDS), batch_size=1024)
    if model in ATTENTION_ONLY:
        size = dict(num_layers=depth(model, 3), hidden_size=256, num_heads=8, feedforward_size=1024, dropout=0.15,
                    tie='all')
        optimizer = Optimizer(learning_rate=1.6e-3, beta2=0.98, schedule='linear', warmup_steps=400, clip_norm=1.0)
    elif model == 'convs2s':
        size = dict(num_layers=4, hidden_size=256, embedding_size=256, dropout=0.25)
        optimizer = Optimizer(learning_rate=1e-3, schedule='linear', warmup_steps=400, clip_norm=0.1)
    else:
        # One vector must hold a sentence: both ends write to it, and every step reads it (Cho et al. 2014).
        size = dict(num_layers=1, hidden_size=256 if model in ('bahdanau', 'rctm') else 320, embedding_size=128,
                    dropout=0.2, bidirectional=True, feed='every', tie_embeddings=True)
        optimizer = Optimizer(learning_rate=2e-3, schedule='linear', warmup_steps=200, clip_norm=1.0)
    # No more epochs than was published; rates fall to nothing over them, so that more is another run.
    return Experiment(
        task=task,
        model=build(model, **size),
        optimizer=optimizer,
        training=Training(steps=None, epochs=10, batch_size=128, checkpoint_every=100))


def parallel(model: str = 'transformer') -> Experiment:
    """Your own parallel text: a .tsv, two line-aligned files, or a folder of splits.

    python launch.py --experiment=parallel --task.path=my.tsv
    """
    return of_any_text(Parallel(**PIECES), model)


def tfds(model: str = 'transformer') -> Experiment:
    """A translation dataset of TensorFlow Datasets, read without TensorFlow.

    python launch.py --experiment=tfds --task.dataset=wmt14_translate/de-en --task.data_dir=DIR
    """
    return of_any_text(TFDS(**PIECES), model)


PIECES = dict(vocabulary='bpe', vocabulary_size=8000, joint_vocabulary=True, max_length=100, buckets=4,
              label_smoothing=0.1)
# A statistical system counts words; its tables have a row for each of one side and a column for each of the other.
WORDS = dict(vocabulary='word', vocabulary_size=10_000, joint_vocabulary=False, valid_sentences=64)


def of_any_text(task: Translation, model: str) -> Experiment:
    """Where nothing is known of the text: the model's own defaults, and ten passes."""
    if model == 'smt':
        return counted(dataclasses.replace(task, **WORDS), batch_size=1024)
    return Experiment(
        task=task,
        model=build(model),
        optimizer=Optimizer(learning_rate=1e-3, schedule='inverse_sqrt', warmup_steps=800, clip_norm=1.0),
        training=Training(steps=None, epochs=10, batch_size=64))
