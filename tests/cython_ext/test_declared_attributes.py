"""The attributes that books declare are read as the plain decoder reads them; others cost nothing."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decode_parity import COMMON, PIECES, compare

from billing.commits.input_batch import PlainRecord
from cython_ext.decode import Decoder
from schemas.usage import UsageEvent, parse_usage

NAMES = ("effort", "hd", "size", "seconds", "trace", "词")
VALUES: tuple[Any, ...] = (
    *("low", "high", "", "x" * 256, "x" * 257, "词元", 'q"', "t\tb", "true", "5"),
    *(True, False, None, 0, 5, -5, 10**17, 10**18, 2**63 - 1, 2**63, -(2**63), 1.5, [], {}, {"a": 1}),
)


def with_attributes(attributes: object) -> bytes:
    event = json.loads(COMMON)
    event["data"]["attributes"] = attributes
    return json.dumps(event, ensure_ascii=False).encode()


def check(values: list[bytes], declared: list[str]) -> int:
    """Decode all with one decoder; rows must be what the plain decoder reads. Returns how many the scanner read."""
    decoder = Decoder()
    decoder.declare_attributes(declared)
    columns = decoder.decode([PlainRecord(offset, 0, None, value) for offset, value in enumerate(values)])
    read = 0
    for row, value in enumerate(values):
        plain = parse_usage(value, declared_attributes=frozenset(declared))
        if columns.status_of(row) == 0:
            assert isinstance(plain, UsageEvent), f"the scanner read what the plain decoder refuses: {plain}"
            read += 1
        elif isinstance(plain, UsageEvent):
            decoder.set_event(columns, row, plain)
        if isinstance(plain, UsageEvent):
            compare(decoder, columns.as_tuple(row), plain)
    return read


@pytest.mark.parametrize("value", ["high", "", True, False, 5, 0, None])
def test_plain_values_take_the_fast_way(value: object) -> None:
    values = [with_attributes({"size": value, "effort": "low", "other": 7})] * 3
    assert check(values, ["effort", "size"]) == 3
    assert check(values, []) == 3


@pytest.mark.parametrize("attributes", [None, {}, {"a": "b", "c": 1, "d": True}])
def test_attributes_that_no_book_declares_leave_the_combination_alone(attributes: object) -> None:
    decoder = Decoder()
    decoder.declare_attributes(["effort"])
    values = [COMMON, with_attributes(attributes), with_attributes(attributes)]
    columns = decoder.decode([PlainRecord(offset, 0, None, value) for offset, value in enumerate(values)])
    assert [columns.status_of(row) for row in range(3)] == [0, 0, 0]
    assert len({columns.as_tuple(row)[5] for row in range(3)}) == 1
    assert len({columns.as_tuple(row)[7] for row in range(3)}) == 1


def test_events_of_one_shape_keep_their_own_values() -> None:
    decoder = Decoder()
    decoder.declare_attributes(["effort", "hd"])
    values = [with_attributes({"hd": hd, "effort": effort}) for hd in (True, False, True) for effort in ("low", "high")]
    columns = decoder.decode([PlainRecord(offset, 0, None, value) for offset, value in enumerate(values)])
    found = [decoder.combination(columns.as_tuple(row)[5])[7:] for row in range(6)]
    assert found[0] == found[4] == ("effort", "low", "hd", "true")
    assert found[3] == ("effort", "high", "hd", "false")
    assert len(set(found)) == 4


def test_a_new_declaration_forgets_what_was_learned() -> None:
    decoder = Decoder()
    value = with_attributes({"effort": "low", "hd": True})
    found = []
    for declared in ([], ["effort"], ["hd"], ["effort", "hd"], []):
        decoder.declare_attributes(declared)
        for _ in range(2):
            columns = decoder.decode([PlainRecord(0, 0, None, value)])
            found.append(decoder.combination(columns.as_tuple(0)[5])[7:])
    effort, hd = ("effort", "low"), ("hd", "true")
    assert found == [(), (), effort, effort, hd, hd, effort + hd, effort + hd, (), ()]


def test_more_attributes_than_the_core_holds_are_left_to_the_plain_decoder() -> None:
    declared = [f"a{number}" for number in range(9)]
    assert check([with_attributes({"a8": "x", "b": 1}), COMMON], declared) == 1


def test_what_is_neither_text_nor_boolean_nor_integer_is_refused_where_it_is_declared() -> None:
    value = with_attributes({"size": 1.5})
    refused = parse_usage(value, declared_attributes=frozenset(["size"]))
    assert not isinstance(refused, UsageEvent)
    assert (refused.code, refused.detail) == (
        "invalid_event",
        'data.attributes."size" is 1.5: expected text of 0 to 256 UTF-8 bytes without control characters, a boolean or '
        "an integer",
    )
    assert isinstance(parse_usage(value), UsageEvent)
    not_an_object = parse_usage(with_attributes([]))
    assert not isinstance(not_an_object, UsageEvent)
    assert not_an_object.detail.startswith("data.attributes")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_attributes_are_read_as_the_plain_decoder_reads_them(seed: int) -> None:
    rng = Random(seed)
    declared = sorted(rng.sample(NAMES, rng.randint(0, 4)))
    events = []
    for _ in range(40):
        names = rng.sample(NAMES, rng.randint(0, 5))
        value = with_attributes({name: rng.choice(VALUES[: rng.choice((4, 16, 25))]) for name in names})
        if rng.random() < 0.3:
            text = bytearray(value)
            at = text.index(b'"attributes"') + rng.randint(0, 60)
            text[at : at + rng.choice((0, 1, 2))] = rng.choice(PIECES)
            value = bytes(text)
        events += [value] * rng.choice((1, 1, 2))
    check(events, declared)
