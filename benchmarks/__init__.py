"""Measures: one question per script, `python -m benchmarks.<name> [--quick]`."""
