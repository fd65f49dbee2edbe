"""Volume price of a whole period, posted at its end (docs/price-books.md, "Volume price of a whole period")."""

from typing import Any

import pytest
from billing_samples import (
    BOOK,
    Line,
    MakeCalculator,
    buy,
    catalog,
    clock,
    closed,
    encode,
    line,
    opened,
    plan,
    top_up,
    use,
)
from recorded_simulation import RecordedSimulation

from schemas.times import parse_time_us

TIERS = [{"up_to": "100"}, {"up_to": "500", "multiply": "0.5"}, {"up_to": None, "multiply": "2"}]


def book(tiers: Any = TIERS, version: int = 1, effective: str = "2020-01-01", **row: Any) -> dict[str, Any]:
    rule = {"kind": "volume", "every": "week", "count": "input", "tiers": tiers, "settle": "at_end"}
    priced = {"model": "v", "per_million": {"input": "1060000"}, "standard_tokens": {"input": "1"}, "periods": "whole"}
    return BOOK | {
        "version": version,
        "effective_from": f"{effective}T00:00:00+08:00",
        "periods": {"whole": rule},
        "rows": [*BOOK["rows"], priced | row],
    }


PLANS = (
    plan("half", "50", overage="pay_as_you_go", cycle={"kind": "days", "days": 60}),
    plan("blocked", "50", cycle={"kind": "days", "days": 60}),
)
CATALOG = catalog(book(), *PLANS)


class Run:
    """A life of account ``a`` from Monday 2 November on; the week ends on the 9th, and is settled on the 10th."""

    def __init__(
        self,
        calculator: MakeCalculator,
        steps: list[Line],
        as_of: str = "10 00:00",
        entries: Any = CATALOG,
        **terms: Any,
    ) -> None:
        self.simulation = RecordedSimulation(entries, calculator(), lines_per_commit=2)
        self.simulation.feed(encode([opened(at="02 00:00", **terms), *steps]))
        self.document = self.simulation.document(parse_time_us(clock(as_of)))
        self.wallet = self.document["accounts"]["a"]["wallet"]

    def posted(self) -> list[tuple[str, str, int, str]]:
        told = (e["data"] for e in self.simulation.published("account.events") if e["type"] == "true_up.posted.v1")
        return [(one["price_book"], one["counted"], one["tier"], one["charged"]) for one in told]


def v(tokens: int, at: str = "03 00:00", **data: Any) -> Line:
    return use(tokens, at, model="v", **data)


def test_all_units_of_the_period_get_the_tier_that_it_reached(calculator: MakeCalculator) -> None:
    tiers = [
        {"up_to": "10000", "per_million": {"requests": "1400000"}},
        {"up_to": "50000", "per_million": {"requests": "1320000"}},
        {"up_to": None, "per_million": {"requests": "1250000"}},
    ]
    rule = {"kind": "volume", "count": ["requests"], "tiers": tiers, "settle": "at_end"}
    row = {"model": "v", "per_million": {"requests": "1400000"}, "periods": "v"}
    entries = catalog(BOOK | {"currency": "USD", "periods": {"v": rule}, "rows": [row]})
    steps = [opened(currency="USD"), v(10_500, "02 00:00", meter="requests")]
    for as_of, wallet in (("2026-12-01 23:59:59", "-14700"), ("2026-12-02 00:00", "-13860")):
        simulation = RecordedSimulation(entries, calculator())
        simulation.feed(encode(steps))
        assert simulation.document(parse_time_us(clock(as_of)))["accounts"]["a"]["wallet"] == wallet


@pytest.mark.parametrize(
    ("used", "charged", "settled"),
    [
        ([60], "-63.6", "-63.6"),
        ([60, 60], "-127.2", "-63.6"),  # 120 × 0.53
        ([60, 60, 60], "-159", "-95.4"),
        ([100], "-106", "-53"),
        ([60, 60, 400, 1], "-340.265", None),
    ],
)
def test_the_wallet_pays_or_gets_back_the_difference(
    calculator: MakeCalculator, used: list[int], charged: str, settled: str | None
) -> None:
    steps = [v(tokens, f"03 0{hour}:00") for hour, tokens in enumerate(used)]
    if settled is None:  # 521 × 2.12
        charged, settled = "-341.32", "-1104.52"
    assert Run(calculator, steps, "09 23:59:59").wallet == charged
    run = Run(calculator, steps)
    assert run.wallet == settled
    assert run.document["ledger"]["sum"] == "0"
    assert float(run.document["revenue_net"]) == pytest.approx(-float(settled) / 1.06)


def test_the_entry_has_the_tax_of_the_book_and_a_line_of_its_own(calculator: MakeCalculator) -> None:
    run = Run(calculator, [v(60), v(60, "04 00:00")])
    assert run.posted() == [("retail@1", "120", 1, "-63.6")]
    assert run.document["ledger"]["trial_balance"] == {
        "customer_deposits": "63.6", "output_vat": "-3.6", "revenue_true_up": "60", "revenue_usage": "-120",
    }  # fmt: skip


