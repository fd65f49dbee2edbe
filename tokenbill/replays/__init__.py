"""Replays of accounts from the log: past balances, and histories for the correction of usage."""

__all__ = ["MAX_RECORDS"]

MAX_RECORDS = 5_000_000
"""Largest number of records of a partition that one replay reads."""
