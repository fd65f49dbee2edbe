"""Notification event for the owner of an account."""

from dataclasses import dataclass

from billing.accounts.movements import Movement


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """An event for the topic ``account.events``, which notifies the account's owner."""

    account: str
    type: str
    data: dict[str, str | int | None]
    movements: tuple[Movement, ...] = ()
    """Money and units that moved with what the event reports."""
