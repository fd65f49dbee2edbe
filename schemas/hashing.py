"""Hashes for deduplication: 128 bits for an identity, 32 bits for an ``id`` and for the content of an event.

All are MurmurHash3 x64 128 (public domain, Austin Appleby) with seed 0 over UTF-8 bytes, so that the compiled core, the
plain rules and a rebuild on another machine agree; Python's own hash differs between processes. The hashes are stored,
so the algorithm must not change.
"""

import struct
from functools import lru_cache

from schemas.usage import UsageEvent

_MASK = 2**64 - 1
_C1 = 0x87C37B91114253D5
_C2 = 0x4CF5AD432745937F
SEPARATOR = b"\x1f"
"""Separator of texts before hashing; no text of an event can contain a control character."""
ACCOUNT_FACTOR = 31
"""Factor of the account's hash in :func:`id_hash32`, so that an account and an id that are exchanged differ."""


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _MASK


def _finish(value: int) -> int:
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _MASK
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33


def _mix_first(word: int) -> int:
    return _rotate(word * _C1 & _MASK, 31) * _C2 & _MASK


def _mix_second(word: int) -> int:
    return _rotate(word * _C2 & _MASK, 33) * _C1 & _MASK


def murmur3_x64_128(data: bytes) -> tuple[int, int]:
    """Return MurmurHash3 x64 128 with seed 0 as its two unsigned 64-bit halves (h1, h2)."""
    length = len(data)
    whole = length - length % 16
    h1 = h2 = 0
    for k1, k2 in struct.iter_unpack("<QQ", data[:whole]):
        h1 = (_rotate(h1 ^ _mix_first(k1), 27) + h2) * 5 + 0x52DCE729 & _MASK
        h2 = (_rotate(h2 ^ _mix_second(k2), 31) + h1) * 5 + 0x38495AB5 & _MASK
    k1, k2 = struct.unpack("<QQ", data[whole:].ljust(16, b"\x00"))  # a word of zeros mixes to 0
    h1 ^= _mix_first(k1) ^ length
    h2 ^= _mix_second(k2) ^ length
    h1 = h1 + h2 & _MASK
    h2 = h2 + h1 & _MASK
    h1, h2 = _finish(h1), _finish(h2)
    h1 = h1 + h2 & _MASK
    return h1, h2 + h1 & _MASK


def identity_hash(*parts: str) -> bytes:
    """Return the 16-byte hash of the parts of an identity, joined with 0x1f: h1 then h2, little-endian.

    The parts are account, source and id for usage of an unnumbered source, and source and id for a command.
    """
    return struct.pack("<QQ", *murmur3_x64_128(SEPARATOR.join(part.encode() for part in parts)))


def id_hash32(account: str, id: str) -> int:
    """Return 31 times h1 of the account plus h1 of the id, modulo 2^32.

    It distinguishes a resend from a reused number.
    """
    return (ACCOUNT_FACTOR * text_hash64(account) + murmur3_x64_128(id.encode())[0]) & 0xFFFFFFFF


def id_hash32_without_account(id: str) -> int:
    """Return h1 of the id modulo 2^32: the hash that releases stored whose identities did not name the account."""
    return murmur3_x64_128(id.encode())[0] & 0xFFFFFFFF


@lru_cache(maxsize=65_536)
def text_hash64(*parts: str) -> int:
    """Return h1 of the parts joined with 0x1f."""
    return murmur3_x64_128(SEPARATOR.join(part.encode() for part in parts))[0]


def content_hash32(event: UsageEvent) -> int:
    """Return the low 32 bits of h1 over the fields that decide the price of an event.

    The input is a sequence of 64-bit little-endian words: time_us, h1 of the account, h1 of the seven dimensions
    (model, hardware tier, energy source, site, channel, service tier, outcome) and of name and value of each attribute
    that a book declares, all joined with 0x1f, and for each count, in canonical order, h1 of the meter's name and the
    count.
    """
    words = [
        event.time_us,
        text_hash64(event.account),
        text_hash64(
            event.model,
            event.hardware_tier,
            event.energy_source,
            event.site,
            event.channel,
            event.service_tier,
            event.outcome,
            *(text for attribute in event.attributes for text in attribute),
        ),
    ]
    for meter, count in event.counts:
        words += (text_hash64(meter), count)
    return murmur3_x64_128(struct.pack(f"<{len(words)}Q", *words))[0] & 0xFFFFFFFF
