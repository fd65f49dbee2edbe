"""Every constant of the core is compared with the one it mirrors in Python, or is listed as its own, with a reason.

Sources are read, so that a new constant, a changed value or a name that is gone fails here. What Python names of the
core (the modules beside ``billing.calculator.compiled``) is listed too.
"""

import ast
import hashlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest
from core_sources import SOURCES, constants, constants_of_core, texts
from python_source import parse

from billing import log_time
from billing.accounts import account, extras
from billing.calculator import compiled, core_prices, core_rater, dedupe
from billing.catalog import model, read_book, source
from billing.catalog.read_plan import ACTIVATIONS, OVERAGE_KEYS
from billing.commits import outbox_frames, row_hashes
from billing.commits.columns import ACCOUNT_COLUMNS, BUCKET_COLUMNS
from billing.commits.input_batch import PlainRecord
from billing.pricing.match import Combination
from schemas import cloudevents, hashing, meters, times, units, usage
from schemas import fields as wire_fields
from schemas.dialects import TABLES
from schemas.dialects.dialect_table import Role

ATTRIBUTES = (*cloudevents.Attributes.model_fields, "data")
FIELDS = tuple(usage.UsageData.model_fields)
FIELD_NAMES = {"attributes": "given_attributes"}  # ATTRIBUTES are those of the envelope
SPLIT_METERS = (
    *("input", "cache_read", "cache_write", "cache_write_1h", "output", "reasoning", "audio_input", "audio_cache_read"),
    *("audio_output", "image_input", "image_cache_read", "image_output", "video_input", "video_output", "requests"),
)

