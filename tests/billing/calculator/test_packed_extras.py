"""Packed extras: packing loses nothing, and a subscriber takes little memory."""

from dataclasses import fields
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.accounts.extras import Bill, Extras, Subscription, extras_json
from billing.calculator.packed_extras import TOLD_OF_NO_EXTRAS, ExtrasPacker
from billing.commits.output_documents import extras_object
from schemas.fields import MAX_TIME_US
from schemas.json_text import dump_json

HINTS = get_type_hints(Extras)
TIMES = st.integers(0, MAX_TIME_US - 1)
BILLS = st.builds(Bill, from_us=TIMES, until_us=TIMES, due_us=TIMES)
ANY = st.builds(
    Extras, **{field.name: st.from_type(HINTS[field.name]) for field in fields(Extras)} | {"bills": st.lists(BILLS)}
)
PACKER = ExtrasPacker()


@given(ANY)
def test_what_is_packed_comes_back(extras: Extras) -> None:
    packed = PACKER.pack(extras)
    assert PACKER.unpack(packed) == extras
    assert PACKER.document(packed).decode() == extras_json(extras)
    assert PACKER.pack(PACKER.unpack(packed)) == packed, "what did not change is not written again"
    assert (packed == b"") == extras.empty
    told = dump_json(extras_object(extras))[1:-1]
    assert (PACKER.balance(packed) if packed else TOLD_OF_NO_EXTRAS) == told
    assert PACKER.told(packed) == (told != TOLD_OF_NO_EXTRAS)


@pytest.mark.parametrize("hours", [1, 40, 400, 4000])
def test_a_long_document_comes_back(hours: int) -> None:
    extras = Extras(burns={"coding": {str(497_700 + hour): f"{hour} 1:{hour}" for hour in range(hours)}})
    assert PACKER.unpack(PACKER.pack(extras)) == extras


def test_a_subscriber_takes_little() -> None:
    """The goal is 400 bytes per account; an account with one bucket takes 290 in the core."""
    subscription = Subscription(
        "5f0c-9931", "family-19.9", 3, "wallet", 1_801_238_765_000_000, 1, 7, True, "active", 0, "", 0, 19_900 * 10**9,
        1_816_790_765_000_000, 3,
    )  # fmt: skip
    extras = Extras(wallet_paid_pico={"5f0c-9931/7": 0}, subscriptions=[subscription])
    assert len(PACKER.pack(extras)) < 110 < 250 < len(extras_json(extras))
