"""Compression of account extras for the core's memory, with typical documents as the compression dictionary.

A subscription takes about 70 bytes packed and 1,700 bytes as Python values. Packed bytes are only for memory: they are
never stored.
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

_MAX_TEXT_BYTES = 4096
"""Longest document that is compressed, in bytes.

A longer one (:mod:`billing.burning.windows`) changes with every event and would be compressed each time.
"""
_FIRST_OF_DOCUMENT = ord("{")
"""First byte of an uncompressed document. No compressed frame begins with it: a bit reserved by Zstandard is set."""


class ExtrasPacker:
    """Compressor of extras, for one thread at a time."""

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
        """Return the packed bytes of extras: the same bytes for equal extras, and no bytes for empty extras."""
        text = extras_json(extras)
        if text == NO_EXTRAS:
            return b""
        document = text.encode()
        return document if len(document) > _MAX_TEXT_BYTES else self._compressor.compress(document)

    def document(self, packed: bytes) -> bytes:
        """Return the JSON document (:func:`billing.accounts.extras.extras_json`) of packed extras."""
        if not packed:
            return NO_EXTRAS.encode()
        return packed if packed[0] == _FIRST_OF_DOCUMENT else self._decompressor.decompress(packed)

    def unpack(self, packed: bytes) -> Extras:
        """Return packed extras as a new value."""
        return parse_extras(self.document(packed).decode())


def _typical() -> list[Extras]:
    """Return typical extras for the compression dictionary, the most common last."""
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
