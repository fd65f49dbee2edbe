"""Tells people's systems of account events: signed HTTP requests, tried again until they arrive."""
