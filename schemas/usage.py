"""The usage event ``token.usage.v1``: its model, its reference decoder, and the decoded value. No rules.

Checks run in this order, and the first that fails decides: the envelope (:mod:`schemas.cloudevents`); the fields of
``data`` in the order of :class:`UsageData`; the attributes that a price book declares, by name, each text, a boolean or
an integer (``invalid_event``); the counts in the order they were written, each an integer (``invalid_event``), not
negative (``usage_mismatch``) and at most 2^63-1 (``overflow``); those of ``meters`` after those of ``usage``; the
meters of nonzero counts in canonical order, each a known one (``unknown_meter``). A count of 0 is treated as absent,
even of an unknown meter (docs/reference/usage-events.md). An event without any count is read: its price row decides if
it is refused (:mod:`billing.pricing.rate`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from schemas.cloudevents import Envelope, read_envelope
from schemas.counts import check_count
from schemas.dialects import DIALECTS, read_dialect
from schemas.fields import Name, Text, WireText, check_text, explain, one_of, show
from schemas.meters import MAX_COUNT, METERS, Counts, canonical_counts
from schemas.refusal_codes import REASONS
from schemas.refusals import Refusal, Refused, record_refusal

__all__ = ["OUTCOMES", "REASONS", "USAGE_TYPE", "Refusal", "UsageData", "UsageEvent", "parse_usage", "read_usage"]

USAGE_TYPE = "token.usage.v1"
OUTCOMES = ("completed", "partial", "failed")

_KNOWN = frozenset(METERS)


def _check_usage(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PydanticCustomError("expected", "expected an object of counts by meter")
    return value


def _check_attributes(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PydanticCustomError("expected", "expected an object of attributes by name")
    return value


COUNT_SCHEMA: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": MAX_COUNT}
"""JSON Schema of one count."""


METERS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": dict.fromkeys(METERS, COUNT_SCHEMA),
    "additionalProperties": COUNT_SCHEMA,
}
"""JSON Schema of counts by meter."""
PLAIN_SCHEMA: dict[str, Any] = {
    "properties": {
        "usage": {"properties": dict.fromkeys(METERS, COUNT_SCHEMA), "additionalProperties": COUNT_SCHEMA},
        "meters": {"type": "null"},
    }
}
"""JSON Schema of ``data`` whose ``usage`` counts meters."""
DIALECT_GIVEN: dict[str, Any] = {"required": ["usage_dialect"], "properties": {"usage_dialect": {"type": "string"}}}
"""JSON Schema of ``data`` with a dialect."""
DialectName = Annotated[
    str | None, PlainValidator(check_text), WithJsonSchema({"enum": [*DIALECTS, None], "type": ["string", "null"]})
]
AddedMeters = Annotated[
    dict[str, Any] | None, PlainValidator(_check_usage), WithJsonSchema({**METERS_SCHEMA, "type": ["object", "null"]})
]


UsageAttributes = Annotated[
    dict[str, Any], PlainValidator(_check_attributes), WithJsonSchema({"type": ["object", "null"]})
]


class UsageData(WireText):
    """The ``data`` of a usage event as written on the wire. A field with a default may be absent or null."""

    model_config = ConfigDict(json_schema_extra={"if": DIALECT_GIVEN, "else": PLAIN_SCHEMA})

    model: Name = Field(description="the model that served the request")
    hardware_tier: Text = Field(default="unknown", description="chip and system, such as ascend-910c.supernode384")
    energy_source: Text = Field(default="unknown", description="source of the electricity, such as solar")
    site: Text = Field(default="unknown", description="the computing site")
    channel: Text = Field(default="cloud", description="sales channel: cloud, edge, ...")
    service_tier: Text = Field(default="standard", description="standard, batch, priority, ...")
    outcome: Annotated[
        str, one_of(*OUTCOMES), WithJsonSchema({"enum": [*OUTCOMES, None], "type": ["string", "null"]})
    ] = Field(default="completed", description="outcome of the request")
    requested_model: Text | None = Field(default=None, description="the model named in the request")
    member: Text | None = Field(default=None, description="the member of the account who made the request")
    request_id: Text | None = Field(default=None, description="id of the request, for tracing")
    reservation: Text | None = Field(default=None, description="the hold that this usage closes")
    attributes: UsageAttributes = Field(
        default_factory=dict,
        description="further values by name; those that a price book declares are text, booleans or integers",
    )
    usage_dialect: DialectName = Field(
        default=None, description="dialect of `usage`, such as openai.chat; absent: disjoint meters"
    )
    meters: AddedMeters = Field(default=None, description="counts by meter that are added to those of a dialect")
    usage: Annotated[
        dict[str, Any],
        PlainValidator(_check_usage),
        WithJsonSchema({"type": "object"}),
    ] = Field(description="an object of counts by meter")


DIMENSIONS: tuple[tuple[str, str | None], ...] = tuple(
    (name, None if UsageData.model_fields[name].is_required() else UsageData.model_fields[name].default)
    for name in ("model", "hardware_tier", "energy_source", "site", "channel", "service_tier", "outcome")
)
"""The fields of an event that decide about its price, with their defaults; ``model`` has none."""


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One decoded usage event.

    ``time_us`` is the completion time of the request in microseconds UTC. ``account`` pays. ``counts`` are the nonzero
    counts, each 1 to 2^63-1, in canonical order: built-in meters, then meters declared by a book, sorted by name.
    ``attributes`` are (name, value) of the attributes that a book declares, sorted by name.
    ``dialect`` is that of the usage object, None where the event counts meters. ``unknown`` are sentences about numbers
    of the usage object that its dialect does not know, where they are noted.
    """

    source: str
    id: str
    sequence: int | None
    time_us: int
    account: str
    model: str
    hardware_tier: str
    energy_source: str
    site: str
    channel: str
    service_tier: str
    outcome: str
    requested_model: str | None
    member: str | None
    request_id: str | None
    reservation: str | None
    counts: tuple[tuple[str, int], ...]
    dialect: str | None = None
    unknown: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def is_one_request(self) -> bool:
        """True if the event stands for one request and does not count ``requests``: a provider's usage object.

        A row that prices ``requests`` charges one for it (docs/reference/price-books.md, "Price").
        """
        return self.dialect is not None and all(meter != "requests" for meter, _ in self.counts)

    def refuse(self, code: str, detail: str) -> Refusal:
        """Return a refusal of this event, with its identity."""
        return record_refusal(code, detail, self.source, self.id, self.sequence, self.account)


