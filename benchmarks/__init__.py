"""Benchmarks: ratios to a baseline of the same run, with the conditions. Started by ``tokenbill bench``."""
