"""Postpaid accounts: bills, collection, chargeback, arrears, credit limit. One token costs 1.06 yuan."""

from typing import Any

import pytest
from billing_samples import Line, MakeCalculator, buy, catalog, clock, closed, encode, line, opened, plan, top_up, use
from recorded_simulation import RecordedSimulation

from billing.invoicing.bills import next_bill_us
from schemas.times import format_time_us, parse_time_us

CATALOG = catalog(plan("A"), plan("HALF", "50", "53.00"), plan("PACK", "1", overage="pay_as_you_go"))
BILL = "a/2026-11"  # the bill for the period that ends with 4 November


def postpaid(**data: Any) -> Line:
    return opened(payment="postpaid", **({"bill_day": 5, "due_days": 10} | data))


def collected(amount: str, ref: str, at: str, bill: str = BILL) -> Line:
    return line("bill.collected.v1", "a", at, {"bill_id": bill, "amount": amount, "payment_ref": ref})


def charged_back(amount: str, at: str, bill: str = BILL) -> Line:
    return line("bill.charged_back.v1", "a", at, {"bill_id": bill, "amount": amount, "reason": "disputed"})


def credit(limit: str, at: str) -> Line:
    return line("credit.changed.v1", "a", at, {"credit_limit": limit})


class Run:
    """A simulation of some steps, with the account rolled forward to a given time."""

    def __init__(self, calculator: MakeCalculator, steps: list[Line], as_of: str = "14 00:00", size: int = 100) -> None:
        simulation = RecordedSimulation(CATALOG, calculator(), lines_per_commit=size)
        simulation.feed(encode(steps))
        self.document = simulation.document(parse_time_us(clock(as_of)))
        self.balances = self.document["ledger"]["trial_balance"]
        self.events = simulation.published("account.events")
        account = simulation.calculator.account("a")
        assert account is not None
        self.account = account
        assert self.document["ledger"]["sum"] == "0"
        open_pico = sum(bill.open_pico for bill in account.extras.bills)
        assert open_pico == simulation._balances["receivables", "CNY"]

    @property
    def told(self) -> list[str]:
        return [event["type"].rsplit(".", 1)[0] for event in self.events if event["type"].split(".")[0] != "command"]

    @property
    def reason(self) -> str:
        outcomes = [event["data"] for event in self.events if event["type"].startswith("command.")]
        return str(outcomes[-1].get("reason", "accepted"))


def test_what_the_wallet_owes_becomes_a_bill_on_the_bill_day(calculator: MakeCalculator) -> None:
    run = Run(calculator, [postpaid(), use(30)])
    assert run.document["accounts"]["a"]["wallet"] == "0"
    assert run.balances == {"output_vat": "-1.8", "receivables": "31.8", "revenue_usage": "-30"}
    (issued,) = (event["data"] for event in run.events if event["type"] == "bill.issued.v1")
    assert issued == {
        "account": "a", "bill_id": BILL, "amount": "31.8", "begin": "2026-10-31T16:00:00Z",
        "end": "2026-11-04T16:00:00Z", "due": "2026-11-14T16:00:00Z",
        "movements": [{
            "purpose": "bill", "currency": "CNY", "amount": "31.8", "net": "31.8", "tax": "0", "wallet": "31.8",
            "gift": "0", "bill_id": BILL,
        }],
    }  # fmt: skip