MIRRORED: dict[str, int] = {
    # decoding
    "shape.hpp:tb_attributes": len(ATTRIBUTES),
    "shape.hpp:tb_fields": len(FIELDS),
    "shape.hpp:tb_dimensions": len(usage.DIMENSIONS),
    "shape.hpp:tb_max_tags": read_book.MAX_DIMENSIONS,
    "shape.hpp:tb_meters": len(meters.METERS),
    "prices.hpp:tb_token_meters": len(meters.TOKEN_METERS),
    "shape.hpp:tb_max_text": wire_fields.MAX_TEXT_BYTES,
    "shape.hpp:tb_max_digits": len(str(meters.MAX_COUNT)) - 1,
    "decode.pxd:MAX_TIME_US": wire_fields.MAX_TIME_US,
    "decode.pxd:SEPARATOR": hashing.SEPARATOR[0],
    **{f"decode.pxd:{name.upper()}": place for place, name in enumerate(ATTRIBUTES)},
    **{f"decode.pyx:{FIELD_NAMES.get(name, name).upper()}": place for place, name in enumerate(FIELDS)},
    # usage in dialects
    **{f"dialects.hpp:tb_role_{role.name.lower()}": place for place, role in enumerate(Role)},
    "dialects.hpp:tb_roles": list(Role).index(Role.METER),
    **{f"dialects.hpp:tb_meter_{name}": meters.METERS.index(name) for name in SPLIT_METERS},
    "prices.hpp:tb_requests": meters.METERS.index("requests"),
    # identities
    "dedupe.pxd:HOUR_US": times.HOUR_US,
    "dedupe.pxd:NEW": compiled._LOOK_NEW,
    "dedupe.pxd:DUPLICATE": compiled._LOOK_DUPLICATE,
    "dedupe.pxd:CONFLICT": compiled._LOOK_CONFLICT,
    "dedupe.pxd:REUSED": compiled._LOOK_REUSED,
    "dedupe.pxd:NO_NUMBER": compiled._LOOK_NO_NUMBER,
    "dedupe.pxd:RESEND_US": log_time.RESEND_US,
    "dedupe.pxd:TOO_FAR": compiled._LOOK_TOO_FAR,
    "dedupe.pyx:MAX_NUMBER": meters.MAX_COUNT,
    "decode.pxd:ACCOUNT_FACTOR": hashing.ACCOUNT_FACTOR,
    "dedupe.pyx:RECENT_BYTES": dedupe.RECENT.size,
    "dedupe.pyx:HASHED_BYTES": dedupe.HASHED.size,
    "memory.hpp:recent_numbers": dedupe.RECENT_NUMBERS,
    # hashes of rows
    "row_hashes.pyx:HASH_BYTES": row_hashes.HASH_BYTES,
    "row_hashes.pyx:PERSON_BYTES": hashlib.blake2b.PERSON_SIZE,
    "row_hashes.pyx:MARK_BYTES": len(row_hashes._MARK),
    "row_hashes.pyx:TAIL_BYTES": len(row_hashes._MARK) + 2 * row_hashes.HASH_BYTES,
    "blake2b.hpp:TB_BLAKE2B_BLOCK": 128,
    # prices
    "prices.hpp:tb_needs_price": core_prices._NEEDS_PRICE,
    "prices.hpp:tb_needs_moment": core_prices._NEEDS_MOMENT,
    "prices.hpp:tb_needs_bands": core_prices._NEEDS_BANDS,
    "prices.hpp:tb_needs_scope": compiled._NEEDS_SCOPE,
    "prices.hpp:tb_needs_plain": compiled._NEEDS_PLAIN,
    "prices.hpp:tb_all_done": compiled._ALL_DONE,
    "usage.pyx:NEEDS_PART": compiled._NEEDS_PART,
    "prices.hpp:tb_plain_price": core_prices._PLAIN_PRICE,
    "prices.hpp:tb_momentary_price": core_prices._MOMENTARY_PRICE,
    "prices.hpp:tb_mixed_bands": core_prices._MIXED_BANDS,
    "prices.hpp:tb_slot_us": core_prices._SLOT_US,
    "prices.hpp:tb_output_segment": core_prices._OUTPUT_SEGMENT,
    "prices.pyx:INT64_MAX": source.MAX_INT64,
    "sums.pxd:MAX_EVENTS": source.MAX_INT64,
    # numbers and how they are written
    "wide.pxd:MAX_INT64": source.MAX_INT64,
    "wide.hpp:tb_million": units.MILLION,
    "wide.hpp:tb_pico_digits": units.PICO_DIGITS,
    "wide.hpp:tb_micro_digits": units.MICRO_DIGITS,
    "wide.hpp:tb_pico": 10**units.PICO_DIGITS,
    "wide.hpp:tb_micro": 10**units.MICRO_DIGITS,
    # accounts and payment
    "accounts.pxd:NO_END_US": account.NO_END_US,
    **{f"accounts.pyx:A_{column.name.upper()}": place for place, column in enumerate(ACCOUNT_COLUMNS)},
    **{f"accounts.pyx:B_{column.name.upper()}": place for place, column in enumerate(BUCKET_COLUMNS)},
    "usage.pyx:FROM_NO_WALLET": extras.FROM_NO_WALLET,
    "usage.pyx:FROM_ANY_WALLET": extras.FROM_ANY_WALLET,
    "usage.pyx:MARKED": compiled._MARKED,
    # output
    "lines.pyx:MINUTE_US": times.MINUTE_US,
    "frames.pxd:FRAME_HEAD": outbox_frames._HEAD.size,
    "frames.pxd:NULL_PART": outbox_frames._NULL,
    "batches.pyx:BATCH_HEAD": outbox_frames.BATCH_HEAD.size,
    "batches.pyx:LENGTH_COUNTS_FROM": outbox_frames.LENGTH_COUNTS_FROM,
}
"""Constant of the core, and the value of what it mirrors."""

AT_LEAST: dict[str, int] = {
    "accounts.pyx:MAX_BUCKETS": account.MAX_BUCKETS,
    "accounts.pxd:MAX_GRANT": wire_fields.MAX_TEXT_BYTES + len("/" + account.PACK) + 2 * 20,
    "prices.hpp:tb_most_edges": core_prices._MAX_EDGES,
    "decode.pyx:MAX_COUNTS": len(meters.METERS),
    "decode.pyx:MAX_METERS": len(meters.METERS),
    "shape.hpp:tb_most_leaves": max(len(table.rows) for table in TABLES.values()),
    "dialects.hpp:tb_most_groups": max(len(table.groups) for table in TABLES.values()),
}
"""Constant of the core, and a limit of Python's rules that it must not undercut."""

