"""The scanner accepts only what the plain decoder accepts, with the same result; and it accepts the common event."""

import json
from copy import copy
from random import Random

import pytest
from dialect_samples import dialect_data
from hypothesis import given, settings
from hypothesis import strategies as st
from real_bodies import BODIES, Body

from billing.commits.input_batch import PlainRecord
from cython_ext import tables
from cython_ext.decode import Decoder
from schemas.cloudevents import write_binary
from schemas.hashing import content_hash32, id_hash32, murmur3_x64_128
from schemas.meters import METERS
from schemas.routing import murmur2
from schemas.usage import UsageEvent, parse_usage

COMMON = (
    b'{"specversion":"1.0","type":"token.usage.v1","source":"urn:worker:wuxi-tf01:node-17","id":"call-01JD9Z6N",'
    b'"sequence":"42","time":"2026-11-22T01:15:03.412Z","subject":"acct-000123","data":{"model":"deepseek-v3.2",'
    b'"hardware_tier":"ascend-910c.supernode384","energy_source":"solar","site":"wuxi-tf01","channel":"cloud",'
    b'"service_tier":"standard","request_id":"r-77","reservation":null,"usage":{"input":1200,"cache_read":8000,'
    b'"output":640,"reasoning":128}}}'
)
RESERVED = COMMON.replace(b'"reservation":null', b'"reservation":"rsv-1"')
PIECES = (
    b"",
    b" ",
    b"\n",
    b"0",
    b"00",
    b"-1",
    b"1.5",
    b"1e3",
    b"9223372036854775807",
    b"9223372036854775808",
    b"999999999999999999",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'"',
    b'""',
    b"\\",
    b"\\u0041",
    b"\x00",
    b"\x1f",
    b"\x7f",
    b"\xff",
    "词元".encode(),
    b",",
    b":",
    b"}",
    b'"x":1,',
    b'"x":"y",',
    b'"id":"again",',
    b'"usage":{},',
    b'"input":0,',
    b'"tiles":0,',
    b'"tiles":3,',
    b'"outcome":"failed",',
    b'"outcome":"maybe",',
    b'"usage_dialect":"openai.chat",',
    b'"usage_dialect":null,',
    b'"reservation":"rsv-7",',
    b'"attributes":{"a":"b","c":1},',
    b"T24:00:00Z",
    b"+08:00",
    b"x" * 257,
)


def check(value: bytes | None, headers: list[tuple[str, bytes]] | None = None) -> bool:
    """Return True if the scanner read the record, which must then equal the plain decoder's."""
    decoder = Decoder()
    columns = decoder.decode([PlainRecord(0, 0, None, value, headers or ())])
    plain = parse_usage(value, headers or ())
    read = columns.status_of(0) == 0
    if read and isinstance(plain, UsageEvent):
        assert columns.reservations().get(0) == plain.reservation
    if not read and isinstance(plain, UsageEvent):
        decoder.set_event(columns, 0, plain)
    if isinstance(plain, UsageEvent):
        compare(decoder, columns.as_tuple(0), plain)
    else:
        assert not read, f"the scanner read what the plain decoder refuses: {plain}"
    return read


def compare(decoder: Decoder, row: tuple[object, ...], event: UsageEvent) -> None:
    source, id, sequence, time_us, account, combination, id_hash, content_hash, counts = row
    assert decoder.sources[source].decode() == event.source  # type: ignore[index]
    assert (id, sequence, time_us) == (event.id, event.sequence, event.time_us)
    assert decoder.accounts[account].decode() == event.account  # type: ignore[index]
    assert decoder.combination(combination) == (  # type: ignore[arg-type]
        event.model,
        event.hardware_tier,
        event.energy_source,
        event.site,
        event.channel,
        event.service_tier,
        event.outcome,
        *(text for attribute in event.attributes for text in attribute),
    )
    named = tuple((decoder.meters[meter].decode(), count) for meter, count in counts)  # type: ignore[attr-defined]
    assert named == event.counts
    assert id_hash == id_hash32(event.account, event.id)
    assert content_hash == content_hash32(event)


def in_dialect(data: dict[str, object], **more: object) -> bytes:
    """Return the common event with other fields of its data in place of its usage."""
    event = json.loads(COMMON)
    del event["data"]["usage"]
    event["data"] |= data
    return json.dumps(event | more, ensure_ascii=False, separators=(",", ":")).encode()


def test_the_common_event_takes_the_fast_way() -> None:
    assert check(COMMON)
    assert check(json.dumps(json.loads(COMMON), indent=2).encode())
    assert check(RESERVED)


