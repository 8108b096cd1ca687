"""The loop over tokens of every search: rows walk in step, with little room at first, and those that are left go on in
small groups with all of it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# (model, row_C) -> model: what a model carries of these rows alone, or of all where None, with all the room.
GoOn = Callable[[Any, jax.Array | None], Any]
# (extend, rows, model, done_B) -> rows: `walk` with the rest of its arguments.
Walk = Callable[[Callable, Any, Any, jax.Array], Any]
SHARE = 4  # a group is this part of a batch
LEAST = 4  # fewer rows make no group


def walk(extend: Callable, rows: Any, model: Any, done_B: jax.Array, max_length: int, room: int, go_on: GoOn,
         groups: bool = True, begin: int = 0) -> Any:
    """Extends all rows by a token at a time until each is done, or has `max_length` tokens.

    What a step costs grows with its rows, done or not, and with the room for what may still be written; and the longest
    of a batch ends long after most. So all walk with little room until that is used up or few are left, and these are
    gathered, a quarter of the batch at a time, and go on with all the room.

    Args:
      extend: (position, done_B, rows, model) -> (done_B, rows, model), one token more; changes no result of a done row.
      rows: a pytree whose leaves lead with rows.
      model: what the model carries, with room for `room` tokens.
      done_B: rows that have nothing to extend.
      max_length: the position at which to stop.
      room: the position at which those that are left need more room, at most `max_length`.
      go_on: what they go on with.
      groups: whether rows may be gathered; not where they lie on several devices.
      begin: the position of the first token that is still to come.

    Returns:
      The rows at the end.
    """
    B = len(done_B)
    few = B // SHARE if groups and B // SHARE >= LEAST else B

    def step(state):
        position, done_C, rows, model = state
        return (position + 1, *extend(position, done_C, rows, model))

    def going(enough, until, state):
        position, done_C, _, _ = state
        return (position < until) & ((~done_C).sum() > enough)

    position, done_B, rows, model = lax.while_loop(
        functools.partial(going, few if few < B else 0, room), step, (jnp.int32(begin), done_B, rows, model))
    to_the_end = functools.partial(lax.while_loop, functools.partial(going, 0, max_length), step)
    if few == B:
        return rows if room == max_length else to_the_end((position, done_B, rows, go_on(model, None)))[2]

    def rest(state):
        left_B, rows = state
        at_C = jnp.argsort(~left_B, stable=True)[:few]  # those that are left come first
        left_C, group = left_B[at_C], jax.tree.map(lambda leaf: leaf[at_C], rows)
        group = to_the_end((position, ~left_C, group, go_on(model, at_C)))[2]
        # Others that fill the group may have been cut in one before, and have their end there.
        to_C = jnp.where(left_C, at_C, B)
        return left_B.at[at_C].set(False), jax.tree.map(
            lambda leaf, new: leaf.at[to_C].set(new, mode='drop'), rows, group)

    return lax.while_loop(lambda state: state[0].any(), rest, (~done_B, rows))[1]
