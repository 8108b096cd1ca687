"""From a model, its parameters and source sentences to hypotheses; knows of the model only the decoder contract."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqjax.decoding.beam import Follow, batch_axes, beam, length_penalty, reorder, repeat
from seqjax.decoding.greedy import Step, greedy
from seqjax.decoding.options import BOS, PAD, Decoding
from seqjax.decoding.sampling import sample


class Hypotheses(NamedTuple):
    """K hypotheses a row, the best first; K is 1 for greedy decoding and for sampling."""

    tokens_BKT: jax.Array  # int32, PAD after EOS; without EOS where max_length cut the hypothesis
    scores_BK: jax.Array  # float32, the log probability divided by the length penalty of beam search
    log_probs_BK: jax.Array  # float32, log p(tokens | source), EOS included
    done_B: jax.Array | None = None  # rows in which a greater `max_length` would change nothing; None: not known


def search(model: Any, params: Any, source_BS: jax.Array, decoding: Decoding, max_length: int,
           rng: jax.Array | None = None, row_B: jax.Array | None = None) -> Hypotheses:
    """Decodes a batch: encodes once, then one while loop that ends when every row has.

    Pure, and jittable with `model`, `decoding` and `max_length` static. A row's result depends on no other row. A row
    whose source is all PAD is a filler: it decodes nothing and comes back as PAD with score 0.

    Args:
      model: has the methods of the decoder contract, by `model.apply({'params': params}, ..., method=name)`.
      params: its parameters.
      source_BS: int32, each row padded with PAD on the right.
      decoding: how to search. Its own `max_length` and `batch_size` are the caller's to read.
      max_length: tokens, EOS counted.
      rng: key of the samples; by default that of `decoding.seed`.
      row_B: int32, the id under which a row is sampled, say its index in its data set; by default its place in the
        batch, which makes its sample depend on that place.
    """
    decoding.check()
    B = source_BS.shape[0]
    K = decoding.beam_size if decoding.method == 'beam' else 1
    step, carry, follow = shared(model, params, source_BS, max_length, K) if model.branches and K > 1 else apart(
        model, params, source_BS, max_length, K)
    filler_B = (source_BS == PAD).all(axis=1)

    if decoding.method == 'beam':
        *found, done_B = beam(step, carry, follow, filler_B, K, decoding.length_penalty, max_length)
        tokens_BKT, scores_BK, log_probs_BK = (x[:, :decoding.nbest] for x in found)
    else:
        if decoding.method == 'greedy':
            tokens_BT, log_probs_B, done_B = greedy(step, carry, filler_B, max_length)
        else:
            rng = jax.random.key(decoding.seed) if rng is None else rng
            row_B = jnp.arange(B) if row_B is None else row_B
            tokens_BT, log_probs_B, done_B = sample(step, carry, filler_B, max_length, rng, row_B,
                                                    decoding.temperature, decoding.top_k, decoding.top_p)
        tokens_BKT, log_probs_BK = tokens_BT[:, None], log_probs_B[:, None]
        scores_BK = log_probs_BK
    return Hypotheses(jnp.where(filler_B[:, None, None], PAD, tokens_BKT),
                      jnp.where(filler_B[:, None], 0.0, scores_BK), jnp.where(filler_B[:, None], 0.0, log_probs_BK),
                      done_B)


def apart(model: Any, params: Any, source_BS: jax.Array, max_length: int, K: int) -> tuple[Step, Any, Follow]:
    """Each of the K hypotheses is a row: one step of all, their carry before the first, and how they change places."""
    def encode(source_BS):
        return model.apply({'params': params}, source_BS, method='encode')

    def start(memory):
        return model.apply({'params': params}, memory, max_length, method='start')

    def source(rows):
        return jax.ShapeDtypeStruct((rows, source_BS.shape[1]), source_BS.dtype)

    memory_axes = batch_axes(lambda rows: jax.eval_shape(encode, source(rows)))
    memory = repeat(encode(source_BS), memory_axes, K)
    carry = start(memory)
    looped, memory = model.unstacked(params, memory)

    def step(tokens_B, carry):
        logits_BTV, carry = model.apply({'params': looped}, tokens_B[:, None], memory, carry, method='decode')
        return logits_BTV[:, -1], carry

    def follow(carry, parent_BK):
        axes = batch_axes(lambda rows: jax.eval_shape(lambda x: start(encode(x)), source(rows)))
        return reorder(carry, axes, parent_BK)

    return step, carry, follow


def shared(model: Any, params: Any, source_BS: jax.Array, max_length: int, K: int) -> tuple[Step, Any, Follow]:
    """As `apart`, of a model whose K hypotheses of a row share what was made of the source, and the carry."""
    memory = model.apply({'params': params}, source_BS, method='encode')
    carry = model.apply({'params': params}, memory, max_length, K, method='start')
    looped, memory = model.unstacked(params, memory)

    def step(tokens_B, carry):
        logits_BKV, carry = model.apply({'params': looped}, tokens_B.reshape(-1, K), memory, carry, method='decode')
        return logits_BKV.reshape(-1, logits_BKV.shape[-1]), carry

    return step, carry, model.follow


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
