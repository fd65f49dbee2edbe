"""Partitions that forward to each other end in the same state as one partition, without Kafka and SQL.

The rules are in docs/reference/principles.md, "Log and writer" and "Commit".
"""

from dataclasses import replace

import pytest
from billing_samples import MakeCalculator, buy, catalog, closed, encode, opened, plan, top_up, use
from cluster import AS_OF_US, NOW_US, Cluster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_simulation import published

from billing.commits.commit_record import CommitCounts, PartitionState
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.commits.outbox_frames import Frame, unpack_batches
from billing.engine.partition_engine import PartitionEngine
from billing.engine.simulation import NothingStored, Simulation
from billing.errors import BrokenInvariant, ForwardLost
from billing.log_time import TimeLimits
from schemas.routing import partition_of
from schemas.times import DAY_US, HOUR_US
from schemas.topics import (
    ACCOUNT_EVENT_TOPIC,
    COMMAND_TOPIC,
    FORWARD_DIGEST_HEADER,
    FORWARD_FROM_HEADER,
    FORWARD_NUMBER_HEADER,
    FORWARD_ORIGIN_HEADER,
    USAGE_FORWARDED_TOPIC,
    USAGE_TOPIC,
)

ACCOUNTS = ("a", "b", "c", "d", "e", "f")
CATALOG = catalog(
    plan("A", "50", alerts=["0.5"]), plan("B", "20", "9.90", overage="pay_as_you_go", cycle={"kind": "days", "days": 9})
)


def owner(account: str, partitions: int) -> int:
    return partition_of(account, partitions)


STEP = st.one_of(
    st.builds(top_up, st.sampled_from(["5", "7.5"]), st.sampled_from("pqr"), account=st.sampled_from(ACCOUNTS)),
    st.builds(buy, st.sampled_from("AB"), st.sampled_from("GH"), account=st.sampled_from(ACCOUNTS)),
    st.builds(lambda name: closed(account=name), st.sampled_from(ACCOUNTS[:1])),
    *[
        st.builds(
            lambda tokens, account, n, at, shared, numbered=numbered: use(
                *(tokens, at, account),
                number=n if numbered else None,
                id=f"u{n}",
                source="of all accounts" if shared and not numbered else f"worker-{account}-{numbered}",
            ),
            st.integers(-1, 30),
            st.sampled_from(ACCOUNTS),
            st.integers(1, 12),
            st.sampled_from(["02 10:00", "03 10:00", "10 12:00"]),
            st.booleans(),
        )
        for numbered in (True, False)
    ],
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    partitions=st.integers(2, 3),
    commands=st.lists(STEP, max_size=40),
    arrival=st.randoms(use_true_random=False),
)
def test_partitions_that_forward_equal_one_simulation(
    calculator: MakeCalculator, partitions: int, commands: list[dict[str, object]], arrival: object
) -> None:
    """All lines of an account arrive on one partition, right or wrong, so that their order is kept."""
    pick = arrival.choice  # type: ignore[attr-defined]
    steps = [opened(name) for name in ACCOUNTS[:-1]] + commands  # the last account is never opened
    lines = [{"id": f"e{number}"} | step for number, step in enumerate(steps)]
    orders = [step for step in lines if step["type"] != "token.usage.v1"]
    usage = [step for step in lines if step["type"] == "token.usage.v1"]
    whole = Simulation(CATALOG, calculator())
    whole.feed(encode(orders + usage))
    expected = whole.document(AS_OF_US)

    cluster = Cluster(partitions, calculator, CATALOG)
    lands = {name: pick(range(partitions)) for name in ACCOUNTS}
    for topic, part in ((COMMAND_TOPIC, orders), (USAGE_TOPIC, usage)):
        for step, value in zip(part, encode(part), strict=True):
            cluster.produce(topic, lands[step["subject"]], value)
        for _ in range(pick(range(12))):
            cluster.step(
                pick(range(partitions)), pick((1, 3, 100)), lose=pick((False, False, True)), resend=pick((False, True))
            )
        if topic == COMMAND_TOPIC:
            cluster.drain()  # a command acknowledged before usage was produced is applied first
    cluster.drain()

    assert cluster.documents() == expected["accounts"]
    counts = cluster.counts
    assert {"rated": counts.rated, "duplicate": counts.duplicate, "rejected": counts.rejected} == expected["events"]
    arrived = sum(
        len(queue) for (topic, _), queue in cluster.log.items() if topic in (USAGE_TOPIC, USAGE_FORWARDED_TOPIC)
    )
    assert arrived == counts.rated + counts.duplicate + counts.rejected + counts.forwarded + counts.dropped
    assert sum(cluster.balances.values()) == 0
    assert not [finding for finding in cluster.findings if finding.kind == "foreign_record"]
    for account in cluster.accounts:
        holders = [c for c in cluster.calculators if c.account(account) is not None]  # type: ignore[attr-defined]
        assert len(holders) <= 1


