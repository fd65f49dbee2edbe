"""A commitment that usage paid by buckets does not draw (docs/price-books.md, "A commitment beside included usage")."""

from typing import Any

import pytest
from billing_samples import BOOK, Line, MakeCalculator, buy, catalog, clock, encode, line, opened, plan, use
from recorded_simulation import RecordedSimulation

from schemas.times import parse_time_us

DEAL = {"kind": "commitment", "amount": "106", "overflow_multiply": "1.5"}
ROW = {"model": "d", "per_million": {"input": "1060000", "output": "2120000"}, "periods": "deal"}
ROW |= {"standard_tokens": {"input": "1", "output": "2"}}
MONEY = [{"unit": "CNY", "amount": "31.8", "kind": "periodic"}]
MONTH = {"kind": "calendar_month"}


def deal(**keys: Any) -> Any:
    return catalog(
        BOOK | {"periods": {"deal": DEAL | keys}, "rows": [*BOOK["rows"], ROW]},
        plan("inc", "30", "0.00", overage="pay_as_you_go", cycle=MONTH),
        plan("money", price="0.00", buckets=MONEY, overage="pay_as_you_go", cycle=MONTH),
        plan("blocked", "30", "0.00", cycle=MONTH),
    )


def end(calculator: MakeCalculator, steps: list[Line], as_of: str = "2026-12-03 00:00", **keys: Any) -> tuple[str, Any]:
    simulation = RecordedSimulation(deal(**{"included_usage": "out"} | keys), calculator(), lines_per_commit=2)
    simulation.feed(encode([opened(), *steps]))
    document = simulation.document(parse_time_us(clock(as_of)))
    assert document["ledger"]["sum"] == "0"
    return document["accounts"]["a"]["wallet"], simulation


def d(tokens: int, at: str = "05 00:00", **data: Any) -> Line:
    return use(tokens, at, model="d", **data)


@pytest.mark.parametrize(
    ("used", "wallet"),
    [
        ([130], "-106"),  # 100 are just the commitment
        ([30], "-106"),
        ([0], "-106"),
        ([10, 20, 50], "-106"),
        ([140], "-121.9"),  # 10 × 1.59
        ([30, 100, 10], "-121.9"),
        ([100, 40], "-121.9"),
        ([230], "-265"),
    ],
)
def test_what_a_bucket_pays_neither_draws_nor_moves_towards_the_overflow_price(
    calculator: MakeCalculator, used: list[int], wallet: str
) -> None:
    steps = [buy("inc", "G", "01 00:00"), *[d(tokens, f"0{day} 00:00") for day, tokens in enumerate(used, 2)]]
    assert end(calculator, steps)[0] == wallet


def test_without_a_bucket_it_is_as_if_all_usage_drew(calculator: MakeCalculator) -> None:
    for used in ([50], [100], [150], [60, 60], [20, 200, 3]):
        steps = [d(tokens, f"0{day} 00:00") for day, tokens in enumerate(used, 2)]
        assert end(calculator, steps)[0] == end(calculator, steps, included_usage="in")[0]


def test_the_line_above_the_commitment_adds_up(calculator: MakeCalculator) -> None:
    _, simulation = end(calculator, [buy("inc", "G", "01 00:00"), d(140)])
    (event,) = simulation.published("usage.rated")[0]["data"]["events"]
    assert event["lines"][-1] == {
        "meter": "above_commitment", "quantity": 1, "per_million": "5300000", "amount": "5.3", "standard_tokens": "0",
    }  # fmt: skip
    assert (event["amount"], event["charged"], event["net"]) == ("153.7", "121.9", "145")
    assert sum(float(one["amount"]) for one in event["lines"]) == pytest.approx(153.7)


def test_a_bucket_of_money_burns_the_price_within_the_commitment(calculator: MakeCalculator) -> None:
    assert end(calculator, [buy("money", "G", "01 00:00"), d(130)])[0] == "-106"
    assert end(calculator, [buy("money", "G", "01 00:00"), d(140)])[0] == "-121.9"


def test_absorbed_usage_draws_like_usage_of_the_wallet(calculator: MakeCalculator) -> None:
    """30 are paid by the bucket, 60 are absorbed: 40 of the commitment are missing."""
    wallet, simulation = end(calculator, [buy("blocked", "G", "01 00:00"), d(90)])
    ended = next(e["data"] for e in simulation.published("account.events") if e["type"] == "commitment.ended.v1")
    assert (ended["drawn"], ended["charged"], wallet) == ("63.6", "42.4", "-42.4")


def test_usage_after_the_settlement_is_above_the_commitment(calculator: MakeCalculator) -> None:
    steps = [buy("inc", "G", "01 00:00"), use(1, "2026-12-02 12:00"), d(40, "30 00:00")]
    assert end(calculator, steps)[0] == "-170.66"  # 106, 1.06 and 40 × 1.59: the bucket's grace is over too


def test_a_correction_counts_anew(calculator: MakeCalculator) -> None:
    void = line("usage.voided.v1", "a", "20 00:00", {"source": "test", "id": "first", "reason": "r"})
    steps = [buy("inc", "G", "01 00:00"), d(30, id="first"), d(140, "06 00:00"), void]
    assert end(calculator, steps)[0] == "-121.9"
