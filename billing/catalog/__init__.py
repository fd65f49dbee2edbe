"""The catalogue: price books, plans and holidays as immutable versions, read from YAML and judged before they are used.

Pure values and rules: no SQL, no clock. ``load_folder`` is the door; the rest is for who checks, stores or publishes.
"""

from pathlib import Path

from billing.catalog.check import check
from billing.catalog.entries import CatalogEntry, body_sha256, canonical_json
from billing.catalog.findings import ERROR, WARNING, CatalogError, Finding
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
    "Cycle",
    "Finding",
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


def lint_folder(folder: Path | str) -> tuple[Catalog, tuple[Finding, ...]]:
    """Read and judge a folder: the entries that could be read, and every finding by file and line."""
    catalog, findings = read_folder(folder)
    return catalog, tuple(sorted([*findings, *check(catalog)]))


def load_folder(folder: Path | str) -> Catalog:
    """Read a folder of catalogue files that is fit for use.

    Raises:
        CatalogError: with every error found, reading and judging; warnings do not stop.
    """
    catalog, findings = lint_folder(folder)
    errors = [finding for finding in findings if finding.severity == ERROR]
    if errors:
        raise CatalogError(errors)
    return catalog
