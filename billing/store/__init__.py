"""The SQL edge: one commit a transaction, and everything that is read back. SQLAlchemy and psycopg appear only here."""

from billing.store.errors import (
    BrokenInvariant,
    CatalogConflict,
    CatalogMoved,
    DatabaseDown,
    Fenced,
    NotPrepared,
    StoreError,
)
from billing.store.store import Store

__all__ = [
    "BrokenInvariant",
    "CatalogConflict",
    "CatalogMoved",
    "DatabaseDown",
    "Fenced",
    "NotPrepared",
    "Store",
    "StoreError",
]
