"""Records that only the product may write: forwarded ones, and those with a source of its own.

Those that others write change nothing.
"""

import json
from dataclasses import replace
from typing import Any

import pytest
from billing_samples import Line, MakeCalculator, buy, catalog, encode, line, opened, plan, top_up, use
from cluster import NOW_US, Cluster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_simulation import RecordedSimulation, published

from billing.calculator.compiled import CompiledCalculator
from billing.calculator.plain import PlainCalculator
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.commits.outbox_frames import Frame
from billing.corrections.history import HistoryReader, decided_batches
from billing.errors import ForwardLost
from billing.log_time import TimeLimits
from billing.record_keys import (
    SIMULATED_KEYS,
    TRUSTING_KEYS,
    HeldRecordKeys,
    RecordKey,
    RecordKeys,
    own_fault,
    own_header,
    read_forward,
)
from schemas.commands import Command, TopUpWallet
from schemas.routing import partition_of
from schemas.times import HOUR_US
from schemas.topics import (
    ACCOUNT_EVENT_TOPIC,
    COMMAND_FORWARDED_TOPIC,
    COMMAND_TOPIC,
    FORWARD_DIGEST_HEADER,
    FORWARD_FROM_HEADER,
    FORWARD_HEADERS,
    FORWARD_NUMBER_HEADER,
    FORWARD_ORIGIN_HEADER,
    OWN_DIGEST_HEADER,
    USAGE_FORWARDED_TOPIC,
    USAGE_TOPIC,
)

CATALOG = catalog(plan("A"), plan("B", "20", "9.90", overage="pay_as_you_go"))
NAMES = sorted("abcdefgh", key=lambda name: partition_of(name, 2))
HERE, THERE = NAMES[0], NAMES[-1]
SETTLED = "urn:tokenbill:reservations"


def two(calculator: MakeCalculator, keys: RecordKeys = SIMULATED_KEYS, **options: Any) -> Cluster:
    """Return two partitions with an account each: a wallet of 400 yuan and 100 tokens."""
    cluster = Cluster(2, calculator, CATALOG, keys=keys, **options)
    for name in (HERE, THERE):
        steps = [opened(name), top_up("400", "p", account=name), buy("A", "G", account=name)]
        cluster.produce(
            COMMAND_TOPIC, partition_of(name, 2), *encode({"id": f"{name}-{step['type']}"} | step for step in steps)
        )
    cluster.drain()
    return cluster


def remaining(cluster: Cluster, account: str) -> int:
    return cluster.accounts[account].buckets[0].remaining_micro // 10**6


def signed(keys: RecordKeys, value: bytes, topic: str = USAGE_TOPIC, key: bytes | None = None) -> Frame:
    """Return a record as the API sends its own."""
    return Frame(key, value, (own_header(keys, topic, key, value, ()),))


def forged_forward(number: int, value: bytes, origin: int = 0, *more: tuple[str, bytes]) -> Frame:
    """Return a record as an attacker writes it to a forward topic: everything but the digest."""
    numbered = ((FORWARD_ORIGIN_HEADER, b"%d" % origin), (FORWARD_NUMBER_HEADER, b"%d" % number))
    return Frame(None, value, (*numbered, *more))


def kinds(cluster: Cluster) -> list[str]:
    return [finding.kind for finding in cluster.findings]