def plain_counts(usage: dict[str, Any], path: str = "data.usage") -> tuple[tuple[str, int], ...]:
    """Return the counts of a usage object of disjoint meters in canonical order, without zeros. Accepts any meter name.

    Raises:
        Refused: ``invalid_event``, ``usage_mismatch`` or ``overflow`` of the first invalid count.
    """
    return canonical_counts([(meter, check_count(f"{path}.{_shown(meter)}", count)) for meter, count in usage.items()])


def _shown(meter: str) -> str:
    return meter if meter in _KNOWN else show(meter)


def _check_meters(counts: tuple[tuple[str, int], ...], declared_meters: frozenset[str]) -> None:
    for meter, count in counts:
        if meter not in _KNOWN and meter not in declared_meters:
            detail = (
                f"data.usage counts {count} of {show(meter)}: expected a built-in meter or one a price book declares"
            )
            raise Refused("unknown_meter", detail)


def attributes_as_text(
    given: Mapping[str, Any], declared: frozenset[str], place: str = "data.attributes"
) -> tuple[tuple[str, str], ...]:
    """Return the attributes that books declare as text, sorted by name; null is as if absent.

    ``place`` is where errors say that they stand.

    Raises:
        Refused: ``invalid_event`` of the first that is neither text nor a boolean nor an integer.
    """
    if not given or not declared:
        return ()
    names = sorted(name for name in declared & given.keys() if given[name] is not None)
    return tuple((name, _attribute_text(name, given[name], place)) for name in names)


def _attribute_text(name: str, value: object, place: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) <= MAX_COUNT:
        return str(value)
    try:
        return check_text(value)
    except PydanticCustomError as error:
        detail = f"{place}.{show(name)} is {show(value)}: {error.message()}, a boolean or an integer"
        raise Refused("invalid_event", detail) from None


@dataclass(frozen=True, slots=True)
class ReadCounts:
    """The counts of an event, and sentences about numbers that its dialect does not know."""

    counts: Counts
    unknown: tuple[str, ...] = ()


def read_counts(
    usage: dict[str, Any],
    dialect: str | None,
    meters: dict[str, Any] | None,
    *,
    declared_meters: frozenset[str] = frozenset(),
    note_unknown: bool = False,
) -> ReadCounts:
    """Return the counts of ``data.usage`` in a dialect, or of meters, with those of ``data.meters`` added.

    Raises:
        Refused: ``invalid_event``, ``usage_mismatch`` or ``overflow`` of the first invalid count.
    """
    if dialect is None:
        if meters is not None:
            detail = f"data.meters is {show(meters)} without data.usage_dialect: expected all counts in data.usage"
            raise Refused("invalid_event", detail)
        return ReadCounts(plain_counts(usage))
    read = read_dialect(dialect, usage, declared_meters=declared_meters, note_unknown=note_unknown)
    if not meters:
        return ReadCounts(read.counts, read.unknown)
    sums = dict(read.counts)
    for meter, count in plain_counts(meters, "data.meters"):
        sums[meter] = sums.get(meter, 0) + count
        if sums[meter] > MAX_COUNT:
            detail = (
                f"data.usage and data.meters count {sums[meter]} of {_shown(meter)}: a count is at most {MAX_COUNT}"
            )
            raise Refused("overflow", detail)
    return ReadCounts(canonical_counts(sums), read.unknown)


