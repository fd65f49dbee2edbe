"""Voiding and correction of usage: the account is replayed from its opening and the difference is posted."""
