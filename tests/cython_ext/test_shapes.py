"""An event read by the shape of an earlier one is read as the plain decoder reads it."""

import json
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from test_decode_parity import COMMON, PIECES, compare

from billing.commits.input_batch import PlainRecord
from cython_ext.decode import Decoder
from schemas.cloudevents import write_binary
from schemas.usage import UsageEvent, parse_usage

TEXTS = ("", "x", "y" * 15, "y" * 16, "z" * 17, "x" * 256, "x" * 257, "词元", 'q"', "b\\s", "t\tb", "\x7f", "unknown")
NUMBERS = (0, 1, 7, 10, 999_999_999_999_999_999, 10**18, 2**63, -1, 1.5, True, None, "5")


def check_all(records: list[PlainRecord]) -> int:
    """Decode all with one decoder; rows must be what the plain decoder reads. Returns how many the scanner read."""
    decoder = Decoder()
    columns = decoder.decode(records)
    read = 0
    for row, record in enumerate(records):
        plain = parse_usage(record.value, record.headers)
        if columns.status_of(row) == 0:
            assert isinstance(plain, UsageEvent), f"the scanner read what the plain decoder refuses: {plain}"
            compare(decoder, columns.as_tuple(row), plain)
            read += 1
    return read


def changed(rng: Random, event: dict[str, object]) -> dict[str, object]:
    """An event of the same keys with one or two other values."""
    event = json.loads(json.dumps(event))
    for _ in range(rng.randint(0, 2)):
        data = event["data"]
        target = rng.choice([event, data, data["usage"]])  # type: ignore[index]
        name = rng.choice([key for key in target if key not in ("data", "usage", "attributes")])
        target[name] = rng.choice(NUMBERS if target is not event and isinstance(target[name], int) else TEXTS)
    return event


def start(rng: Random) -> dict[str, object]:
    """An event with more keys than the common one, in any order."""
    event = json.loads(COMMON)
    data = event["data"]
    if rng.random() < 0.7:
        data |= {"ttft_ms": 120, "note": "n", "stream": True, "outcome": "partial", "member": None}
    if rng.random() < 0.3:
        data["attributes"] = {"effort": "low", "hd": True, "seconds": 5}
    if rng.random() < 0.5:
        del data["usage"]["cache_read"]
    if rng.random() < 0.5:
        event["data"] = dict(rng.sample(sorted(data.items()), len(data)))
        event = dict(rng.sample(sorted(event.items()), len(event)))
    return event  # type: ignore[no-any-return]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_events_of_known_shapes_are_read_as_the_plain_decoder_reads_them(seed: int) -> None:
    rng = Random(seed)
    starts = [start(rng) for _ in range(rng.randint(1, 6))]
    indent = rng.choice((None, None, 1))
    values = [
        json.dumps(changed(rng, rng.choice(starts)), ensure_ascii=rng.random() < 0.3, indent=indent).encode()
        for _ in range(100)
    ]
    assert check_all([PlainRecord(offset, 0, None, value) for offset, value in enumerate(values)]) > 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_events_broken_after_a_shape_was_learned_are_read_as_the_plain_decoder_reads_them(seed: int) -> None:
    rng = Random(seed)
    values = [COMMON]
    for _ in range(60):
        text = bytearray(COMMON)
        edges = [i for i, byte in enumerate(text) if byte in b'{}":,']
        at = rng.choice(edges) + rng.randint(0, 1) if rng.random() < 0.7 else rng.randrange(len(text))
        end = min(len(text), at + rng.choice((0, 0, 1, 1, 2, 5)))
        text[at:end] = rng.choice(PIECES) if rng.random() < 0.7 else bytes([rng.randrange(256)])
        values += [bytes(text), COMMON] if rng.random() < 0.3 else [bytes(text)]
    values += [COMMON[:size] for size in range(len(COMMON) - 40, len(COMMON))]
    check_all([PlainRecord(offset, 0, None, value) for offset, value in enumerate(values)])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_binary_and_structured_events_do_not_share_shapes(seed: int) -> None:
    rng = Random(seed)
    records = []
    for offset in range(60):
        event = changed(rng, json.loads(COMMON))
        data = json.dumps(event["data"]).encode()
        try:
            _, headers = write_binary("token.usage.v1", "s", "i", 1_795_000_000_123_456, str(event["subject"]), {}, 42)
        except ValueError:
            continue
        whole = json.dumps(event).encode()
        kind = rng.randrange(4)
        value = whole if kind in (0, 1) else data
        records.append(PlainRecord(offset, 0, None, value, headers if kind in (1, 2) else ()))
    check_all(records)


def test_more_shapes_than_are_kept_are_read_as_the_plain_decoder_reads_them() -> None:
    """Keys invented for each event make a shape each, until all are forgotten; known ones are learned again."""
    rng = Random(5)
    records = []
    for offset in range(1_500):
        event = json.loads(COMMON)
        if offset % 3:
            event["data"] = {f"invented-{rng.randrange(10**6)}": 1} | event["data"]
        if offset % 5 == 0:
            event["data"] |= {f"late-{offset}": "x"}
        for name in rng.sample(["sequence", "time"], 1 if offset % 50 == 0 else 0):
            del event[name]
        records.append(PlainRecord(offset, 0, None, json.dumps(event).encode()))
    assert check_all(records) > 1_400


def test_offsets_with_holes_are_kept() -> None:
    """Dense offsets are not read one by one; others are."""
    columns = Decoder().decode([PlainRecord(offset, 0, None, COMMON) for offset in (3, 4, 9, 11)])
    assert len(columns) == 4
