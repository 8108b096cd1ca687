"""Named runs: a function each, whose docstring gives the paper, the command and the result to expect."""
