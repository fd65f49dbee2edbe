"""Rejection of a record: the closed list of reasons, and the value that carries one. Returned, never raised."""

from dataclasses import dataclass

REASONS: tuple[str, ...] = (
    "invalid_json",
    "invalid_event",
    "usage_mismatch",
    "unknown_meter",
    "no_price_book",
    "no_price",
    "unknown_account",
    "account_closed",
    "time_in_future",
    "time_too_old",
    "sequence_reused",
    "overflow",
)
"""All reasons in the order of docs/reference/usage-events.md, "Rejections"; the wire form is the text."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that is not billed, with the identity fields that could be read.

    ``reason`` is one of :data:`REASONS`; ``detail`` is a sentence for a person with field, value and expected form.
    Identity fields are None if they were absent or invalid. A ``sequence`` that could be read counts as seen.

    Raises:
        ValueError: the reason is not one of :data:`REASONS`.
    """

    reason: str
    detail: str
    source: str | None = None
    id: str | None = None
    sequence: int | None = None
    account: str | None = None

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise ValueError(f"{self.reason!r} is not a reason of CONTRACT §1")
