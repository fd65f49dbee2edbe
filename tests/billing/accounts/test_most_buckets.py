"""An account has at most 10,000 buckets: further grants are refused, and usage is still billed."""

from typing import Any

from billing_samples import BOOK, MakeCalculator, buy, catalog, encode, line, opened, plan, subscribe, top_up, use
from recorded_simulation import RecordedSimulation

from billing.accounts.account import MAX_BUCKETS
from billing.calculator.compiled import CompiledCalculator
from billing.calculator.plain import PlainCalculator

THOUSAND = [{"unit": "STD_TOKEN", "amount": "1", "kind": "periodic", "fee_share": "0.001"} for _ in range(1_000)]
WIDE = [{"unit": "STD_TOKEN", "amount": "1", "kind": "periodic", "fee_share": "0.002"} for _ in range(500)]
PLANS = catalog(
    BOOK,
    plan("thousand", price="10.00", buckets=THOUSAND, cycle={"kind": "once"}),
    plan("daily", price="1.00", cycle={"kind": "days", "days": 1}),
    plan("eights", price="1.00", buckets=[*THOUSAND[:7], THOUSAND[0] | {"fee_share": "0.993"}], cycle={"kind": "once"}),
    plan("wide", price="10.00", buckets=WIDE, cycle={"kind": "days", "days": 1}),
    plan("packs", "1", "1.00", cycle={"kind": "once"}, priority=900, overage={
        "mode": "auto_pack", "block": "1", "price": "1.00", "max_packs": 3,
    }),
)  # fmt: skip


def test_a_full_account_takes_no_more_and_is_billed_as_ever(calculator: MakeCalculator) -> None:
    full = [buy("thousand", f"g{n}", "02 00:00") for n in range(9)]
    full += [subscribe("daily", "S", "02 00:00"), buy("packs", "P", "02 00:00")]
    steps: list[Any] = [opened("a"), opened("b"), top_up("50", "p", "01 12:00"), *full]
    steps += [
        buy("thousand", "g9", "02 00:01"),  # 9,002 buckets + 1,000
        subscribe("daily", "T", "02 00:01", starts_at="2023-02-07 00:00"),
        buy("packs", "Q", "02 00:02", account="b"),
        use(9_001, "02 10:00"),
    ]
    run = RecordedSimulation(PLANS, calculator())
    run.feed(encode(steps))
    refused = [event["data"]["reason"] for event in run.published("account.events") if "reason" in event["data"]]
    assert refused == ["too_many_buckets", "invalid_starts_at"]
    [account] = [one for name in ("a",) if (one := run.calculator.account(name)) is not None]
    assert len(account.buckets) < MAX_BUCKETS
    assert run.counts.rated == 1


def test_renewals_and_packs_and_gifts_end_where_the_account_is_full(calculator: MakeCalculator) -> None:
    steps: list[Any] = [opened("a"), opened("b"), top_up("50", "p", "01 12:00")]
    steps += [buy("packs", "Q", "02 00:00", account="b"), buy("thousand", "g0", "02 00:01")]
    steps += [buy("packs", f"P{n}", "02 00:01") for n in range(4)]
    steps += [subscribe("daily", f"S{n}", "02 00:02") for n in range(4)]
    steps += [subscribe("wide", "T", "02 00:02"), *(buy("wide", f"U{n}", "02 00:02") for n in range(4))]  # 3,508
    steps += [buy("thousand", f"g{n}", "02 00:03") for n in range(1, 7)]  # 9,508
    steps += [buy("eights", f"E{n}", "02 00:04") for n in range(61)]  # 9,996
    steps += [buy("packs", f"F{n}", "02 00:05") for n in range(4)]  # 10,000 buckets
    steps += [
        use(10_001, "02 10:00"),
        line("package.transferred.v1", "b", "02 11:00", {"grant_id": "Q", "amount": "1", "to": "a"}),
        use(1, "03 10:00"),
    ]
    run = RecordedSimulation(PLANS, calculator())
    run.feed(encode(steps))
    account = run.calculator.account("a")
    assert account is not None
    assert len(account.buckets) == MAX_BUCKETS
    kinds = [(event["type"], event["data"].get("reason")) for event in run.published("account.events")]
    assert ("transfer.returned.v1", "too_many_buckets") in kinds
    unpaid = [
        event["data"]["detail"] for event in run.published("account.events") if event["type"] == "renewal.unpaid.v1"
    ]
    assert unpaid == ["too_many_buckets"] * 5
    assert not any(kind == "pack.bought.v1" for kind, _ in kinds)
    assert run.counts.rated == 2


def test_many_buckets_are_listed_in_the_order_of_their_ids() -> None:
    """Cover ids with long common prefixes, ids that are prefixes of one another, and ids that are not ASCII."""
    names = [f"a-rather-long-common-beginning-{n % 7}{'x' * (n % 3)}{n}" for n in range(40)] + ["a", "账", "é", "~"]
    steps: list[Any] = [opened("a"), *(buy("packs", name, "02 00:00") for name in names), use(3, "02 10:00")]
    steps += [buy("packs", f"late{n}", "02 11:00") for n in range(5)] + [use(4, "02 12:00")]
    plain, compiled = RecordedSimulation(PLANS, PlainCalculator()), RecordedSimulation(PLANS, CompiledCalculator())
    plain.feed(encode(steps))
    compiled.feed(encode(steps))
    assert compiled.document() == plain.document()
    assert compiled.published("package.balance") == plain.published("package.balance")
    assert [record.changes for record in compiled.records] == [record.changes for record in plain.records]
    listed = [bucket["grant_id"] for bucket in compiled.published("package.balance")[-1]["data"]["buckets"]]
    assert listed == sorted(listed)
    assert len(listed) == 49
