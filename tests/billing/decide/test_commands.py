"""Account commands and every reason for refusal (docs/reference/account-commands.md)."""

from typing import Any

import pytest
from billing_samples import (
    BOOK,
    DOLLARS,
    Line,
    MakeCalculator,
    buy,
    catalog,
    closed,
    encode,
    line,
    opened,
    plan,
    simulate,
    top_up,
    use,
)
from recorded_simulation import RecordedSimulation

from billing.packages.cycles import LAST_START_US
from schemas.times import format_time_us
from schemas.topics import BALANCE_TOPIC

PLANS = (plan("A"), plan("B", price="53.00"), plan("A", "200", "212.00") | {"version": 2})


def outcomes(calculator: MakeCalculator, steps: list[Line | bytes], book: Any = None) -> list[str]:
    """Return ``accepted`` or the reason for refusal of each command, in order."""
    simulation = RecordedSimulation(catalog(*PLANS) if book is None else book, calculator())
    simulation.feed(encode(steps))
    simulation.document()
    return simulation.outcomes()


VOID = line("usage.voided.v1", "a", "02 12:00", {"source": "test", "id": "u", "reason": "r"})
CORRECT, MORE = (
    line("usage.corrected.v1", "a", "02 12:00", {"source": "test", "id": "u", "usage": usage, "reason": "r"})
    for usage in ({"images": 1}, {"input": 50})
)
GIVEN = line("package.transferred.v1", "a", "02 11:00", {"grant_id": "G", "amount": "80", "to": "b"})
REFUSED: list[tuple[str, list[Line], str]] = [
    ("an account that was never opened", [top_up("5", "p")], "unknown_account"),
    ("an account opened twice", [opened(), opened(at="02 00:00")], "account_exists"),
    ("an account opened again after closing", [opened(), closed(), opened(at="03 00:00")], "account_exists"),
    ("a closed account", [opened(), closed(), top_up("5", "p", "03 00:00")], "account_closed"),
    ("a closed account closed again", [opened(), closed(), closed("03 00:00")], "account_closed"),
    ("no book in that currency", [opened(currency="EUR")], "ambiguous_price_book"),
    ("a book that does not exist", [opened(price_book="nobody's")], "ambiguous_price_book"),
    ("a book in another currency", [opened(currency="USD", price_book="retail")], "currency_mismatch"),
    ("a plan in another currency", [opened(currency="USD"), buy("A", "G")], "currency_mismatch"),
    ("a plan that does not exist", [opened(), buy("C", "G")], "unknown_plan"),
    ("a version that does not exist", [opened(), buy("A", "G", plan_version=3)], "unknown_plan"),
    ("a payment booked before", [opened(), top_up("5", "p"), top_up("6", "p")], "duplicate_payment_ref"),
    ("a grant that exists", [opened(), buy("A", "G"), buy("B", "G")], "duplicate_grant_id"),
    ("a grant that exists and is used up", [opened(), buy("A", "G", plan_version=1), use(100), buy("B", "G")],
     "duplicate_grant_id"),
    ("a wallet a fen short", [opened(), top_up("52.99", "p"), buy("B", "G", pay_from="wallet")], "insufficient_funds"),
    ("a credit limit a fen short", [opened(credit_limit="52.99"), buy("B", "G", pay_from="wallet")],
     "insufficient_funds"),
    ("a wallet that nobody could hold", [opened(), top_up("1000000000000000000", "p"), top_up("0.01", "q")],
     "overflow"),
    ("a cycle that would end beyond the calendar", [opened(), buy("A", "G") | {"data": {
        "plan": "A", "grant_id": "G", "starts_at": format_time_us(LAST_START_US)}}], "invalid_starts_at"),
    ("an amount of 0", [opened(), top_up("0", "p")], "invalid_event"),
    ("an amount with an exponent", [opened(), top_up("1e2", "p")], "invalid_event"),
    ("an amount that is a number", [opened(), top_up("1", "p") | {"data": {"amount": 1, "payment_ref": "p"}}],
     "invalid_event"),
    ("a purchase without grant", [opened(), buy("A", "")], "invalid_event"),
    ("a void before the account was opened", [VOID], "unknown_account"),
    ("a void of usage that never came", [opened(), VOID], "unknown_usage"),
    ("a void of usage that was rejected", [opened(), use(5, id="u", model="nobody's"), VOID], "unknown_usage"),
    ("a void of another account's usage", [opened(), opened("b"), use(5, account="b", id="u"), VOID], "unknown_usage"),
    ("a second void", [opened(), use(5, id="u"), VOID, VOID], "usage_voided"),
    ("a correction of voided usage", [opened(), use(5, id="u"), VOID, CORRECT], "usage_voided"),
    ("a correction that has no price", [opened(), use(5, id="u"), CORRECT], "no_price"),
    ("a correction that leaves too little for a transfer",
     [opened(), opened("b"), buy("A", "G", plan_version=1), use(10, id="u"), GIVEN, MORE], "correction_conflict"),
    ("a way to pay that does not exist", [opened(), buy("A", "G", pay_from="cheque")], "invalid_event"),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_refused_command_says_why_and_changes_nothing(
    steps: list[Line], reason: str, calculator: MakeCalculator
) -> None:
    book = catalog(BOOK, DOLLARS, *PLANS)
    assert outcomes(calculator, list(steps), book)[-1] == reason
    before, after = (simulate(calculator(), book, part, 0) for part in (steps[:-1], steps))
    assert before == after


def test_the_latest_version_of_a_plan_is_sold_unless_one_is_named(calculator: MakeCalculator) -> None:
    steps = [opened(), buy("A", "new"), buy("A", "old", plan_version=1)]
    buckets = simulate(calculator(), catalog(*PLANS), list(steps))["accounts"]["a"]["buckets"]
    assert [(bucket["grant_id"], bucket["amount"]) for bucket in buckets] == [("new/1", "200"), ("old/1", "100")]


@pytest.mark.parametrize(
    ("credit", "held", "wallet"), [("0", "53", "0"), ("53", "0.01", "-52.99"), ("60", "0.01", "-52.99")]
)
def test_a_wallet_may_buy_down_to_its_credit_limit(
    credit: str, held: str, wallet: str, calculator: MakeCalculator
) -> None:
    steps = [opened(credit_limit=credit), top_up(held, "p"), buy("B", "G", pay_from="wallet")]
    assert simulate(calculator(), catalog(*PLANS), list(steps))["accounts"]["a"]["wallet"] == wallet


def test_one_book_in_the_currency_is_bound_without_being_named(calculator: MakeCalculator) -> None:
    book = catalog(BOOK, DOLLARS, *PLANS)
    assert outcomes(calculator, [opened(), opened("b", currency="USD")], book) == ["accepted", "accepted"]


def test_two_books_in_the_currency_need_a_name(calculator: MakeCalculator) -> None:
    book = catalog(BOOK, BOOK | {"name": "wholesale"})
    assert outcomes(calculator, [opened(), opened(price_book="wholesale")], book) == [
        "ambiguous_price_book",
        "accepted",
    ]


def test_two_versions_of_a_book_are_one_candidate(calculator: MakeCalculator) -> None:
    book = catalog(BOOK, BOOK | {"version": 2, "effective_from": "2026-12-01T00:00:00+08:00"})
    assert outcomes(calculator, [opened()], book) == ["accepted"]


def test_a_command_sent_again_is_carried_out_once(calculator: MakeCalculator) -> None:
    again = top_up("5", "p") | {"id": "x"}
    steps: list[Line | bytes] = [opened(), again, again, again]
    assert outcomes(calculator, steps) == ["accepted", "accepted"]
    for size in (1, 100):
        document = simulate(calculator(), catalog(), steps, lines_per_commit=size)
        assert document["accounts"]["a"]["wallet"] == "5"


def test_a_refused_command_sent_again_is_carried_out_once_it_can_be(calculator: MakeCalculator) -> None:
    """Only an applied command occupies its identity (docs/reference/usage-events.md, "Identity")."""
    early = top_up("5", "p") | {"id": "x"}
    steps: list[Line | bytes] = [early, opened(), early, early]
    assert outcomes(calculator, steps) == ["unknown_account", "accepted", "accepted"]


def test_the_same_payment_may_be_named_on_two_accounts(calculator: MakeCalculator) -> None:
    steps: list[Line | bytes] = [opened(), opened("b"), top_up("5", "p"), top_up("5", "p", account="b")]
    assert outcomes(calculator, steps) == ["accepted"] * 4


def test_a_refused_payment_may_be_booked_later(calculator: MakeCalculator) -> None:
    steps: list[Line | bytes] = [top_up("5", "p"), opened(), top_up("5", "p")]
    assert outcomes(calculator, steps) == ["unknown_account", "accepted", "accepted"]


def test_usage_of_a_closed_or_unknown_account_is_rejected(calculator: MakeCalculator) -> None:
    document = simulate(calculator(), catalog(), [use(1), opened(), use(1), closed(), use(1)])
    assert document["rejections"] == {"account_closed": 1, "unknown_account": 1}
    assert document["accounts"]["a"]["wallet"] == "-1.06"


def test_usage_before_the_first_version_of_the_book_is_rejected(calculator: MakeCalculator) -> None:
    document = simulate(calculator(), catalog(), [opened(), use(1, "2019-12-31 23:59:59")])
    assert document["rejections"] == {"no_price_book": 1}


def test_what_a_closed_account_holds_still_lapses(calculator: MakeCalculator) -> None:
    steps = [opened(), buy("A", "G", plan_version=1), closed()]
    document = simulate(calculator(), catalog(*PLANS), list(steps), LAST_START_US)
    assert document["breakage"] == "100"


def test_a_gift_is_an_expense_and_a_payment_is_cash(calculator: MakeCalculator) -> None:
    steps = [opened(), top_up("5", "p"), top_up("7", "q", gift=True)]
    assert simulate(calculator(), catalog(), list(steps))["ledger"]["trial_balance"] == {
        "cash": "5",
        "customer_deposits": "-12",
        "promotion_expense": "7",
    }


def test_an_account_is_published_with_its_first_command(calculator: MakeCalculator) -> None:
    simulation = RecordedSimulation(catalog(*PLANS), calculator())
    simulation.feed(encode([opened()]))
    assert [event["data"] for event in simulation.published(BALANCE_TOPIC)] == [
        {
            "account": "a",
            "currency": "CNY",
            "wallet": "0",
            "absorbed": "0",
            "absorbed_amount": "0",
            "buckets": [],
            "status": "open",
            "price_book": "retail",
            "payment": "prepaid",
            "credit_limit": "0",
            "gift": "0",
            "subscriptions": [],
            "open_bills": [],
        }
    ]
