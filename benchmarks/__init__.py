"""Measures mailmaps against its peers, in one run: `python -m benchmarks`, or `make bench`."""