OWN: dict[str, tuple[str, ...]] = {
    "the size of a number or of memory": (
        "accounts.pyx:MAX_EXTRAS", "accounts.pyx:MAX_GRANTS", "accounts.pyx:MAX_WORDS", "prices.pyx:MAX_PIECE",
        "prices.pyx:MAX_PRICE_PIECE", "prices.pyx:MAX_PIECES", "prices.pyx:MAX_SITUATIONS",
        "records.pyx:MAX_PART", "records.pyx:MIN_RECORD", "tables.pyx:MAX_TEXTS", "prices.hpp:tb_most_versions",
        "prices.hpp:tb_most_combinations", "prices.hpp:tb_most_bands", "sums.pyx:FIRST_SLOTS", "shape.hpp:most_nodes",
        "shape.hpp:most_literals", "shape.hpp:most_beside", "shape.hpp:regions_kept", "shape.hpp:most_region",
        "shape.hpp:tb_max_marks", "shape.hpp:tb_most_real", "dialects.hpp:tb_most_places", "dialects.hpp:tb_slots",
        "dialects.hpp:tb_most_unknown", "dialects.hpp:tb_most_depth", "dialects.hpp:tb_most_leaf",
        "decode.pyx:MAX_UNKNOWN", "decode.pyx:BLOCK", "blake2b.hpp:TB_LANES", "decode.pyx:TEXTS",
        "accounts.pyx:SORTED_IN_PLACE",
    ),
    "how long a number or text is when it is written": (
        "wide.pxd:JSON_GROWTH", "wide.pxd:COPY_GROWTH", "wide.pxd:MAX_NUMBER", "batches.pyx:MAX_VARINT",
        "batches.pyx:MAX_SEQUENCE", "wide.hpp:tb_zeros", "accounts.pyx:SURE_DIGITS",
    ),

    "Kafka's": ("batches.pyx:FORMAT",),
    "a mark that Python writes as False or True": ("usage.pyx:ELSEWHERE", "usage.pyx:MINE"),
    "a state that no other module sees": (
        "accounts.pxd:UNCHANGED", "accounts.pxd:CHANGED", "accounts.pxd:REPLACED", "lines.pxd:BY_WALLET",
        "lines.pxd:BY_BUCKET", "lines.pxd:BY_NOBODY", "lines.pxd:WRITTEN", "memory.hpp:tb_unknown_source",
        "dedupe.pxd:NO_LOG_HOUR",
        "memory.hpp:tb_numbered", "memory.hpp:tb_unnumbered", "shape.hpp:tb_attribute", "shape.hpp:tb_field",
        "shape.hpp:tb_count", "shape.hpp:tb_skipped_text", "shape.hpp:tb_skipped_number", "shape.hpp:tb_leaf",
        "shape.hpp:tb_skipped_real", "shape.hpp:tb_no_dialect", "shape.hpp:tb_tag", "shape.hpp:tb_tag_word",
        "shape.hpp:tb_shape_end",
        "decode.pyx:STRUCTURED", "decode.pyx:BINARY", "decode.pyx:FOR_PLAIN", "prices.hpp:tb_priced",
        "prices.hpp:tb_duplicate", "prices.hpp:tb_refused", "prices.hpp:tb_unknown_price",
        "prices.hpp:tb_no_row_price", "prices.hpp:tb_unknown_bands", "usage.pyx:SCOPE_UNKNOWN",
        "usage.pyx:OUT_OF_SCOPE", "usage.pyx:IN_SCOPE", "decode.pxd:READ", "decode.pxd:UNREAD", "decode.pxd:REFUSED",
    ),
}  # fmt: skip
"""Constants that have no counterpart in Python, by reason."""


