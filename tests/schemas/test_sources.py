"""Prefixes of sources match whole segments, and the product's own sources can be no prefix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.sources import OWN_SOURCES, covers, is_own, may_be_prefix, overlap

TEXT = st.text(alphabet="ab:/#", min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("prefix", "source", "covered"),
    [
        ("urn:worker:a", "urn:worker:a", True),
        ("urn:worker:a", "urn:worker:a:7", True),
        ("urn:worker:a", "urn:worker:a/7", True),
        ("urn:worker:a", "urn:worker:a#p3", True),
        ("urn:worker:a", "urn:worker:ab", False),
        ("urn:worker:a", "urn:worker:a-7", False),
        ("urn:worker:a", "urn:worker", False),
        ("urn:worker:", "urn:worker:ab", True),
        ("urn:worker:", "urn:worker", False),
    ],
)
def test_what_a_prefix_covers(prefix: str, source: str, covered: bool) -> None:
    assert covers(prefix, source) is covered


@given(TEXT, TEXT, TEXT)
def test_what_both_cover_makes_them_overlap(one: str, other: str, source: str) -> None:
    if covers(one, source) and covers(other, source):
        assert overlap(one, other)


@given(TEXT, TEXT)
def test_a_prefix_covers_itself_and_its_segments(prefix: str, more: str) -> None:
    assert covers(prefix, prefix)
    assert covers(prefix, f"{prefix}:{more}")


def test_which_sources_are_the_products_own() -> None:
    assert is_own("urn:tokenbill:reservations") and is_own(OWN_SOURCES)
    assert not any(map(is_own, (None, "", "urn:tokenbill", "urn:tokenbills:x", "URN:tokenbill:x")))
    assert not any(map(may_be_prefix, ("", "urn:tokenbill", "urn:tokenbill:", "urn:tokenbill:api")))
    assert all(map(may_be_prefix, ("urn:worker:a", "urn:", "urn:tokenbills")))
