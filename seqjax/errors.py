"""Errors that are the user's to mend: one line, the value, the reason, the fix; the launcher exits with 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake at the keyboard or in the data. Its text is one line that names the value, the reason and the fix."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the known name nearest to `name`, and the choices where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f'; did you mean {near[0]!r}?' if near else f'; choose one of {", ".join(known)}' if known else \
        '; there is none yet'
