"""Documented features of catalogue files that this version does not support. They are read and refused, never ignored.

The whole list is here. A change that adds support for one of them removes its line.
"""

from collections.abc import Iterator

from billing.catalog.findings import CatalogFinding
from billing.catalog.model import Catalog, Plan

_REFUSED = "not supported by this version: "


def refusal(what: str, instead: str) -> str:
    """Return the message for an unsupported feature, with the remedy."""
    return f"{_REFUSED}{what}; {instead}"


def unsupported(catalog: Catalog) -> Iterator[CatalogFinding]:
    """Find every use of an unsupported feature."""
    for agreement in catalog.agreements:
        yield CatalogFinding(agreement.file, agreement.line, "kind", refusal("agreements", "take this entry out"))
    for plan in catalog.plans:
        for line, key, what, instead in _of_plan(plan):
            yield CatalogFinding(plan.file, line, key, refusal(what, instead))


def _of_plan(plan: Plan) -> Iterator[tuple[int, str, str, str]]:
    if plan.breakage != "at_expiry":
        yield plan.line, "breakage.policy", f"the policy {plan.breakage!r}", "write at_expiry"