# Forwarded usage


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((FORWARD_ORIGIN_HEADER, b"0"),),
        ((FORWARD_ORIGIN_HEADER, b"0"), (FORWARD_NUMBER_HEADER, None)),
        ((FORWARD_ORIGIN_HEADER, b"0"), (FORWARD_NUMBER_HEADER, b"-1")),
        ((FORWARD_ORIGIN_HEADER, b"x"), (FORWARD_NUMBER_HEADER, b"0")),
        ((FORWARD_ORIGIN_HEADER, b"0"), (FORWARD_NUMBER_HEADER, b"9" * 5_000)),
        ((FORWARD_ORIGIN_HEADER, b"0"), (FORWARD_NUMBER_HEADER, b"0")),
        ((FORWARD_ORIGIN_HEADER, b"0"), (FORWARD_NUMBER_HEADER, b"7")),
        ((FORWARD_ORIGIN_HEADER, b"0"), (FORWARD_NUMBER_HEADER, b"0"), (FORWARD_DIGEST_HEADER, b"1:" + b"0" * 64)),
        ((FORWARD_ORIGIN_HEADER, b"0"), (FORWARD_NUMBER_HEADER, b"0"), (FORWARD_DIGEST_HEADER, b"9:" + b"0" * 64)),
        ((FORWARD_ORIGIN_HEADER, b"0"), (FORWARD_NUMBER_HEADER, b"0"), (FORWARD_DIGEST_HEADER, b"\xff")),
        ((FORWARD_ORIGIN_HEADER, b"0"), (FORWARD_ORIGIN_HEADER, b"0"), (FORWARD_NUMBER_HEADER, b"0")),
    ],
)
def test_a_record_that_no_partition_forwarded_changes_nothing(
    headers: tuple[tuple[str, bytes | None], ...], calculator: MakeCalculator
) -> None:
    """Afterwards the real forward of usage for 300 yuan, which has the number that was taken, is billed."""
    cluster = two(calculator)
    (value,) = encode([use(50, account=THERE, id="forged")])
    cluster.produce(USAGE_FORWARDED_TOPIC, 1, Frame(b"k\xff", value, headers))
    cluster.drain()
    (kept,) = cluster.commits[-1].foreign
    assert (kept.topic, kept.record.key, kept.record.value, kept.record.headers) == (
        *(USAGE_FORWARDED_TOPIC, b"k\xff", value, headers),
    )
    assert (cluster.counts.foreign, cluster.counts.dropped, cluster.counts.rated) == (1, 0, 0)
    assert kinds(cluster) == ["foreign_record"]
    assert cluster.findings[0].detail.startswith("usage.forwarded[1] offset 0: no partition forwarded it")
    assert cluster.commits[-1].forward_cursors == {}
    assert not any(vars_of(cluster.commits[-1].changes))
    cluster.produce(COMMAND_TOPIC, 1, *encode([buy("B", "H", account=THERE, id="h")]))
    cluster.drain()
    real = use(400, account=THERE, id="real")
    cluster.produce(USAGE_TOPIC, 0, *encode([real]))
    cluster.drain()
    assert (cluster.counts.rated, cluster.counts.dropped) == (1, 0)
    charged = -cluster.balances["customer_deposits"] - 2 * 400 * 10**12
    assert charged == -round(1.06 * (400 - 100 - 20) * 10**12)


def vars_of(changes: object) -> list[bytes]:
    return [getattr(changes, name) for name in type(changes).__dataclass_fields__]  # type: ignore[attr-defined]


def test_numbers_ahead_and_repeats_by_others_do_not_stop_a_partition(calculator: MakeCalculator) -> None:
    cluster = two(calculator)
    cluster.produce(USAGE_TOPIC, 0, *encode([use(1, account=THERE, id="x")]))
    cluster.drain()
    (value,) = encode([use(50, account=THERE, id="forged")])
    cluster.produce(USAGE_FORWARDED_TOPIC, 1, *[forged_forward(number, value) for number in (0, 1, 2, 9**9)])
    cluster.drain()
    assert (cluster.counts.foreign, cluster.counts.dropped, cluster.counts.rated) == (4, 0, 1)
    cluster.produce(USAGE_TOPIC, 0, *encode([use(2, account=THERE, id="y")]))
    cluster.drain()
    assert remaining(cluster, THERE) == 97


def altered(record: PlainRecord, name: str, content: bytes) -> PlainRecord:
    return replace(record, headers=tuple((n, content if n == name else c) for n, c in record.headers))


def test_a_genuine_forward_that_was_altered_moved_or_signed_for_another_place_is_foreign(
    calculator: MakeCalculator,
) -> None:
    cluster = two(calculator)
    (value,) = encode([use(1, account=THERE)])
    cluster.produce(USAGE_TOPIC, 0, Frame(b"key", value, (("trace", b"t"),)))
    cluster.step(0, 1)
    (record,) = cluster.log[USAGE_FORWARDED_TOPIC, 1]
    assert read_forward(SIMULATED_KEYS, USAGE_FORWARDED_TOPIC, 1, record) == ((0, 0, b"usage.events/0"), True)
    others = [
        replace(record, value=value.replace(b'"input": 1', b'"input": 9')),
        replace(record, value=None),
        replace(record, key=b"keys"),
        replace(record, key=None),
        altered(record, "trace", b"tt"),
        altered(record, FORWARD_NUMBER_HEADER, b"1"),
        altered(record, FORWARD_NUMBER_HEADER, b"00"),
        altered(record, FORWARD_ORIGIN_HEADER, b"1"),
        altered(record, FORWARD_FROM_HEADER, b"usage.events/1"),
        replace(record, headers=(*record.headers, ("more", b""))),
        replace(record, headers=record.headers[1:]),
        *(replace(record, headers=(*record.headers, (name, b"0"))) for name in sorted(FORWARD_HEADERS)),
    ]
    for other in others:
        assert isinstance(read_forward(SIMULATED_KEYS, USAGE_FORWARDED_TOPIC, 1, other), str), other
    assert isinstance(read_forward(SIMULATED_KEYS, USAGE_FORWARDED_TOPIC, 0, record), str)
    assert isinstance(read_forward(SIMULATED_KEYS, COMMAND_FORWARDED_TOPIC, 1, record), str)


