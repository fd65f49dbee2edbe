"""What CONTRACT §3 defines and this version does not do yet: read, then refused by name, never ignored.

The whole list is here. Whoever builds one of these removes its line.
"""

from collections.abc import Iterator

from billing.catalog.findings import Finding
from billing.catalog.model import Catalog, Plan

_REFUSED = "not supported by this version: "


def refusal(what: str, instead: str) -> str:
    """The message for something that is not supported, and what to do instead."""
    return f"{_REFUSED}{what}; {instead}"


def unsupported(catalog: Catalog) -> Iterator[Finding]:
    """Find every use of what this version does not do."""
    for agreement in catalog.agreements:
        yield Finding(agreement.file, agreement.line, "kind", refusal("agreements", "take this entry out"))
    for plan in catalog.plans:
        for line, key, what, instead in _of_plan(plan):
            yield Finding(plan.file, line, key, refusal(what, instead))


def _of_plan(plan: Plan) -> Iterator[tuple[int, str, str, str]]:
    if plan.breakage != "at_expiry":
        yield plan.line, "breakage.policy", f"the policy {plan.breakage!r}", "write at_expiry"
