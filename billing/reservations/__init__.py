"""Holds on quota and money for future usage: reservation, extension, release, settlement."""
