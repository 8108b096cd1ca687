"""Statistical translation: word alignment, phrases, n-grams, the stack decoder and its weights. Knows arrays of ids."""