@pytest.mark.parametrize("meter", METERS)
def test_every_built_in_meter_takes_the_fast_way(meter: str) -> None:
    assert check(
        COMMON.replace(b'"input":1200', b'"%s":7' % meter.encode()).replace(b',"output":640', b"")
    ) or meter in (
        "cache_read",
        "reasoning",
    )


def test_a_binary_event_takes_the_fast_way() -> None:
    event = json.loads(COMMON)
    value, headers = write_binary(
        "token.usage.v1", event["source"], event["id"], 1_795_000_000_123_456, event["subject"], event["data"], 42
    )
    assert check(value, headers)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_mutated_events_are_read_as_the_plain_decoder_reads_them(seed: int) -> None:
    rng = Random(seed)
    for _ in range(50):
        text = bytearray(rng.choice([COMMON, RESERVED]))
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            at = rng.randrange(len(text))
            if rng.random() < 0.6:  # at a token's edge
                edges = [i for i, byte in enumerate(text) if byte in b'{}":,']
                at = rng.choice(edges) + rng.randint(0, 1) if edges else 0
            end = min(len(text), at + rng.choice((0, 0, 1, 1, 2, 5)))
            text[at:end] = rng.choice(PIECES) if rng.random() < 0.7 else bytes([rng.randrange(256)])
        check(bytes(text))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_mutated_fields_are_read_as_the_plain_decoder_reads_them(seed: int) -> None:
    rng = Random(seed)
    values = [
        None,
        "",
        "x",
        "x" * 256,
        "x" * 257,
        0,
        7,
        -1,
        1.5,
        True,
        [],
        {},
        "词",
        "a\tb",
        'q"',
        "0",
        "01",
        "9" * 19,
        "1" * 18,
    ]
    for _ in range(50):
        event = json.loads(COMMON)
        for _ in range(rng.randint(1, 2)):
            target = (
                rng.choice([event, event["data"], event["data"]["usage"]])
                if isinstance(event.get("data"), dict) and isinstance(event["data"].get("usage"), dict)
                else event
            )
            name = rng.choice([*target, "extra", "outcome", "member", "requests", "usage_dialect"])
            if rng.random() < 0.3:
                target.pop(name, None)
            else:
                target[name] = copy(rng.choice(values))  # an object that is shared could come to contain itself
        check(json.dumps(event, ensure_ascii=rng.random() < 0.5).encode())


@pytest.mark.parametrize("body", BODIES, ids=str)
def test_a_real_usage_object_is_read_as_the_plain_decoder_reads_it(body: Body) -> None:
    first = in_dialect({"usage": body.usage, "usage_dialect": body.dialect})
    check(json.dumps(json.loads(first), indent=2).encode())
    beside = in_dialect({"usage_dialect": body.dialect, "meters": {"seats": 7}, "usage": body.usage})
    assert check(first) == check(beside)


def test_most_real_usage_objects_take_the_fast_way() -> None:
    """The others have fractions of a count, objects that are not billed as a whole, or meters that a book declares."""
    slow = [body for body in BODIES if not check(in_dialect({"usage": body.usage, "usage_dialect": body.dialect}))]
    assert len(slow) < len(BODIES) // 5
    assert not {body.dialect for body in slow} & {
        *("openai.chat", "openai.responses", "openai.realtime", "anthropic", "deepseek", "vllm", "sglang", "litellm"),
        *("gemini", "dashscope", "moonshot", "zhipu", "qianfan", "hunyuan", "spark", "minimax", "otel"),
    }