def test_a_hole_among_genuine_forwards_stops_its_partition_alone(calculator: MakeCalculator) -> None:
    cluster = two(calculator)
    cluster.produce(USAGE_TOPIC, 0, *encode([use(1, account=THERE, id=f"u{n}") for n in range(3)]))
    cluster.step(0, 3)
    first, _, third = cluster.log[USAGE_FORWARDED_TOPIC, 1]
    cluster.log[USAGE_FORWARDED_TOPIC, 1] = [first, replace(third, offset=1)]
    with pytest.raises(ForwardLost) as lost:
        cluster.step(1, 9)
    assert (lost.value.partition, lost.value.offset, lost.value.expected, lost.value.found) == (1, 1, 1, 2)
    cluster.produce(USAGE_TOPIC, 0, *encode([use(1, account=HERE)]))
    cluster.step(0, 9)
    assert remaining(cluster, HERE) == 99


# Forwarded commands and messages


def received(account: str, **changes: Any) -> Line:
    body = {
        "transfer_id": "transfer-0", "sender": "nobody", "grant_id": "G/1", "plan": "A", "plan_version": 1,
        "bucket_no": 1, "unit": "STD_TOKEN", "amount": "1000000000", "liability": "0", "currency": "CNY",
        "valid_from": "2026-11-01T00:00:00Z", "valid_until": None, "lapses_at": None, "carried_cycles": 0,
    }  # fmt: skip
    return line("package.received.v1", account, "02 10:00", body | changes, source="urn:tokenbill:transfer:x", id="in")


