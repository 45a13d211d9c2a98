"""Benchmarks: this engine beside others, in one run, on the same ids (docs/performance.md)."""
