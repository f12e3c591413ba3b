"""Benchmarks of a whole server: `python -m benchmarks`."""
