"""Postpaid bills and spend commitments."""