def test_usage_from_the_bill_day_on_is_of_the_next_bill(calculator: MakeCalculator) -> None:
    steps = [postpaid(due_days=60), use(30, "04 23:59:59"), use(10, "05 00:00"), use(1, "2026-12-04 23:59:59")]
    run = Run(calculator, steps, "2026-12-05 00:00")
    assert [(bill.bill_id, bill.amount_pico // 10**10) for bill in run.account.extras.bills] == [
        ("a/2026-11", 3_180), ("a/2026-12", 1_166),
    ]  # fmt: skip


def test_what_lies_below_the_fen_waits_for_the_next_bill(calculator: MakeCalculator) -> None:
    """A token of model ``odd`` costs 0.000001234567 yuan."""
    run = Run(calculator, [postpaid(), use(30), use(1, model="odd")])
    assert run.account.extras.bills[0].amount_pico == 318 * 10**11
    assert run.document["accounts"]["a"]["wallet"] == "-0.000001234567"


@pytest.mark.parametrize("steps", [[], [top_up("40", "p"), use(30)]], ids=["nothing used", "money in the wallet"])
def test_who_owes_nothing_gets_no_bill(steps: list[Line], calculator: MakeCalculator) -> None:
    assert Run(calculator, [postpaid(), *steps], "2026-12-20 00:00").told == []


def test_a_postpaid_account_without_bill_day_is_not_billed(calculator: MakeCalculator) -> None:
    run = Run(calculator, [opened(payment="postpaid"), use(30)], "2026-12-20 00:00")
    assert (run.told, run.document["accounts"]["a"]["wallet"]) == ([], "-31.8")


def test_a_bill_is_collected_in_parts(calculator: MakeCalculator) -> None:
    steps = [postpaid(), use(30), collected("30", "p1", "06 00:00"), collected("1.8", "p2", "07 00:00")]
    run = Run(calculator, steps, "29 00:00")
    assert run.balances == {"cash": "31.8", "output_vat": "-1.8", "revenue_usage": "-30"}
    assert run.told == ["bill.issued"]


def test_an_unpaid_bill_suspends_and_payment_resumes(calculator: MakeCalculator) -> None:
    steps = [postpaid(), use(30)]
    assert Run(calculator, steps, "14 23:59:59").account.status == "open"
    late = Run(calculator, steps, "15 00:00")
    assert (late.account.status, late.told) == ("suspended", ["bill.issued", "account.suspended"])
    part = Run(calculator, [*steps, collected("31.79", "p", "16 00:00")], "16 00:00")
    assert part.account.status == "suspended"
    paid = Run(calculator, [*steps, collected("31.8", "p", "16 00:00")], "16 00:00")
    assert (paid.account.status, paid.told[-1]) == ("open", "account.resumed")


def test_what_happened_is_told_in_its_order(calculator: MakeCalculator) -> None:
    """Events of time-driven changes come first, then the outcome of the command, then the command's events.

    The order is the same with one commit or many.
    """
    steps = [postpaid(), use(30), collected("31.8", "p", "16 00:00")]
    for size in (1, 100):
        types = [event["type"] for event in Run(calculator, steps, "16 00:00", size).events]
        assert types == [
            "command.accepted.v1",
            "bill.issued.v1",
            "account.suspended.v1",
            "command.accepted.v1",
            "account.resumed.v1",
        ]


def test_a_suspended_account_may_not_buy_but_its_usage_is_billed(calculator: MakeCalculator) -> None:
    steps = [postpaid(credit_limit="1000"), opened("b"), buy("A", "G"), use(1, model="m"), use(130, "03 00:00")]
    assert Run(calculator, [*steps, use(5, "16 00:00"), buy("A", "H", "16 00:00")]).reason == "accepted"
    steps[2] = buy("PACK", "G")
    assert Run(calculator, [*steps, buy("A", "H", "16 00:00")]).reason == "account_suspended"
    give = line("package.transferred.v1", "a", "16 00:00", {"grant_id": "G", "amount": "1", "to": "b"})
    assert Run(calculator, [*steps, give]).reason == "account_suspended"
    run = Run(calculator, [*steps, top_up("1", "p", "16 00:00"), use(2, "16 01:00")], "16 02:00")
    assert (run.account.status, run.document["accounts"]["a"]["wallet"]) == ("suspended", "-1.12")


def test_a_chargeback_opens_the_bill_and_suspends_when_it_is_past_due(calculator: MakeCalculator) -> None:
    steps = [postpaid(), use(30), collected("31.8", "p", "06 00:00")]
    early = Run(calculator, [*steps, charged_back("31.8", "07 00:00")], "07 00:00")
    assert (early.account.status, early.balances["receivables"], early.balances.get("cash")) == ("open", "31.8", None)
    late = Run(calculator, [*steps, charged_back("0.01", "16 00:00")], "16 00:00")
    assert (late.account.status, late.balances["receivables"]) == ("suspended", "0.01")
    again = Run(calculator, [*steps, charged_back("0.01", "16 00:00"), collected("0.01", "q", "17 00:00")], "17 00:00")
    assert again.account.status == "open"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (collected("31.81", "p", "06 00:00"), "amount_exceeds_bill"),
        (collected("1", "p", "06 00:00", "a/2026-12"), "unknown_bill"),
        (collected("1", "used", "06 00:00"), "duplicate_payment_ref"),
        (charged_back("0.01", "06 00:00"), "amount_exceeds_bill"),
        (charged_back("0.01", "06 00:00", "b/2026-10"), "unknown_bill"),
        (collected("0", "p", "06 00:00"), "invalid_event"),
        (credit("-1", "06 00:00"), "invalid_event"),
    ],
)
def test_what_is_refused_of_a_bill(step: Line, reason: str, calculator: MakeCalculator) -> None:
    run = Run(calculator, [postpaid(), top_up("0.01", "used"), use(30), use(1, model="free", id="x"), step])
    assert run.reason == reason
    assert run.account.extras.bills[0].paid_pico == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"bill_day": 5}, "not_postpaid"),
        ({"payment": "postpaid", "bill_day": 29}, "invalid_event"),
        ({"payment": "postpaid", "bill_day": 0}, "invalid_event"),
        ({"payment": "postpaid", "bill_day": "5"}, "invalid_event"),
        ({"payment": "postpaid", "bill_day": 5, "due_days": -1}, "invalid_event"),
    ],
)
def test_what_is_refused_of_an_opening(data: dict[str, Any], reason: str, calculator: MakeCalculator) -> None:
    simulation = RecordedSimulation(CATALOG, calculator())
    simulation.feed(encode([opened(**data)]))
    assert simulation.published("account.events")[-1]["data"]["reason"] == reason