def two(calculator: MakeCalculator) -> tuple[Cluster, str, str]:
    """Return a cluster of two partitions, an account of the first and an account of the second."""
    names = sorted(ACCOUNTS, key=lambda name: owner(name, 2))
    return Cluster(2, calculator, CATALOG), names[0], names[-1]


def test_what_arrives_on_the_wrong_partition_is_forwarded_once(calculator: MakeCalculator) -> None:
    cluster, _, theirs = two(calculator)
    cluster.produce(COMMAND_TOPIC, 0, *encode([opened(theirs)]))
    cluster.drain()
    cluster.produce(USAGE_TOPIC, 0, *encode([use(1, account=theirs, id="x"), use(2, account=theirs, id="y")]))
    cluster.step(0, 100, resend=True)
    cluster.drain()
    counts = cluster.counts
    assert (counts.rated, counts.duplicate, counts.forwarded, counts.dropped) == (2, 0, 2, 2)
    assert (counts.commands_accepted, counts.commands_forwarded) == (1, 1)
    numbers = [dict(record.headers)[FORWARD_NUMBER_HEADER] for record in cluster.log[USAGE_FORWARDED_TOPIC, 1]]
    assert numbers == [b"0", b"1", b"0", b"1"]


def test_forwarding_keeps_key_value_and_headers(calculator: MakeCalculator) -> None:
    cluster, _, theirs = two(calculator)
    (value,) = encode([use(1, account=theirs)])
    headers = (("trace", b"\xff"), ("null", None), (FORWARD_NUMBER_HEADER, b"99"))
    cluster.produce(USAGE_TOPIC, 0, Frame(b"\xfekey", value, headers))
    cluster.step(0, 1)
    (record,) = cluster.log[USAGE_FORWARDED_TOPIC, 1]
    assert (record.key, record.value) == (b"\xfekey", value)
    assert record.headers[:-1] == (
        ("trace", b"\xff"), ("null", None), (FORWARD_ORIGIN_HEADER, b"0"), (FORWARD_NUMBER_HEADER, b"0"),
        (FORWARD_FROM_HEADER, b"usage.events/0"),
    )  # fmt: skip
    name, digest = record.headers[-1]
    assert (name, digest[:2], len(digest)) == (FORWARD_DIGEST_HEADER, b"1:", 66)


def test_a_lost_forward_stops_the_partition(calculator: MakeCalculator) -> None:
    cluster, _, theirs = two(calculator)
    cluster.produce(USAGE_TOPIC, 0, *encode([use(1, account=theirs, id=f"u{n}") for n in range(3)]))
    cluster.step(0, 3)
    _, second, _ = cluster.log[USAGE_FORWARDED_TOPIC, 1]
    cluster.log[USAGE_FORWARDED_TOPIC, 1] = [replace(second, offset=0)]
    with pytest.raises(ForwardLost, match=r"usage.forwarded\[1\] offset 0: forward 1 from partition 0 .* number 0 did"):
        cluster.step(1, 1)


