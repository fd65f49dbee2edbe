"""Period prices in accounts: counters across commits, late usage, settlement of commitments."""

import json
from copy import deepcopy
from typing import Any

import pytest
from billing_samples import (
    BOOK,
    Line,
    MakeCalculator,
    buy,
    catalog,
    clock,
    closed,
    encode,
    line,
    opened,
    plan,
    simulate,
    top_up,
    use,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_simulation import RecordedSimulation

from billing.accounts.extras import Counter, Extras, extras_json, parse_extras
from billing.commits.commit_record import PartitionState
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.engine.partition_engine import PartitionEngine
from billing.engine.simulation import NothingStored
from schemas.json_text import dump_json
from schemas.times import DAY_US, HOUR_US, parse_time_us
from schemas.topics import ACCOUNT_EVENT_TOPIC, RATED_TOPIC, USAGE_TOPIC

TIERS = [{"up_to": "100"}, {"up_to": None, "multiply": "0.5"}]
PERIODS: dict[str, Any] = {
    "monthly": {"kind": "graduated", "count": "input", "tiers": TIERS},
    "weekly": {"kind": "volume", "every": "week", "count": "standard_tokens", "tiers": TIERS},
    "daily": {"kind": "blocks", "every": "day", "count": ["input", "output"], "block": {"units": "7", "price": "10.6"}},
    "deal": {"kind": "commitment", "amount": "106", "multiply": "0.5"},
}


def rowed(model: str, *names: str) -> dict[str, Any]:
    row = {"model": model, "per_million": {"input": "1060000"}, "standard_tokens": {"input": "1"}}
    return row | ({"periods": [*names]} if names else {})


PERIOD_BOOK: dict[str, Any] = BOOK | {
    "periods": PERIODS,
    "rows": [
        *BOOK["rows"],
        rowed("tiered", "monthly"),
        rowed("by-volume", "weekly"),
        {"model": "blocks", "per_million": {"input": "1", "output": "1"}, "periods": ["daily", "deal"]},
        rowed("deal", "deal"),
        rowed("both", "monthly", "deal"),
    ],
}
NO_DEAL = BOOK | {
    "periods": {"monthly": PERIODS["monthly"]},
    "rows": [*BOOK["rows"], rowed("tiered", "monthly"), rowed("deal")],
}
CATALOG = catalog(PERIOD_BOOK, plan("payg", "25", "29.90", overage="pay_as_you_go"))
UNCOMMITTED = catalog(NO_DEAL)


def opened_in(month: str = "11", account: str = "a") -> Line:
    return opened(account, f"2026-{month}-01 00:00")


def amounts(simulation: RecordedSimulation) -> list[str]:
    return [item["amount"] for event in simulation.published(RATED_TOPIC) for item in event["data"]["events"]]


def commitments(simulation: RecordedSimulation) -> list[dict[str, Any]]:
    events = simulation.published(ACCOUNT_EVENT_TOPIC)
    return [event["data"] for event in events if event["type"] == "commitment.ended.v1"]


def run(calculator: MakeCalculator, steps: list[Line], as_of: str, book: Any = CATALOG) -> RecordedSimulation:
    simulation = RecordedSimulation(book, calculator(), lines_per_commit=2)
    simulation.feed(encode(steps))
    simulation.document(parse_time_us(clock(as_of)))
    return simulation


def test_usage_is_counted_in_commit_order_and_late_usage_in_the_period_of_its_own_time(
    calculator: MakeCalculator,
) -> None:
    steps = [
        opened("a", "2026-09-01 00:00"),
        use(90, "2026-10-30 10:00", model="tiered"),
        use(5, "2026-11-02 10:00", model="tiered"),
        use(20, "2026-10-31 23:59:59", model="tiered"),
    ]
    book = catalog(NO_DEAL)
    simulation = run(calculator, steps, "2026-11-20 00:00", book)
    assert amounts(simulation) == ["95.4", "5.3", "15.9"]  # 10 at 1.06 and 10 at 0.53
    account = simulation.calculator.account("a")
    assert account is not None
    counted = {key: counter.used for key, counter in account.extras.counters.items()}
    assert counted == {"monthly@2026-10-01": 110_000_000, "monthly@2026-11-01": 5_000_000}


def test_duplicates_and_rejected_events_count_nothing(calculator: MakeCalculator) -> None:
    again = use(60, model="tiered", id="same")
    steps = [opened(), again, again, use(60, model="tiered", meter="images"), use(60, model="tiered")]
    assert amounts(run(calculator, steps, "20 00:00", UNCOMMITTED)) == ["63.6", "53"]


def test_what_is_missing_to_a_commitment_is_charged_by_time_alone(calculator: MakeCalculator) -> None:
    steps = [opened(at="10 00:00"), top_up("500", "p"), use(50, "20 00:00", model="deal")]
    before = simulate(calculator(), CATALOG, steps, parse_time_us("2026-12-01T23:59:59.999999+08:00"))
    assert (before["accounts"]["a"]["wallet"], before["revenue_net"]) == ("473.5", "25")
    after = simulate(calculator(), CATALOG, steps, parse_time_us("2026-12-02T00:00:00+08:00"))
    assert (after["accounts"]["a"]["wallet"], after["revenue_net"]) == ("394", "100")
    assert after["settlement"] == {"operator": "100"}
    assert after["ledger"]["trial_balance"] == {
        "cash": "500",
        "customer_deposits": "-394",
        "output_vat": "-6",
        "revenue_commitment": "-75",
        "revenue_usage": "-25",
    }
    assert commitments(run(calculator, steps, "2026-12-02 00:00")) == [
        {
            "account": "a",
            "price_book": "retail@1",
            "commitment": "deal",
            "first_day": "2026-11-01",
            "period_end": "2026-11-30T16:00:00Z",
            "committed": "106",
            "drawn": "26.5",
            "charged": "79.5",
            "movements": [
                {
                    "purpose": "commitment",
                    "currency": "CNY",
                    "amount": "-79.5",
                    "net": "-75",
                    "tax": "-4.5",
                    "wallet": "-79.5",
                    "gift": "0",
                    "price_book": "retail@1",
                }
            ],
        }
    ]


def test_a_commitment_goes_on_without_usage_until_the_account_is_closed(calculator: MakeCalculator) -> None:
    steps = [opened_in("08"), closed("2026-10-20 00:00")]
    ended = commitments(run(calculator, steps, "2027-03-01 00:00"))
    assert [(end["first_day"], end["charged"]) for end in ended] == [
        ("2026-08-01", "106"),
        ("2026-09-01", "106"),
        ("2026-10-01", "106"),
    ]


def test_usage_within_the_grace_still_draws_and_later_usage_is_above(calculator: MakeCalculator) -> None:
    steps = [
        opened_in(),
        use(10, "2026-12-01 23:59", model="deal"),
        use(10, "2026-11-30 23:59", model="deal"),
        use(1, "2026-12-02 00:00"),
        use(10, "2026-11-30 23:58", model="deal"),
    ]
    simulation = run(calculator, steps, "2026-12-05 00:00")
    assert amounts(simulation) == ["5.3", "5.3", "1.06", "10.6"]
    assert [(end["first_day"], end["drawn"]) for end in commitments(simulation)] == [("2026-11-01", "5.3")]


def test_more_than_was_committed_is_charged_above_it_and_nothing_at_the_end(calculator: MakeCalculator) -> None:
    steps = [opened_in(), use(250, model="deal")]
    simulation = run(calculator, steps, "2026-12-05 00:00")
    assert amounts(simulation) == ["159"]  # 200 at 0.53 and 50 at 1.06
    assert [(end["drawn"], end["charged"]) for end in commitments(simulation)] == [("106", "0")]


def test_a_version_without_the_commitment_ends_it_and_one_with_it_begins_it(calculator: MakeCalculator) -> None:
    def version(number: int, begins: str, of: dict[str, Any]) -> dict[str, Any]:
        return of | {"version": number, "effective_from": f"{begins}T00:00:00+08:00"}

    book = catalog(
        version(1, "2020-01-01", NO_DEAL),
        version(2, "2026-09-15", deepcopy(PERIOD_BOOK)),
        version(3, "2026-11-15", NO_DEAL),
    )
    quiet = run(calculator, [opened_in("08")], "2027-01-01 00:00", book)
    assert commitments(quiet) == []
    using = [opened_in("08"), use(10, "2026-09-20 00:00", model="deal")]
    ended = commitments(run(calculator, using, "2027-01-01 00:00", book))
    assert [(end["first_day"], end["charged"]) for end in ended] == [("2026-09-01", "100.7"), ("2026-10-01", "106")]


def test_the_plan_pays_what_the_rules_say_and_the_commitment_is_drawn_all_the_same(calculator: MakeCalculator) -> None:
    steps = [opened_in(), buy("payg", "G"), use(100, model="deal")]
    simulation = run(calculator, steps, "20 00:00")
    account = simulation.calculator.account("a")
    assert account is not None
    assert account.wallet_pico == -39_750_000_000_000  # 75 of 100 standard tokens of 53 yuan
    assert account.extras.counters["deal@2026-11-01"].used == 53 * 10**12


def test_the_live_engine_drops_counters_of_what_it_does_not_count_any_more(calculator: MakeCalculator) -> None:
    """With time limits, a numbered event of a month that ended 35 days ago goes to suspense."""
    engine = PartitionEngine(PartitionState(0, 1), 0, UNCOMMITTED, NothingStored(), calculator())
    end_us = parse_time_us("2026-11-01T00:00:00+08:00")

    def decide(topic: str, at: int, log_us: int, step: Line) -> Any:
        record = PlainRecord(at, log_us // 1000, None, encode([step | {"id": f"{topic}{at}"}])[0])
        decided = engine.decide([InputBatch(topic, at, at + 1, [record])])
        engine.committed()
        return decided.counts

    def used(at: int, time: str, log_us: int) -> Any:
        return decide(USAGE_TOPIC, at, log_us, use(7, time, model="tiered", number=at + 1, source="s"))

    decide("account.commands", 0, end_us, opened())
    assert used(0, "2026-10-31 23:00", end_us + 35 * DAY_US - 1000).rated == 1
    assert used(1, "2026-10-31 23:00", end_us + 35 * DAY_US).rejected == 1
    assert used(2, "2026-11-30 23:00", end_us + 35 * DAY_US + HOUR_US).rated == 1
    account = engine._calculator.account("a")
    assert account is not None and list(account.extras.counters) == ["monthly@2026-11-01"]


def test_counters_survive_sql() -> None:
    extras = Extras(counters={"deal@2026-11-01": Counter(10**30, 5, 9), "monthly@2026-11-01": Counter(3, 5)})
    document = extras_json(extras)
    assert parse_extras(document) == extras
    stored = json.dumps(json.loads(document))  # as PostgreSQL writes it
    assert parse_extras(stored) == extras
    assert all(isinstance(counter, Counter) for counter in parse_extras(stored).counters.values())


NAMED = st.sampled_from(["a", "b"])
MODELS = st.sampled_from(["tiered", "by-volume", "blocks", "deal", "both", "m"])
TIMES = st.builds(
    lambda month, day, hour: f"2026-{month}-{day:02} {hour:02}:00",
    st.sampled_from(["10", "11", "12"]),
    st.sampled_from([1, 2, 3, 15, 29, 30]),
    st.sampled_from([0, 12, 23]),
)
USAGE = st.builds(
    lambda tokens, at, account, model, meter: use(tokens, at, account, model=model, meter=meter),
    st.integers(0, 150),
    TIMES,
    NAMED,
    MODELS,
    st.sampled_from(["input", "input", "input", "output", "images"]),
)
OTHER = st.one_of(
    st.builds(lambda at, account: buy("payg", f"G{at}", at, account), TIMES, NAMED),
    st.builds(lambda at, account: line("account.closed.v1", account, at, {"reason": "asked"}), TIMES, NAMED),
)
STEPS = st.lists(st.one_of(USAGE, USAGE, USAGE, USAGE, OTHER), max_size=25).map(
    lambda steps: [
        {"id": f"e{number}"} | step
        for number, step in enumerate([opened("a", "2026-10-01 00:00"), opened("b", "2026-10-20 00:00"), *steps])
    ]
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, cuts=st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_where_commits_fall_changes_no_total(calculator: MakeCalculator, steps: list[Line], cuts: list[int]) -> None:
    once = simulate(calculator(), CATALOG, steps)
    simulation = RecordedSimulation(CATALOG, calculator())
    lines, at, turn = encode(steps), 0, 0
    while at < len(lines):
        simulation.feed(lines[at : at + cuts[turn % len(cuts)]])
        at += cuts[turn % len(cuts)]
        turn += 1
    assert dump_json(simulation.document()) == dump_json(once)
    assert once["ledger"]["sum"] == "0"


@pytest.mark.parametrize("months", [0, 1, 3])
def test_many_periods_at_once_are_settled_one_by_one(calculator: MakeCalculator, months: int) -> None:
    as_of = ["2026-11-20 00:00", "2026-12-20 00:00", None, "2027-02-20 00:00"][months]
    assert as_of is not None
    ended = commitments(run(calculator, [opened_in()], as_of))
    assert len(ended) == months
