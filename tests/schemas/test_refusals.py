"""Refusals: one table of codes, from which reasons, problem documents and the page of codes are made."""

import re

import pytest

from schemas.refusal_codes import CODES, REASONS, TABLE, Use, codes_of
from schemas.refusal_page import PAGE, page
from schemas.refusals import Refusal, record_refusal


def test_the_page_of_codes_is_written_from_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m schemas.refusal_page`"


def test_a_code_stands_once_for_each_use() -> None:
    for use in (Use.RECORD, Use.COMMAND, Use.REQUEST):
        assert len(codes_of(use)) == sum(use in row.uses for row in TABLE)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", row.code) and 400 <= row.status <= 599 for row in TABLE)
    assert all(row.title and row.example and row.uses for row in TABLE)


def test_a_refusal_needs_a_code_of_the_table() -> None:
    assert Refusal("no_price", "no row").fields == {}
    with pytest.raises(ValueError, match="'because' is not a refusal code"):
        Refusal("because", "")


def test_a_record_is_refused_with_a_reason_for_records_only() -> None:
    assert "same_person" in CODES and "same_person" not in REASONS
    with pytest.raises(ValueError, match="'same_person' is not a reason for which a record is rejected"):
        record_refusal("same_person", "")


def test_a_refused_record_keeps_the_identity_that_could_be_read() -> None:
    refusal = record_refusal("invalid_event", "time: missing", "urn:s", None, 2**63 - 1, "a")
    assert (refusal.source, refusal.id, refusal.sequence, refusal.account) == ("urn:s", None, 2**63 - 1, "a")
    assert refusal == Refusal("invalid_event", "time: missing", dict(refusal.fields))
    assert (Refusal("overflow", "").source, Refusal("overflow", "").sequence) == (None, None)
