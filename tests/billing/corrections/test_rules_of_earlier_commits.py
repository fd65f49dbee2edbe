"""Decisions of an earlier release are decided again by its rules, so that its accounts can still be corrected."""

from typing import Any

import pytest
from billing_samples import Line, MakeCalculator, buy, catalog, clock, encode, line, opened, plan, subscribe, use
from recorded_simulation import published

from billing.accounts.account import Account
from billing.commits.commit_record import CommitRecord, PartitionState
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.corrections.history import decided_batches
from billing.engine.partition_engine import PartitionEngine
from billing.engine.past_account import DecidedCommit, PartitionHistory, account_in_past
from billing.engine.simulation import Remembering
from billing.log_time import CURRENT_RULES, RULES_NUMBER, RulesByTime, TimeLimits, rules_of
from schemas.times import parse_time_us
from schemas.topics import ACCOUNT_EVENT_TOPIC, COMMAND_TOPIC, USAGE_TOPIC

CATALOG = catalog(
    plan("month", "10000000", "9.90", cycle={"kind": "calendar_month"}),
    plan("more", "40000000", "29.90", cycle={"kind": "calendar_month"}),
)
EARLIER, NOW = TimeLimits(sequence_jump=None), TimeLimits()


class Partition:
    """One partition, its log, and its commits under the limits of the time."""

    def __init__(self, make: MakeCalculator, limits: TimeLimits) -> None:
        self.loader = Remembering(keep_history=True)
        self.limits = limits
        self.make = make
        self.calculator = make()
        self.engine = PartitionEngine(PartitionState(0, 1), 0, CATALOG, self.loader, self.calculator, limits)
        self.log: dict[str, list[PlainRecord]] = {COMMAND_TOPIC: [], USAGE_TOPIC: []}
        self.commits: list[CommitRecord] = []
        self.log_time_us = 0
        self.sent = 0

    def upgrade(self) -> None:
        self.limits = NOW
        self.engine.continue_with(0, CATALOG, NOW)

    def decide(self, step: Line, at: str | None = None, due: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Commit one line at its time, or at ``at``; return the account events of the commit."""
        self.sent += 1
        [value] = encode([{"id": f"s{self.sent}"} | step])
        topic = USAGE_TOPIC if step["type"] == "token.usage.v1" else COMMAND_TOPIC
        start = len(self.log[topic])
        time_us = parse_time_us(step["time"] if at is None else clock(at))
        self.log[topic].append(PlainRecord(start, time_us // 1000, None, value))
        batches = [InputBatch(topic, start, start + 1, self.log[topic][start:])]
        record = self.engine.decide(batches, due=due)
        self.loader.keep(decided_batches(0, CATALOG, self.limits, self.log_time_us, batches, record))
        self.loader.remember(record)
        self.engine.committed()
        self.log_time_us = record.log_time_us
        self.commits.append(record)
        return [event for event, _ in published(record, ACCOUNT_EVENT_TOPIC)]

    def account(self, name: str) -> Account:
        found = self.calculator.account(name)
        assert found is not None
        return found

    def in_past(self, name: str, commits: int) -> Account:
        """Return the account after this many commits, by deciding the log again."""
        decided = [
            DecidedCommit(0, EARLIER if "sequence_jump_limit" not in one.limits else NOW, tuple(one.positions))
            for one in self.commits[:commits]
        ]
        history = PartitionHistory(
            0, 1, decided, {0: CATALOG}, lambda move: self.log[move.topic][move.start : move.end], self.loader.keys
        )
        found = account_in_past(history, name, self.make())
        assert found is not None
        return found[0]


def void(id: str, at: str, account: str) -> Line:
    return line("usage.voided.v1", account, at, {"source": "test", "id": id, "reason": "r"})


def outcome(events: list[dict[str, Any]]) -> str:
    [answer] = [event for event in events if event["type"].startswith("command.")]
    return str(answer["data"].get("reason", "accepted"))


POSTPAID = {"payment": "postpaid", "bill_day": 28, "due_days": 30, "credit_limit": "500"}


@pytest.mark.parametrize(
    ("step_between", "seen_by_old"), [(True, True), (False, True), (False, False)],
    ids=["with usage between", "by time alone", "due after the upgrade"],
)  # fmt: skip
def test_a_bill_keeps_the_name_that_its_commit_gave(
    calculator: MakeCalculator, step_between: bool, seen_by_old: bool
) -> None:
    log = Partition(calculator, EARLIER)
    log.decide(opened("a", "05 10:00", **POSTPAID))
    log.decide(opened("b", "05 10:00"))
    log.decide(use(5, "06 10:00", "a", id="u1"))
    log.decide(use(7, "07 10:00", "a", id="u2"))
    if seen_by_old:
        # Another account's usage moves the log's time, and the bill falls due by time.
        log.decide(use(1, "28 00:30", "b", id="ub"), due=("a",))
        assert [bill.bill_id for bill in log.account("a").extras.bills] == ["a/2026-10"]
        if step_between:
            log.decide(use(1, "28 10:00", "a", id="u3"))
    log.upgrade()
    log.decide(use(1, "29 10:00", "b", id="uc"), due=("a",))
    names = ["a/2026-10"] if seen_by_old else ["a/2026-11"]
    assert [bill.bill_id for bill in log.account("a").extras.bills] == names
    wallet = log.account("a").wallet_pico
    assert outcome(log.decide(void("u1", "29 12:00", "a"))) == "accepted"
    assert [bill.bill_id for bill in log.account("a").extras.bills] == names
    assert log.account("a").wallet_pico == wallet + 5 * 106 * 10**10
    # The bill of the next month is decided by the rules of now, before and after one more correction.
    log.decide(use(9, "2026-12-05 10:00", "a", id="u4"))
    log.decide(use(1, "2026-12-28 10:00", "b", id="ud"), due=("a",))
    assert [bill.bill_id for bill in log.account("a").extras.bills] == [*names, "a/2026-12"]
    assert outcome(log.decide(void("u2", "2026-12-28 12:00", "a"))) == "accepted"
    assert [bill.bill_id for bill in log.account("a").extras.bills] == [*names, "a/2026-12"]
    assert log.in_past("a", len(log.commits)).extras.bills == log.account("a").extras.bills


@pytest.mark.parametrize(("limits", "given_back"), [(EARLIER, "1.87"), (NOW, "1.88")], ids=["rules 1", "rules 2"])
def test_a_change_of_plan_gives_back_what_its_commit_gave(
    calculator: MakeCalculator, limits: TimeLimits, given_back: str
) -> None:
    """The example of `change_now`: 8.1 of 10 tokens were used, and 16 of 31 days are left."""
    log = Partition(calculator, limits)
    log.decide(opened("a", "2026-12-01 00:00"))
    log.decide(line("wallet.topped_up.v1", "a", "2026-12-01 00:00", {"amount": "100", "payment_ref": "p"}))
    log.decide(subscribe("month", at="2026-12-01 00:00", pay_from="wallet"))
    log.decide(use(8_100_000, "2026-12-02 00:00", "a", id="u1"))
    before = log.account("a").wallet_pico
    changed = line(
        "subscription.changed.v1", "a", "2026-12-16 00:00", {"subscription_id": "S", "plan": "more", "effective": "now"}
    )
    assert outcome(log.decide(changed)) == "accepted"
    credit = log.account("a").wallet_pico - before + 1543 * 10**10
    assert credit == int(given_back.replace(".", "")) * 10**10
    log.upgrade()
    log.decide(use(1, "2026-12-17 00:00", "a", id="u2"))
    assert outcome(log.decide(void("u2", "2026-12-18 00:00", "a"))) == "accepted"
    assert log.in_past("a", len(log.commits)).buckets == log.account("a").buckets


@pytest.mark.parametrize("limits", [EARLIER, NOW], ids=["rules 1", "rules 2"])
def test_what_is_sold_starts_when_its_commit_let_it_start(calculator: MakeCalculator, limits: TimeLimits) -> None:
    log = Partition(calculator, limits)
    log.decide(opened("a", "02 09:00"))
    bought = buy("month", "g", "02 09:00:00.500000", pay_from="external", starts_at="02 09:00:00.500000")
    begun = subscribe("month", at="02 09:00:00.700000", pay_from="external", starts_at="02 09:00:00.700000")
    assert [outcome(log.decide(bought)), outcome(log.decide(begun))] == ["accepted", "accepted"]
    starts = sorted(bucket.valid_from_us % 1_000_000 for bucket in log.account("a").buckets)
    assert starts == ([500_000, 700_000] if limits is EARLIER else [0, 0])
    log.decide(use(1, "03 10:00", "a", id="u1"))
    log.upgrade()
    assert outcome(log.decide(void("u1", "04 10:00", "a"))) == "accepted"
    assert sorted(bucket.valid_from_us % 1_000_000 for bucket in log.account("a").buckets) == starts
    assert log.in_past("a", len(log.commits)).buckets == log.account("a").buckets


def test_a_commit_says_its_rules_by_its_limits() -> None:
    assert (EARLIER.rules, NOW.rules, RULES_NUMBER) == (1, 2, 2)
    assert rules_of(None) is rules_of(NOW) is CURRENT_RULES
    assert rules_of(EARLIER) == RulesByTime(1)


def test_rules_follow_each_other_by_log_time() -> None:
    rules = RulesByTime(1).followed_by(1, 10).followed_by(2, 20)
    assert rules == RulesByTime(2, ((20, 1),))
    assert [rules.at(due) for due in (5, 20, 21)] == [1, 1, 2]
    back = rules.followed_by(1, 30).followed_by(2, 40)
    assert [back.at(due) for due in (20, 21, 30, 31, 40, 41)] == [1, 2, 2, 1, 1, 2]
