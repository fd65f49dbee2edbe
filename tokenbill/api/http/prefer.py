"""The header ``Prefer: wait=N`` (RFC 7240): how long a caller waits for an outcome."""

from __future__ import annotations

import re

ORDER_WAIT_SECONDS = 5
MAX_WAIT_SECONDS = 30
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,4})(?:$|[,;\s])")


def wait_seconds(prefer: str | None) -> int:
    """Return the seconds that the caller will wait, at most MAX_WAIT_SECONDS; ORDER_WAIT_SECONDS if it does not say."""
    found = _WAIT.search(prefer or "")
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else ORDER_WAIT_SECONDS
