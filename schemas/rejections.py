"""Why a record is refused: the closed list of reasons, and the value that carries one. Returned, never raised."""

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
"""Every reason of CONTRACT §1, in its order; the wire form is the text."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that is not billed, with what could still be read of its identity.

    ``reason`` is one of :data:`REASONS`; ``detail`` is a sentence for a person: which field, what value, what was
    expected. The identity fields are None where they were absent or themselves invalid; a ``sequence`` that could be
    read counts as seen.

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
