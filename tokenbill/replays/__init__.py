"""Accounts decided again from the log: past balances and histories of corrections."""
