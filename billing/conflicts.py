"""Conflicts: usage sent again under the identity of rated usage, with other content.

What was rated first stands until a person decides. The decision is a resolution: the first stands, or the account's
usage is corrected to the counts that were sent again. No SQL, no Kafka, no clock.
"""

from dataclasses import dataclass
from typing import Any

from billing.suspense import RecordHeaders, RecordPlace, content_object
from schemas.cloudevents import Envelope, read_envelope
from schemas.times import format_time_us
from schemas.usage import UsageEvent

IDENTITY_CONFLICT = "identity_conflict"
"""Kind of the finding that a commit reports for each conflict."""
CONFLICT_SOURCE = "urn:tokenbill:conflicts"
"""Source of the corrections that resolutions send; the id is the place of the conflict, so each is carried out once."""
KEEP_FIRST, CORRECT_COUNTS = "keep", "correct"
"""Outcomes of a resolution."""
CONFLICT_OPEN, KEPT_FIRST, CORRECTING, CORRECTED = "open", "kept", "correcting", "corrected"
"""States: not resolved; the first stands; a correction was sent, and is undecided or was refused; it was accepted."""
CONFLICT_STATES = (CONFLICT_OPEN, KEPT_FIRST, CORRECTING, CORRECTED)
_COMPARED = (
    *("time", "model", "hardware_tier", "energy_source", "site", "channel", "service_tier", "outcome"),
    *("attributes", "requested_model", "member", "request_id", "reservation", "usage"),
)


@dataclass(frozen=True, slots=True)
class ListedConflict:
    """A conflict without its bytes, with its state."""

    key: tuple[int, int, int]
    """(partition, commit, row): the order of decision within a partition."""
    place: RecordPlace
    log_time_us: int
    """Kafka's LogAppendTime of the record."""
    account: str
    source: str
    id: str
    sequence: int | None
    size: int
    """Size of the value in bytes."""
    state: str
    resolved_by: str | None
    reason: str | None
    resolved_at_us: int | None


@dataclass(frozen=True, slots=True)
class ConflictContent:
    """The record of a conflict as it was received."""

    key: bytes | None
    headers: RecordHeaders
    value: bytes | None


def conflict_object(one: ListedConflict) -> dict[str, str | int | None]:
    """Return the JSON object of a listed conflict, for the command line and the HTTP API."""
    return {
        "place": str(one.place),
        "topic": one.place.topic,
        "partition": one.place.partition,
        "offset": one.place.offset,
        "time": format_time_us(one.log_time_us),
        "account": one.account,
        "source": one.source,
        "id": one.id,
        "sequence": one.sequence,
        "bytes": one.size,
        "state": one.state,
        "resolved_by": one.resolved_by,
        "reason": one.reason,
        "resolved_at": None if one.resolved_at_us is None else format_time_us(one.resolved_at_us),
    }


def content_objects(content: ConflictContent) -> dict[str, Any]:
    """Return the JSON object of the record of a conflict: key, headers and value."""
    return {
        "key": content_object(content.key),
        "headers": [{"name": name, "content": content_object(value)} for name, value in content.headers],
        "value": content_object(content.value),
    }


def usage_object(event: UsageEvent) -> dict[str, Any]:
    """Return what a usage event says, with disjoint counts; optional fields that it does not have are None.

    ``attributes`` are there only if it has some that a price book declares.
    """
    attributes = {"attributes": dict(event.attributes)} if event.attributes else {}
    return {
        "account": event.account,
        "source": event.source,
        "id": event.id,
        "sequence": event.sequence,
        "time": format_time_us(event.time_us),
        "model": event.model,
        "hardware_tier": event.hardware_tier,
        "energy_source": event.energy_source,
        "site": event.site,
        "channel": event.channel,
        "service_tier": event.service_tier,
        "outcome": event.outcome,
        **attributes,
        "requested_model": event.requested_model,
        "member": event.member,
        "request_id": event.request_id,
        "reservation": event.reservation,
        "usage": dict(event.counts),
    }


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Return the names of the fields in which two results of :func:`usage_object` differ."""
    return [name for name in _COMPARED if first.get(name) != second.get(name)]


def correction_data(one: ListedConflict, content: ConflictContent, second: UsageEvent, reason: str) -> dict[str, Any]:
    """Return the data of the ``usage.corrected.v1`` that replaces the counts of the rated usage by those sent again.

    Usage in a dialect is sent as it came, unless it has numbers that the dialect does not know.
    """
    usage: dict[str, Any] = {"usage": dict(second.counts)}
    if second.dialect is not None and not second.unknown:
        headers = [(name, value) for name, value in content.headers if value is not None]
        envelope = read_envelope(content.value, headers)
        if isinstance(envelope, Envelope):
            names = ("usage", "usage_dialect", "meters")
            usage = {name: envelope.data[name] for name in names if envelope.data.get(name) is not None}
    return {"source": one.source, "id": one.id, **usage, "reason": reason}
