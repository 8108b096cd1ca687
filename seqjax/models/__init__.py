"""Whole systems, one file a family, each a Linen module that is its own configuration."""
