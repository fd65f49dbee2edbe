"""Suspense of rejected records: their position, the advice for each reason, and the rules of a resubmission.

A resubmitted event is rated once by the ordinary rules of identity, as any other record
(``billing.calculator.dedupe``). An event that was rejected several times is sent once (:func:`resubmissions`), so this
does not depend on how long identities are kept. No SQL, no Kafka, no clock.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from schemas.refusals import Refusal
from schemas.routing import partition_of
from schemas.times import format_time_us
from schemas.topics import FORWARD_HEADERS
from schemas.usage import UsageEvent, parse_usage

SUSPENSE_OPEN, RESUBMITTED, RATED, REJECTED_AGAIN = "open", "resubmitted", "rated", "rejected_again"
"""States: not resubmitted; resubmitted and not decided yet; rated, now or before (a duplicate); rejected again, which
is replaced by a newer row."""
STATES = (SUSPENSE_OPEN, RESUBMITTED, RATED, REJECTED_AGAIN)

RecordHeaders = tuple[tuple[str, bytes | None], ...]


class RecordPlace(NamedTuple):
    """Position of a rejected record in Kafka, which also names it: ``usage.events/3/1042``."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def parse_place(text: str) -> RecordPlace:
    """Parse ``TOPIC/PARTITION/OFFSET``.

    Raises:
        ValueError: the text is not a position; the message is a sentence for people.
    """
    topic, *numbers = text.split("/")
    if not topic or len(numbers) != 2 or not all(one.isascii() and one.isdigit() for one in numbers):
        raise ValueError(f"{text!r} is not the place of a record: expected TOPIC/PARTITION/OFFSET")
    partition, offset = map(int, numbers)
    if partition >= 1 << 31 or offset >= 1 << 63:
        raise ValueError(f"{text!r} is not the place of a record: a number is too large")
    return RecordPlace(topic, partition, offset)


@dataclass(frozen=True, slots=True)
class SuspendedRecord:
    """A record in suspense: its position, the parts of its identity that could be read, and its bytes."""

    place: RecordPlace
    reason: str
    source: str | None
    id: str | None
    sequence: int | None
    account: str | None
    key: bytes | None
    headers: RecordHeaders
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Listed:
    """A record in suspense without its bytes, with its state."""

    key: tuple[int, int, int]
    """(partition, commit, row): the order of rejection within a partition."""
    place: RecordPlace
    log_time_us: int
    """Kafka's LogAppendTime of the record."""
    reason: str
    detail: str
    source: str | None
    id: str | None
    account: str | None
    size: int
    """Size of the value in bytes."""
    state: str
    sent_to: RecordPlace | None
    resolved_by: str | None
    resolved_at_us: int | None
    copies: int = 1
    """Number of listed records with the same account, source and id."""


def listed_object(one: Listed) -> dict[str, str | int | None]:
    """Return the JSON object of a listed record, for the command line and the HTTP API."""
    return {
        "place": str(one.place),
        "topic": one.place.topic,
        "partition": one.place.partition,
        "offset": one.place.offset,
        "time": format_time_us(one.log_time_us),
        "reason": one.reason,
        "detail": one.detail,
        "source": one.source,
        "id": one.id,
        "account": one.account,
        "bytes": one.size,
        "state": one.state,
        "sent_to": None if one.sent_to is None else str(one.sent_to),
        "resolved_by": one.resolved_by,
        "resolved_at": None if one.resolved_at_us is None else format_time_us(one.resolved_at_us),
    }


def content_object(content: bytes | None) -> dict[str, str] | None:
    """Return bytes as ``{"text": …}`` if a terminal can show them, else as ``{"base64": …}``; None for a null."""
    if content is None:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if all(one.isprintable() or one in "\n\r\t" for one in text):
        return {"text": text}
    return {"base64": base64.b64encode(content).decode()}


def held_object(held: SuspendedRecord) -> dict[str, Any]:
    """Return the JSON object of a record's content: sequence, key, headers, value and advice."""
    return {
        "sequence": held.sequence,
        "key": content_object(held.key),
        "headers": [{"name": name, "content": content_object(content)} for name, content in held.headers],
        "value": content_object(held.value),
        "advice": ADVICE[held.reason]._asdict(),
    }


