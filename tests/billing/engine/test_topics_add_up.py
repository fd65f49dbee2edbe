"""The published topics tell every movement: accounts rebuilt from them are the accounts, sums are the journal's."""

from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from billing_samples import MakeCalculator, catalog, encode, line, opened, plan, subscribe, subscription, top_up, use
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rebuilt_accounts import Rebuilt
from recorded_simulation import RecordedSimulation
from simulation_steps import ACCOUNTS, CATALOG, NAMED, STEPS, TIMES

from billing.catalog import load_folder
from billing.ledger import CASH, CONTRACT_LIABILITY, CUSTOMER_DEPOSITS, OUTPUT_VAT_PENDING, REVENUE_USAGE
from schemas.topics import ACCOUNT_EVENT_TOPIC, BALANCE_TOPIC, RATED_TOPIC

ROOT = Path(__file__).resolve().parents[3]
PICO = 10**12
CORRECTIONS = st.builds(
    lambda account, at, id, numbered, tokens: line(
        "usage.voided.v1" if tokens is None else "usage.corrected.v1",
        account,
        at,
        {"source": f"{account}-{'numbered' if numbered else 'unnumbered'}", "id": id, "reason": "r"}
        | ({} if tokens is None else {"usage": {"input": tokens}}),
    ),
    NAMED,
    TIMES,
    st.sampled_from([f"u{n}" for n in range(30)]),
    st.booleans(),
    st.none() | st.integers(0, 60),
)
CORRECTED = st.tuples(STEPS, st.lists(CORRECTIONS, max_size=6)).map(
    lambda both: both[0] + [{"id": f"k{number}"} | step for number, step in enumerate(both[1])]
)


def rebuilt_from(simulation: RecordedSimulation) -> Rebuilt:
    found = Rebuilt()
    found.add_usage(simulation.published(RATED_TOPIC))
    found.add_notices(simulation.published(ACCOUNT_EVENT_TOPIC))
    return found


def check(simulation: RecordedSimulation, document: dict[str, Any]) -> Rebuilt:
    """Compare what the topics tell with the accounts and with the journal."""
    found = rebuilt_from(simulation)
    for name, account in document["accounts"].items():
        assert found.accounts[name].differences(account) == [], name
    assert found.accounts.keys() <= document["accounts"].keys()
    journal: defaultdict[str, Fraction] = defaultdict(Fraction)
    earned = Fraction(0)
    plans = {f"{one.name}@{one.version}" for one in simulation.catalog.plans}
    for record in simulation.records:
        for posting in record.postings:
            journal[posting.account_code] += Fraction(posting.amount_pico, PICO)
            if posting.account_code == REVENUE_USAGE and posting.detail in plans and not posting.concerns:
                earned -= Fraction(posting.amount_pico, PICO)
    assert journal[CUSTOMER_DEPOSITS] == -sum(account.wallet for account in found.accounts.values())
    assert journal[OUTPUT_VAT_PENDING] == found.total("tax", "fee", "credit", "pack", "refund") + sum(
        Fraction(posting.amount_pico, PICO)
        for record in simulation.records
        for posting in record.postings
        if posting.account_code == OUTPUT_VAT_PENDING and posting.concerns
    )
    liabilities = sum((total for (_, name), total in found.sums.items() if name == "liability"), Fraction(0))
    assert journal[CONTRACT_LIABILITY] == earned - liabilities
    paid = sum(found.elsewhere[purpose] for purpose in ("fee", "credit", "refund", "bill_payment", "chargeback"))
    assert journal[CASH] == found.total("amount", "top_up") - paid
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=CORRECTED, size=st.integers(1, 20))
def test_the_topics_tell_every_movement(calculator: MakeCalculator, steps: Any, size: int) -> None:
    simulation = RecordedSimulation(CATALOG, calculator(), lines_per_commit=size)
    simulation.feed(encode(steps))
    check(simulation, simulation.document())


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_the_last_balance_is_the_account(calculator: MakeCalculator, steps: Any) -> None:
    simulation = RecordedSimulation(CATALOG, calculator(), lines_per_commit=7)
    simulation.feed(encode(steps))
    last = {event["subject"]: event["data"] for event in simulation.published(BALANCE_TOPIC)}
    for name in ACCOUNTS:
        account = simulation.calculator.account(name)
        if account is None:
            continue
        assert (last[name]["status"], last[name]["payment"]) == (account.status, account.payment)
        assert Fraction(last[name]["gift"]) == Fraction(account.extras.gift_pico, PICO)
        assert Fraction(last[name]["credit_limit"]) == Fraction(account.credit_limit_pico, PICO)
        assert last[name]["price_book"] == account.price_book
        subscriptions = [(one["subscription_id"], one["status"], one["cycle"]) for one in last[name]["subscriptions"]]
        assert subscriptions == [(one.subscription_id, one.status, one.cycle) for one in account.extras.subscriptions]
        bills = {
            bill["bill_id"]: Fraction(bill["amount"]) - Fraction(bill["paid"]) for bill in last[name]["open_bills"]
        }
        held = {bill.bill_id: Fraction(bill.open_pico, PICO) for bill in account.extras.bills if bill.open_pico}
        assert bills == held
        assert all("reserved" not in bucket for bucket in last[name]["buckets"])


def test_the_topics_tell_the_life_of_the_customers_in_the_example(calculator: MakeCalculator) -> None:
    simulation = RecordedSimulation(load_folder(ROOT / "examples" / "catalog"), calculator())
    simulation.feed((ROOT / "examples" / "customer-life.jsonl").read_bytes().splitlines())
    check(simulation, simulation.document())


