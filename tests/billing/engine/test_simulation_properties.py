"""Properties of any accounts, commands and usage: balance, conservation, independence of commit boundaries."""

import json
from typing import Any

from billing_samples import (
    BOOK,
    Line,
    MakeCalculator,
    buy,
    catalog,
    encode,
    opened,
    plan,
    top_up,
    use,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulation_steps import ACCOUNTS, CATALOG, STEPS, accounts, control

from billing.engine.simulation import Simulation
from schemas.json_text import dump_json
from schemas.units import parse_pico

DONG: dict[str, Any] = {
    "kind": "price_book",
    "name": "dong",
    "version": 1,
    "currency": "VND",
    "effective_from": "2020-01-01T00:00:00+08:00",
    "rows": [{"model": "m", "per_million": {"output": "390000", "seats": "10000000000000000000000000"}}],
}

PROPERTY = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def run(calculator: MakeCalculator, steps: list[Line | bytes], size: int = 1_000) -> tuple[Simulation, dict[str, Any]]:
    simulation = Simulation(CATALOG, calculator(), lines_per_commit=size)
    simulation.feed(encode(steps))
    return simulation, simulation.document()


def is_usage(step: Line | bytes) -> bool:
    return bool(step.strip()) if isinstance(step, bytes) else step["type"] == "token.usage.v1"


@PROPERTY
@given(steps=STEPS)
def test_every_yuan_and_every_event_is_somewhere(calculator: MakeCalculator, steps: list[Line | bytes]) -> None:
    simulation, document = run(calculator, steps)
    assert document["ledger"]["sum"] == "0"
    buckets = [bucket for account in accounts(simulation) for bucket in account.buckets]
    assert sum(bucket.liability_pico for bucket in buckets) == -control(document, "contract_liability")
    assert sum(account.wallet_pico for account in accounts(simulation)) == -control(document, "customer_deposits")
    assert control(document, "transfer_clearing") == 0
    bills = [bill for account in accounts(simulation) for bill in account.extras.bills]
    assert sum(bill.open_pico for bill in bills) == control(document, "receivables")
    assert all(0 <= bill.paid_pico <= bill.amount_pico for bill in bills)
    assert sum(document["events"].values()) == sum(map(is_usage, steps))
    assert sum(document["rejections"].values()) == document["events"]["rejected"]
    earned = ("revenue_usage", "revenue_commitment", "revenue_true_up", "revenue_debt")
    assert parse_pico(document["revenue_net"]) == -sum(control(document, name) for name in earned)
    assert parse_pico(document["breakage"]) == -control(document, "revenue_breakage")
    for bucket in buckets:
        assert 0 <= bucket.remaining_micro <= bucket.amount_micro
        assert bucket.liability_pico >= 0
        assert (bucket.status == "used_up") == (bucket.remaining_micro == 0)
        if bucket.status in ("used_up", "expired", "refunded"):
            assert bucket.liability_pico == 0


@PROPERTY
@given(steps=STEPS, size=st.integers(1, 12))
def test_where_commits_fall_changes_no_byte(calculator: MakeCalculator, steps: list[Line | bytes], size: int) -> None:
    assert dump_json(run(calculator, steps)[1]) == dump_json(run(calculator, steps, size)[1])


@PROPERTY
@given(steps=STEPS)
def test_the_same_input_gives_the_same_bytes(calculator: MakeCalculator, steps: list[Line | bytes]) -> None:
    assert dump_json(run(calculator, steps)[1]) == dump_json(run(calculator, steps)[1])


@PROPERTY
@given(steps=STEPS, pick=st.randoms(use_true_random=False))
def test_how_accounts_interleave_changes_no_account(
    calculator: MakeCalculator, steps: list[Line | bytes], pick: Any
) -> None:
    """Shuffle lines but keep the order within each account; each source writes for one account."""
    lines = [step for step in steps if not isinstance(step, bytes)]
    queues = [[line for line in lines if line["subject"] == account] for account in ACCOUNTS]
    shuffled: list[Line | bytes] = []
    while any(queues):
        queue = pick.choice([queue for queue in queues if queue])
        shuffled.append(queue.pop(0))
    one, other = run(calculator, list(lines))[1], run(calculator, shuffled)[1]
    assert one["accounts"] == other["accounts"]
    assert one["ledger"] == other["ledger"]
    assert one["events"] == other["events"]


@PROPERTY
@given(steps=STEPS, cut=st.integers(0, 40))
def test_feeding_in_parts_is_feeding_at_once(calculator: MakeCalculator, steps: list[Line | bytes], cut: int) -> None:
    lines = encode(steps)
    simulation = Simulation(CATALOG, calculator())
    simulation.feed(lines[:cut])
    simulation.feed(lines[cut:])
    assert simulation.document() == run(calculator, steps)[1]


def test_the_document_is_sorted(calculator: MakeCalculator) -> None:
    steps = [opened(name) for name in ("b", "a", "账", "B")]
    steps += [buy("small", grant, account="a") for grant in ("z", "g10", "g9", "A")]
    document = run(calculator, list(steps))[1]
    assert list(document["accounts"]) == ["B", "a", "b", "账"]
    assert [bucket["grant_id"] for bucket in document["accounts"]["a"]["buckets"]] == ["A/1", "g10/1", "g9/1", "z/1"]


def test_the_document_has_the_keys_of_the_contract(calculator: MakeCalculator) -> None:
    document = run(calculator, [opened(), buy("small", "g"), use(50), b"{"])[1]
    digest = document.pop("state_digest")
    assert digest.startswith("sha256:") and len(digest) == 71
    assert list(document) == ["accounts", "events", "rejections", "ledger", "settlement", "revenue_net", "breakage"]
    assert document["events"] == {"rated": 1, "duplicate": 0, "rejected": 1}
    assert document["rejections"] == {"invalid_json": 1}
    assert document["settlement"] == {"operator": document["revenue_net"]} == {"operator": "9.34"}
    assert list(document["accounts"]["a"]) == ["currency", "wallet", "absorbed", "absorbed_amount", "buckets"]
    assert document["accounts"]["a"]["absorbed"] == "10"


def test_several_currencies_keep_accounts_apart(calculator: MakeCalculator) -> None:
    steps = [opened("a"), opened("b", currency="USD"), top_up("5", "p"), top_up("7", "p", account="b")]
    assert run(calculator, list(steps))[1]["ledger"]["trial_balance"] == {
        "cash:CNY": "5",
        "cash:USD": "7",
        "customer_deposits:CNY": "-5",
        "customer_deposits:USD": "-7",
    }


def test_amounts_of_a_million_million_yuan_and_1e18_tokens_stay_exact(calculator: MakeCalculator) -> None:
    steps = [opened(), *[top_up("1000000000000", f"p{n}") for n in range(9)]]
    steps += [buy("huge", f"g{n}", pay_from="wallet") for n in range(9)]
    steps += [use(9_000_000_000_000, model="free") for _ in range(20)]
    document = run(calculator, list(steps))[1]
    account = document["accounts"]["a"]
    assert account["wallet"] == "0"
    assert account["buckets"][0]["remaining"] == "999820000000000000"
    assert document["ledger"]["sum"] == "0"
    # 943396226415.09 of each plan is net; 180e12 of 1e18 tokens earn 1.8e-4 of the first one's
    assert document["revenue_net"] == "169811320.7547162"
    assert control(document, "contract_liability") == -parse_pico("8490566037735.81") + parse_pico("169811320.7547162")


def test_events_beyond_64_bits_are_billed_and_what_no_column_holds_is_rejected_whole(
    calculator: MakeCalculator,
) -> None:
    book = catalog(BOOK, DONG)
    steps = [
        opened(),
        *[use(9_000_000_000_000_000_000), use(2**63), use(10_000_000), use(10_000_000)],
        opened("v", price_book="dong", currency="VND"),
        *[use(30_000_000, account="v", meter="output") for _ in range(3)],
        *[use(count, account="v", meter="seats") for count in (2, 2**62)],
    ]
    simulation = Simulation(book, calculator())
    simulation.feed(encode(steps))
    document = simulation.document()
    assert document["events"] == {"rated": 7, "duplicate": 0, "rejected": 2}
    assert document["rejections"] == {"overflow": 2}
    assert document["accounts"]["a"]["wallet"] == "-9540000000021200000"
    assert document["accounts"]["v"]["wallet"] == f"-{3 * 11_700_000 + 2 * 10**19}"
    assert document["ledger"]["sum"] == "0"


def test_the_greatest_time_counts_every_readable_line(calculator: MakeCalculator) -> None:
    """The time of a rejected line counts; an unreadable line has no time."""
    declared = BOOK | {"meters": ["clicks"], "rows": [{"model": "m", "per_million": {"clicks": "1", "input": "1"}}]}
    steps = [opened(), buy("A", "G"), use(1, "29 00:00", meter="clicks")]
    book = catalog(declared, plan("A"))
    for late in (steps, [*steps[:2], use(1, "29 00:00", account="nobody")]):
        simulation = Simulation(book, calculator())
        simulation.feed(encode(late))
        assert simulation.document()["accounts"]["a"]["buckets"][0]["status"] == "expired"


def test_hostile_lines_are_rejected_not_fatal(calculator: MakeCalculator) -> None:
    deep = b'{"type":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    huge = b'{"sequence":' + b"9" * 10_000 + b"}"
    twice = b'{"type":"account.opened.v1","type":"token.usage.v1"}'
    document = run(calculator, [deep, huge, twice, b"\x00", json.dumps({"type": {}}).encode()])[1]
    assert document["events"] == {"rated": 0, "duplicate": 0, "rejected": 5}