RowKey = tuple[int, int, int]
"""(partition, commit, row): the key of a record in suspense."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A record in suspense, compared with the others of its identity.

    ``identity`` is (account, source, id), or None if a part could not be read. Copies with equal ``content`` have the
    same bytes.
    """

    key: RowKey
    place: RecordPlace
    identity: tuple[str, str, str] | None
    content: bytes
    state: str
    sent_to: RecordPlace | None


@dataclass(frozen=True, slots=True)
class Resubmission:
    """Records of one identity that are resolved together, because they are one event that came several times.

    The record ``send`` is sent, and all ``resolved`` are noted with its place. If ``send`` is None, the event was
    resubmitted before, to ``sent_to``. ``differing`` records have the same identity and other content; they stay as
    they are, because only one of them can be right.
    """

    send: RowKey | None
    resolved: tuple[RowKey, ...]
    sent_to: RecordPlace | None = None
    differing: tuple[RecordPlace, ...] = ()


def resubmissions(
    chosen: Iterable[RowKey], copies: Mapping[RowKey, Copy], *, again: bool = False
) -> list[Resubmission]:
    """Return how chosen records are resubmitted: each event once, however often it was rejected.

    ``copies`` are all records of the identities of the chosen ones. An event that was resubmitted before, and not
    rejected again, is not sent, for as long as its records are kept; with ``again`` it is.
    """
    by_identity: dict[tuple[str, str, str], list[Copy]] = {}
    for copy in sorted(copies.values(), key=lambda copy: copy.key):
        if copy.identity is not None:
            by_identity.setdefault(copy.identity, []).append(copy)
    planned: list[Resubmission] = []
    handled: set[RowKey] = set()
    for key in chosen:
        mine = copies[key]
        if key in handled:
            continue
        if mine.identity is None:
            planned.append(Resubmission(key, (key,)))
            continue
        same = by_identity[mine.identity]
        open_ones = [copy for copy in same if copy.state == SUSPENSE_OPEN or copy is mine]
        done = None if again else next((copy for copy in same if copy.state in (RESUBMITTED, RATED)), None)
        content = mine.content if done is None else done.content
        resolved = tuple(copy.key for copy in open_ones if copy.content == content)
        differing = tuple(copy.place for copy in open_ones if copy.content != content)
        handled.update(copy.key for copy in open_ones)
        planned.append(
            Resubmission(key if done is None else None, resolved, None if done is None else done.sent_to, differing)
        )
    return planned


@dataclass(frozen=True, slots=True)
class ResubmittedRecord:
    """A record that a resubmission produces to ``usage.events``."""

    partition: int
    key: bytes | None
    headers: RecordHeaders
    value: bytes | None


def sent_headers(headers: RecordHeaders) -> RecordHeaders:
    """Return the headers that a resubmitted record keeps: all but the numbers of its forwarding."""
    return tuple(header for header in headers if header[0] not in FORWARD_HEADERS)


def as_it_was(held: SuspendedRecord, partitions: int) -> ResubmittedRecord:
    """Return the record with its original key, headers and bytes, for the partition of its account.

    If the account is not known, the partition is that of the original record.
    """
    to = held.place.partition if held.account is None else partition_of(held.account, partitions)
    return ResubmittedRecord(to, held.key, sent_headers(held.headers), held.value)


def repaired(
    held: SuspendedRecord,
    event: bytes,
    partitions: int,
    declared_meters: frozenset[str],
    *,
    note_unknown: bool = False,
) -> ResubmittedRecord | Refusal:
    """Return the record with a repaired event as structured JSON, or a refusal if the repair is not allowed.

    The headers of a binary CloudEvent are dropped. The event must keep the identity of the rejected one; under another
    identity, a resend of the original would be rated too. Only ``sequence_reused`` is repaired with another sequence
    or source. A part of the identity that could not be read from the original may have any value.
    """
    read = parse_usage(event, declared_meters=declared_meters, note_unknown=note_unknown)
    if isinstance(read, Refusal):
        return read
    other = _other_identity(held, read)
    if other is not None:
        return read.refuse("invalid_event", other)
    headers = tuple(
        (name, content)
        for name, content in held.headers
        if name not in FORWARD_HEADERS and name.lower() != "content-type" and not name.lower().startswith("ce_")
    )
    headers = (*headers, ("content-type", b"application/cloudevents+json"))
    return ResubmittedRecord(partition_of(read.account, partitions), read.account.encode(), headers, event)


