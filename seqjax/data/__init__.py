"""Anything to arrays of fixed shape: sources, vocabularies, batches."""
