"""Readers of topics: output topics, outcomes of commands, the input log."""
