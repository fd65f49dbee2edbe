"""The sums that the demo reads from the database, while the database may be away."""

from __future__ import annotations

from billing.errors import DatabaseDown
from billing.store.proofs.committed_sums import CommittedSums
from tokenbill.demo.patience import Say, patiently


def committed_sums(database_url: str, say: Say) -> CommittedSums:
    """Sums over commits; a query waits for a database that does not answer, and ``say`` reports the wait."""
    return CommittedSums(database_url, lambda query: patiently("the database", query, (DatabaseDown,), say))
