"""Usage events in the reference decoder: accepted forms, and the details of rejections."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.cloudevents import write_binary, write_structured
from schemas.meters import CONTEXT_METERS, METERS, TOKEN_METERS, canonical_counts, context_tokens, output_tokens
from schemas.refusal_codes import REASONS
from schemas.refusals import Refusal, record_refusal
from schemas.topics import RECORD_SIZE_HEADER
from schemas.usage import UsageEvent, parse_usage, reread_usage

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "type": "token.usage.v1",
    "source": "urn:worker:wuxi-tf01:node-17",
    "id": "call-01JD9Z6N",
    "sequence": "42",
    "time": "2026-11-22T01:15:03.412Z",
    "subject": "acct-000123",
    "data": {"model": "deepseek-v3.2", "usage": {"input": 1200, "output": 640}},
}

CHAT = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def with_data(**fields: Any) -> dict[str, Any]:
    return {**EVENT, "data": {**EVENT["data"], **fields}}


def accepted(event: dict[str, Any], **options: Any) -> UsageEvent:
    result = parse_usage(json.dumps(event).encode(), **options)
    assert isinstance(result, UsageEvent), result
    return result


def refused(event: dict[str, Any] | bytes | None) -> Refusal:
    result = parse_usage(json.dumps(event).encode() if isinstance(event, dict) else event)
    assert isinstance(result, Refusal), result
    return result


def test_meters_stand_in_the_order_of_the_contract_and_context_counts_what_was_received() -> None:
    assert METERS[: len(TOKEN_METERS)] == TOKEN_METERS
    assert len(METERS) == len(set(METERS)) == 24
    assert set(CONTEXT_METERS) == set(TOKEN_METERS) - {
        "output",
        "reasoning",
        "audio_output",
        "image_output",
        "video_output",
    }
    assert context_tokens((("input", 1), ("cache_write_1h", 2), ("output", 4), ("scent_input", 8))) == 11
    assert context_tokens((("image_cache_read", 1), ("scent_cache_read", 2), ("scent_cache_write", 4))) == 7
    assert (
        output_tokens((("input", 1), ("output", 2), ("reasoning", 4), ("image_output", 8), ("scent_output", 16))) == 30
    )


def test_defaults_fill_absent_and_null_fields() -> None:
    event = accepted(with_data(hardware_tier=None, site=None, member=None, outcome=None))
    assert (event.hardware_tier, event.energy_source, event.site) == ("unknown", "unknown", "unknown")
    assert (event.channel, event.service_tier, event.outcome) == ("cloud", "standard", "completed")
    assert (event.requested_model, event.member, event.request_id, event.reservation) == (None, None, None, None)


def test_unknown_fields_are_ignored_everywhere() -> None:
    event = {**with_data(new={"deep": [1, 2.5, None]}), "traceparent": "00-1", "extension": 7}
    assert accepted(event) == accepted(EVENT)


def test_both_modes_give_the_same_event() -> None:
    arguments = ("token.usage.v1", "s", "i", 1_795_310_103_412_000, "acct", EVENT["data"], 7)
    value, headers = write_binary(*arguments)
    assert parse_usage(value, headers) == parse_usage(write_structured(*arguments))


def test_counts_are_canonical_and_zero_is_as_if_absent_even_of_an_unknown_meter() -> None:
    usage = {"zeta": 3, "output": 1, "alpha": 2, "input": 5, "cache_read": 0, "nobody_knows": 0, "requests": -0}
    event = accepted(with_data(usage=usage), declared_meters=frozenset({"zeta", "alpha"}))
    assert event.counts == (("input", 5), ("output", 1), ("alpha", 2), ("zeta", 3))


def test_an_empty_usage_is_an_event() -> None:
    assert accepted(with_data(usage={})).counts == ()


def test_the_greatest_values_are_accepted() -> None:
    event = accepted({**with_data(usage={"input": 2**63 - 1}, model="模" * 85 + "x"), "sequence": str(2**63 - 1)})
    assert event.counts == (("input", 2**63 - 1),)
    assert event.sequence == 2**63 - 1


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T08:00:00.0000019+08:00", 1),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
    ],
)
def test_times_are_instants(text: str, time_us: int) -> None:
    assert accepted({**EVENT, "time": text}).time_us == time_us


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "no value"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "a list"),
        (b"7", "the value is 7"),
        (b"\xff", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'{"a":{"b":1,"\\u0062":2}}', 'duplicate key "b"'),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "nested deeper"),
        (b"[" * 100_000, "nested deeper"),
    ],
)
def test_what_is_not_strict_json_is_invalid_json(value: bytes | None, words: str) -> None:
    rejection = refused(value)
    assert rejection.code == "invalid_json"
    assert words in rejection.detail


def test_binary_mode_keeps_the_identity_of_a_value_that_is_not_json() -> None:
    _, headers = write_binary("token.usage.v1", "s", "i", 0, "acct", {}, 9)
    rejection = parse_usage(b"{", headers)
    assert isinstance(rejection, Refusal)
    assert (rejection.code, rejection.source, rejection.id, rejection.sequence, rejection.account) == (
        "invalid_json",
        "s",
        "i",
        9,
        "acct",
    )


@pytest.mark.parametrize("field", ["specversion", "type", "source", "id", "time", "subject", "data"])
@pytest.mark.parametrize("null", [True, False])
def test_a_required_attribute_is_named_when_missing(field: str, null: bool) -> None:
    event = {name: value for name, value in EVENT.items() if name != field}
    rejection = refused({**event, field: None} if null else event)
    assert rejection.code == "invalid_event"
    assert rejection.detail.startswith(f"{field} is missing")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("specversion", "0.3"),
        ("specversion", 1),
        ("type", "token.usage.v2"),
        ("type", "token.usage.batch.v1"),
        ("type", ""),
        ("id", ""),
        ("id", 7),
        ("source", ""),
        ("subject", ""),
        ("subject", "a\x00b"),
        ("source", "a\nb"),
        ("id", "x" * 257),
        ("id", "模" * 86),
        ("id", "\ud800"),
        ("time", "2026-11-22T01:15:03"),
        ("time", "2026-11-22"),
        ("time", "2026-02-30T00:00:00Z"),
        ("time", "1969-12-31T23:59:59Z"),
        ("time", "1970-01-01T00:30:00+01:00"),
        ("time", "9999-12-31T23:59:59-05:00"),
        ("time", "0000-01-01T00:00:00Z"),
        ("time", 1795310103),
        ("sequence", 42),
        ("sequence", "0"),
        ("sequence", "042"),
        ("sequence", "-1"),
        ("sequence", "+1"),
        ("sequence", "1.0"),
        ("sequence", ""),
        ("sequence", "٤"),
        ("sequence", str(2**63)),
        ("data", []),
        ("data", "text"),
    ],
)
def test_a_wrong_attribute_is_an_invalid_event_that_names_it(field: str, value: object) -> None:
    rejection = refused({**EVENT, field: value})
    assert rejection.code == "invalid_event"
    assert rejection.detail.startswith(f"{field} is ")
    assert "expected" in rejection.detail
    for name, kept in (("source", rejection.source), ("id", rejection.id), ("subject", rejection.account)):
        assert kept == (None if name == field else EVENT[name])
    assert rejection.sequence == (None if field == "sequence" else 42)


@pytest.mark.parametrize(
    ("fields", "reason", "start"),
    [
        ({"model": None}, "invalid_event", "data.model is missing"),
        ({"model": ""}, "invalid_event", 'data.model is ""'),
        ({"model": ["m"]}, "invalid_event", "data.model is a list"),
        ({"hardware_tier": 910}, "invalid_event", "data.hardware_tier is 910"),
        ({"site": "x" * 257}, "invalid_event", "data.site is "),
        ({"member": "a\tb"}, "invalid_event", 'data.member is "a\\tb"'),
        ({"reservation": False}, "invalid_event", "data.reservation is false"),
        ({"outcome": "done"}, "invalid_event", 'data.outcome is "done"'),
        ({"usage": None}, "invalid_event", "data.usage is missing"),
        ({"usage": [1]}, "invalid_event", "data.usage is a list"),
        ({"usage": {"input": 1.0}}, "invalid_event", "data.usage.input is 1.0"),
        ({"usage": {"input": 1e400}}, "invalid_json", "Infinity"),
        ({"usage": {"input": True}}, "invalid_event", "data.usage.input is true"),
        ({"usage": {"input": "5"}}, "invalid_event", 'data.usage.input is "5"'),
        ({"usage": {"input": None}}, "invalid_event", "data.usage.input is null"),
        ({"usage": {"input": -1}}, "usage_mismatch", "data.usage.input is -1"),
        ({"usage": {"input": 2**63}}, "overflow", "data.usage.input is 9223372036854775808"),
        ({"usage": {"input": 10**4000}}, "overflow", "data.usage.input is "),
        ({"usage": {"smell": 1}}, "unknown_meter", 'data.usage counts 1 of "smell"'),
        ({"usage_dialect": "parrot"}, "invalid_event", 'data.usage_dialect is "parrot"'),
        ({"usage_dialect": 1}, "invalid_event", "data.usage_dialect is 1"),
        ({"meters": {"searches": 1}}, "invalid_event", "data.meters is an object without data.usage_dialect"),
        ({"usage": CHAT, "usage_dialect": "openai.chat", "meters": [1]}, "invalid_event", "data.meters is a list"),
        (
            {"usage": CHAT, "usage_dialect": "openai.chat", "meters": {"searches": -1}},
            "usage_mismatch",
            "data.meters.searches is -1",
        ),
        (
            {"usage": CHAT, "usage_dialect": "openai.chat", "meters": {"output": 2**63 - 1}},
            "overflow",
            "data.usage and data.meters count",
        ),
        (
            {"usage": {**CHAT, "searches": 3}, "usage_dialect": "openai.chat"},
            "usage_mismatch",
            "data.usage.searches is 3: the dialect openai.chat has no meter for it",
        ),
    ],
)
def test_wrong_data_is_refused_with_field_value_and_reason(fields: dict[str, Any], reason: str, start: str) -> None:
    rejection = refused(with_data(**fields))
    assert rejection.code == reason
    assert rejection.detail.startswith(start)
    if reason != "invalid_json":
        assert (rejection.id, rejection.sequence) == (EVENT["id"], 42)


def test_meters_beside_a_dialect_are_added_to_its_counts() -> None:
    meters = {"searches": 74, "output": 2, "pages": 0}
    event = accepted(with_data(usage=CHAT, usage_dialect="openai.chat", meters=meters))
    assert event.counts == (("input", 10), ("output", 7), ("searches", 74))
    assert (event.dialect, event.is_one_request) == ("openai.chat", True)
    counted = accepted(with_data(usage=CHAT, usage_dialect="openai.chat", meters={"requests": 2}))
    assert not counted.is_one_request, "it counts its requests itself"
    assert not accepted(with_data()).is_one_request, "meters say all themselves"
    assert accepted(with_data(meters=None)).counts == accepted(with_data()).counts


def test_a_meter_that_a_book_declares_is_counted_where_its_dialect_names_it() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "citation_tokens": 7}
    value = with_data(usage=usage, usage_dialect="perplexity")
    assert ("citation_tokens", 7) not in accepted(value).counts
    declared = accepted(value, declared_meters=frozenset(["citation_tokens"]))
    assert declared.counts[-1] == ("citation_tokens", 7)


def test_a_number_that_its_dialect_does_not_know_is_noted_where_an_installation_says_so() -> None:
    value = with_data(usage={**CHAT, "searches": 3, "more": [{"x": 1}]}, usage_dialect="openai.chat")
    event = accepted(value, note_unknown=True)
    assert event.counts == (("input", 10), ("output", 5))
    assert [sentence.partition(":")[0] for sentence in event.unknown] == [
        "data.usage.searches is 3",
        "data.usage.more[0].x is 1",
    ]


def test_what_was_rated_is_read_again_with_its_counts() -> None:
    identity, rated = (EVENT["subject"], EVENT["source"], EVENT["id"]), (("input", 3), ("output", 4))
    now_refused = with_data(usage={**CHAT, "renamed_tokens": 9}, usage_dialect="openai.chat")
    again = reread_usage(json.dumps(now_refused).encode(), (), {identity: rated})
    assert again is not None
    assert again.counts == rated
    asked = with_data(usage=CHAT, usage_dialect="openai.chat")
    with_fee = (("input", 10), ("output", 5), ("requests", 1))
    again = reread_usage(json.dumps(asked).encode(), (), {identity: with_fee})
    assert again is not None
    assert (again.counts, again.is_one_request) == ((("input", 10), ("output", 5)), True)
    assert reread_usage(json.dumps(asked).encode(), (), {}) is None


def test_an_exponent_is_not_an_integer_however_great() -> None:
    body = json.dumps(EVENT).replace("1200", "1e999999999999999999999").encode()
    assert refused(body).detail.startswith("data.usage.input is 1e9999")


def test_details_can_be_stored_and_sent_whatever_came() -> None:
    detail = refused(with_data(model="\ud800\x00" + "x" * 1000)).detail
    assert "\x00" not in detail
    assert len(detail.encode()) < 300


def test_a_rejection_has_one_of_the_reasons_of_the_contract() -> None:
    assert len(REASONS) == 13
    with pytest.raises(ValueError, match="not a reason"):
        record_refusal("because", "")


@given(st.dictionaries(st.sampled_from((*METERS, "zeta", "alpha")), st.integers(0, 2**63 - 1)))
def test_accepted_counts_keep_every_count_once(usage: dict[str, int]) -> None:
    event = accepted(with_data(usage=usage), declared_meters=frozenset({"zeta", "alpha"}))
    assert dict(event.counts) == {meter: count for meter, count in usage.items() if count}
    assert event.counts == canonical_counts(event.counts)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from([*EVENT, "model", "usage", "site", "usage_dialect"]), _JSON)
def test_no_value_of_a_field_raises(field: str, value: object) -> None:
    event = {**EVENT, field: value} if field in EVENT else with_data(**{field: value})
    assert isinstance(parse_usage(json.dumps(event).encode()), UsageEvent | Refusal)


@given(st.binary(), st.lists(st.tuples(st.sampled_from(["content-type", "ce_id", "ce_type", "x"]), st.binary())))
def test_no_bytes_raise(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    assert isinstance(parse_usage(value, headers), Refusal)


@pytest.mark.parametrize("size", [b"900000021", b"1"])
def test_a_record_that_stands_for_one_too_large_to_read_is_refused_with_its_size(size: bytes) -> None:
    refused = parse_usage(None, [("ce_id", b"c-1"), (RECORD_SIZE_HEADER, size)])
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.account) == ("invalid_event", None)
    assert refused.detail == (
        f"the record has {int(size)} bytes, at most 16777216 are read; its bytes are only in the log"
    )


@pytest.mark.parametrize("size", [b"", b"x", b"-1", b"9" * 20])
def test_a_size_that_is_none_is_as_if_absent(size: bytes) -> None:
    refused = parse_usage(None, [(RECORD_SIZE_HEADER, size)])
    assert isinstance(refused, Refusal)
    assert refused.code == "invalid_json"
