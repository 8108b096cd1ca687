"""Other people's programs, each in a worker of its own; `python -m benchmarks.peers` makes their environment."""
