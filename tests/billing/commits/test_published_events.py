"""Events published by a run of the engine conform to their schemas (docs/reference/topics.md)."""

import json
from pathlib import Path
from typing import Any

import pytest
from billing_samples import (
    BOOK,
    MakeCalculator,
    buy,
    catalog,
    clock,
    encode,
    line,
    opened,
    plan,
    subscribe,
    subscription,
    top_up,
    use,
)
from jsonschema import Draft202012Validator
from recorded_simulation import RecordedSimulation, published

from billing.commits.commit_record import PartitionState
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.commits.outbox_frames import unpack_batches
from billing.engine.partition_engine import PartitionEngine
from billing.engine.simulation import NothingStored
from schemas.outputs import OUTPUTS, UsageRejectedHeaders
from schemas.times import parse_time_us
from schemas.topics import ACCOUNT_EVENT_TOPIC, BALANCE_TOPIC, COMMAND_TOPIC, RATED_TOPIC, REJECTED_TOPIC, USAGE_TOPIC

SCHEMAS = Path(__file__).resolve().parents[3] / "docs" / "schemas"
COMMITTED = {
    "kind": "price_book",
    "name": "committed",
    "version": 1,
    "currency": "USD",
    "effective_from": "2020-01-01T00:00:00+08:00",
    "periods": {"weekly": {"kind": "commitment", "every": "week", "amount": "10"}},
    "rows": [{"per_million": {"input": "1"}, "periods": ["weekly"]}],
}
SETTLED = {
    "kind": "price_book",
    "name": "settled",
    "version": 1,
    "currency": "EUR",
    "effective_from": "2020-01-01T00:00:00+08:00",
    "periods": {
        "weekly": {
            "kind": "volume",
            "every": "week",
            "count": ["input"],
            "settle": "at_end",
            "tiers": [{"up_to": "2"}, {"up_to": None, "multiply": "0.5"}],
        }
    },
    "rows": [{"per_million": {"input": "1000000"}, "periods": ["weekly"]}],
}
PLANS = (
    BOOK,
    COMMITTED,
    SETTLED,
    plan("A", alerts=["0.5", "0.8", "1.0"], cycle={"kind": "days", "days": 1}),
    plan(
        "C",
        "5",
        "5.30",
        buckets=[
            {"unit": "CREDIT", "amount": "3", "kind": "periodic", "fee_share": "0.5", "priority": 1},
            {"unit": "STD_TOKEN", "amount": "5", "kind": "periodic", "fee_share": "0.5"},
        ],
        overage={"mode": "auto_pack", "block": "10", "price": "1.06", "max_packs": 3},
        alerts=["0.8"],
    ),
    plan("B", "1000.5", "29.90", cycle={"kind": "once"}, overage="pay_as_you_go"),
    plan(
        "W",
        buckets=[{"unit": "REQUEST", "amount": "9", "kind": "periodic"}],
        windows=[{"kind": "from_first_use", "hours": 5, "cap": "1", "alerts": ["1"]}],
    ),
    plan(
        "R",
        price="9.00",
        buckets=[{"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "carry_over_cycles": 1}],
        cycle={"kind": "days", "days": 3},
        expiry_alert_days=[1],
    ),
    plan(
        "D",
        buckets=[{"unit": "STD_TOKEN", "amount": "2", "kind": "periodic", "every": "day"}],
        cycle={"kind": "weeks", "weeks": 1},
        overage="owe",
    ),
)
STEPS = [
    top_up("5", "early"),
    opened(),
    opened("账户", payment="postpaid", bill_day=5, due_days=1),
    top_up("5.000000000001", "p"),
    buy("A", "G"),
    buy("B", "H", starts_at="03 00:00"),
    buy("A", "I", starts_at="03 00:30"),
    b'{"type":"wallet.topped_up.v1"}',
    use(79, meter="output"),
    use(3, account="账户", id="voided"),
    use(2, model="nobody's"),
    opened("pack"),
    top_up("5", "p", account="pack"),
    buy("C", "G", account="pack"),
    use(30, account="pack", model="credit"),
    use(5, "03 01:00", model="third"),
    line("package.refunded.v1", "a", "03 02:00", {"grant_id": "I", "reason": "asked"}),
    line("package.transferred.v1", "a", "03 02:00", {"grant_id": "H", "amount": "5", "to": "账户"}),
    line("package.transferred.v1", "a", "03 02:00", {"grant_id": "H", "amount": "5", "to": "nobody"}),
    opened("renews", "03 03:00"),
    top_up("21", "p", "03 03:00", "renews"),
    line("wallet.alert_set.v1", "renews", "03 03:00", {"below": "5"}),
    subscribe("R", "S", "03 03:00", "renews", pay_from="wallet"),
    subscription("cancelled", "03 04:00", "S", "renews", until="12 00:00"),
    line("bill.collected.v1", "账户", "28 00:00", {"bill_id": "账户/2026-11", "amount": "3.18", "payment_ref": "b"}),
    line("usage.voided.v1", "账户", "28 01:00", {"source": "test", "id": "voided", "reason": "r"}),
    use(5, "29 01:00", number=1, source="numbered", data={"site": "wuxi"}),
    opened("committed", currency="USD"),
    use(3, "20 01:00", account="committed"),
    opened("settled", currency="EUR"),
    use(2, "20 01:00", account="settled"),
    use(2, "20 02:00", account="settled"),
    opened("owes", "20 00:00"),
    buy("D", "D", "20 00:00", account="owes"),
    use(3, "20 03:00", account="owes"),
    opened("windows"),
    buy("W", "W", account="windows"),
    use(3, account="windows"),
    use(3, account="windows"),
]


def run(calculator: MakeCalculator) -> RecordedSimulation:
    simulation = RecordedSimulation(catalog(*PLANS), calculator(), lines_per_commit=4)
    simulation.feed(encode(STEPS))
    simulation.document()
    return simulation


@pytest.mark.parametrize("topic", [RATED_TOPIC, BALANCE_TOPIC, ACCOUNT_EVENT_TOPIC])
def test_every_published_event_meets_its_schema_and_model(topic: str, calculator: MakeCalculator) -> None:
    events = run(calculator).published(topic)
    assert events
    for event in events:
        schema = json.loads((SCHEMAS / f"{event['type']}.json").read_text())
        Draft202012Validator(schema).validate(event)
        model = OUTPUTS[event["type"]]
        assert topic == model.TOPIC
        written = json.dumps(event["data"])
        model.model_validate_json(written)
        unknown = event["data"].keys() - model.model_fields.keys()
        assert unknown <= {"account"}, f"{event['type']} has fields that no schema names"


def test_events_are_unique_and_numbered_without_holes(calculator: MakeCalculator) -> None:
    simulation = run(calculator)
    identities = []
    for topic in (RATED_TOPIC, BALANCE_TOPIC, ACCOUNT_EVENT_TOPIC):
        events = simulation.published(topic)
        assert [event["sequence"] for event in events] == [str(number + 1) for number in range(len(events))]
        identities += [(event["source"], event["id"]) for event in events]
    assert len(set(identities)) == len(identities)


def test_every_kind_of_account_event_happens(calculator: MakeCalculator) -> None:
    kinds = {event["type"] for event in run(calculator).published(ACCOUNT_EVENT_TOPIC)}
    assert kinds == {kind for kind, model in OUTPUTS.items() if model.TOPIC == ACCOUNT_EVENT_TOPIC}


def test_an_account_event_is_keyed_by_its_account(calculator: MakeCalculator) -> None:
    for record in run(calculator).records:
        for topic in (ACCOUNT_EVENT_TOPIC, BALANCE_TOPIC):
            for event, frame in published(record, topic):
                assert frame.key == event["subject"].encode()
                assert event["data"]["account"] == event["subject"]
                assert frame.target_partition == -1


def test_a_rated_line_has_declared_attributes_and_what_was_used_of_a_raised_quantity(
    calculator: MakeCalculator,
) -> None:
    row = {"model": "v", "per_million": {"milliseconds": "1"}, "increments": {"milliseconds": {"step": 6000}}}
    book = BOOK | {"dimensions": {"size": "attributes.resolution", "hd": "attributes.hd"}, "rows": [row]}
    simulation = RecordedSimulation(catalog(book), calculator())
    given = ({"hd": True, "resolution": "4k", "trace": "x"}, {"trace": "x"}, {"hd": None, "resolution": 5}, None)
    counts = {"model": "v", "usage": {"milliseconds": 5000}}
    simulation.feed(encode([opened(), *(use(0, data=counts | {"attributes": one}) for one in given)]))
    simulation.document()
    (event,) = simulation.published(RATED_TOPIC)
    Draft202012Validator(json.loads((SCHEMAS / "usage.rated.v1.json").read_text())).validate(event)
    lines = event["data"]["events"]
    assert [line.get("attributes") for line in lines] == [
        {"hd": "true", "resolution": "4k"},
        None,
        {"resolution": "5"},
        None,
    ]
    assert [(line["lines"][0]["quantity"], line["lines"][0]["used"]) for line in lines] == 4 * [(6000, 5000)]


def test_a_rated_line_says_how_it_was_paid(calculator: MakeCalculator) -> None:
    rated = [line for event in run(calculator).published(RATED_TOPIC) for line in event["data"]["events"]]
    assert rated[0] == {
        "source": "test",
        "id": "e8",
        "account": "a",
        "currency": "CNY",
        "amount": "167.48",
        "net": "158",
        "standard_tokens": "158",
        "price_book": "retail@1",
        "lines": [
            {
                "meter": "output",
                "quantity": 79,
                "per_million": "2120000",
                "amount": "167.48",
                "standard_tokens": "158",
            }
        ],
        "offset": 0,
        "time": "2026-11-02T02:00:00Z",
        "model": "m",
        "burned": [{"grant_id": "G/1", "standard_tokens": "100"}],
        "charged": "0",
        "absorbed": "58",
    }
    assert [line["offset"] for line in rated] == [0, 1, *range(3, 12)]
    # 15 credits are needed and 3 are left: a fifth. The other 24 standard tokens: 5 of G/2, then two packs of 10.
    assert rated[2] | {"burned": []} == rated[2] | {"burned": [], "account": "pack", "charged": "0", "absorbed": "0"}
    assert rated[2]["burned"] == [
        {"grant_id": "G/1", "standard_tokens": "0", "amount": "3", "unit": "CREDIT"},
        {"grant_id": "G/2", "standard_tokens": "5"},
        {"grant_id": "G/pack-1", "standard_tokens": "10"},
        {"grant_id": "G/pack-2", "standard_tokens": "9"},
    ]


def test_a_rated_line_says_what_is_not_the_default(calculator: MakeCalculator) -> None:
    given = {
        "hardware_tier": "ascend-910c", "energy_source": "solar", "site": "无锡", "channel": "edge",
        "service_tier": "batch", "request_id": 'r-"1"', "member": "",
    }  # fmt: skip
    defaults = {"hardware_tier": "unknown", "channel": "cloud", "outcome": "completed", "member": None}
    simulation = RecordedSimulation(catalog(plan("A")), calculator())
    simulation.feed(encode([opened(), use(1, data=given), use(1, "02 10:00:00.5", data=defaults)]))
    first, second = (line for event in simulation.published(RATED_TOPIC) for line in event["data"]["events"])
    between = {
        name: list(one)[list(one).index("offset") + 1 : list(one).index("burned")]
        for name, one in (("first", first), ("second", second))
    }
    assert between["first"] == ["time", "model", *given]
    assert {name: first[name] for name in given} == given
    assert between["second"] == ["time", "model"]
    assert (second["time"], second["model"]) == ("2026-11-02T02:00:00.500000Z", "m")


def alerts(calculator: MakeCalculator, levels: list[str], *tokens: int) -> list[tuple[str, str]]:
    """Return (threshold, remaining) of the alerts of a bucket of 100 tokens, in order."""
    simulation = RecordedSimulation(catalog(plan("A", alerts=levels)), calculator(), lines_per_commit=2)
    simulation.feed(encode([opened(), buy("A", "G"), *[use(count) for count in tokens]]))
    return [
        (event["data"]["threshold"], event["data"]["remaining"])
        for event in simulation.published(ACCOUNT_EVENT_TOPIC)
        if event["type"] == "threshold.reached.v1"
    ]


@pytest.mark.parametrize(
    ("levels", "tokens", "reached"),
    [
        (["0.8", "1.0"], (79,), []),
        (["0.8", "1.0"], (80,), [("0.8", "20")]),
        (["0.8", "1.0"], (79, 1, 1, 1), [("0.8", "20")]),
        (["0.8", "1.0"], (85, 10, 10), [("0.8", "15"), ("1", "0")]),
        (["0.8", "1.0"], (500,), [("0.8", "0"), ("1", "0")]),
        (["1.0", "0.5", "0.5"], (60, 40, 7), [("0.5", "40"), ("1", "0")]),
        (["0.333333"], (33,), []),
        (["0.333333"], (33, 1), [("0.333333", "66")]),
        ([], (500,), []),
    ],
)
def test_each_alert_is_given_once(
    levels: list[str], tokens: tuple[int, ...], reached: list[tuple[str, str]], calculator: MakeCalculator
) -> None:
    assert alerts(calculator, levels, *tokens) == reached


@pytest.mark.parametrize(("units", "reached"), [(1, []), (2, ["0.333333"])])
def test_an_alert_waits_until_its_share_is_used_to_the_last_millionth(
    units: int, reached: list[str], calculator: MakeCalculator
) -> None:
    """0.333333 of 1.000001 is 0.333333333333, so one burn of 0.333333 does not reach the threshold."""
    simulation = RecordedSimulation(catalog(plan("A", "1.000001", alerts=["0.333333"])), calculator())
    simulation.feed(encode([opened(), buy("A", "G"), use(units, model="third")]))
    events = simulation.published(ACCOUNT_EVENT_TOPIC)
    assert [event["data"]["threshold"] for event in events if event["type"] == "threshold.reached.v1"] == reached


def test_a_bucket_that_ends_says_what_lapsed(calculator: MakeCalculator) -> None:
    simulation = RecordedSimulation(catalog(*PLANS), calculator())
    simulation.feed(encode([opened(), buy("A", "G"), use(60)]))
    simulation.document(parse_time_us(clock("04 09:00")))
    assert [event["data"] for event in simulation.published(ACCOUNT_EVENT_TOPIC)][-1] == {
        "account": "a",
        "grant_id": "G/1",
        "plan": "A",
        "remaining": "40",
        "breakage": "40",
        "movements": [
            {
                "purpose": "breakage",
                "currency": "CNY",
                "plan": "A@1",
                "grant_id": "G/1",
                "unit": "STD_TOKEN",
                "quantity": "0",
                "granted": "0",
                "liability": "-40",
            }
        ],
    }


def test_at_most_a_thousand_lines_are_in_a_record(calculator: MakeCalculator) -> None:
    simulation = RecordedSimulation(catalog(), calculator(), lines_per_commit=10_000)
    simulation.feed(encode([opened(), *[use(1) for _ in range(2_001)]]))
    sizes = [len(event["data"]["events"]) for event in simulation.published(RATED_TOPIC)]
    assert sizes == [1_000, 1_000, 1]


def rejected(calculator: MakeCalculator, record: PlainRecord) -> Any:
    """Return the frame published to ``usage.rejected`` for one record."""
    engine = PartitionEngine(PartitionState(0, 1), 0, catalog(), NothingStored(), calculator())
    decided = engine.decide([InputBatch(USAGE_TOPIC, 0, 1, [record])])
    (row,) = [row for row in decided.outbox if row.topic == REJECTED_TOPIC]
    (frame,) = unpack_batches(row.payload)
    return frame


def test_a_rejected_record_keeps_its_bytes_key_and_headers(calculator: MakeCalculator) -> None:
    headers = [("trace", b"\xff\x00"), ("empty", b""), ("null", None), ("reason", b"of an earlier rejection")]
    frame = rejected(calculator, PlainRecord(0, 5, b"\xfekey", b"\xfe{", headers))  # type: ignore[arg-type]
    assert (frame.key, frame.value) == (b"\xfekey", b"\xfe{")
    assert frame.headers[:3] == (("trace", b"\xff\x00"), ("empty", b""), ("null", None))
    own = {name: content.decode() for name, content in frame.headers[3:]}
    assert UsageRejectedHeaders.model_validate(own).reason == "invalid_json"
    assert (own["topic"], own["partition"], own["offset"]) == ("usage.events", "0", "0")
    assert len(frame.headers) == 10


def test_a_rejected_tombstone_stays_one(calculator: MakeCalculator) -> None:
    frame = rejected(calculator, PlainRecord(0, 5, None, None))
    assert (frame.key, frame.value) == (None, None)


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"a\x00b", b"x" * 300, b"acct-9"])
def test_the_outcome_of_an_unreadable_command_has_a_subject(key: bytes | None, calculator: MakeCalculator) -> None:
    engine = PartitionEngine(PartitionState(0, 1), 0, catalog(), NothingStored(), calculator())
    record = engine.decide([InputBatch(COMMAND_TOPIC, 0, 1, [PlainRecord(0, 5, key, b"{")])])
    ((event, _),) = published(record, ACCOUNT_EVENT_TOPIC)
    Draft202012Validator(json.loads((SCHEMAS / "command.rejected.v1.json").read_text())).validate(event)
    assert event["subject"] == ("acct-9" if key == b"acct-9" else "unknown")
    assert event["data"]["reason"] == "invalid_json"