def test_gift_money_that_paid_comes_back_as_gift_money(calculator: MakeCalculator) -> None:
    run = Run(calculator, [top_up("63.6", "g", "02 01:00", gift=True), v(60), v(60, "04 00:00")])
    account = run.simulation.calculator.account("a")
    assert account is not None
    assert (run.wallet, account.extras.gift_pico) == ("0", 0)  # it covers the debt of the wallet first
    run = Run(calculator, [top_up("212", "g", "02 01:00", gift=True), v(60), v(60, "04 00:00")])
    account = run.simulation.calculator.account("a")
    assert account is not None
    assert (run.wallet, account.extras.gift_pico) == ("148.4", 148_400_000_000_000)


def test_only_what_the_wallet_paid_is_priced_again(calculator: MakeCalculator) -> None:
    """50 of the tokens come from the plan; they count towards the tier."""
    run = Run(calculator, [buy("half", "G", "02 01:00"), v(60), v(60, "04 00:00")])
    assert (run.posted(), run.wallet) == ([("retail@1", "120", 1, "-37.1")], "-37.1")  # 70 × 0.53
    run = Run(calculator, [buy("blocked", "G", "02 01:00"), v(60), v(60, "04 00:00")])
    assert (run.posted(), run.wallet) == ([], "0")


def test_late_usage_is_settled_a_grace_later(calculator: MakeCalculator) -> None:
    steps = [v(60), v(30, "10 12:00"), v(20, "08 00:00"), v(20, "08 01:00")]
    at_once = Run(calculator, steps, "10 12:00")
    assert at_once.posted() == []  # 60 stay in the first tier
    assert at_once.wallet == "-137.8"  # 130 tokens, 30 of the next week
    run = Run(calculator, steps, "11 12:00")
    assert run.posted() == [("retail@1", "100", 1, "-53")]
    assert run.wallet == "-84.8"


def test_each_version_of_the_book_has_its_tiers_for_the_usage_it_priced(calculator: MakeCalculator) -> None:
    cheaper = [{"up_to": "100", "multiply": "0.9"}, {"up_to": None, "multiply": "0.1"}]
    entries = catalog(book(), book(cheaper, 2, "2026-11-05"))
    run = Run(calculator, [v(60), v(60, "06 00:00")], entries=entries)
    assert run.posted() == [("retail@1", "120", 1, "-31.8"), ("retail@2", "120", 1, "-50.88")]
    assert run.wallet == "-38.16"  # 60 × 0.53 + 60 × 0.106


def test_adjustments_and_the_minimum_of_each_event_hold_in_every_tier(calculator: MakeCalculator) -> None:
    entries = catalog(
        book(minimum_charge="10") | {"adjustments": [{"energy_source": "solar", "multiply": "0.5", "reason": "green"}]}
    )
    steps = [v(110, data={"energy_source": "solar"}), v(10, "04 00:00")]
    run = Run(calculator, steps, "09 00:00", entries)
    assert run.wallet == "-68.3"  # 110 × 0.53, and 10 where 5.3 is too little
    assert Run(calculator, steps, entries=entries).wallet == "-39.15"  # 110 × 0.265 + 10


def test_a_correction_changes_the_entry_before_and_after_it(calculator: MakeCalculator) -> None:
    for at in ("05 00:00", "12 00:00"):
        void = line("usage.voided.v1", "a", at, {"source": "test", "id": "second", "reason": "r"})
        run = Run(calculator, [v(60), v(60, "04 00:00", id="second"), void], "13 00:00")
        assert run.wallet == "-63.6"
        assert run.document["ledger"]["sum"] == "0"


def test_a_closed_account_is_settled_too(calculator: MakeCalculator) -> None:
    run = Run(calculator, [v(60), v(60, "04 00:00"), closed("05 00:00")])
    assert (run.posted(), run.wallet) == ([("retail@1", "120", 1, "-63.6")], "-63.6")


def test_a_postpaid_account_finds_the_entry_on_its_next_bill(calculator: MakeCalculator) -> None:
    terms = {"payment": "postpaid", "bill_day": 12}
    run = Run(calculator, [v(60), v(60, "04 00:00")], "12 00:00", **terms)
    (bill,) = [e["data"] for e in run.simulation.published("account.events") if e["type"] == "bill.issued.v1"]
    assert (bill["amount"], run.wallet) == ("63.6", "0")


def test_a_free_first_tier_is_charged_at_the_end(calculator: MakeCalculator) -> None:
    entries = catalog(book([{"up_to": "100", "multiply": "0"}, {"up_to": None}]))
    run = Run(calculator, [v(60), v(60, "04 00:00")], "09 00:00", entries)
    assert run.wallet == "0"
    assert Run(calculator, [v(60), v(60, "04 00:00")], entries=entries).wallet == "-127.2"
