"""The decoder contract: what a model offers to tasks and decoders, which know nothing else of it."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from seqjax.layers.unpadding import Sides
from seqjax.options import from_data

PAD, BOS, EOS = 0, 1, 2


class Translator(nn.Module):
    """A system that maps a source sequence to a target sequence, one target token at a time.

    Subclasses define `encode`, `start` and `decode`; their option fields are the flags `--model.*`. Dropout is on
    exactly when a 'dropout' key is given to `apply`.

    A model with `learner = 'counts'` is fitted by expectation maximisation (`training/em.py` says what it must have
    for that), one with `searches = 'phrases'` brings a search of its own; an Experiment gives each the optimizer and
    the decoding that go with it.
    """

    learner = 'gradient'
    searches = 'tokens'

    source_size: int | None = from_data('source vocabulary, pieces')
    target_size: int | None = from_data('target vocabulary, pieces')
    source_length: int | None = from_data('longest source, tokens with EOS')
    target_length: int | None = from_data('longest target, tokens with EOS')
    length_ratio: float | None = from_data('target tokens for each source token, EOS counted on both sides')

    def encode(self, source_BS: jax.Array) -> Any:
        """All that stays constant while decoding, as a pytree: masks, and projected keys and values included."""

    def start(self, memory: Any, max_length: int) -> Any:
        """The carry before the first token, with room for `max_length` tokens; positions are per row. `memory` may be
        `unstacked`.

        Where the model `branches` there is a third argument, `places`: so many hypotheses a row share the carry.
        """

    def decode(self, tokens_BT: jax.Array, memory: Any, carry: Any = None) -> tuple[jax.Array, Any]:
        """Logits (B, T, V) in float32 for the token after each of `tokens_BT`, and the carry after the last.

        `carry=None` starts from the beginning with no cache. One token at a time with the carry equals all at once.
        """

    def __call__(self, source_BS: jax.Array, tokens_BT: jax.Array,
                 revise: Callable[[Any, jax.Array], jax.Array] | None = None, by: Sides | None = None) -> jax.Array:
        """Teacher-forced logits (B, T, V); `revise` (memory, tokens_BT) -> tokens_BT changes what the decoder reads.

        With `by`, for a model that `unpads`, logits (N, V): those that predict a token of the target.
        """
        memory = self.encode(source_BS) if by is None else self.encode(source_BS, by.source)
        tokens_BT = tokens_BT if revise is None else revise(memory, tokens_BT)
        return (self.decode(tokens_BT, memory) if by is None else self.decode(tokens_BT, memory, by=by.target))[0]

    def widened(self, carry: Any, wider: Any) -> Any:
        """`carry` with the room of `wider`, one of the same rows before the first token.

        Here what each leaf holds goes to the beginning of the wider one's.
        """
        return jax.tree.map(lambda leaf, wide: leaf if leaf.shape == wide.shape else jax.lax.dynamic_update_slice(
            wide, leaf.astype(wide.dtype), (0,) * leaf.ndim), carry, wider)

    def follow(self, carry: Any, parent_BK: jax.Array) -> Any:
        """A shared carry in which the hypothesis at each place goes on from that at place `parent_BK`."""

    def unstacked(self, params: Any, memory: Any) -> tuple[Any, Any]:
        """Both as `decode` takes them in a loop over tokens: what every step would cut out of them is cut out once."""
        return params, memory

    @property
    def branches(self) -> bool:
        """Whether hypotheses may share a row's carry: `start` takes `places`, `decode` a token for each, or, while they
        are all the same, one for all; and `follow`.

        Where not, a beam makes every hypothesis a row of its own, and copies rows.
        """
        return False

    @property
    def unpads(self) -> bool:
        """Whether `encode` and `decode` take `by`, where the tokens are, and leave padding out of what they can.

        The memory is the same (0 at padding), the logits (N, V).
        """
        return False

    @property
    def parallel_decoder(self) -> bool:
        """Whether `decode` computes all target positions at once, so that a second pass costs less than T steps.

        False is never wrong: what asks (scheduled sampling) then goes token by token, with the carry.
        """
        return False

    def search(self, params: Any, tables: dict[str, Any], decoding: Any, max_length: int) -> Any:
        """A search of the model's own, on the host, in place of `decoding/search.py`; None: it has none.

        Args:
          tables: what the learner's `finish` made of the final parameters; empty until training has ended.
          max_length: tokens, EOS counted.

        Returns:
          A callable from a source (ids with EOS) to its best translations, [(ids, score)], best first, ids ending in
          EOS unless cut; with `diagnose(sources) -> {metric: value}`, what it knows of its own errors.
        """
        return None

    def check(self) -> None:
        """Raises UserError where fields do not fit each other; called before the data are known, and again after."""

    def target_limit(self) -> int | None:
        """The longest target, tokens with EOS, that `start` and `decode` take; None where they take any."""
        return None

    def partition_rules(self) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
        """(regex on a parameter's path, mesh axis of each trailing dimension); the first match wins."""
        # No 'tensor' on kernels: the gates of a cell lie side by side in one, and with both axes on a kernel that a
        # scan over time reads, XLA gave wrong gradients (jax 0.10.2; tests/test_agreement.py shows it).
        return (('embedding$', ('tensor', 'fsdp')), ('kernel$', ('fsdp', None)))

    def capture(self, params: Any, batch: Any) -> dict[str, jax.Array]:
        """One teacher-forced pass over `batch`, seen from inside.

        Returns {path: array}: attention weights as '.../cross_attention' (N, B, H, T, S) and '.../self_attention',
        gates, cell and hidden states as (B, T, D), with a leading N where layers are scanned; '.../window' (B, T, 3),
        the left edge, centre and right edge of local attention, in source positions from 1.
        """
        tokens_BT = shift_right(batch.target)
        _, sown = self.apply({'params': params}, batch.source, tokens_BT, mutable=['intermediates'])
        return shown(sown)


def shown(sown: Any) -> dict[str, jax.Array]:
    """{path: array} of what one `apply` has sown."""
    leaves = jax.tree_util.tree_flatten_with_path(sown.get('intermediates', {}))[0]
    return {'/'.join(str(key.key) for key in path if hasattr(key, 'key')): leaf for path, leaf in leaves}


def shift_right(target_BT: jax.Array) -> jax.Array:
    """Decoder inputs: BOS, then the target without its last column."""
    return jax.numpy.pad(target_BT[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)


def counted(tokens_BT: jax.Array, mask_BS: jax.Array) -> jax.Array:
    """True on decoder inputs behind which there is a token to predict, of rows that have a source: what counts where
    statistics are taken over a batch. Behind EOS comes padding.
    """
    return (tokens_BT != PAD) & (tokens_BT != EOS) & mask_BS.any(axis=1, keepdims=True)
