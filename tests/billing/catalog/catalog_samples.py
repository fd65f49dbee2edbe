"""Short catalogues as text, and functions that read them in tests."""

from pathlib import Path

from billing.catalog import Catalog, CatalogFinding, lint_folder, load_folder

BOOK = """\
kind: price_book
name: retail
version: 1
currency: CNY
effective_from: "2026-01-01T00:00:00+08:00"
"""
PLAN = """\
kind: plan
name: token-9.9
version: 1
title: {zh: "9.9元词元包"}
price: {amount: "9.90", currency: CNY, tax_rate: "0.06"}
cycle: {kind: subscription_month}
buckets:
  - {unit: STD_TOKEN, amount: "10000000", kind: periodic}
"""
BANDS = """\
time_bands:
  peak: {timezone: Asia/Shanghai, days: [mon, tue, wed, thu, fri], hours: ["09:00-12:00", "14:00-18:00"]}
  late: {timezone: Asia/Shanghai, days: [mon, tue, wed, thu, fri, sat, sun], hours: ["17:00-22:00"]}
  night: {timezone: Asia/Shanghai, days: [mon, tue, wed, thu, fri, sat, sun], hours: ["22:00-06:00"]}
"""


def rows(*lines: str) -> str:
    """Return the rows of a book; each argument is the inside of a flow mapping without its price."""
    return "rows:\n" + "".join(f'  - {{{line}{", " if line else ""}per_million: {{input: "1"}}}}\n' for line in lines)


def write(folder: Path, *documents: str) -> Path:
    """Write documents into one file of a folder."""
    (folder / "catalog.yaml").write_text("---\n".join(documents), encoding="utf-8")
    return folder


def load(folder: Path, *documents: str) -> Catalog:
    """Load documents that have no errors."""
    return load_folder(write(folder, *documents))


def findings(folder: Path, *documents: str) -> tuple[CatalogFinding, ...]:
    """Return the findings in documents."""
    return lint_folder(write(folder, *documents))[1]


def lines(folder: Path, *documents: str) -> list[str]:
    """Return the findings in documents as printed, with the file's name alone."""
    return [str(finding).replace(f"{folder}/", "") for finding in findings(folder, *documents)]