def problems(found: Mapping[str, int]) -> list[str]:
    """Return the faults of these constants of the core."""
    own = [name for names in OWN.values() for name in names]
    listed = [*MIRRORED, *AT_LEAST, *own]
    return [
        *(f"{name} is not listed" for name in sorted(found.keys() - set(listed))),
        *(f"{name} is listed but not in the core" for name in sorted(set(listed) - found.keys())),
        *(f"{name} is listed twice" for name in sorted({name for name in listed if listed.count(name) > 1})),
        *(
            f"{name} is {found[name]}, its counterpart {value}"
            for name, value in MIRRORED.items()
            if found.get(name, value) != value
        ),
        *(
            f"{name} is {found[name]}, less than {value}"
            for name, value in AT_LEAST.items()
            if found.get(name, value) < value
        ),
    ]


def test_every_constant_of_the_core_equals_its_counterpart_or_is_its_own() -> None:
    assert problems(constants_of_core()) == []


def test_a_new_a_changed_and_a_missing_constant_are_canaries() -> None:
    found = constants_of_core()
    assert problems(found | {"usage.pyx:SPARE": 7}) == ["usage.pyx:SPARE is not listed"]
    assert problems(found | {"accounts.pxd:NO_END_US": 2**61}) == [
        f"accounts.pxd:NO_END_US is {2**61}, its counterpart {2**62}"
    ]
    assert problems(found | {"accounts.pyx:MAX_BUCKETS": 9_999}) == [
        "accounts.pyx:MAX_BUCKETS is 9999, less than 10000"
    ]
    del found["dedupe.pxd:NEW"]
    assert problems(found) == ["dedupe.pxd:NEW is listed but not in the core"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.pxd", "cdef enum:  # a\n    A, B\n    C = 7   # c\n    D\n\nx = 1\n", {"A": 0, "B": 1, "C": 7, "D": 8}),
        ("x.pyx", "cdef int64_t MOST = 0x7F\ncdef int size = 3\n", {"MOST": 127}),
        ("x.pyx", "def f():\n    cdef int64_t most = 1\n", {}),
        ("x.pxd", 'cdef extern from "x.hpp":\n    enum:\n        A "a"\n        B\n\ncdef enum:\n    C\n', {"C": 0}),
        ("x.hpp", "enum { a = 1 << 4, b };  // c = 3", {"a": 16, "b": 17}),
        ("x.hpp", "enum TbX : uint8_t { a = 3, b = -a };", {"a": 3, "b": -3}),
        ("x.hpp", "static const uint64_t a = 5ULL, b = 6;\nstatic inline int f(int x) { return x; }", {"a": 5, "b": 6}),
        ("x.hpp", "struct A { static constexpr int64_t recent = 65536; };", {"recent": 65536}),
    ],
)  # fmt: skip
def test_constants_are_read_in_every_form(name: str, text: str, expected: dict[str, int]) -> None:
    assert constants(name, text) == expected


def test_both_users_of_the_price_tables_know_the_same_needs() -> None:
    assert (core_rater._NEEDS_PLAIN, core_rater._ALL_DONE) == (compiled._NEEDS_PLAIN, compiled._ALL_DONE)
    assert source.MAX_INT64 == meters.MAX_COUNT


# The other direction: what the modules that import the core write down of it.

DOORS = ("compiled.py", "core_prices.py", "core_rater.py", "core_records.py")
CHECKED_IN_PYTHON = {
    "_NEEDS_SCOPE", "_NEEDS_PLAIN", "_ALL_DONE", "_NEEDS_PART", "_MARKED", "_LOOK_NEW", "_LOOK_DUPLICATE",
    "_LOOK_CONFLICT", "_LOOK_REUSED", "_LOOK_NO_NUMBER", "_LOOK_TOO_FAR", "_NEEDS_PRICE", "_NEEDS_MOMENT",
    "_NEEDS_BANDS", "_OUTPUT_SEGMENT", "_PLAIN_PRICE", "_MOMENTARY_PRICE", "_MIXED_BANDS", "_SLOT_US", "_MAX_EDGES",
}  # fmt: skip
PYTHONS_OWN = {
    "_MARK_NUMBER": "a place holder of texts",
    "_OWN_SOURCES": "the beginning of own sources, as the core's tables hold texts",
    "_SLOTS_A_DAY": "how many slots are looked up together; follows from the slot",
    "_MAX_COMBINATIONS": "when a rater begins anew",
}


