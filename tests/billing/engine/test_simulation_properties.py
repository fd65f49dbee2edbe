"""What holds for any accounts, commands and usage: balance, conservation, and that commit boundaries do not matter."""

import json
from typing import Any

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
    subscribe,
    subscription,
    top_up,
    use,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.accounts.account import Account
from billing.engine.simulation import Simulation
from schemas.json_text import dump_json
from schemas.units import parse_pico

ACCOUNTS = ("a", "b", "账户")
MONTH = {"kind": "subscription_month"}
CAPPED = {"mode": "pay_as_you_go", "cap": "5.00", "consent": "required"}
PACKS = {"mode": "auto_pack", "block": "7", "price": "0.99", "max_packs": 3}
CATALOG = catalog(
    BOOK,
    DOLLARS,
    plan("small", "40", "9.90", alerts=["0.5", "1"]),
    plan("payg", "25", "29.90", overage="pay_as_you_go", cycle=MONTH, priority=50),
    plan("edge", "30", "0.02", scope={"channel": "edge"}, cycle={"kind": "once"}, kind="total"),
    plan("huge", "1000000000000000000", "1000000000000.00", priority=900, grace_hours=0),
    plan(
        "two",
        price="49.90",
        cycle={"kind": "days", "days": 2},
        buckets=[
            {"unit": "STD_TOKEN", "amount": "7", "kind": "periodic", "fee_share": "0.333333"},
            {"unit": "STD_TOKEN", "amount": "11.5", "kind": "total", "fee_share": "0.666667", "priority": 7},
        ],
    ),
    plan(
        "days",
        price="0.07",
        cycle={"kind": "days", "days": 3},
        buckets=[{"unit": "STD_TOKEN", "amount": "33.333333", "kind": "periodic", "carry_over_cycles": 2}],
        expiry_alert_days=[2, 1],
    ),
    plan("monthly", "90", "19.99", cycle={"kind": "calendar_month"}, expiry_alert_days=[7]),
    plan("lazy", "20", "5.00", cycle={"kind": "days", "days": 4}, activation="first_use", activate_within_days=6),
    plan(
        "mixed",
        price="12.34",
        buckets=[
            {"unit": "REQUEST", "amount": "2", "kind": "periodic", "fee_share": "0.2", "priority": 3},
            {"unit": "CREDIT", "amount": "3.5", "kind": "periodic", "fee_share": "0.3", "priority": 4},
            {"unit": "CNY", "amount": "9.99", "kind": "total", "fee_share": "0.5", "priority": 20},
        ],
        overage="pay_as_you_go",
        alerts=["0.8"],
    ),
    plan("capped", "90", windows=[{"kind": "rolling", "hours": 48, "cap": "20"}], overage=CAPPED),
    plan("packs", "10", "1.00", overage=PACKS, windows=[{"kind": "fixed", "every": "week", "cap": "40"}]),
    plan("family", "70", members={"seats": 2, "cap": "30"}, overage="pay_as_you_go"),
)
PLANS = (
    "small",
    "payg",
    "edge",
    "huge",
    "two",
    "mixed",
    "capped",
    "packs",
    "family",
    "unknown",
    "days",
    "monthly",
    "lazy",
)
TIMES = st.builds(lambda day, hour: f"{day:02} {hour:02}:00", st.integers(1, 28), st.integers(0, 23))
NAMED = st.sampled_from(ACCOUNTS)
USAGE = st.builds(
    lambda account, at, tokens, model, meter, edge, id, number, member: use(
        tokens,
        at,
        account,
        model=model,
        meter=meter,
        data={"channel": "edge" if edge else "cloud", "member": member},
        number=number,
        id=id,
        source=f"{account}-{'unnumbered' if number is None else 'numbered'}",
    ),
    account=NAMED,
    at=TIMES,
    tokens=st.integers(0, 60) | st.sampled_from([-1, 2**63, 9_000_000_000_000]),
    model=st.sampled_from(["m", "half", "third", "uncounted", "free", "odd", "credit", "nobody's"]),
    meter=st.sampled_from(["input", "output", "reasoning", "images", "unheard_of"]),
    edge=st.booleans(),
    id=st.sampled_from([f"u{n}" for n in range(30)]),
    number=st.none() | st.integers(1, 30),
    member=st.sampled_from([None, "x", "y", "z"]),
)
COMMANDS = st.one_of(
    st.builds(
        lambda account, at, currency: opened(account, at, currency=currency),
        NAMED,
        TIMES,
        st.sampled_from(["CNY", "CNY", "USD", "EUR"]),
    ),
    st.builds(
        lambda amount, ref, at, account, gift: top_up(amount, ref, at, account, gift=gift),
        st.sampled_from(["0.01", "50", "1000000000000"]),
        st.sampled_from(["p1", "p2", "p3"]),
        TIMES,
        NAMED,
        st.booleans(),
    ),
    st.builds(
        lambda name, grant, at, account, pay, starts: buy(
            name, grant, at, account, pay_from=pay, **({"starts_at": starts} if starts else {})
        ),
        st.sampled_from(PLANS),
        st.sampled_from(["g1", "g2", "g3"]),
        TIMES,
        NAMED,
        st.sampled_from(["external", "wallet"]),
        st.none() | TIMES,
    ),
    st.builds(
        lambda name, id, at, account, pay, starts: subscribe(
            name, id, at, account, pay_from=pay, **({"starts_at": starts} if starts else {})
        ),
        st.sampled_from(["days", "days", "monthly", "two", "small", "lazy"]),
        st.sampled_from(["g1", "s1", "s2"]),
        TIMES,
        NAMED,
        st.sampled_from(["external", "wallet"]),
        st.none() | TIMES,
    ),
    st.builds(
        lambda verb, data, id, at, account: subscription(verb, at, id, account, **data),
        st.sampled_from(["cancelled", "suspended", "resumed"]),
        st.sampled_from([{}, {"immediately": True}]),
        st.sampled_from(["s1", "s2"]),
        TIMES,
        NAMED,
    ),
    st.builds(
        lambda plan, effective, id, at, account: subscription(
            "changed", at, id, account, plan=plan, effective=effective
        ),
        st.sampled_from(["days", "monthly", "two"]),
        st.sampled_from(["now", "cycle_end"]),
        st.sampled_from(["s1", "s2"]),
        TIMES,
        NAMED,
    ),
    st.builds(
        lambda below, at, account: line("wallet.alert_set.v1", account, at, {"below": below}),
        st.sampled_from([None, "0", "49.5"]),
        TIMES,
        NAMED,
    ),
    st.builds(closed, TIMES, NAMED),
    st.builds(lambda at, account: line("overage.consented.v1", account, at, {"plan": "capped"}), TIMES, NAMED),
    st.builds(
        lambda grant, at, account: line("package.refunded.v1", account, at, {"grant_id": grant, "reason": "r"}),
        st.sampled_from(["g1", "g2", "g3"]),
        TIMES,
        NAMED,
    ),
    st.builds(
        lambda grant, amount, at, account, to: line(
            "package.transferred.v1", account, at, {"grant_id": grant, "amount": amount, "to": to}
        ),
        st.sampled_from(["g1", "g2/1", "g2/2", "g3"]),
        st.sampled_from(["0.000001", "3", "7", "11.5", "40", "1000"]),
        TIMES,
        NAMED,
        st.sampled_from([*ACCOUNTS, "nobody"]),
    ),
    st.builds(
        lambda target, amount, at, account, names: line(
            "balance.adjusted.v1",
            account,
            at,
            {"target": target, "amount": amount, "reason": "r", "requested_by": names[0], "approved_by": names[1]},
        ),
        st.sampled_from(["wallet", "g1", "g2/2", "g3"]),
        st.sampled_from(["0.01", "-0.5", "7", "-7", "-1000000"]),
        TIMES,
        NAMED,
        st.sampled_from(["xy", "xy", "xx"]),
    ),
)
BILLED = st.one_of(
    st.builds(
        lambda account, at, amount, ref, back: line(
            "bill.charged_back.v1" if back else "bill.collected.v1",
            account,
            at,
            {"bill_id": f"{account}/2026-10", "amount": amount} | ({"reason": "r"} if back else {"payment_ref": ref}),
        ),
        NAMED,
        TIMES,
        st.sampled_from(["0.01", "1.06", "10.6", "31.8"]),
        st.sampled_from(["b1", "b2", "p1"]),
        st.booleans(),
    ),
    st.builds(
        lambda limit, at, account: line("credit.changed.v1", account, at, {"credit_limit": limit}),
        st.sampled_from(["0", "20", "300"]),
        TIMES,
        NAMED,
    ),
)
BROKEN = st.sampled_from([b"", b"  ", b"{", b"[]", b"\xff", b"null", b'{"type":1}', b'{"type":"token.usage.v1"}'])
POSTPAID = {"payment": "postpaid", "bill_day": 2, "due_days": 9, "credit_limit": "150"}
OPENED: list[Line] = [{"id": f"open-{name}"} | opened(name) for name in ("a", "b")]
BEGUN: list[Line] = [
    OPENED[0],
    {"id": "open-b"} | opened("b", **POSTPAID),
    use(30, "01 10:00", "b", source="b-first", id="first"),
]
"""``b`` owes a bill from the second day on."""
STEPS = st.lists(st.one_of(USAGE, USAGE, USAGE, COMMANDS, BILLED, BROKEN), max_size=40).map(
    lambda steps: BEGUN + [step if isinstance(step, bytes) else {"id": f"c{n}"} | step for n, step in enumerate(steps)]
)
PROPERTY = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def run(calculator: MakeCalculator, steps: list[Line | bytes], size: int = 1_000) -> tuple[Simulation, dict[str, Any]]:
    simulation = Simulation(CATALOG, calculator(), lines_per_commit=size)
    simulation.feed(encode(steps))
    return simulation, simulation.document()


def accounts(simulation: Simulation) -> list[Account]:
    found = [simulation.calculator.account(name) for name in simulation.calculator.account_ids()]
    return [account for account in found if account is not None]


def control(document: dict[str, Any], name: str) -> int:
    """The balance of a control account over all currencies."""
    balance = document["ledger"]["trial_balance"]
    return sum(parse_pico(amount) for code, amount in balance.items() if code.partition(":")[0] == name)


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
    assert parse_pico(document["revenue_net"]) == -control(document, "revenue_usage")
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
    """Every account keeps its own order; each source writes of one account."""
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


def test_an_event_beyond_64_bits_is_rejected_whole(calculator: MakeCalculator) -> None:
    document = run(calculator, [opened(), use(9_000_000_000_000_000_000), use(2**63)])[1]
    assert document["rejections"] == {"overflow": 2}
    assert document["accounts"]["a"]["wallet"] == "0"


def test_the_greatest_time_counts_every_readable_line(calculator: MakeCalculator) -> None:
    """A line that is rejected has a time too; what cannot be read has none."""
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
