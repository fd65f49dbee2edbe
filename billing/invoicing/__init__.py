"""Postpaid bills and committed spend."""
