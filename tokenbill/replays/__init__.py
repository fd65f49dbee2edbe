"""Replays of accounts from the log: past balances, and histories for the correction of usage."""
