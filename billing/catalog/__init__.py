"""Catalogue of price books, plans and holiday tables: immutable versions, read from YAML and checked before use.

Holds values and rules: no SQL, no clock. Start with :func:`load_folder`. The other names serve code that checks, stores
or publishes a catalogue.
"""

from pathlib import Path

from billing.catalog.check import check
from billing.catalog.entries import CatalogEntry, body_sha256, canonical_json
from billing.catalog.findings import ERROR, WARNING, CatalogError, CatalogFinding
from billing.catalog.load import read_folder
from billing.catalog.model import (
    TEXT_DIMENSIONS,
    Adjustment,
    Catalog,
    Cycle,
    Holidays,
    Members,
    Overage,
    Plan,
    PlanBucket,
    PriceBook,
    PriceRow,
    TimeBand,
    Window,
)

__all__ = [
    "ERROR",
    "TEXT_DIMENSIONS",
    "WARNING",
    "Adjustment",
    "Catalog",
    "CatalogEntry",
    "CatalogError",
    "CatalogFinding",
    "Cycle",
    "Holidays",
    "Members",
    "Overage",
    "Plan",
    "PlanBucket",
    "PriceBook",
    "PriceRow",
    "TimeBand",
    "Window",
    "body_sha256",
    "canonical_json",
    "check",
    "lint_folder",
    "load_folder",
]


def lint_folder(folder: Path | str) -> tuple[Catalog, tuple[CatalogFinding, ...]]:
    """Read and check a folder: return the entries that could be read, and every finding sorted by file and line."""
    catalog, findings = read_folder(folder)
    return catalog, tuple(sorted([*findings, *check(catalog)]))


def load_folder(folder: Path | str) -> Catalog:
    """Read a folder of catalogue files and return its catalogue.

    Raises:
        CatalogError: with every error found in reading and checking. Warnings do not raise.
    """
    catalog, findings = lint_folder(folder)
    errors = [finding for finding in findings if finding.severity == ERROR]
    if errors:
        raise CatalogError(errors)
    return catalog
