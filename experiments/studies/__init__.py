"""Studies: a function each, in a file each, from the form ('full', 'quick', 'smoke') to a Study."""