def read_usage(
    envelope: Envelope,
    *,
    declared_meters: frozenset[str] = frozenset(),
    declared_attributes: frozenset[str] = frozenset(),
    note_unknown: bool = False,
) -> UsageEvent | Refusal:
    """Read the usage event in an envelope of type :data:`USAGE_TYPE`; see :func:`parse_usage`."""

    given = {name: value for name, value in envelope.data.items() if value is not None}
    try:
        data = UsageData.model_validate(given)
    except ValidationError as error:
        return envelope.refuse("invalid_event", explain(error, UsageData, "data."))
    try:
        attributes = attributes_as_text(data.attributes, declared_attributes)
        read = read_counts(
            *(data.usage, data.usage_dialect, data.meters), declared_meters=declared_meters, note_unknown=note_unknown
        )
        _check_meters(read.counts, declared_meters)
    except Refused as problem:
        return envelope.refuse(problem.refusal.code, problem.refusal.detail)
    return _event(envelope, data, read, attributes)


def _event(
    envelope: Envelope, data: UsageData, read: ReadCounts, attributes: tuple[tuple[str, str], ...]
) -> UsageEvent:
    return UsageEvent(
        source=envelope.source,
        id=envelope.id,
        sequence=envelope.sequence,
        time_us=envelope.time_us,
        account=envelope.subject,
        model=data.model,
        hardware_tier=data.hardware_tier,
        energy_source=data.energy_source,
        site=data.site,
        channel=data.channel,
        service_tier=data.service_tier,
        outcome=data.outcome,
        requested_model=data.requested_model,
        member=data.member,
        request_id=data.request_id,
        reservation=data.reservation,
        counts=read.counts,
        dialect=data.usage_dialect,
        unknown=read.unknown,
        attributes=attributes,
    )


def reread_usage(
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]],
    rated: Mapping[tuple[str, str, str], Counts],
    *,
    declared_meters: frozenset[str] = frozenset(),
    declared_attributes: frozenset[str] = frozenset(),
) -> UsageEvent | None:
    """Decode a record that may have been rated, with the counts with which it was: what a dialect maps may change.

    Args:
        value: the record's value as received.
        headers: the record's headers as received.
        rated: (account, source, id) to the counts in the rated lines, those of usage in a dialect with the request that
            a row may charge for it.
        declared_meters: as in :func:`parse_usage`.
        declared_attributes: as in :func:`parse_usage`.

    Returns:
        The event, or None if its identity is not among those rated.
    """
    envelope = read_envelope(value, headers, types=(USAGE_TYPE,))
    if isinstance(envelope, Refusal):
        return None
    counts = rated.get((envelope.subject, envelope.source, envelope.id))
    if counts is None:
        return None
    event = read_usage(
        envelope, declared_meters=declared_meters, declared_attributes=declared_attributes, note_unknown=True
    )
    if isinstance(event, UsageEvent):
        one_more = canonical_counts((*event.counts, ("requests", 1))) if event.is_one_request else event.counts
        if event.dialect is None or counts in (event.counts, one_more):
            return event
    try:
        given = {name: value for name, value in envelope.data.items() if value is not None}
        data = UsageData.model_validate(given)
        attributes = attributes_as_text(data.attributes, declared_attributes)
    except (ValidationError, Refused):
        return None
    return _event(envelope, data, ReadCounts(counts), attributes)


def parse_usage(
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]] = (),
    *,
    declared_meters: frozenset[str] = frozenset(),
    declared_attributes: frozenset[str] = frozenset(),
    note_unknown: bool = False,
) -> UsageEvent | Refusal:
    """Decode one record of ``usage.events``, structured or binary. Faster decoders must equal this function.

    Args:
        value: the record's value as received.
        headers: the record's headers as received.
        declared_meters: meters that price books declare in addition to the built-in ones.
        declared_attributes: attributes that price books declare as dimensions; others are ignored.
        note_unknown: numbers of a usage object that its dialect does not know are noted, and not refused.

    Returns:
        The event, or a rejection with ``invalid_json``, ``invalid_event``, ``usage_mismatch``, ``unknown_meter`` or
        ``overflow``. Invalid input is never repaired by guessing.
    """
    envelope = read_envelope(value, headers, types=(USAGE_TYPE,))
    if isinstance(envelope, Refusal):
        return envelope
    return read_usage(
        envelope,
        declared_meters=declared_meters,
        declared_attributes=declared_attributes,
        note_unknown=note_unknown,
    )
