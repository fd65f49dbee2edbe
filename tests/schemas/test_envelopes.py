"""The CloudEvents envelope in both modes, and upcasting of old versions."""

import json

import pytest

from schemas.cloudevents import Envelope, read_envelope, write_binary, write_structured
from schemas.refusals import Refusal
from schemas.upcast import UPCASTERS, current_type, upcast
from schemas.usage import UsageEvent, parse_usage

TIME_US = 1_795_310_103_412_000
DATA = {"名": 1}


def test_a_structured_event_has_one_form() -> None:
    assert (
        write_structured("t.v1", "s", "i", TIME_US, "a", DATA, 7, zone="z", area="y")
        == (
            '{"specversion":"1.0","type":"t.v1","source":"s","id":"i","time":"2026-11-22T01:15:03.412000Z","subject":"a",'
            '"sequence":"7","area":"y","zone":"z","data":{"名":1}}'
        ).encode()
    )


def test_a_binary_event_has_one_form() -> None:
    value, headers = write_binary("t.v1", "s", "i", 0, "账", DATA)
    assert value == '{"名":1}'.encode()
    assert headers == [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_type", b"t.v1"),
        ("ce_source", b"s"),
        ("ce_id", b"i"),
        ("ce_time", b"1970-01-01T00:00:00Z"),
        ("ce_subject", "账".encode()),
    ]


STRUCTURED = write_structured("t.v1", "s", "i", TIME_US, "a", DATA, 7)
BINARY, HEADERS = write_binary("t.v1", "s", "i", TIME_US, "a", DATA, 7)
ENVELOPE = Envelope("t.v1", "s", "i", TIME_US, "a", 7, DATA)


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (STRUCTURED, []),
        (STRUCTURED, [("trace", b"x")]),
        (STRUCTURED, [("content-type", b"application/cloudevents+json; charset=UTF-8")]),
        (STRUCTURED, [("Content-Type", b"Application/CloudEvents+JSON"), ("ce_id", b"ignored")]),
        (BINARY, HEADERS),
        (BINARY, [*HEADERS, ("ce_id", b"i"), ("ce_traceparent", b"00")]),
        (BINARY, HEADERS[1:]),
    ],
)
def test_the_mode_follows_content_type_and_headers(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    assert read_envelope(value, headers) == ENVELOPE


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([("content-type", b"application/json")], "ce_specversion is missing"),
        ([*HEADERS, ("ce_id", b"other")], 'header "ce_id" is given twice'),
        ([*HEADERS[:-1], ("ce_sequence", b"\xff")], 'header "ce_sequence" is not UTF-8'),
        ([*HEADERS[:-1], ("ce_sequence", b"007")], 'ce_sequence is "007"'),
    ],
)
def test_headers_that_cannot_be_trusted_are_refused(headers: list[tuple[str, bytes]], words: str) -> None:
    rejection = read_envelope(BINARY, headers)
    assert isinstance(rejection, Refusal)
    assert rejection.code == "invalid_event"
    assert words in rejection.detail


def test_the_type_is_judged_before_a_binary_value_is_read() -> None:
    rejection = read_envelope(b"ARROW1", HEADERS, types=["u.v1"])
    assert isinstance(rejection, Refusal)
    assert rejection.detail == 'ce_type is "t.v1": expected u.v1'


def test_an_injected_upcaster_lifts_old_events_on_the_parse_path(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"model": "m", "tokens_in": 5}
    old = write_structured("token.usage.v0", "s", "i", 0, "a", data)
    assert isinstance(parse_usage(old), Refusal)

    monkeypatch.setitem(
        UPCASTERS, ("token.usage", 0), lambda body: {"model": body["model"], "usage": {"input": body["tokens_in"]}}
    )
    event = parse_usage(old)
    assert isinstance(event, UsageEvent)
    assert event.counts == (("input", 5),)


def test_upcasters_are_applied_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UPCASTERS, ("t", 1), lambda body: {**body, "two": 2})
    monkeypatch.setitem(UPCASTERS, ("t", 2), lambda body: {**body, "three": 3})
    assert current_type("t.v1") == "t.v3"
    assert upcast("t.v1", {}) == ("t.v3", {"two": 2, "three": 3})
    assert upcast("untouched", {}) == ("untouched", {})


def test_a_written_event_is_readable_json() -> None:
    assert json.loads(STRUCTURED)["data"] == DATA
