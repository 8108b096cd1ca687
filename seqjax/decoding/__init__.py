"""Greedy, sampling and beam search over the decoder contract."""
