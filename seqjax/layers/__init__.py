"""Blocks. They know arrays, and no task, no data, no flag."""