@pytest.mark.parametrize("topic", [COMMAND_FORWARDED_TOPIC, COMMAND_TOPIC])
def test_a_forged_transfer_makes_no_tokens(topic: str, calculator: MakeCalculator) -> None:
    cluster = two(calculator)
    (value,) = encode([received(THERE)])
    for headers in ((), forged_forward(0, value).headers):
        cluster.produce(topic, 1, Frame(None, value, headers))
    cluster.drain()
    assert [bucket.grant_id for bucket in cluster.accounts[THERE].buckets] == ["G/1"]
    assert cluster.balances["transfer_clearing"] == 0
    forwarded = topic == COMMAND_FORWARDED_TOPIC
    assert (cluster.counts.commands_foreign, cluster.counts.commands_rejected) == ((2, 0) if forwarded else (0, 2))
    assert kinds(cluster) == ["foreign_record" if forwarded else "forged_record"] * 2
    sent = line("package.transferred.v1", HERE, "03 12:00", {"grant_id": "G", "amount": "15", "to": THERE}, id="t")
    cluster.produce(COMMAND_TOPIC, 0, *encode([sent]))
    cluster.drain()
    assert [bucket.remaining_micro // 10**6 for bucket in cluster.accounts[THERE].buckets] == [100, 15]
    assert cluster.balances["transfer_clearing"] == 0


def test_a_message_names_the_command_that_sent_it(calculator: MakeCalculator) -> None:
    cluster = two(calculator)
    sent = line("package.transferred.v1", HERE, "03 12:00", {"grant_id": "G", "amount": "15", "to": THERE}, id="t")
    cluster.produce(COMMAND_TOPIC, 0, *encode([sent]))
    cluster.step(0, 9)
    (record,) = cluster.log[COMMAND_FORWARDED_TOPIC, 1]
    assert dict(record.headers)[FORWARD_FROM_HEADER] == b"account.commands/3"


# Sources of the product's own


def settled(tokens: int, account: str = HERE, id_: str = "rsv-1/final", **more: Any) -> bytes:
    (value,) = encode([use(tokens, account=account, id=id_, source=SETTLED, **more)])
    return value


@pytest.mark.parametrize("more", [{"number": 1}, {"number": 7}, {}, {"data": {"reservation": "rsv-1"}}])
def test_usage_with_an_own_source_disturbs_no_settlement(more: dict[str, Any], calculator: MakeCalculator) -> None:
    cluster = two(calculator)
    cluster.produce(USAGE_TOPIC, 0, settled(50, **more))
    cluster.produce(USAGE_TOPIC, 0, settled(50, **more | {"model": "\\u"}))
    cluster.drain()
    assert (cluster.counts.rated, cluster.counts.rejected) == (0, 2)
    assert [one.rejection.code for one in cluster.commits[-1].suspense] == ["invalid_event"] * 2
    assert (
        "one of the product's own, and the record carries no digest" in cluster.commits[-1].suspense[0].rejection.detail
    )
    assert cluster.commits[-1].dedupe.sources == []
    assert cluster.commits[-1].reservations_closed == []
    assert kinds(cluster) == ["forged_record"] * 2
    for id_ in ("rsv-1/final", "rsv-2/final"):
        cluster.produce(USAGE_TOPIC, 0, signed(SIMULATED_KEYS, settled(3, id_=id_, data={"reservation": "rsv-1"})))
    cluster.drain()
    assert (cluster.counts.rated, cluster.counts.duplicate) == (2, 0)
    assert remaining(cluster, HERE) == 94
    assert cluster.commits[-1].reservations_closed == [(HERE, "rsv-1"), (HERE, "rsv-1")]


def test_an_unreadable_event_with_an_own_source_takes_no_number(calculator: MakeCalculator) -> None:
    cluster = two(calculator)
    broken = use(50, account=HERE, source=SETTLED, number=5, id="x")
    broken["data"] = {"model": "m", "usage": {"input": -1}}
    cluster.produce(USAGE_TOPIC, 0, *encode([broken]))
    cluster.drain()
    assert "product's own" in cluster.commits[-1].suspense[0].rejection.detail
    assert cluster.commits[-1].dedupe.sources == []
    cluster.produce(USAGE_TOPIC, 0, signed(SIMULATED_KEYS, settled(3)))
    cluster.drain()
    assert cluster.counts.rated == 1


def test_usage_with_an_own_source_is_not_forwarded_unless_it_is_ours(calculator: MakeCalculator) -> None:
    cluster = two(calculator)
    cluster.produce(USAGE_TOPIC, 0, settled(50, THERE))
    cluster.drain()
    assert (cluster.counts.forwarded, cluster.counts.rejected) == (0, 1)
    cluster.produce(USAGE_TOPIC, 0, signed(SIMULATED_KEYS, settled(50, THERE)))
    cluster.drain()
    assert (cluster.counts.forwarded, cluster.counts.rated, remaining(cluster, THERE)) == (1, 1, 50)


def test_a_binary_event_and_an_escaped_source_are_recognised(calculator: MakeCalculator) -> None:
    cluster = two(calculator)
    escaped = settled(50).replace(b"urn:tokenbill", b"urn:\\u0074okenbill")
    cluster.produce(USAGE_TOPIC, 0, escaped)
    event = json.loads(settled(50))
    headers = tuple((f"ce_{name}", str(event[name]).encode()) for name in event if name != "data")
    cluster.produce(USAGE_TOPIC, 0, Frame(None, json.dumps(event["data"]).encode(), headers))
    cluster.drain()
    assert (cluster.counts.rated, cluster.counts.rejected, kinds(cluster)) == (0, 2, ["forged_record"] * 2)


@pytest.mark.parametrize("source", ["urn:tokenbill:api:abc", "urn:tokenbill:scheduler", "urn:tokenbill:transfer:x"])
def test_a_command_with_an_own_source_is_refused_unless_it_is_ours(source: str, calculator: MakeCalculator) -> None:
    cluster = two(calculator)
    (value,) = encode([top_up("5", "q", account=HERE) | {"source": source, "id": "k1"}])
    cluster.produce(COMMAND_TOPIC, 0, value)
    cluster.drain()
    told = published(cluster.commits[-1], ACCOUNT_EVENT_TOPIC)
    (outcome,) = (event["data"] for event, _ in told)
    assert (outcome["reason"], outcome["command_source"], outcome["command_id"]) == ("invalid_event", None, None)
    assert source in outcome["detail"] and outcome["account"] == HERE
    assert "'k1'" in cluster.findings[0].detail
    assert cluster.accounts[HERE].wallet_pico == 400 * 10**12
    cluster.produce(COMMAND_TOPIC, 0, signed(SIMULATED_KEYS, value, COMMAND_TOPIC))
    cluster.drain()
    assert cluster.accounts[HERE].wallet_pico == 405 * 10**12
    assert cluster.counts.commands_accepted == 7


def test_a_digest_for_one_topic_is_none_for_another() -> None:
    value = settled(3)
    frame = signed(SIMULATED_KEYS, value, COMMAND_TOPIC)
    record = PlainRecord(0, 0, None, value, frame.headers)  # type: ignore[arg-type]
    assert own_fault(SIMULATED_KEYS, COMMAND_TOPIC, record) is None
    assert own_fault(SIMULATED_KEYS, USAGE_TOPIC, record) == "a digest of key 1 that does not match it"
    twice = replace(record, headers=(*record.headers, *record.headers))
    assert own_fault(SIMULATED_KEYS, COMMAND_TOPIC, twice) == "several digests"


def test_a_history_has_the_genuine_record_of_an_identity(calculator: MakeCalculator) -> None:
    """A forged command and a forged event stand before the real ones, under the same identities, in one commit."""
    cluster = two(calculator)
    for amount, tokens, mark in (("500", 50, False), ("5", 3, True)):
        (order,) = encode([top_up(amount, "q", account=HERE) | {"source": "urn:tokenbill:api:k", "id": "o"}])
        for topic, value in ((COMMAND_TOPIC, order), (USAGE_TOPIC, settled(tokens))):
            cluster.produce(topic, 0, signed(SIMULATED_KEYS, value, topic) if mark else value)
    start = cluster.engines[0].positions
    batches = [
        InputBatch(topic, start.get(topic, 0), len(cluster.log[topic, 0]), cluster.log[topic, 0][start.get(topic, 0) :])
        for topic in (COMMAND_TOPIC, USAGE_TOPIC)
    ]
    record = cluster.engines[0].decide(batches)
    reader = HistoryReader([HERE])
    reader.read(decided_batches(0, CATALOG, None, 0, batches, record))
    order, used = (step.item for step in reader.steps[HERE])
    assert isinstance(order, Command) and isinstance(order.data, TopUpWallet)
    assert (order.data.amount_pico, dict(used.counts)) == (5 * 10**12, {"input": 3})  # type: ignore[union-attr]


# Keys


FIRST, SECOND = RecordKey(1, b"1" * 32), RecordKey(2, b"2" * 32)
ROTATED = HeldRecordKeys({1: replace(FIRST, until_us=NOW_US + HOUR_US), 2: SECOND})


def test_a_former_key_verifies_what_is_on_its_way(calculator: MakeCalculator) -> None:
    cluster = two(calculator, HeldRecordKeys({1: FIRST}))
    cluster.produce(USAGE_TOPIC, 0, *encode([use(1, account=THERE, id="x")]))
    cluster.produce(USAGE_TOPIC, 0, signed(cluster.keys, settled(3)))
    cluster.step(0, 1)
    cluster.keys = ROTATED
    cluster.produce(USAGE_TOPIC, 0, *encode([use(1, account=THERE, id="y")]))
    cluster.drain()
    digests = [dict(record.headers)[FORWARD_DIGEST_HEADER][:2] for record in cluster.log[USAGE_FORWARDED_TOPIC, 1]]
    assert digests == [b"1:", b"2:"]
    assert (cluster.counts.rated, cluster.counts.foreign, cluster.counts.rejected) == (3, 0, 0)
    late = NOW_US + HOUR_US + 1_000
    old = HeldRecordKeys({1: FIRST})
    cluster.produce(USAGE_TOPIC, 0, signed(old, settled(3, id_="late")), time_us=late)
    cluster.drain()
    assert "which verifies records up to" in cluster.commits[-1].suspense[0].rejection.detail
    cluster.produce(USAGE_TOPIC, 0, signed(ROTATED, settled(3, id_="late")), time_us=late)
    cluster.drain()
    assert cluster.counts.rated == 4


def test_what_an_older_version_forwarded_is_taken_without_a_digest(calculator: MakeCalculator) -> None:
    """Numbers 0 to 2 were forwarded before; a record without a digest beyond them, or out of turn, is foreign."""
    older = {(USAGE_FORWARDED_TOPIC, 0, 1): 3}
    cluster = two(calculator, HeldRecordKeys({1: FIRST}, unsigned=older))
    events = encode([use(1, account=THERE, id=f"u{n}") for n in range(5)])
    cluster.produce(USAGE_FORWARDED_TOPIC, 1, forged_forward(1, events[4]))
    for number in (0, 1, 0, 2, 3):
        cluster.produce(USAGE_FORWARDED_TOPIC, 1, forged_forward(number, events[number]))
    cluster.drain()
    assert (cluster.counts.rated, cluster.counts.dropped, cluster.counts.foreign) == (3, 1, 2)


def test_own_records_of_an_older_version_are_taken_up_to_its_end(calculator: MakeCalculator) -> None:
    cluster = two(calculator, HeldRecordKeys({1: FIRST}, own_from_us=NOW_US), limits=TimeLimits())
    cluster.produce(USAGE_TOPIC, 0, settled(3, id_="before"), time_us=NOW_US - 1_000)
    cluster.produce(USAGE_TOPIC, 0, settled(3, id_="after"), time_us=NOW_US)
    wrong = Frame(None, settled(3, id_="wrong"), ((OWN_DIGEST_HEADER, b"1:" + b"0" * 64),))
    cluster.produce(USAGE_TOPIC, 0, wrong, time_us=NOW_US - 1_000)
    cluster.drain()
    assert (cluster.counts.rated, cluster.counts.rejected) == (1, 2)


# Parity, and files


TRIES = st.lists(
    st.tuples(st.sampled_from(["ours", "forged", "altered", "worker"]), st.sampled_from([HERE, THERE]),
              st.integers(-1, 9), st.integers(1, 4), st.booleans(), st.booleans()),
    max_size=25,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tries=TRIES, most=st.sampled_from([1, 3, 100]))
def test_both_calculators_decide_the_same_of_own_and_forged_records(
    tries: list[tuple[str, str, int, int, bool, bool]], most: int
) -> None:
    """Forged records have no effect: the accounts are those of the log with unreadable bytes in their place."""
    ends = []
    for make, with_forged in ((PlainCalculator, True), (CompiledCalculator, True), (CompiledCalculator, False)):
        cluster = two(make)
        for who, account, tokens, number, numbered, wrong_partition in tries:
            source = "w" if who == "worker" else f"urn:tokenbill:{number % 2}"
            step = use(tokens, account=account, id=f"u{number}", source=source, number=number if numbered else None)
            (value,) = encode([step])
            partition = partition_of(account, 2) ^ wrong_partition
            if who == "ours":
                cluster.produce(USAGE_TOPIC, partition, signed(SIMULATED_KEYS, value))
            elif who == "worker":
                cluster.produce(USAGE_TOPIC, partition, value)
            elif with_forged:
                headers = signed(SIMULATED_KEYS, b"another").headers if who == "altered" else ()
                cluster.produce(USAGE_TOPIC, partition, Frame(None, value, headers))
        while any(cluster.step(partition, most) for partition in (0, 1)):
            pass
        ends.append((cluster.documents(), cluster.counts, kinds(cluster).count("forged_record")))
    assert ends[0] == ends[1]
    forged = sum(who in ("forged", "altered") for who, *_ in tries)
    assert (ends[1][0], ends[1][2]) == (ends[2][0], forged)


def test_a_file_may_use_own_sources_only_if_it_is_trusted(calculator: MakeCalculator) -> None:
    lines = [*encode([opened(HERE), buy("A", "G", account=HERE)]), settled(3)]
    for keys, rated in ((SIMULATED_KEYS, 0), (TRUSTING_KEYS, 1)):
        simulation = RecordedSimulation(CATALOG, calculator(), record_keys=keys)
        simulation.feed(lines)
        assert simulation.document()["events"] == {"rated": rated, "duplicate": 0, "rejected": 1 - rated}
        assert simulation.rejections == ({} if rated else {"invalid_event": 1})


def test_a_key_never_shows_its_secret() -> None:
    assert "secret" not in repr(FIRST) and "1111" not in repr(HeldRecordKeys({1: FIRST}))
