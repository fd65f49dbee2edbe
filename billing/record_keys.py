"""Record keys: which records on the input topics and the forward topics are the product's own.

Everyone who may write to a topic can write any record there. So a forwarded record carries a keyed digest
(HMAC-SHA256) of what it is and where it comes from, and so does a record whose source is one of the product's own
(:mod:`schemas.sources`). Keys belong to the installation and are numbered. The last one signs; a former one verifies
records up to a log time. Keys are never deleted, so a replay verifies what was verified. No SQL, no Kafka, no clock.
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from schemas.refusals import Refusal, record_refusal
from schemas.times import format_time_us
from schemas.topics import (
    FORWARD_DIGEST_HEADER,
    FORWARD_FROM_HEADER,
    FORWARD_HEADERS,
    FORWARD_NUMBER_HEADER,
    FORWARD_ORIGIN_HEADER,
    OWN_DIGEST_HEADER,
)

FORGED_RECORD = "forged_record"
"""Kind of the finding for a record that claims a source of the product's own."""
FOREIGN_RECORD = "foreign_record"
"""Kind of the finding for a record on a forward topic that no partition forwarded."""
_HEX_DIGITS = 64
_MAX_DIGITS = 18
_NULL = b"\xff" * 8
_FORWARD, _OWN = b"forward", b"own"

KeyedHeaders = Sequence[tuple[str, bytes | None]]


class KeyedRecord(Protocol):
    """The parts of a record that a digest covers; :class:`billing.commits.input_batch.Record` satisfies it."""

    @property
    def timestamp(self) -> int:
        """LogAppendTime in milliseconds since 1970."""

    @property
    def key(self) -> bytes | None:
        """Key of the record."""

    @property
    def value(self) -> bytes | None:
        """Value of the record."""

    @property
    def headers(self) -> KeyedHeaders:
        """Headers of the record, in order."""


@dataclass(frozen=True, slots=True)
class RecordKey:
    """One key. ``until_us`` is the log time up to which it verifies records; None while it is the one that signs."""

    number: int
    secret: bytes = field(repr=False)
    until_us: int | None = None


class RecordKeys(Protocol):
    """The keys of an installation as of one commit."""

    @property
    def own_from_us(self) -> int:
        """Log time from which a record with an own source must carry a digest: 0 unless an older version ran before."""

    def signing(self) -> RecordKey:
        """Return the key that signs now."""

    def find(self, number: int) -> RecordKey | None:
        """Return a key by its number, also a former one; None if there is none."""

    def unsigned_before(self, topic: str, origin: int, target: int) -> int:
        """Return the forward number below which an older version forwarded records without a digest."""


@dataclass(frozen=True, slots=True)
class HeldRecordKeys:
    """Keys in memory, by number; the greatest number signs."""

    keys: Mapping[int, RecordKey]
    own_from_us: int = 0
    unsigned: Mapping[tuple[str, int, int], int] = field(default_factory=dict)

    def signing(self) -> RecordKey:
        return self.keys[max(self.keys)]

    def find(self, number: int) -> RecordKey | None:
        return self.keys.get(number)

    def unsigned_before(self, topic: str, origin: int, target: int) -> int:
        return self.unsigned.get((topic, origin, target), 0)


_SIMULATED = {1: RecordKey(1, b"simulate")}
SIMULATED_KEYS = HeldRecordKeys(_SIMULATED)
"""Keys of a run without servers: nobody else can write to its topics. A source of the product's own is refused."""
TRUSTING_KEYS = HeldRecordKeys(_SIMULATED, own_from_us=1 << 62)
"""Keys of a run without servers that takes records with the product's own sources as they are."""


def _message(purpose: bytes, texts: Iterable[bytes | None], headers: KeyedHeaders, without: Iterable[str]) -> bytes:
    """Return what is digested: each part after its length, so that no two records give the same bytes."""
    parts = [purpose, *texts]
    for name, content in headers:
        if name not in without:
            parts += [name.encode("utf-8", "surrogatepass"), content]
    return b"".join(_NULL if part is None else len(part).to_bytes(8, "big") + part for part in parts)


def _signed(key: RecordKey, message: bytes) -> bytes:
    return b"%d:%b" % (key.number, hmac.digest(key.secret, message, "sha256").hex().encode())


def _fault(keys: RecordKeys, given: bytes | None, message: bytes, log_time_us: int) -> str | None:
    """Return why a digest header does not verify a message, or None if it does."""
    if given is None:
        return "no digest"
    digits, _, digest = given.partition(b":")
    if not digits.isdigit() or len(digits) > _MAX_DIGITS or len(digest) != _HEX_DIGITS:
        return "a digest that cannot be read"
    key = keys.find(int(digits))
    if key is None:
        return f"a digest of key {int(digits)}, which does not exist"
    if not hmac.compare_digest(_signed(key, message), given):
        return f"a digest of key {key.number} that does not match it"
    if key.until_us is not None and log_time_us > key.until_us:
        return f"a digest of key {key.number}, which verifies records up to {format_time_us(key.until_us)} only"
    return None


