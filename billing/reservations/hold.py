"""A hold on quota and money: its kinds, its states, and its usage as an event."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from billing.accounts.held import NOTHING, HeldAmounts
from billing.catalog.model import TEXT_DIMENSIONS
from schemas.cloudevents import write_structured
from schemas.meters import Counts
from schemas.refusals import Refused
from schemas.times import format_time_us
from schemas.units import format_micro, format_pico
from schemas.usage import USAGE_TYPE, UsageEvent, attributes_as_text

RESERVATION, SETTLEMENT, OFFLINE_GRANT, CHARGING = "reservation", "settlement", "offline_grant", "charging"


HOLD_OPEN, HOLD_CLOSED, HOLD_RELEASED = "open", "closed", "released"


RESERVATION_SOURCE = "urn:tokenbill:reservations"
"""Source of the usage events of settlements; the id of such an event is that of the settlement's hold."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The usage that a hold is for: dimensions as in a usage event, the granted counts, and their greatest price.

    ``attributes`` are those of the usage, as they were given; see :func:`usage_event`.
    """

    dimensions: Mapping[str, str]
    counts: Counts = ()
    amount_pico: int = 0
    standard_micro: int = 0
    partial: bool = False
    """True if less was granted than requested."""
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hold:
    """One hold of one account. Times are by the database's clock, microseconds since 1970 UTC."""

    reservation_id: str
    account: str
    kind: str
    state: str
    held: HeldAmounts
    terms: Terms
    created_us: int
    expires_us: int
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Requests already applied, by idempotency key: digest of the request, and the answer if it is kept."""
    event: str | None = None
    """The usage event of a settlement as JSON, kept so that a retry sends it unchanged."""

    def held_at(self, now_us: int) -> HeldAmounts:
        """Return the amounts held at a time: none once the hold is closed, released or expired."""
        return self.held if self.state == HOLD_OPEN and now_us < self.expires_us else NOTHING

    def shown_state(self, now_us: int) -> str:
        """Return the state to show: ``open``, ``expired``, ``closed`` or ``released``."""
        return "expired" if self.state == HOLD_OPEN and self.expires_us <= now_us else self.state


def usage_event(
    account: str, terms: Terms, counts: Counts, time_us: int, declared_attributes: frozenset[str]
) -> UsageEvent:
    """Return the usage of a hold as an event that can be priced and burned.

    An attribute that was declared after the hold was made, and cannot be read as a dimension, is as if absent. The
    event of the settlement has it, and is rejected for it.
    """
    given = terms.dimensions
    try:
        attributes = attributes_as_text(terms.attributes, declared_attributes)
    except Refused:
        attributes = ()
    return UsageEvent(
        source=RESERVATION_SOURCE,
        id="",
        sequence=None,
        time_us=time_us,
        account=account,
        model=given["model"],
        hardware_tier=given["hardware_tier"],
        energy_source=given["energy_source"],
        site=given["site"],
        channel=given["channel"],
        service_tier=given["service_tier"],
        outcome=given["outcome"],
        requested_model=None,
        member=given.get("member"),
        request_id=given.get("request_id"),
        reservation=None,
        counts=counts,
        attributes=attributes,
    )


def settlement_event(account: str, terms: Terms, usage: Mapping[str, Any], reservation_id: str, time_us: int) -> str:
    """Return the usage event of a settlement as JSON; its id and its reservation are the settlement's hold.

    ``usage`` is as it was reported, counts or not.
    """
    names = (*TEXT_DIMENSIONS, "outcome", "member", "request_id")
    data: dict[str, Any] = {name: terms.dimensions[name] for name in names if name in terms.dimensions}
    if terms.attributes:
        data["attributes"] = dict(terms.attributes)
    data |= {"reservation": reservation_id, "usage": dict(usage)}
    return write_structured(USAGE_TYPE, RESERVATION_SOURCE, reservation_id, time_us, account, data).decode()


def hold_object(hold: Hold, now_us: int) -> dict[str, Any]:
    """Return a hold as the HTTP API shows it: current amounts as decimal strings, times in UTC."""
    held = hold.held_at(now_us)
    return {
        "id": hold.reservation_id,
        "account": hold.account,
        "state": hold.shown_state(now_us),
        **hold.terms.dimensions,
        **({"attributes": dict(hold.terms.attributes)} if hold.terms.attributes else {}),
        "usage": dict(hold.terms.counts),
        "partial": hold.terms.partial,
        "amount": format_pico(hold.terms.amount_pico),
        "standard_tokens": format_micro(hold.terms.standard_micro),
        "reserved": {
            "wallet": format_pico(held.wallet_pico),
            "buckets": [
                {"grant_id": grant_id, "reserved": format_micro(micro)}
                for grant_id, micro in sorted(held.buckets_micro.items())
            ],
        },
        "created": format_time_us(hold.created_us),
        "expires": format_time_us(hold.expires_us),
    }
