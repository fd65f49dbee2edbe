"""Producers of the input topics: usage, account commands, resubmissions."""