def _other_identity(held: SuspendedRecord, event: UsageEvent) -> str | None:
    if held.reason == "sequence_reused":
        if (held.source, held.sequence) == (event.source, event.sequence):
            return (
                f"sequence: {event.sequence} of source {event.source!r} is used by another event; give its own number"
            )
        return None
    for name, was, now in (
        ("source", held.source, event.source),
        ("id", held.id, event.id),
        ("sequence", held.sequence, event.sequence),
    ):
        if was is not None and was != now:
            return f"{name}: {now!r} is not that of the rejected event, {was!r}; a repair keeps the identity"
    return None


class Advice(NamedTuple):
    """Advice on how to repair a rejected record, in Chinese and English."""

    zh: str
    en: str


ADVICE: dict[str, Advice] = {
    "invalid_json": Advice(
        "内容不是合法的 JSON：修复发送方；有原始用量时用 --with 提交正确的事件。",
        "The bytes are not JSON: repair the emitter; where the usage is known, resubmit a right event with --with.",
    ),
    "invalid_event": Advice(
        "按 detail 指出的字段改正，用 --with 提交；标识（source、id、sequence）保持不变。",
        "Correct the field that the detail names and resubmit with --with; source, id and sequence stay.",
    ),
    "usage_mismatch": Advice(
        "各计量项相互矛盾：向来源核实真实用量，改正后用 --with 提交。",
        "The counts contradict each other: ask the source what was used, and resubmit that with --with.",
    ),
    "usage_missing": Advice(
        "请求已完成但没有任何用量：向来源取得真实用量，用 --with 提交；确实免费时在价目行写 unmetered: true 再重提。",
        "A completed request counts nothing: resubmit it with its counts (--with); where it is free, publish a row "
        "with unmetered: true and resubmit.",
    ),
    "unknown_meter": Advice(
        "计量项无人认识：在价目表中声明它并发布，再原样重提；或改正名称后用 --with 提交。",
        "Nobody knows the meter: declare it in a price book, publish, and resubmit; or correct its name with --with.",
    ),
    "no_price_book": Advice(
        "该时间没有生效的价目表版本：发布覆盖该时间的版本后重提。",
        "No version of the account's price book was in force then: publish one that was, then resubmit.",
    ),
    "no_price": Advice(
        "价目表没有该组合或计量项的价格：发布带此价格的新版本后重提。",
        "The price book has no price for it: publish a version that has, in force at the event's time, then resubmit.",
    ),
    "unknown_account": Advice(
        "账户从未开立：先开户（account.opened.v1）再重提；账户写错时用 --with 改正 subject。",
        "The account was never opened: open it, then resubmit; where its name is wrong, correct subject with --with.",
    ),
    "account_closed": Advice(
        "账户已销户：把用量记到应付账户（--with 改正 subject），否则留作记录。",
        "The account is closed: bill the account that pays instead (subject, with --with), or leave it on record.",
    ),
    "time_in_future": Advice(
        "事件时间超前：到时间后原样重提；来源时钟错误时用 --with 改正时间。",
        "Its time lies ahead: resubmit when that time has come; where the clock was wrong, correct it with --with.",
    ),
    "time_too_old": Advice(
        "事件早于可接受的时限，重提仍会被拒：核实后用人工调账（balance.adjusted.v1）补记。",
        "It is older than what is taken, and would be rejected again: settle it by a balance adjustment.",
    ),
    "sequence_reused": Advice(
        "该来源的序号已被另一事件使用：修复来源的编号，以它自己的序号用 --with 提交。",
        "Another event of its source has this number: repair the source, and resubmit with its own number with --with.",
    ),
    "overflow": Advice(
        "数值超出可记录范围：向来源核实，改正后用 --with 提交。",
        "A number is larger than what can be held: ask the source what was used, and resubmit that with --with.",
    ),
}
"""Advice by reason of rejection (docs/reference/usage-events.md, "Rejections")."""
