"""Random accounts, commands and usage as steps of a simulation, and the sums that its properties compare."""

from typing import Any

from billing_samples import (
    BOOK,
    DOLLARS,
    Line,
    buy,
    catalog,
    closed,
    line,
    opened,
    plan,
    subscribe,
    subscription,
    top_up,
    use,
)
from hypothesis import strategies as st

from billing.accounts.account import Account
from billing.engine.simulation import Simulation
from schemas.units import parse_pico

ACCOUNTS = ("a", "b", "账户")
MONTH = {"kind": "subscription_month"}
CAPPED = {"mode": "pay_as_you_go", "cap": "5.00", "consent": "required"}
PACKS = {"mode": "auto_pack", "block": "7", "price": "0.99", "max_packs": 3}
TIERS = [{"up_to": "20"}, {"up_to": "60", "multiply": "0.9"}, {"up_to": None, "multiply": "0.333333"}]
WHOLE = {"kind": "volume", "every": "week", "count": "input", "tiers": TIERS, "settle": "at_end"}
ASIDE = {"kind": "commitment", "every": "week", "amount": "21.2", "included_usage": "out", "overflow_multiply": "1.7"}
COUNTED = {"per_million": {"input": "1060000"}, "standard_tokens": {"input": "1"}}
PERIOD_BOOK = BOOK | {
    "periods": {"whole": WHOLE},
    "rows": [*BOOK["rows"], *({"model": name, "periods": "whole"} | COUNTED for name in ("whole", "aside"))],
}
COMMITTED = PERIOD_BOOK | {
    "version": 2,
    "effective_from": "2026-11-16T00:00:00+08:00",
    "periods": {"whole": WHOLE | {"tiers": TIERS[1:]}, "aside": ASIDE},
    "rows": [*BOOK["rows"], *({"model": name, "periods": name} | COUNTED for name in ("whole", "aside"))],
}
"""The second half of the month has a commitment; an account that was opened before has it from its first use on."""
OWED = {"mode": "owe", "max_owed": "50"}
CARRIED = [
    {"unit": "STD_TOKEN", "amount": "30", "kind": "periodic", "carry_over": {"cycles": 1, "max": "12", "min": "4"}}
]
ENTRIES: list[dict[str, Any]] = [
    PERIOD_BOOK,
    COMMITTED,
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
    plan(
        "portions",
        price="24.01",
        cycle={"kind": "weeks", "weeks": 2},
        buckets=[
            {
                "unit": "STD_TOKEN",
                "amount": "9",
                "kind": "periodic",
                "every": "day",
                "fee_share": "0.7",
                "carry_over_cycles": 1,
            },
            {"unit": "REQUEST", "amount": "4", "kind": "periodic", "every": "week", "fee_share": "0.3", "priority": 90},
        ],
        overage="pay_as_you_go",
    ),
    plan(
        "opened",
        buckets=[{"unit": "REQUEST", "amount": "20", "kind": "periodic", "carry_over_cycles": 1}],
        windows=[
            {"kind": "from_first_use", "hours": 50, "cap": "3", "alerts": ["0.5", "1"]},
            {"kind": "fixed", "every": "day", "cap": "20", "unit": "STD_TOKEN"},
            {"kind": "rolling", "hours": 30, "cap": "9", "unit": "CREDIT"},
        ],
        cycle={"kind": "calendar_month"},
        proration={"fee": "true", "quota": "true"},
    ),
    plan("family", "70", members={"seats": 2, "cap": "30"}, overage="pay_as_you_go"),
    plan("owing", "15", "4.44", cycle={"kind": "days", "days": 2}, overage=OWED, cancellation={"refund": "by_quota"}),
    plan(
        "yearly",
        price="60.01",
        cycle={"kind": "months", "months": 1},
        buckets=[
            {
                "unit": "STD_TOKEN",
                "amount": "12",
                "kind": "periodic",
                "every": "day",
                "carry_over": {"cycles": 1, "max": "5.5", "min": "2"},
            }
        ],
        overage=OWED,
        cancellation={"refund": "by_time"},
    ),
    plan("leaving", price="29.90", buckets=CARRIED, overage="pay_as_you_go", cancellation={"refund": "by_time"}),
]
CATALOG = catalog(*ENTRIES)
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
    "portions",
    "opened",
    "owing",
    "yearly",
    "leaving",
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
    model=st.sampled_from(["m", "half", "third", "uncounted", "free", "odd", "credit", "nobody's", "whole", "aside"]),
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
        st.sampled_from(
            ["days", "days", "monthly", "two", "small", "lazy", "portions", "opened", "owing", "leaving", "yearly"]
        ),
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
        st.sampled_from(["days", "monthly", "two", "portions", "opened", "owing", "leaving", "yearly"]),
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
            {"bill_id": f"{account}/2026-11", "amount": amount} | ({"reason": "r"} if back else {"payment_ref": ref}),
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
"""Account ``b`` owes a bill from the second day."""
STEPS = st.lists(st.one_of(USAGE, USAGE, USAGE, COMMANDS, BILLED, BROKEN), max_size=40).map(
    lambda steps: BEGUN + [step if isinstance(step, bytes) else {"id": f"c{n}"} | step for n, step in enumerate(steps)]
)


def accounts(simulation: Simulation) -> list[Account]:
    found = [simulation.calculator.account(name) for name in simulation.calculator.account_ids()]
    return [account for account in found if account is not None]


def control(document: dict[str, Any], name: str) -> int:
    """Return the balance of a control account over all currencies."""
    balance = document["ledger"]["trial_balance"]
    return sum(parse_pico(amount) for code, amount in balance.items() if code.partition(":")[0] == name)
