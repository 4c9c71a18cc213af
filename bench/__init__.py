"""Benchmarks: the running server against what the cryptography alone costs, as ratios measured in one run."""
