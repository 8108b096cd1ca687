"""From a model, its parameters and source sentences to hypotheses; knows of the model only the decoder contract."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqjax.decoding.beam import Follow, batch_axes, beam, length_penalty, reorder, repeat, taken
from seqjax.decoding.greedy import Step, greedy
from seqjax.decoding.options import BOS, PAD, Decoding
from seqjax.decoding.sampling import sample
from seqjax.decoding.walk import GoOn, walk


class Hypotheses(NamedTuple):
    """K hypotheses a row, the best first; K is 1 for greedy decoding and for sampling."""

    tokens_BKT: jax.Array  # int32, PAD after EOS; without EOS where max_length cut the hypothesis
    scores_BK: jax.Array  # float32, the log probability divided by the length penalty of beam search
    log_probs_BK: jax.Array  # float32, log p(tokens | source), EOS included


def search(model: Any, params: Any, source_BS: jax.Array, decoding: Decoding, max_length: int,
           rng: jax.Array | None = None, row_B: jax.Array | None = None, room: int | None = None,
           groups: bool = True) -> Hypotheses:
    """Decodes a batch: encodes once, then walks over tokens until every row has ended.

    Pure, and jittable with `model`, `decoding`, `max_length`, `room` and `groups` static. A row's result depends on no
    other row, but for rounding. A row whose source is all PAD is a filler: it decodes nothing and comes back as PAD
    with score 0.

    Args:
      model: has the methods of the decoder contract, by `model.apply({'params': params}, ..., method=name)`.
      params: its parameters.
      source_BS: int32, each row padded with PAD on the right.
      decoding: how to search. Its own `max_length` and `batch_size` are the caller's to read.
      max_length: tokens, EOS counted.
      rng: key of the samples; by default that of `decoding.seed`.
      row_B: int32, the id under which a row is sampled, say its index in its data set; by default its place in the
        batch, which makes its sample depend on that place.
      room: tokens that the carry has room for at first, which changes nothing but the time; by default all.
      groups: whether rows that are left may be gathered (`walk.py`); not where they lie on several devices, which would
        exchange them.
    """
    decoding.check()
    B = source_BS.shape[0]
    K = decoding.beam_size if decoding.method == 'beam' else 1
    before = begin(model, params, source_BS, max_length if room is None else min(room, max_length), max_length, K)
    filler_B = (source_BS == PAD).all(axis=1)
    loop = functools.partial(walk, max_length=max_length, room=before.room, go_on=before.go_on, groups=groups)

    if decoding.method == 'beam':
        found = beam(before.first, before.step, before.model, before.follow, filler_B, loop, max_length, K,
                     decoding.length_penalty)
        tokens_BKT, scores_BK, log_probs_BK = (x[:, :decoding.nbest] for x in found)
    else:
        if decoding.method == 'greedy':
            tokens_BT, log_probs_B = greedy(before.step, before.model, filler_B, loop, max_length)
        else:
            rng = jax.random.key(decoding.seed) if rng is None else rng
            row_B = jnp.arange(B) if row_B is None else row_B
            tokens_BT, log_probs_B = sample(before.step, before.model, filler_B, loop, max_length, rng, row_B,
                                            decoding.temperature, decoding.top_k, decoding.top_p)
        tokens_BKT, log_probs_BK = tokens_BT[:, None], log_probs_B[:, None]
        scores_BK = log_probs_BK
    return Hypotheses(jnp.where(filler_B[:, None, None], PAD, tokens_BKT),
                      jnp.where(filler_B[:, None], 0.0, scores_BK), jnp.where(filler_B[:, None], 0.0, log_probs_BK))


class Beginning(NamedTuple):
    """A search before its first token."""

    first: Step  # on one hypothesis a row, for the first token
    step: Step  # on K of them, for every other
    model: Any  # what the model carries: its memory of the source, and its carry
    follow: Follow
    go_on: GoOn
    room: int  # tokens that there is room for in it


def begin(model: Any, params: Any, source_BS: jax.Array, room: int, max_length: int, K: int) -> Beginning:
    """Encodes the source. The K hypotheses of a row are one until the first token. From then on each is a row of its
    own, with a copy of what was made of the source; or they share that and the carry, where the model `branches`.
    """
    together = K > 1 and model.branches

    def encode(source_BS):
        return model.apply({'params': params}, source_BS, method='encode')

    def start(memory, room):
        return model.apply({'params': params}, memory, room, *([K] if together else []), method='start')

    def shapes(rows):
        source = jax.ShapeDtypeStruct((rows, source_BS.shape[1]), source_BS.dtype)
        memory = jax.eval_shape(lambda source_BS: model.unstacked(params, encode(source_BS))[1], source)
        return memory, jax.eval_shape(lambda memory: start(memory, room), memory)

    axes = batch_axes(shapes)
    looped, memory = model.unstacked(params, encode(source_BS))
    little, all_of_it = (jax.eval_shape(lambda memory, room=room: start(memory, room), memory)
                         for room in (room, max_length))
    if little == all_of_it:
        room = max_length

    def decode(tokens_BT, carried):
        memory, carry = carried
        logits, carry = model.apply({'params': looped}, tokens_BT, memory, carry, method='decode')
        return logits.reshape(-1, logits.shape[-1]), (memory, carry)

    def first(tokens_B, carried):
        logits_BV, carried = decode(tokens_B[:, None], carried)
        return logits_BV, carried if together else repeat(carried, axes, K)

    def step(tokens_B, carried):
        return decode(tokens_B.reshape(-1, K if together else 1), carried)

    def follow(carried, parent_BK):
        memory, carry = carried  # hypotheses of a row have the same source
        return memory, model.follow(carry, parent_BK) if together else reorder(carry, axes[1], parent_BK)

    def go_on(carried, row_C):
        if row_C is not None:
            places = row_C if together else (row_C[:, None] * K + jnp.arange(K)).reshape(-1)
            carried = taken(carried, axes, places)
        memory, carry = carried
        return memory, model.widened(carry, start(memory, max_length))

    return Beginning(first, step, (memory, start(memory, room)), follow, go_on, room)


def score(model: Any, params: Any, source_BS: jax.Array, target_BT: jax.Array, alpha: float = 0.0) -> jax.Array:
    """What `search` would give the targets: teacher-forced log p(target | source) / length_penalty, float32 (B,).

    A reference that outscores the hypothesis of a search is an error of the search, not of the model.

    Args:
      model, params, source_BS: as in `search`.
      target_BT: int32, each row ends in EOS, then PAD; EOS counts. An empty row scores 0.
      alpha: exponent of the length penalty; 0 gives log probabilities.
    """
    variables = {'params': params}
    memory = model.apply(variables, source_BS, method='encode')
    input_BT = jnp.pad(target_BT[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)
    logits_BTV, _ = model.apply(variables, input_BT, memory, method='decode')
    log_probs_BTV = jax.nn.log_softmax(logits_BTV.astype(jnp.float32), axis=-1)
    log_probs_BT = jnp.take_along_axis(log_probs_BTV, target_BT[:, :, None], axis=-1)[:, :, 0]
    log_probs_B = jnp.where(target_BT == PAD, 0.0, log_probs_BT).sum(axis=1)
    return log_probs_B / length_penalty((target_BT != PAD).sum(axis=1), alpha)
