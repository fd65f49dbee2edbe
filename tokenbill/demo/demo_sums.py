"""Sums that the demo reads from the database, with retries while the database is away."""

from __future__ import annotations

from billing.errors import DatabaseDown
from billing.store.proofs.committed_sums import CommittedSums
from tokenbill.demo.patience import Say, patiently


def committed_sums(database_url: str, say: Say) -> CommittedSums:
    """Return the sums over commits. A query waits while the database does not answer, and ``say`` reports the wait."""
    return CommittedSums(database_url, lambda query: patiently("the database", query, (DatabaseDown,), say))
