"""Producers of the input topics: usage, commands, resubmissions."""