def movements(steps: list[Any], calculator: MakeCalculator, *plans: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the movements that the last step brings about."""
    told = []
    for lines in (encode(steps)[:-1], encode(steps)):
        simulation = RecordedSimulation(catalog(*plans), calculator(), lines_per_commit=1)
        simulation.feed(lines)
        events = simulation.published(ACCOUNT_EVENT_TOPIC)
        told.append([movement for event in events for movement in event["data"].get("movements", [])])
    return told[1][len(told[0]) :]


def test_a_change_of_plan_tells_the_fee_the_credit_and_the_buckets(calculator: MakeCalculator) -> None:
    """The plans cost 106 and 212 for seven days, of which three are left."""
    steps = [opened(), top_up("300", "p", "02 08:00"), subscribe("A", at="02 09:00", pay_from="wallet")]
    steps += [subscription("changed", "06 09:00", plan="B", effective="now")]
    given, taken, paid, filled = movements(steps, calculator, plan("A"), plan("B", "200", "212.00"))
    common = {"currency": "CNY", "pay_from": "wallet", "grant_id": "S/1", "gift": "0"}
    assert given == common | {
        "purpose": "credit", "amount": "45.43", "net": "42.86", "tax": "2.57", "wallet": "45.43", "plan": "A@1",
    }  # fmt: skip
    assert taken == {
        "purpose": "credit", "currency": "CNY", "plan": "A@1", "grant_id": "S/1/1", "unit": "STD_TOKEN",
        "quantity": "0", "granted": "0", "liability": "-42.86",
    }  # fmt: skip
    assert paid == common | {
        "purpose": "fee", "amount": "-90.86", "net": "-85.72", "tax": "-5.14", "wallet": "-90.86", "plan": "B@1",
    }  # fmt: skip
    assert filled == {
        "purpose": "grant", "currency": "CNY", "plan": "B@1", "grant_id": "S/1/2", "unit": "STD_TOKEN",
        "quantity": "85.714286", "granted": "85.714286", "liability": "85.72",
    }  # fmt: skip


@pytest.mark.parametrize("pay_from", ["wallet", "external"])
def test_a_sale_tells_who_collects_the_fee(pay_from: str, calculator: MakeCalculator) -> None:
    steps = [opened(), top_up("200", "p"), line("package.purchased.v1", "a", "02 09:00", {
        "plan": "A", "grant_id": "G", "pay_from": pay_from,
    })]  # fmt: skip
    fee, filled = movements(steps, calculator, plan("A"))
    assert fee == {
        "purpose": "fee", "currency": "CNY", "amount": "-106", "net": "-100", "tax": "-6",
        "wallet": "-106" if pay_from == "wallet" else "0", "gift": "0", "plan": "A@1", "grant_id": "G",
        "pay_from": pay_from,
    }  # fmt: skip
    assert (filled["grant_id"], filled["quantity"], filled["liability"]) == ("G/1", "100", "100")


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (top_up("5", "q"), [("top_up", "5", None)]),
        (top_up("5", "q", gift=True), [("gift", "5", None)]),
        (line("balance.adjusted.v1", "a", "02 11:00", {
            "target": "wallet", "amount": "-2", "reason": "r", "requested_by": "x", "approved_by": "y",
        }), [("adjustment", "-2", None)]),
        (line("balance.adjusted.v1", "a", "02 11:00", {
            "target": "G", "amount": "7", "reason": "r", "requested_by": "x", "approved_by": "y",
        }), [("adjustment", None, "7")]),
        (line("package.transferred.v1", "a", "02 11:00", {"grant_id": "G", "amount": "40", "to": "b"}),
         [("transfer_out", None, "-40"), ("transfer_back", None, "40")]),
        (line("usage.voided.v1", "a", "02 11:00", {"source": "test", "id": "used", "reason": "r"}),
         [("correction", None, "10")]),
    ],
    ids=["top_up", "gift", "wallet", "bucket", "transfer", "void"],
)  # fmt: skip
def test_a_command_tells_what_it_moves(step: Any, told: list[Any], calculator: MakeCalculator) -> None:
    steps = [
        opened(),
        top_up("200", "p"),
        line("package.purchased.v1", "a", "02 09:00", {"plan": "A", "grant_id": "G"}),
    ]
    steps += [use(10, "02 10:00", id="used")]
    found = movements([*steps, step], calculator, plan("A"))
    assert [(one["purpose"], one.get("amount"), one.get("quantity")) for one in found] == told


def test_a_pack_that_only_a_correction_buys_moves_once(calculator: MakeCalculator) -> None:
    packs = {"mode": "auto_pack", "block": "10", "price": "1.06", "max_packs": 3}
    steps = [opened(), top_up("50", "p"), line("package.purchased.v1", "a", "02 09:00", {"plan": "P", "grant_id": "G"})]
    steps += [use(90, "02 10:00", id="used"), use(5, "02 10:30", id="after")]
    data = {"source": "test", "id": "used", "usage": {"input": 112}, "reason": "r"}
    simulation = RecordedSimulation(catalog(plan("P", overage=packs)), calculator())
    simulation.feed(encode([*steps, line("usage.corrected.v1", "a", "02 11:00", data)]))
    told = [event["type"] for event in simulation.published(ACCOUNT_EVENT_TOPIC)]
    assert told.count("pack.bought.v1") == 2
    found = check(simulation, simulation.document())
    assert found.accounts["a"].wallet == Fraction("47.88")
    assert found.accounts["a"].amount["G/pack-2"] == 10