# Own records


def own_header(
    keys: RecordKeys, topic: str, key: bytes | None, value: bytes | None, headers: KeyedHeaders
) -> tuple[str, bytes]:
    """Return the header that marks a record for an input topic as one of the product's own."""
    message = _message(_OWN, (topic.encode(), key, value), headers, (OWN_DIGEST_HEADER,))
    return OWN_DIGEST_HEADER, _signed(keys.signing(), message)


def own_fault(keys: RecordKeys, topic: str, record: KeyedRecord) -> str | None:
    """Return what a record with an own source carries instead of a valid digest; None if it is one of ours."""
    given = [content for name, content in record.headers if name == OWN_DIGEST_HEADER]
    log_time_us = record.timestamp * 1000
    if len(given) > 1:
        return "several digests"
    if not given:
        return None if log_time_us < keys.own_from_us else "no digest"
    message = _message(_OWN, (topic.encode(), record.key, record.value), record.headers, (OWN_DIGEST_HEADER,))
    return _fault(keys, given[0], message, log_time_us)


def resubmitted_headers(
    keys: RecordKeys, topic: str, was: KeyedRecord, key: bytes | None, value: bytes | None, headers: KeyedHeaders
) -> tuple[tuple[str, bytes | None], ...] | str:
    """Return the headers under which an own record is sent again to an input topic, with a new digest.

    ``was`` is the record as it was rejected; ``key``, ``value`` and ``headers`` are those of the resubmission. If the
    record was not ours, the result is the fault: a resubmission does not make it so.
    """
    kept = tuple((name, content) for name, content in was.headers if name not in FORWARD_HEADERS)
    fault = own_fault(keys, topic, _Rejected(was.timestamp, was.key, was.value, kept))
    if fault is not None:
        return fault
    kept = tuple((name, content) for name, content in headers if name != OWN_DIGEST_HEADER)
    return (*kept, own_header(keys, topic, key, value, kept))


class _Rejected(NamedTuple):
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: KeyedHeaders


def forged(fault: str, source: str | None, id_: str | None, account: str | None) -> Refusal:
    """Return the refusal of a record with an own source and without a valid digest.

    It names no sequence: the record takes no number.
    """
    detail = f"source is {source!r}, one of the product's own, and the record carries {fault}"
    return record_refusal("invalid_event", detail, source, id_, None, account)


# Forwarded records


class Forward(NamedTuple):
    """Where a forwarded record comes from: origin partition, number, and topic and offset on that partition."""

    origin: int
    number: int
    came_from: bytes = b""


def forward_headers(
    keys: RecordKeys,
    topic: str,
    target: int,
    forward: Forward,
    key: bytes | None,
    value: bytes | None,
    headers: KeyedHeaders,
) -> tuple[tuple[str, bytes], ...]:
    """Return the headers that a forward adds to a record. ``headers`` are those that the record keeps."""
    origin, number = b"%d" % forward.origin, b"%d" % forward.number
    message = _forward_message(topic, target, origin, number, forward.came_from, key, value, headers)
    return (
        (FORWARD_ORIGIN_HEADER, origin),
        (FORWARD_NUMBER_HEADER, number),
        (FORWARD_FROM_HEADER, forward.came_from),
        (FORWARD_DIGEST_HEADER, _signed(keys.signing(), message)),
    )


def _forward_message(
    topic: str,
    target: int,
    origin: bytes,
    number: bytes,
    came_from: bytes,
    key: bytes | None,
    value: bytes | None,
    headers: KeyedHeaders,
) -> bytes:
    texts = (topic.encode(), b"%d" % target, origin, number, came_from, key, value)
    return _message(_FORWARD, texts, headers, FORWARD_HEADERS)


def read_forward(keys: RecordKeys, topic: str, target: int, record: KeyedRecord) -> tuple[Forward, bool] | str:
    """Return where a record on a forward topic comes from, and True if a digest proves it.

    A record without a digest may come from an older version; its number is then below the one that
    :meth:`RecordKeys.unsigned_before` returns. For every other record the result is the fault: what it carries instead
    of a valid digest.
    """
    found: dict[str, bytes] = {}
    for name, content in record.headers:
        if name in FORWARD_HEADERS and content is not None:
            if name in found:
                return f"the header {name} twice"
            found[name] = content
    origin, number = found.get(FORWARD_ORIGIN_HEADER, b""), found.get(FORWARD_NUMBER_HEADER, b"")
    if not _is_number(origin) or not _is_number(number):
        return "no origin and number" if not origin or not number else "an origin or number that cannot be read"
    forward = Forward(int(origin), int(number), found.get(FORWARD_FROM_HEADER, b""))
    given = found.get(FORWARD_DIGEST_HEADER)
    if given is None:
        older = forward.number < keys.unsigned_before(topic, forward.origin, target)
        return (forward, False) if older else "no digest"
    message = _forward_message(
        topic, target, origin, number, forward.came_from, record.key, record.value, record.headers
    )
    return _fault(keys, given, message, record.timestamp * 1000) or (forward, True)


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) <= _MAX_DIGITS
