"""Readers of topics: account events, outcomes of commands, the input log."""
