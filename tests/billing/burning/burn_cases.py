"""Cases for the burning rules: the steps of one account, and the state they must lead to."""

from dataclasses import dataclass, field
from typing import Any

from billing_samples import Line, MakeCalculator, catalog, clock, opened, simulate

from schemas.times import parse_time_us


@dataclass
class Case:
    """Steps of one account and the expected state. Each bucket is written ``remaining status``."""

    name: str
    plans: list[dict[str, Any]]
    steps: list[Line]
    buckets: dict[str, str] = field(default_factory=dict)
    wallet: str = "0"
    absorbed: str = "0"
    absorbed_amount: str = "0"
    revenue: str = "0"
    breakage: str = "0"
    as_of: str = ""
    opened: dict[str, Any] = field(default_factory=dict)
    book: tuple[dict[str, Any], ...] = ()


def check_case(case: Case, calculator: MakeCalculator) -> None:
    """Run a case and compare the resulting state."""
    book = catalog(*case.plans, *case.book)
    as_of_us = parse_time_us(clock(case.as_of)) if case.as_of else None
    document = simulate(calculator(), book, [opened(**case.opened), *case.steps], as_of_us)

    account = document["accounts"]["a"]
    found = Case(
        case.name,
        case.plans,
        case.steps,
        {bucket["grant_id"]: f"{bucket['remaining']} {bucket['status']}" for bucket in account["buckets"]},
        account["wallet"],
        account["absorbed"],
        account["absorbed_amount"],
        document["revenue_net"],
        document["breakage"],
        case.as_of,
        case.opened,
        case.book,
    )
    assert found == case
    assert document["events"]["rejected"] == 0
    assert document["ledger"]["sum"] == "0"
