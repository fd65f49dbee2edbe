"""Two people who agree to a step, each with an API key of their own.

A step that takes usage or rows as they are, against what the product would do, needs two keys. Both are verified from
their secrets, and their ids and names are recorded with the step.
"""

from dataclasses import dataclass

from billing.store.api.keys import ApiKey, key_of_token
from billing.store.database import Connection, Database

TWO_KEYS_ROLE = "admin"
"""Role that both keys must have; and neither may be bound to an account."""


class KeysRefused(Exception):
    """The two keys do not show that two people agree; the message says why, and names no secret."""


@dataclass(frozen=True, slots=True)
class TwoKeys:
    """The keys of two people: id and name of the key that asked for a step, and of the key that approved it."""

    requested_key: str
    requested_by: str
    approved_key: str
    approved_by: str

    def __str__(self) -> str:
        return (
            f"requested by {self.requested_by} (key {self.requested_key}), approved by {self.approved_by}"
            f" (key {self.approved_key})"
        )


def two_keys(database: Database, requested: str, approved: str) -> TwoKeys:
    """Return the people whose keys these tokens are.

    Raises:
        KeysRefused: a token is not that of a key in force, its role is too low, or both belong to one person.
        DatabaseDown: the server cannot be reached.
    """
    with database.transaction() as connection:
        asking = _verified(connection, "requests", requested)
        agreeing = _verified(connection, "approves", approved)
    if asking.key_id == agreeing.key_id:
        raise KeysRefused(f"both are the key {asking.key_id} ({asking.name}): each person needs a key of their own")
    if asking.name.strip().casefold() == agreeing.name.strip().casefold():
        raise KeysRefused(
            f"the keys {asking.key_id} and {agreeing.key_id} are both named {asking.name!r}: a key is named after the"
            " person who holds it, and two people must agree"
        )
    return TwoKeys(asking.key_id, asking.name, agreeing.key_id, agreeing.name)


def _verified(connection: Connection, does: str, token: str) -> ApiKey:
    found = key_of_token(connection, token)
    if found is None:
        raise KeysRefused(f"the key that {does} is no key of this installation: no key has this id and secret")
    key, expired = found
    named = f"the key that {does}, {key.key_id} ({key.name}),"
    if key.revoked_at is not None:
        raise KeysRefused(f"{named} is revoked")
    if expired:
        raise KeysRefused(f"{named} has expired")
    if key.role != TWO_KEYS_ROLE:
        raise KeysRefused(f"{named} has the role {key.role}; this needs the role {TWO_KEYS_ROLE}")
    if key.account is not None:
        raise KeysRefused(f"{named} is for account {key.account!r}; this needs a key for every account")
    return key
