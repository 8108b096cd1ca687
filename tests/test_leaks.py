"""What is seen of the future and of padding: of models that see it, in a known measure, and of models that do not."""


import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformer_checks import SOURCE, TARGET, compiled

from seqjax.data.batches import Batch
from seqjax.models.decoder_only import DecoderOnly
from seqjax.models.transformer import Transformer
from seqjax.studies import leaks

BATCH = Batch(SOURCE[:3], TARGET[:3], np.ones(3, np.float32), np.arange(3, dtype=np.int32))
KINDS = pytest.mark.parametrize('kind', [Transformer, DecoderOnly], ids=lambda kind: kind.__name__)


class Ahead:
    """Says the word that the decoder reads one place later, and is sure of it, as far as there is no padding."""

    target_size = 13

    def apply(self, variables, *args, method):
        if method == 'encode':
            return args[0]
        tokens_BT, source_BS = args
        share = (source_BS != 0).mean(axis=1)[:, None, None]
        ahead_BT = jnp.pad(tokens_BT[:, 1:], ((0, 0), (0, 1)), constant_values=2)
        return jnp.where(share > 0.9, 50.0, 0.0) * jax.nn.one_hot(ahead_BT, 13), None


def test_who_copies_the_next_word_is_moved_wholly_by_another():
    whole = BATCH._replace(source=np.full((3, 6), 4, np.int32))
    assert leaks.future_change(Ahead(), {}, whole) == pytest.approx(1.0)


def test_padding_that_takes_all_confidence_moves_all_but_one_word_in_thirteen():
    whole = BATCH._replace(source=np.full((3, 6), 4, np.int32))
    (none, right), (moved, wrong) = leaks.padded(Ahead(), {}, whole, (0, 2))
    assert (none, right) == (0, 1)
    assert moved == pytest.approx(1 - 1 / 13)
    assert wrong == 0


@KINDS
def test_masks_hide_what_they_are_for(kind):
    run = compiled(kind)
    assert leaks.future_change(run.model, run.params, BATCH) == 0
    assert leaks.next_weight(run.model, run.params, BATCH) == 0
    assert max(change for change, _ in leaks.padded(run.model, run.params, BATCH, (0, 3))) < 1e-5


@KINDS
def test_without_masks_they_are_seen(kind):
    run, wide = compiled(kind, causal=False), compiled(kind, padding_mask=False)
    assert leaks.future_change(run.model, run.params, BATCH) > 1e-2
    assert leaks.next_weight(run.model, run.params, BATCH) > 1e-2
    assert leaks.padded(wide.model, wide.params, BATCH, (3,))[0][0] > 1e-2


def test_the_weight_on_the_next_token_is_that_of_one_place_on():
    weights = np.zeros((1, 1, 1, 4, 4))
    weights[..., 0, 1], weights[..., 1, 2], weights[..., 2, 3] = 0.5, 0.1, 0.9

    class Shown:
        def capture(self, params, batch):
            return {'encoder/self_attention': jnp.ones((1, 1, 1, 4, 4)),
                    'decoder/x/self_attention': jnp.asarray(weights)}

    target = np.array([[7, 8, 2, 0]], np.int32)  # at EOS there is a token to predict, and no word behind it is seen
    assert leaks.next_weight(Shown(), {}, BATCH._replace(target=target)) == pytest.approx(0.3)
