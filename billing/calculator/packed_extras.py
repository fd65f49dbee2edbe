"""Extras in few bytes, as the core holds them: their document, compressed against documents like it.

A subscription takes some 70 bytes so, and 1,700 as a value. Only for memory: what is packed is never stored.
"""

from functools import partial

import zstandard

from billing.accounts.extras import (
    NO_EXTRAS,
    Bill,
    BillTerms,
    Consent,
    Counter,
    Extras,
    Refund,
    Subscription,
    extras_json,
    parse_extras,
)

_LONGEST = 4096
"""A longer document (:mod:`billing.burning.windows`) stays as it is: it would be compressed again with every event."""
_FIRST_OF_DOCUMENT = ord("{")
"""No frame begins with it: a bit that Zstandard reserves is set."""


class ExtrasPacker:
    """Packs and unpacks; for one thread at a time."""

    def __init__(self) -> None:
        common = zstandard.ZstdCompressionDict(
            "".join(map(extras_json, _typical())).encode(), dict_type=zstandard.DICT_TYPE_RAWCONTENT
        )
        form = zstandard.FORMAT_ZSTD1_MAGICLESS
        self._compressor = zstandard.ZstdCompressor(
            dict_data=common,
            compression_params=zstandard.ZstdCompressionParameters.from_level(
                9, format=form, write_content_size=True, write_checksum=False, write_dict_id=False
            ),
        )
        self._decompressor = zstandard.ZstdDecompressor(dict_data=common, format=form)

    def pack(self, extras: Extras) -> bytes:
        """The same extras give the same bytes; none give none."""
        text = extras_json(extras)
        if text == NO_EXTRAS:
            return b""
        document = text.encode()
        return document if len(document) > _LONGEST else self._compressor.compress(document)

    def document(self, packed: bytes) -> bytes:
        """The document (:func:`billing.accounts.extras.extras_json`) of what was packed."""
        if not packed:
            return NO_EXTRAS.encode()
        return packed if packed[0] == _FIRST_OF_DOCUMENT else self._decompressor.decompress(packed)

    def unpack(self, packed: bytes) -> Extras:
        """What was packed, as a value of its own."""
        return parse_extras(self.document(packed).decode())


def _typical() -> list[Extras]:
    """What documents have in common, the commonest last."""
    at_us, money = 1_793_462_400_000_000, 9_900_000_000_000
    sub = partial(Subscription, plan_version=1, anchor_us=at_us)
    paid = partial(sub, granted=True, paid_pico=money, paid_from_us=at_us, next_bucket=2)
    return [
        Extras(
            refunds={"grant/1/1": Refund(money, money, 0)},
            counters={"monthly@2026-11-01": Counter(1_000_000, at_us)},
            burns={"plan": {"497700": "1000000000 1000000000:1000000000"}},
            members={"grant/1": {"member-1": 1_000_000}},
            overage_pico={"grant/1": money},
            consents={"plan": Consent(at_us, at_us)},
            received={"grant/1": "account-1:grant/1"},
            subscriptions=[
                sub("sub", "token", pay_from="external", status="suspended", last_cycle=2),
                sub("s", "t", pay_from="wallet", status="unpaid", next_plan="t", next_plan_version=1),
                sub("s", "t", pay_from="external", status="ended", cut_short=["s/1/1"]),
            ],
            expiry_alerts={"grant/1/1": 1},
            wallet_alert_sent=True,
            bill_terms=BillTerms(1, 30, at_us, at_us),
            bills=[Bill("bill-1", money, at_us, at_us, at_us, money)],
        ),
        Extras(
            gift_pico=money,
            wallet_paid_pico={"sub-1/1": money},
            subscriptions=[paid("sub-1", "token-29.9", pay_from="wallet", cycle=12)],
            wallet_alert_pico=money,
        ),
        Extras(
            wallet_paid_pico={"subscription-1/1": 0},
            subscriptions=[paid("subscription-1", "token-9.9", pay_from="wallet", cycle=1)],
        ),
    ]