def test_a_payment_of_a_bill_and_a_top_up_share_their_references(calculator: MakeCalculator) -> None:
    steps = [postpaid(), use(30), collected("1", "p", "06 00:00")]
    assert Run(calculator, [*steps, top_up("1", "p", "07 00:00")]).reason == "duplicate_payment_ref"


def test_credit_covers_the_wallet_and_what_is_billed(calculator: MakeCalculator) -> None:
    """An open bill of 31.80 leaves 53.00 of a credit limit of 84.80, but less than 53.00 of a limit of 84.79."""
    steps = [postpaid(), use(30)]
    bought = buy("HALF", "H", "06 00:00", pay_from="wallet")
    assert Run(calculator, [*steps, bought]).reason == "insufficient_funds"
    assert Run(calculator, [*steps, credit("84.79", "05 12:00"), bought]).reason == "insufficient_funds"
    assert Run(calculator, [*steps, credit("84.8", "05 12:00"), bought]).reason == "accepted"


def test_a_closed_account_gets_a_last_bill_that_can_be_paid(calculator: MakeCalculator) -> None:
    steps = [postpaid(), use(30), closed("03 00:00")]
    run = Run(calculator, [*steps, collected("31.8", "p", "20 00:00")], "2027-11-20 00:00")
    assert (run.account.status, run.told, run.balances["cash"]) == ("closed", ["bill.issued"], "31.8")
    assert run.account.next_due_us == 2**62


def test_how_often_an_account_is_rolled_changes_nothing(calculator: MakeCalculator) -> None:
    """Bills, due days and a refund to the wallet give the same account, rolled once or rolled every day."""
    steps = [postpaid(credit_limit="500"), buy("A", "G", pay_from="wallet"), use(40)]
    steps.append(line("package.refunded.v1", "a", "04 12:00", {"grant_id": "G", "reason": "r"}))
    looks = [line("credit.changed.v1", "a", f"{day:02} 12:00", {"credit_limit": "500"}) for day in range(5, 29)]
    once = Run(calculator, steps, "28 12:00")
    often = Run(calculator, [*steps, *looks], "28 12:00")
    assert once.document["accounts"] == often.document["accounts"]
    assert once.balances == often.balances
    assert once.told == often.told == ["bill.issued", "bucket.ended", "refund.paid", "account.suspended"]
    assert once.account.extras.bills[0].amount_pico == 106 * 10**12
    assert once.document["accounts"]["a"]["wallet"] == "63.6"


@pytest.mark.parametrize(
    ("day", "after", "next_"),
    [
        (1, "2026-11-01 00:00", "2026-12-01 00:00"),
        (1, "2026-12-31 23:59:59", "2027-01-01 00:00"),
        (28, "2026-02-27 00:00", "2026-02-28 00:00"),
        (28, "2026-12-28 00:00", "2027-01-28 00:00"),
    ],
)
def test_when_the_next_bill_is(day: int, after: str, next_: str) -> None:
    assert format_time_us(next_bill_us(day, parse_time_us(clock(after)))) == format_time_us(parse_time_us(clock(next_)))


def test_a_bill_is_named_by_the_month_of_its_last_day(calculator: MakeCalculator) -> None:
    """The first period is the part of one that is left; it may begin in the same month as the second."""
    steps = [opened(at="05 09:00", payment="postpaid", bill_day=28, due_days=60), use(30, "06 09:00")]
    steps += [use(1, "28 00:00"), use(1, "2026-12-28 00:00")]
    run = Run(calculator, steps, "2027-01-28 00:00")
    assert [bill.bill_id for bill in run.account.extras.bills] == ["a/2026-11", "a/2026-12", "a/2027-01"]
