"""Manual balance adjustments: two persons, changed balances, journal lines (docs/reference/account-commands.md)."""

from typing import Any

import pytest
from billing_samples import Line, MakeCalculator, buy, catalog, encode, line, opened, plan, top_up, use
from recorded_simulation import RecordedSimulation

TWO = [
    {"unit": "STD_TOKEN", "amount": "10", "kind": "periodic", "fee_share": "0.4"},
    {"unit": "STD_TOKEN", "amount": "60", "kind": "periodic", "fee_share": "0.6", "priority": 200},
]
CATALOG = catalog(plan("A"), plan("TWO", buckets=TWO))


def adjusted(target: str, amount: str, at: str = "03 12:00", **data: Any) -> Line:
    body = {"target": target, "amount": amount, "reason": "complaint", "requested_by": "li", "approved_by": "wang"}
    return line("balance.adjusted.v1", "a", at, body | data)


def run(calculator: MakeCalculator, *steps: Line) -> tuple[dict[str, Any], str]:
    """Return the document and the outcome of the last command."""
    simulation = RecordedSimulation(CATALOG, calculator())
    simulation.feed(encode(steps))
    outcomes = [event["data"] for event in simulation.published("account.events") if "command" in event["type"]]
    return simulation.document(), outcomes[-1].get("reason", "accepted")


@pytest.mark.parametrize(
    ("amount", "wallet", "adjustments"), [("7.5", "12.5", "7.5"), ("-2", "3", "-2"), ("-9", "-4", "-9")]
)
def test_the_wallet_is_corrected_either_way(
    amount: str, wallet: str, adjustments: str, calculator: MakeCalculator
) -> None:
    document, outcome = run(calculator, opened(), top_up("5", "p"), adjusted("wallet", amount))
    assert (outcome, document["accounts"]["a"]["wallet"]) == ("accepted", wallet)
    assert document["ledger"]["trial_balance"]["adjustments"] == adjustments
    assert document["ledger"]["sum"] == "0"


@pytest.mark.parametrize(
    ("change", "amount", "remaining", "earned"),
    [("20", "120", "80", "55"), ("-30", "70", "30", "80"), ("-59.999999", "40.000001", "0.000001", "40")],
)
def test_what_was_used_stays_used_and_what_was_paid_is_earned_over_what_is_left(
    change: str, amount: str, remaining: str, earned: str, calculator: MakeCalculator
) -> None:
    """60 of liability is left for 60 tokens. After +20, 20 tokens earn 60 x 20/80 = 15; after -30, 60 x 20/30 = 40."""
    steps = [opened(), buy("A", "G"), use(40), adjusted("G", change)]
    document, outcome = run(calculator, *steps)
    (bucket,) = document["accounts"]["a"]["buckets"]
    assert (outcome, bucket["amount"], bucket["remaining"]) == ("accepted", amount, remaining)
    assert document["ledger"]["trial_balance"]["contract_liability"] == "-60"
    if remaining != "0.000001":
        document, _ = run(calculator, *steps, use(20, "04 00:00"))
    assert document["revenue_net"] == earned


def test_a_bucket_that_is_emptied_owes_nothing(calculator: MakeCalculator) -> None:
    document, _ = run(calculator, opened(), buy("A", "G"), use(40), adjusted("G/1", "-60"))
    (bucket,) = document["accounts"]["a"]["buckets"]
    assert (bucket["amount"], bucket["remaining"], bucket["status"]) == ("40", "0", "used_up")
    assert document["ledger"]["trial_balance"] == {
        "adjustments": "-60", "cash": "106", "output_vat_pending": "-6", "revenue_usage": "-40",
    }  # fmt: skip


def test_a_bucket_that_is_used_up_can_be_filled_again(calculator: MakeCalculator) -> None:
    steps = [opened(), buy("A", "G"), use(100), adjusted("G", "5")]
    document, _ = run(calculator, *steps)
    assert document["accounts"]["a"]["buckets"][0]["status"] == "active"
    document, _ = run(calculator, *steps, use(2, "04 00:00"))
    assert document["accounts"]["a"]["buckets"][0]["remaining"] == "3"
    assert document["revenue_net"] == "100"


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([adjusted("wallet", "1", approved_by="li")], "same_person"),
        ([adjusted("wallet", "1", approved_by=" LI ")], "same_person"),
        ([adjusted("wallet", "0")], "invalid_amount"),
        ([adjusted("G", "0.0000001")], "invalid_amount"),
        ([adjusted("nobody's", "1")], "unknown_grant"),
        ([buy("TWO", "T"), adjusted("T", "1")], "ambiguous_grant"),
        ([use(40), adjusted("G", "-60.000001")], "insufficient_balance"),
        ([adjusted("G", "1", "20 00:00")], "bucket_ended"),
        ([use(100), adjusted("G", "1", "20 00:00")], "bucket_ended"),
        (
            [line("package.refunded.v1", "a", "03 10:00", {"grant_id": "G", "reason": "r"}), adjusted("G", "1")],
            "bucket_ended",
        ),
        ([adjusted("wallet", "1000000000000000000.01")], "overflow"),
        ([adjusted("wallet", "-1000000000000000000.01")], "overflow"),
        ([adjusted("G", "1000000000000000000")], "overflow"),
    ],
)
def test_what_is_not_adjusted(steps: list[Line], reason: str, calculator: MakeCalculator) -> None:
    base = [opened(), buy("A", "G"), *steps[:-1]]
    document, outcome = run(calculator, *base, steps[-1])
    assert outcome == reason
    assert document["ledger"]["trial_balance"].get("adjustments") is None


def test_one_bucket_of_several_is_named_by_its_id(calculator: MakeCalculator) -> None:
    document, _ = run(calculator, opened(), buy("TWO", "T"), adjusted("T/2", "1"))
    assert [bucket["remaining"] for bucket in document["accounts"]["a"]["buckets"]] == ["10", "61"]
