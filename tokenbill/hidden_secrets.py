"""Secrets in texts: what is printed, logged or answered passes through :func:`without_secrets`."""

from __future__ import annotations

import re

HIDDEN = "***"
_SECRETS = (
    # The password of a URL: up to the last @ of its word, because a password may contain one.
    re.compile(r"(?<=://)(?P<before>[^\s:/?#@'\"]*:)[^\s'\"/?#]*(?=@)"),
    # A password of a connection string, or of a URL's query.
    re.compile(r"(?P<before>\b(?:ssl)?password\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s'\"&]+)", re.IGNORECASE),
    # The secret of an API key, after its id, and the key that signs the requests of a webhook.
    re.compile(r"(?P<before>\btbk_[0-9a-f]{12}_)[\w-]+"),
    re.compile(r"(?P<before>\bwhsec_)[\w+/=-]+"),
)


def without_secrets(text: str) -> str:
    """Return a text with each password and secret token replaced by three asterisks."""
    for secret in _SECRETS:
        text = secret.sub(lambda found: found["before"] + HIDDEN, text)
    return text