def test_commands_of_a_commit_come_before_its_usage(calculator: MakeCalculator) -> None:
    cluster, ours, _ = two(calculator)
    cluster.produce(USAGE_TOPIC, 0, *encode([use(1, account=ours)]))
    cluster.produce(COMMAND_TOPIC, 0, *encode([opened(ours)]))
    cluster.step(0, 100)
    assert (cluster.counts.rated, cluster.counts.rejected) == (1, 0)


@pytest.mark.parametrize(
    "batches",
    [
        [InputBatch(USAGE_TOPIC, 1, 2, [PlainRecord(1, 0, None, b"{")])],
        [InputBatch(USAGE_TOPIC, 0, 2, [PlainRecord(0, 0, None, b"{")])],
        [InputBatch(USAGE_TOPIC, 0, 0, []), InputBatch(COMMAND_TOPIC, 0, 0, [])],
    ],
    ids=["a gap", "a hole", "usage before commands"],
)
def test_batches_that_do_not_follow_stop_the_partition(batches: list[InputBatch], calculator: MakeCalculator) -> None:
    engine = PartitionEngine(PartitionState(0, 1), 0, CATALOG, NothingStored(), calculator())
    with pytest.raises(BrokenInvariant):
        engine.decide(batches)


def test_a_second_decision_waits_for_the_commit_of_the_first(calculator: MakeCalculator) -> None:
    engine = PartitionEngine(PartitionState(0, 1), 0, CATALOG, NothingStored(), calculator())
    with pytest.raises(BrokenInvariant):
        engine.committed()
    engine.decide([])
    with pytest.raises(BrokenInvariant):
        engine.decide([])
    engine.committed()
    assert engine.decide([]).commit_no == 2


# The log's time


def limited(calculator: MakeCalculator, log_time_us: int, *usage: dict[str, object]) -> tuple[CommitCounts, list[str]]:
    """Return counts and rejection reasons of usage with a given log time, under the default limits."""
    cluster = Cluster(1, calculator, CATALOG, limits=TimeLimits())
    cluster.produce(COMMAND_TOPIC, 0, *encode([opened()]), time_us=log_time_us)
    cluster.produce(USAGE_TOPIC, 0, *encode(usage), time_us=log_time_us)
    cluster.drain()
    assert all(
        commit.limits
        == {"future_limit_us": 600_000_000, "past_limit_us": 35 * DAY_US, "sequence_jump_limit": 1_000_000_000}
        for commit in cluster.commits
    )
    reasons = [
        (dict(frame.headers)["reason"] or b"").decode()
        for commit in cluster.commits
        for row in commit.outbox
        if row.topic == "usage.rejected"
        for frame in unpack_batches(row.payload)
    ]
    return cluster.counts, reasons


@pytest.mark.parametrize(
    ("at", "number", "reasons"),
    [
        ("02 10:10", None, []),
        ("02 10:10", 1, []),
        ("02 10:10:00.000001", None, ["time_in_future"]),
        ("02 10:10:00.000001", 1, ["time_in_future"]),
        ("2026-09-28 10:00", None, []),
        ("2026-09-28 09:59:59.999999", None, ["time_too_old"]),
        ("2026-09-28 09:59:59.999999", 1, []),
        ("2021-01-01 00:00", 1, []),
    ],
)
def test_which_event_times_the_log_accepts(
    at: str, number: int | None, reasons: list[str], calculator: MakeCalculator
) -> None:
    counts, found = limited(calculator, NOW_US, use(1, at, number=number))
    assert found == reasons
    assert counts.rated == 1 - len(reasons)


def test_the_log_time_never_goes_back(calculator: MakeCalculator) -> None:
    cluster = Cluster(1, calculator, CATALOG, limits=TimeLimits())
    cluster.produce(COMMAND_TOPIC, 0, *encode([opened()]), time_us=NOW_US)
    cluster.produce(USAGE_TOPIC, 0, *encode([use(1, "02 10:09")]), time_us=NOW_US - HOUR_US)
    cluster.drain()
    assert cluster.counts.rated == 1
    assert cluster.commits[-1].log_time_us == NOW_US