def numbers_of(text: str) -> set[str]:
    """Names that a module's own lines give to integers, tuples and ranges of them."""
    found: set[str] = set()
    for node in parse(text).body:
        if not isinstance(node, ast.Assign):
            continue
        texts_only = all(isinstance(one, ast.Constant) and not isinstance(one.value, int) for one in _parts(node.value))
        if texts_only or not isinstance(node.value, ast.Constant | ast.Tuple | ast.BinOp | ast.UnaryOp | ast.Call):
            continue
        for target in node.targets:
            found |= {one.id for one in ast.walk(target) if isinstance(one, ast.Name) and one.id.isupper()}
    return found


def _parts(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def test_every_number_beside_the_core_is_compared_or_pythons_own() -> None:
    folder = Path(compiled.__file__).parent
    found = {name for door in DOORS for name in numbers_of((folder / door).read_text(encoding="utf-8"))}
    assert found == CHECKED_IN_PYTHON | PYTHONS_OWN.keys()


def test_a_new_number_beside_the_core_is_a_canary() -> None:
    assert numbers_of('_NEW, _OTHER = 8, 9  # cython_ext\n_TEXT = "x"\n_SIX = range(6)\n') == {"_NEW", "_OTHER", "_SIX"}


def test_a_day_has_as_many_slots_as_python_counts() -> None:
    assert core_prices._SLOTS_A_DAY * core_prices._SLOT_US == times.DAY_US


# Texts.

WORDS: dict[str, set[str]] = {
    "attributes of an event": {*ATTRIBUTES},
    "fields of its data": {*FIELDS},
    "meters": {*meters.METERS},
    "outcomes": {*usage.OUTCOMES},
    "defaults": {str(one.default) for one in usage.UsageData.model_fields.values() if isinstance(one.default, str)},
    "the event type and its version": {usage.USAGE_TYPE, "1.0"},
    "statuses": {account.ACCOUNT_OPEN, account.ACCOUNT_CLOSED, account.ACTIVE, account.PENDING, account.SUSPENDED},
    "rules of plans": {"pay_as_you_go", "block", account.FIRST_USE, model.STD_TOKEN},
    "headers": {"ce_", "content-type", *(f"ce_{name}" for name in cloudevents.Attributes.model_fields)},
    "attributes of a record": {"value", "timestamp", "headers"},
    "JSON": {"null", "true", "false"},
    "sources that are included, and encodings": {
        "wide.hpp", "records.hpp", "shape.hpp", "prices.hpp", "memory.hpp", "blake2b.hpp", "string.h", "Python.h",
        "latin-1", "utf-8", "backslashreplace",
    },
}  # fmt: skip


def texts_of_core() -> set[str]:
    return {text for path in SOURCES if path.suffix == ".pyx" for text in texts(path.read_text(encoding="utf-8"))}


def test_every_word_in_the_code_of_the_core_is_one_of_the_rules_or_the_wire_form() -> None:
    known = set().union(*WORDS.values())
    assert texts_of_core() <= known, "a word that nothing in Python has"
    missing = known - texts_of_core() - WORDS["sources that are included, and encodings"]
    assert missing == set(), "a word that the core does not know"
    assert {"pay_as_you_go", "block"} <= OVERAGE_KEYS.keys()
    assert account.FIRST_USE in ACTIVATIONS
    assert WORDS["attributes of a record"] <= {field.name for field in fields(PlainRecord)}


def test_a_misspelt_word_is_a_canary() -> None:
    assert texts('cdef f():\n    """suspnded"""\n    x = "suspnded"  # "other"\n    y = f"{x} no"\n') == {"suspnded"}
    assert not {"suspnded"} <= set().union(*WORDS.values())


def test_the_fields_of_a_combination_come_first() -> None:
    assert FIELDS[: len(usage.DIMENSIONS)] == Combination._fields[:-1] == tuple(name for name, _ in usage.DIMENSIONS)
    assert FIELDS[-1] == "usage"
