"""Holds for usage that has not happened yet: authorisation, extension, release, settlement."""