def test_a_bucket_lapses_by_the_logs_time_and_not_by_the_events(calculator: MakeCalculator) -> None:
    """Late usage within the grace period by log time burns the old bucket; an event ahead of the log ends no bucket."""
    cluster = Cluster(1, calculator, CATALOG, limits=TimeLimits())
    bought = [opened(), buy("A", "G", starts_at="02 09:00")]
    cluster.produce(COMMAND_TOPIC, 0, *encode(bought), time_us=NOW_US)
    cluster.drain()
    ends_us = NOW_US - HOUR_US + 7 * DAY_US + DAY_US  # seven days and the grace
    cluster.produce(USAGE_TOPIC, 0, *encode([use(1, "10 09:09", id="ahead")]), time_us=ends_us - 1_000)
    cluster.produce(USAGE_TOPIC, 0, *encode([use(5, "09 08:00", id="late")]), time_us=ends_us - 1_000)
    cluster.drain()
    assert cluster.accounts["a"].buckets[0].remaining_micro == 45_000_000
    cluster.produce(USAGE_TOPIC, 0, *encode([use(5, "09 08:00", id="later")]), time_us=ends_us)
    cluster.drain()
    assert cluster.accounts["a"].buckets[0].status == "expired"
    assert cluster.accounts["a"].absorbed_micro == 5_000_000


def test_a_bucket_that_begins_before_the_log_gets_there_is_burned(calculator: MakeCalculator) -> None:
    """An event may be up to ten minutes ahead of the log; its own time selects the bucket."""
    cluster = Cluster(1, calculator, CATALOG, limits=TimeLimits())
    cluster.produce(COMMAND_TOPIC, 0, *encode([opened(), buy("A", "G", starts_at="02 10:05")]), time_us=NOW_US)
    cluster.produce(USAGE_TOPIC, 0, *encode([use(5, "02 10:06")]), time_us=NOW_US)
    cluster.drain()
    (bucket,) = cluster.accounts["a"].buckets
    assert (bucket.status, bucket.remaining_micro) == ("pending", 45_000_000)
    cluster.produce(USAGE_TOPIC, 0, *encode([use(45, "02 10:06", id="rest")]), time_us=NOW_US)
    cluster.drain()
    assert cluster.accounts["a"].buckets[0].status == "used_up"


def test_a_covered_burn_writes_the_bucket_and_not_the_account(calculator: MakeCalculator) -> None:
    cluster = Cluster(1, calculator, CATALOG, limits=TimeLimits())
    cluster.produce(COMMAND_TOPIC, 0, *encode([opened(), buy("A", "G")]), time_us=NOW_US)
    cluster.drain()
    cluster.produce(USAGE_TOPIC, 0, *encode([use(5, id=f"u{number}") for number in range(3)]), time_us=NOW_US)
    cluster.drain()
    changes = cluster.commits[-1].changes
    assert (changes.accounts_new, changes.accounts_changed, changes.buckets_new) == (b"", b"", b"")
    assert changes.buckets_changed.startswith(b"a\tG/1\t")
    assert changes.buckets_changed.count(b"\n") == 1


def test_accounts_that_are_due_are_rolled_without_usage(calculator: MakeCalculator) -> None:
    cluster = Cluster(1, calculator, CATALOG, limits=TimeLimits())
    cluster.produce(COMMAND_TOPIC, 0, *encode([opened(), opened("b"), buy("A", "G")]), time_us=NOW_US)
    cluster.produce(COMMAND_TOPIC, 0, *encode([top_up("1", "p", account="b")]), time_us=NOW_US + 30 * DAY_US)
    cluster.drain()
    assert cluster.accounts["a"].buckets[0].status == "active"
    engine = cluster.engines[0] = cluster.engine(0)
    record = engine.decide([], due=["a", "b", "nobody"])
    assert [event["data"]["breakage"] for event, _ in published(record, ACCOUNT_EVENT_TOPIC)] == ["100"]
    assert record.changes.accounts_new == b""
    engine.committed()
    assert engine.decide([], due=["a"]).changes.accounts_changed == b""
