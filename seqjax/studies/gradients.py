"""How far a gradient reaches: back to a word that stands so far from the end, and down to each layer of a stack.

Norms are Frobenius norms of Jacobians, estimated without bias (in the square) by one random direction a row: for v
standard normal, E |J^T v|^2 = |J|_F^2.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.data.vocabulary import BOS, EOS, PAD, UNK

SMALLEST = 1e-38  # of what float32 holds; a gradient below it is 0, and its logarithm is that of this
RECURRENT = ('recurrent_kernel', 'skip_kernel')


def amplified(params: Any, gain: float) -> Any:
    """The parameters with every matrix that multiplies a state times `gain`; models without any stay as they are."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * gain if getattr(path[-1], 'key', '') in RECURRENT else leaf, params)


def sources(size: int, distances: Sequence[int], rows: int, seed: int = 0) -> np.ndarray:
    """Random sources (D x rows, longest + 2) in which `distances[0]` words stand behind the first, and then EOS;
    `rows` of them, then those of the next distance. A source of a seed is the beginning of its longer ones."""
    rng = np.random.default_rng(seed)
    longest = max(distances)
    words = rng.integers(UNK + 1, size, (rows, longest + 2), dtype=np.int32)
    found = np.tile(words, (len(distances), 1))
    end = np.repeat(np.asarray(distances) + 1, rows)[:, None]
    place = np.arange(longest + 2)
    return np.where(place < end, found, np.where(place == end, EOS, PAD)).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def first_word(model: Any, params: Any, source_BS: jax.Array, direction_BV: jax.Array) -> jax.Array:
    """The gradient (B, E) of v . logits of the first target word, by the embedding of each row's first source word.

    Args:
      model: sized; its source embeddings are the parameter 'source_embedding' alone.
      direction_BV: v.
    """
    B, (V, _) = source_BS.shape[0], params['source_embedding'].shape
    # Every first word gets a row of the table of its own, so that the gradient by it is that by one place.
    alone = model.clone(source_size=V + B)
    own_BS = source_BS.at[:, 0].set(V + jnp.arange(B))

    def seen(first_BE: jax.Array) -> jax.Array:
        variables = {'params': {**params, 'source_embedding': jnp.concatenate([params['source_embedding'], first_BE])}}
        memory = alone.apply(variables, own_BS, method='encode')
        logits_BTV = alone.apply(variables, jnp.full((B, 1), BOS, jnp.int32), memory, method='decode')[0]
        return (direction_BV * logits_BTV[:, 0]).sum()

    return jax.grad(seen)(params['source_embedding'][source_BS[:, 0]])


def reach(model: Any, params: Any, distances: Sequence[int], rows: int = 8, seed: int = 0) -> np.ndarray:
    """log10 of |d logits / d embedding of the first word| at each distance (D,), the mean over `rows` sources.

    A distance is the number of words between the first one and the end, where the decoder begins.
    """
    source_BS = sources(model.source_size, distances, rows, seed)
    direction_BV = np.random.default_rng((seed, 1)).normal(size=(rows, model.target_size))
    gradient_BE = np.asarray(first_word(model, params, jnp.asarray(source_BS), jnp.asarray(
        np.tile(direction_BV, (len(distances), 1)), jnp.float32)), np.float64)
    norm_B = np.sqrt(np.square(gradient_BE).sum(axis=1))
    return np.log10(np.maximum(norm_B, SMALLEST)).reshape(len(distances), rows).mean(axis=1)


def by_layer(loss: Any, params: Any, stack: str) -> np.ndarray:
    """The norm of the gradient of loss(params) by the parameters of each layer (N,), of a stack that is scanned.

    Args:
      stack: the stack's name among the parameters; its leaves lead with the layer.
    """
    gradient = jax.jit(jax.grad(loss))(params)[stack]
    squares = [np.square(np.asarray(leaf, np.float64)).reshape(leaf.shape[0], -1).sum(axis=1)
               for leaf in jax.tree.leaves(gradient)]
    return np.sqrt(np.sum(squares, axis=0))
