"""The event that an account's owner is notified of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """Something the account's owner should know, for the topic ``account.events``."""

    account: str
    type: str
    data: dict[str, str | int | None]
