"""Refunds of the unused part of a grant: time, amount, destination, journal (docs/reference/plans.md, "Refund")."""

from typing import Any

import pytest
from billing_samples import Line, MakeCalculator, buy, catalog, clock, encode, line, opened, plan, top_up, use
from recorded_simulation import RecordedSimulation

from schemas.times import parse_time_us

TWO = [
    {"unit": "STD_TOKEN", "amount": "10", "kind": "periodic", "fee_share": "0.4"},
    {"unit": "STD_TOKEN", "amount": "60", "kind": "periodic", "fee_share": "0.6", "priority": 200},
]
CATALOG = catalog(
    plan("A"),
    plan("ONCE", cycle={"kind": "once"}, grace_hours=0),
    plan("TWO", buckets=TWO),
    plan("SEVEN", "7", "0.10"),
    plan("FREE", price="0"),
    plan("PAYG", overage="pay_as_you_go"),
)


def refunded(grant: str = "G", at: str = "03 12:00", account: str = "a") -> Line:
    return line("package.refunded.v1", account, at, {"grant_id": grant, "reason": "七天无理由"})


class Run:
    """A simulation of some steps, with the accounts rolled forward to a given time."""

    def __init__(self, calculator: MakeCalculator, steps: list[Line], as_of: str = "20 00:00") -> None:
        simulation = RecordedSimulation(CATALOG, calculator())
        simulation.feed(encode(steps))
        self.document = simulation.document(parse_time_us(clock(as_of)))
        self.events = simulation.published("account.events")

    @property
    def account(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["accounts"]["a"]
        return found

    @property
    def statuses(self) -> list[str]:
        return [bucket["status"] for bucket in self.account["buckets"]]

    @property
    def reasons(self) -> list[str]:
        return [
            event["data"].get("reason", "accepted") for event in self.events if event["type"].startswith("command.")
        ]

    def told(self, type_name: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.events if event["type"] == type_name]


def test_the_unused_part_is_paid_back_where_the_fee_was_paid(calculator: MakeCalculator) -> None:
    """A plan of 106 yuan has 100 tokens, of which 40 are used: 60 of 100 net and 3.60 of 6 tax are unused."""
    run = Run(calculator, [opened(), buy("A", "G"), use(40), refunded()])
    assert run.document["ledger"]["trial_balance"] == {
        "cash": "42.4", "output_vat_pending": "-2.4", "revenue_usage": "-40",
    }  # fmt: skip
    assert (run.statuses, run.account["buckets"][0]["remaining"], run.account["wallet"]) == (["refunded"], "60", "0")
    (paid,), (ended,) = run.told("refund.paid.v1"), run.told("bucket.ended.v1")
    assert paid.pop("movements") == [{
        "purpose": "refund", "currency": "CNY", "amount": "63.6", "net": "60", "tax": "3.6", "wallet": "0",
        "gift": "0", "plan": "A@1", "grant_id": "G", "pay_from": "external",
    }]  # fmt: skip
    assert ended.pop("movements") == [{
        "purpose": "refund", "currency": "CNY", "plan": "A@1", "grant_id": "G/1", "unit": "STD_TOKEN",
        "quantity": "0", "granted": "0", "liability": "-60",
    }]  # fmt: skip
    assert paid == {
        "account": "a", "grant_id": "G", "plan": "A", "amount": "63.6", "gift": "0", "paid_to": "external",
    }  # fmt: skip
    assert ended == {"account": "a", "grant_id": "G/1", "plan": "A", "remaining": "60", "breakage": "0"}
    assert run.document["breakage"] == "0"


def test_a_fee_of_the_wallet_goes_back_to_the_wallet(calculator: MakeCalculator) -> None:
    run = Run(calculator, [opened(), top_up("110", "p"), buy("A", "G", pay_from="wallet"), use(40), refunded()])
    assert run.account["wallet"] == "67.6"
    assert run.document["ledger"]["trial_balance"] == {
        "cash": "110", "customer_deposits": "-67.6", "output_vat_pending": "-2.4", "revenue_usage": "-40",
    }  # fmt: skip


def test_what_gifts_paid_goes_back_as_a_gift(calculator: MakeCalculator) -> None:
    """53 of the fee of 106 were gift money, so half of the refund of 63.60 is gift money and is spent first."""
    steps = [opened(), top_up("53", "p"), top_up("53", "q", gift=True), buy("A", "G", pay_from="wallet"), use(40)]
    run = Run(calculator, [*steps, refunded()])
    (paid,) = run.told("refund.paid.v1")
    assert (paid["amount"], paid["gift"], paid["paid_to"], run.account["wallet"]) == ("63.6", "31.8", "wallet", "63.6")


def test_a_refund_ends_the_grant_now_and_pays_after_the_grace(calculator: MakeCalculator) -> None:
    """A refund is paid once, at valid_until + grace_hours; the command sets valid_until to its own time
    (docs/reference/plans.md, "Refund")."""
    steps = [opened(), top_up("50", "p"), buy("A", "G"), use(40), refunded(at="03 12:00")]
    before, after = (Run(calculator, steps, as_of) for as_of in ("04 11:59:59", "04 12:00"))
    assert (before.statuses, after.statuses) == (["active"], ["refunded"])
    assert before.account["buckets"][0]["valid_until"] == "2026-11-03T04:00:00Z"
    assert before.told("refund.paid.v1") == []
    assert before.document["ledger"]["trial_balance"]["contract_liability"] == "-60"


def test_late_usage_of_before_still_burns_and_usage_of_after_does_not(calculator: MakeCalculator) -> None:
    steps = [opened(), buy("A", "G"), use(40), refunded(at="03 12:00"), use(10, "03 12:00"), use(20, "03 11:59:59")]
    run = Run(calculator, steps)
    assert run.account["buckets"][0]["remaining"] == "40"
    assert run.account["wallet"] == "-10.6"
    assert run.told("refund.paid.v1")[0]["amount"] == "42.4"


@pytest.mark.parametrize(("name", "wallet", "absorbed"), [("A", "0", "10"), ("PAYG", "-10.6", "0")])
def test_usage_later_than_the_grace_finds_a_refunded_bucket_like_one_that_lapsed(
    name: str, wallet: str, absorbed: str, calculator: MakeCalculator
) -> None:
    steps = [opened(), buy(name, "G"), refunded(at="03 12:00"), use(1, "05 12:00"), use(10, "03 11:00")]
    run = Run(calculator, steps)
    assert run.account["buckets"][0]["remaining"] == "100"
    assert run.account["absorbed"] == absorbed
    assert run.account["wallet"] == {"0": "-1.06", "-10.6": "-11.66"}[wallet]


def test_a_plan_without_end_and_grace_is_refunded_at_once(calculator: MakeCalculator) -> None:
    run = Run(calculator, [opened(), buy("ONCE", "G"), use(40), refunded()], "03 12:00")
    assert run.statuses == ["refunded"]
    assert [event["type"] for event in run.events][-3:] == ["command.accepted.v1", "bucket.ended.v1", "refund.paid.v1"]


def test_what_is_used_up_of_a_refunded_grant_ends_with_it(calculator: MakeCalculator) -> None:
    """A used-up bucket must end too, or its plan would still absorb usage. Usage after the refund is paid by the
    wallet; for usage before it the plan's rule still applies."""
    steps = [opened(), buy("TWO", "G"), use(10), refunded(at="03 12:00"), use(5, "03 13:00"), use(61, "03 11:00")]
    run = Run(calculator, steps, "03 14:00")
    assert {bucket["valid_until"] for bucket in run.account["buckets"]} == {"2026-11-03T04:00:00Z"}
    assert (run.account["wallet"], run.account["absorbed"]) == ("-5.3", "1")


def test_a_grant_that_has_not_begun_is_refunded_whole(calculator: MakeCalculator) -> None:
    run = Run(calculator, [opened(), buy("A", "G", starts_at="10 00:00"), refunded(at="03 12:00")], "04 12:00")
    assert run.statuses == ["refunded"]
    assert run.document["ledger"]["trial_balance"] == {}
    bucket = run.account["buckets"][0]
    assert bucket["valid_from"] == bucket["valid_until"]


def test_a_grant_in_its_grace_keeps_its_end(calculator: MakeCalculator) -> None:
    steps = [opened(), buy("A", "G", "02 09:00"), refunded(at="09 12:00")]
    before, after = (Run(calculator, steps, as_of) for as_of in ("10 08:59:59", "10 09:00"))
    assert (before.statuses, after.statuses) == (["active"], ["refunded"])
    assert after.account["buckets"][0]["valid_until"] == "2026-11-09T01:00:00Z"


def test_every_bucket_of_a_grant_is_refunded_as_one(calculator: MakeCalculator) -> None:
    """The net fees are 40 and 60. The first bucket is used up, 45 of 60 of the second are left: 45 net, 2.70 tax."""
    run = Run(calculator, [opened(), buy("TWO", "G"), use(25), refunded()])
    assert run.statuses == ["used_up", "refunded"]
    assert run.told("refund.paid.v1")[0]["amount"] == "47.7"


def test_one_bucket_is_refunded_by_its_id(calculator: MakeCalculator) -> None:
    run = Run(calculator, [opened(), buy("TWO", "G"), refunded("G/2")])
    assert run.statuses == ["expired", "refunded"]
    assert run.told("refund.paid.v1")[0]["amount"] == "63.6"


def test_what_lies_below_the_fen_is_posted(calculator: MakeCalculator) -> None:
    """The fee of 0.10 is 0.09 + 0.01. With 6/7 unused, 0.077142857143 net and 0.01 tax are posted and 0.09 is paid."""
    run = Run(calculator, [opened(), buy("SEVEN", "G"), use(1), refunded()])
    assert run.told("refund.paid.v1")[0]["amount"] == "0.09"
    assert run.document["ledger"]["trial_balance"] == {
        "cash": "0.01", "revenue_usage": "-0.012857142857", "rounding": "0.002857142857",
    }  # fmt: skip


def test_a_free_grant_gives_nothing_back(calculator: MakeCalculator) -> None:
    run = Run(calculator, [opened(), buy("FREE", "G"), refunded()])
    assert (run.statuses, run.told("refund.paid.v1")[0]["amount"]) == (["refunded"], "0")


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([refunded("nobody's")], "unknown_grant"),
        ([use(100), refunded()], "nothing_to_refund"),
        ([refunded(), refunded(at="03 13:00")], "nothing_to_refund"),
        ([refunded(at="20 00:00")], "nothing_to_refund"),
        ([refunded(at="03 12:00"), refunded(at="06 12:00")], "nothing_to_refund"),
    ],
    ids=["no such grant", "used up", "twice", "lapsed", "again after it was paid"],
)
def test_what_cannot_be_refunded(steps: list[Line], reason: str, calculator: MakeCalculator) -> None:
    assert Run(calculator, [opened(), buy("A", "G"), *steps]).reasons[-1] == reason


def test_a_refunded_grant_keeps_its_id(calculator: MakeCalculator) -> None:
    assert Run(calculator, [opened(), buy("A", "G"), refunded(), buy("A", "G", "06 00:00")]).reasons[-1] == (
        "duplicate_grant_id"
    )


@pytest.mark.parametrize("stops", [("05 00:00",), ("03 13:00", "04 12:00", "08 00:00")])
def test_how_often_an_account_is_rolled_changes_nothing(stops: tuple[str, ...], calculator: MakeCalculator) -> None:
    """A refund to the wallet and the expiry of another bucket give the same result in one step or in several."""
    steps = [opened(), top_up("212", "p"), buy("A", "G", pay_from="wallet"), buy("A", "H", pay_from="wallet")]
    steps.append(refunded())
    looks = [top_up("1", f"look{number}", at) for number, at in enumerate(stops)]
    run = Run(calculator, [*steps, *looks], "20 00:00")
    assert run.account["wallet"] == str(106 + len(looks))
    assert run.statuses == ["refunded", "expired"]
