"""Notification event for the owner of an account."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """An event for the topic ``account.events``, which notifies the account's owner."""

    account: str
    type: str
    data: dict[str, str | int | None]
