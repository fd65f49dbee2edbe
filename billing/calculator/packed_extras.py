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
    TrueUp,
    TrueUpPart,
    extras_json,
    parse_extras,
)
from billing.commits.output_documents import extras_object
from schemas.json_text import dump_json

_MAX_TEXT_BYTES = 4096
"""Longest document that is compressed, in bytes.

A longer one (:mod:`billing.burning.windows`) changes with every event and would be compressed each time.
"""
_FIRST_OF_DOCUMENT = ord("{")
"""First byte of an uncompressed document. No compressed frame begins with it: a bit reserved by Zstandard is set."""


_BETWEEN = b"\0"
"""Separator of the document and the members of a balance. A JSON text cannot contain NUL."""


def _told(extras: Extras) -> bytes:
    return dump_json(extras_object(extras))[1:-1]


TOLD_OF_NO_EXTRAS = _told(Extras())
"""Members of a balance that describe empty extras."""


def _body(extras: Extras, document: str) -> bytes:
    """Return the bytes to pack: the document, and the members of a balance, unless they are those of empty extras."""
    told = _told(extras)
    return document.encode() if told == TOLD_OF_NO_EXTRAS else document.encode() + _BETWEEN + told


class ExtrasPacker:
    """Compressor of extras, for one thread at a time."""

    def __init__(self) -> None:
        common = zstandard.ZstdCompressionDict(
            b"".join(_body(extras, extras_json(extras)) for extras in _typical()),
            dict_type=zstandard.DICT_TYPE_RAWCONTENT,
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
        body = _body(extras, text)
        return body if len(body) > _MAX_TEXT_BYTES else self._compressor.compress(body)

    def packed(self, document: str) -> tuple[bytes, int]:
        """Return the extras of a document packed, and their :attr:`Extras.wallet_floor_bits`."""
        extras = parse_extras(document)
        return self.pack(extras), extras.wallet_floor_bits

    def document(self, packed: bytes) -> bytes:
        """Return the JSON document (:func:`billing.accounts.extras.extras_json`) of packed extras."""
        return self._parts(packed)[0] if packed else NO_EXTRAS.encode()

    def told(self, packed: bytes) -> bool:
        """Return True if a balance of packed extras differs from that of empty extras."""
        return bool(packed) and bool(self._parts(packed)[1])

    def balance(self, packed: bytes) -> bytes:
        """Return the members of a balance that describe packed extras."""
        return self._parts(packed)[1] or TOLD_OF_NO_EXTRAS

    def _parts(self, packed: bytes) -> tuple[bytes, bytes]:
        body = packed if packed[0] == _FIRST_OF_DOCUMENT else self._decompressor.decompress(packed)
        document, _, told = body.partition(_BETWEEN)
        return document, told

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
            true_ups={"monthly@2026-11-01": TrueUp(1_000_000, at_us, at_us, {"b@1": TrueUpPart(1, 0, [1, 1])})},
            owed_micro={"plan": 1_000_000},
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