def test_a_count_that_a_book_declares_is_left_to_the_plain_decoder() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "citation_tokens": 7}
    value, meters = in_dialect({"usage": usage, "usage_dialect": "perplexity"}), frozenset(["citation_tokens"])
    decoder, record = Decoder(), PlainRecord(0, 0, None, value, ())
    for declared, status in ((frozenset[str](), 0), (meters, 1), (frozenset[str](), 0)):
        decoder.declare_meters(declared)
        assert decoder.decode([record]).status_of(0) == status
    decoder.declare_meters(meters)
    zero = PlainRecord(0, 0, None, value.replace(b":7", b":0"), ())
    assert decoder.decode([zero]).status_of(0) == 0


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_usage_in_dialects_is_read_as_the_plain_decoder_reads_it(seed: int) -> None:
    """One decoder reads them all, so that shapes learned from one event are tried on the others."""
    rng, decoder = Random(seed), Decoder()
    values = [in_dialect(dialect_data(rng)) for _ in range(20)]
    for value in list(values):
        for _ in range(rng.choice((0, 1, 2))):  # the same shape with other numbers and words
            digits = [at for at, byte in enumerate(value) if 0x30 <= byte <= 0x39 or byte in b"abt"]
            other = bytearray(value)
            for at in rng.sample(digits, min(len(digits), rng.randint(1, 3))):
                other[at] = ord(rng.choice("0123456789")) if other[at] < 0x3A else ord(rng.choice("abt"))
            values.append(bytes(other))
    columns = decoder.decode([PlainRecord(place, 0, None, value, ()) for place, value in enumerate(values)])
    for row, value in enumerate(values):
        plain = parse_usage(value)
        if isinstance(plain, UsageEvent) and columns.status_of(row) == 1:
            decoder.set_event(columns, row, plain)
        if isinstance(plain, UsageEvent):
            compare(decoder, columns.as_tuple(row), plain)
            assert columns.is_one_request(row) == plain.is_one_request
        else:
            assert columns.status_of(row) != 0, f"the scanner read what the plain decoder refuses: {plain}, {value!r}"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_mutated_usage_in_dialects_is_read_as_the_plain_decoder_reads_it(seed: int) -> None:
    rng = Random(seed)
    for _ in range(30):
        text = bytearray(in_dialect(dialect_data(rng)))
        for _ in range(rng.choice((1, 1, 2))):
            edges = [i for i, byte in enumerate(text) if byte in b'{}":,[]']
            at = rng.choice(edges) + rng.randint(0, 1)
            end = min(len(text), at + rng.choice((0, 0, 1, 1, 2, 5)))
            text[at:end] = rng.choice(PIECES) if rng.random() < 0.7 else bytes([rng.randrange(256)])
        check(bytes(text))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_times_are_read_as_the_plain_decoder_reads_them(seed: int) -> None:
    rng = Random(seed)
    for _ in range(50):
        year = rng.choice([0, 1, 1969, 1970, 1972, 1999, 2000, 2026, 2028, 2100, 9999])
        month, day = rng.choice([0, 1, 2, 2, 2, 3, 4, 12, 13]), rng.choice([0, 1, 28, 29, 30, 31, 32])
        clock = f"{rng.choice([0, 12, 23, 24]):02}:{rng.choice([0, 59, 60]):02}:{rng.choice([0, 59, 60]):02}"
        fraction = rng.choice(["", "", ".", ".5", ".123456", ".1234567", ".123456789", ".1234567890"])
        zone = rng.choice(["Z", "z", "", "+00:00", "-23:59", "+24:00", "+08:60", "+8:00", "+0800", "+08:00", "-08:00"])
        time = f"{year:04}-{month:02}-{day:02}{rng.choice('TTt ')}{clock}{fraction}{zone}"
        check(COMMON.replace(b"2026-11-22T01:15:03.412Z", time.encode()))


HEADERS = [
    ("content-type", b"application/json"),
    ("Content-Type", b"application/json"),
    ("content-type", b"application/cloudevents+json"),
    ("content-type", b" Application/CloudEvents+json"),
    ("ce_specversion", b"1.0"),
    ("ce_type", b"token.usage.v1"),
    ("ce_source", b"s"),
    ("ce_source", b"t"),
    ("CE_ID", b"i"),
    ("ce_id", b'i"d'),
    ("ce_id", "词".encode()),
    ("ce_id", b"\xff"),
    ("ce_time", b"2026-11-22T01:15:03Z"),
    ("ce_subject", b"a"),
    ("ce_sequence", b"5"),
    ("ce_sequence", b""),
    ("ce_extension", b"\xff"),
    ("tb_forward_number", b"1"),
]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_headers_are_read_as_the_plain_decoder_reads_them(seed: int) -> None:
    rng = Random(seed)
    data = json.dumps(json.loads(COMMON)["data"]).encode()
    for _ in range(50):
        whole = [HEADERS[i] for i in (0, 4, 5, 6, 9, 12, 13)]
        headers = rng.choice([whole, whole, []]) + rng.sample(HEADERS, rng.randint(0, 3))
        if headers and rng.random() < 0.3:
            headers.pop(rng.randrange(len(headers)))
        check(rng.choice([data, COMMON, None]), headers)


@given(data=st.binary(max_size=80))
def test_hashes_are_the_plain_ones(data: bytes) -> None:
    assert tables.murmur3_x64_128(data) == murmur3_x64_128(data)
    assert tables.murmur2(data) == murmur2(data) & 0x7FFFFFFF


def test_a_text_keeps_its_number_through_growth() -> None:
    table = tables.TextTable()
    texts = [b"text-%d" % number for number in range(5000)]
    assert [table.number(text) for text in texts] == list(range(5000))
    assert [table.number(text) for text in texts] == list(range(5000))
    assert [table[number] for number in range(5000)] == texts
    assert table.known(b"nothing") == -1
