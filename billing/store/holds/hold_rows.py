"""Statements of :mod:`billing.store.holds.hold_book`, and the conversion of their rows to accounts and holds.

Columns are read separately, as text: building a JSON document of each account cost more than the rest of the statement.
The statements are prepared once per connection. ``hold_book`` decides their order and their transactions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from pydantic_core import to_json

from billing.accounts.account import NO_END_US, Account, Bucket
from billing.accounts.extras import parse_extras
from billing.accounts.held import NOTHING, HeldAmounts
from billing.reservations.hold import Hold, Terms
from billing.store.holds.wire import Value, WireRow, WireStatement, text
from billing.store.open_holds import HOLD, IS_OPEN_HOLD, hold_of_json, lock_heads

_ACCOUNT_FIELDS = tuple(field.name for field in fields(Account) if field.name not in ("buckets", "extras"))
_BUCKET_FIELDS = tuple(field.name for field in fields(Bucket))
_TEXTS = frozenset(one.name for kind in (Account, Bucket) for one in fields(kind) if one.type in (str, "str"))
_ENDS = frozenset(("next_due_us", "valid_until_us", "lapse_at_us"))


def _read(open_holds: str) -> str:
    """Return the statement that reads accounts: one row per bucket, or one row for an account without buckets.

    Each row also has the time, the catalogue epoch, the sum of the open holds, and ``open_holds``, an expression.
    """
    return f"""
WITH clock AS MATERIALIZED (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us)
SELECT clock.now_us, catalog_state.epoch, wanted.account, held.wallet_pico, held.buckets, {open_holds}, a.extras,
    {", ".join(f"a.{name}" for name in _ACCOUNT_FIELDS)}, {", ".join(f"b.{name}" for name in _BUCKET_FIELDS)}
FROM clock CROSS JOIN catalog_state CROSS JOIN unnest($1::text[]) AS wanted (account)
    CROSS JOIN LATERAL (
        SELECT sum(h.wallet_pico) AS wallet_pico, json_agg(h.held_micro) AS buckets FROM hold AS h WHERE {IS_OPEN_HOLD}
    ) AS held
    LEFT JOIN account AS a ON a.account = wanted.account
    LEFT JOIN bucket AS b ON b.account = a.account AND (b.lapse_at_us IS NULL OR b.lapse_at_us > clock.now_us)
"""  # noqa: S608 (column names of ours only)


LOCK_HEADS = lock_heads("$1")
LOCK_HOLDS = (
    f"SELECT {HOLD} FROM hold AS h WHERE h.reservation_id = ANY ($1::text[]) ORDER BY h.reservation_id FOR UPDATE"  # noqa: S608
)
"""Locks and reads holds by id. The rows are read as they are locked, so they agree with every later statement."""
READ = _read("NULL")
READ_OPEN = _read(f"(SELECT json_agg({HOLD}) FROM hold AS h WHERE {IS_OPEN_HOLD})")  # noqa: S608
# One statement for all rows of a transaction: a statement per row would read the constraints of the table each time.
INSERT = """
INSERT INTO hold (state, held_micro, wallet_pico, terms, steps, expires_us, reservation_id, account, kind, event,
    created_us)
SELECT * FROM jsonb_to_recordset($1::jsonb) AS made (state text, held_micro jsonb, wallet_pico numeric, terms jsonb,
    steps jsonb, expires_us bigint, reservation_id text, account text, kind text, event text, created_us bigint)
"""
UPDATE = """
UPDATE hold SET state = $1, held_micro = $2, wallet_pico = $3, terms = $4, steps = $5, expires_us = $6
WHERE reservation_id = $7
"""
FIND_ACCOUNT = "SELECT account FROM hold WHERE reservation_id = $1 AND kind IN ('reservation', 'offline_grant')"
"""Finds reservations and offline grants only: a caller cannot extend, settle or release other kinds of hold by id."""
# Ids of the holds of a session begin with its own id and "/". The character after "/" is "0", so this is a range.
FIND_SESSION = """
SELECT reservation_id, account FROM hold WHERE kind = 'charging' AND (reservation_id = $1
    OR (reservation_id > $1 || '/' AND reservation_id < $1 || '0' AND state = 'open'))
"""
SETTING = "SELECT value FROM installation WHERE key = $1"
_NOW_US = "(extract(epoch FROM now()) * 1000000)::bigint"
# The parts of a hold have ids that begin with its own id and "/". They are kept as long as it is, because a repeated
# settlement is recognised by them.
DROP_OLD = f"""
DELETE FROM hold WHERE reservation_id IN (SELECT reservation_id FROM hold AS h WHERE expires_us < {_NOW_US} - $1
    AND NOT EXISTS (SELECT FROM hold AS whole WHERE whole.reservation_id = split_part(h.reservation_id, '/', 1)
                    AND whole.expires_us >= {_NOW_US} - $1)
    ORDER BY expires_us LIMIT $2 FOR UPDATE SKIP LOCKED)
"""  # noqa: S608
# Uses the index hold_unsent. This runs every twenty seconds; a scan of 250,000 holds took 0.2 s of processor time.
SEND_AGAIN = f"""
UPDATE hold SET send_after_us = {_NOW_US} + 300000000 WHERE reservation_id IN (SELECT reservation_id FROM hold
    WHERE state = 'open' AND event IS NOT NULL AND NOT sent_again AND created_us < {_NOW_US} - 60000000
        AND send_after_us < {_NOW_US}
    ORDER BY reservation_id LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING event
"""  # noqa: S608
SENT_AGAIN = """
UPDATE hold SET sent_again = true WHERE reservation_id IN (SELECT reservation_id FROM hold
    WHERE reservation_id = ANY ($1::text[]) ORDER BY reservation_id FOR UPDATE)
"""


class SeenAccount(NamedTuple):
    """Result of :data:`READ` or :data:`READ_OPEN` for one account, read in one snapshot."""

    now_us: int
    epoch: int
    account: Account | None
    held: HeldAmounts
    open_holds: Callable[[], list[Hold]]
    """Returns every open hold; empty if the statement did not read them."""


def seen_accounts(rows: Sequence[WireRow]) -> dict[str, SeenAccount]:
    """Convert the rows of :data:`READ` or :data:`READ_OPEN`, by account."""
    seen: dict[str, SeenAccount] = {}
    for row in rows:
        name = _text(row[2])
        found = seen.get(name)
        if found is None:
            found = seen[name] = SeenAccount(
                _integer(row[0]), _integer(row[1]), _account(row), _held(row[3], row[4]), _open_holds(row[5])
            )
        if found.account is not None and row[_BUCKETS_FROM] is not None:
            cells = zip(_BUCKET_READERS, row[_BUCKETS_FROM:], strict=True)
            found.account.buckets.append(Bucket(*[read(value) for read, value in cells]))
    return seen


def locked_holds(rows: Sequence[WireRow]) -> dict[str, Hold]:
    """Convert the rows of :data:`LOCK_HOLDS`, by id."""
    holds = (hold_of_json(json.loads(row[0] or b"")) for row in rows)
    return {hold.reservation_id: hold for hold in holds}


def changed_row(hold: Hold) -> list[Value]:
    """Return the values of :data:`UPDATE` for a hold."""
    return [
        hold.state.encode(),
        to_json(hold.held.buckets_micro),
        b"%d" % hold.held.wallet_pico,
        to_json(_terms_object(hold.terms)),
        to_json(hold.steps),
        b"%d" % hold.expires_us,
        text(hold.reservation_id),
    ]


def new_rows(holds: Iterable[Hold]) -> list[Value]:
    """Return the value of :data:`INSERT` for holds, which are inserted in the given order."""
    rows = [
        {
            "state": hold.state,
            "held_micro": hold.held.buckets_micro,
            "wallet_pico": hold.held.wallet_pico,
            "terms": _terms_object(hold.terms),
            "steps": hold.steps,
            "expires_us": hold.expires_us,
            "reservation_id": hold.reservation_id,
            "account": hold.account,
            "kind": hold.kind,
            "event": hold.event,
            "created_us": hold.created_us,
        }
        for hold in holds
    ]
    return [to_json(rows)]


def _terms_object(terms: Terms) -> dict[str, Any]:
    return {
        "dimensions": terms.dimensions,
        "counts": terms.counts,
        "amount_pico": terms.amount_pico,
        "standard_micro": terms.standard_micro,
        "partial": terms.partial,
        **({"attributes": terms.attributes} if terms.attributes else {}),
    }


def _text(value: Value) -> str:
    return (value or b"").decode()


def _integer(value: Value) -> int:
    return int(value or b"")


def _end(value: Value) -> int:
    return NO_END_US if value is None else int(value)


def _readers(names: Sequence[str]) -> list[Callable[[Any], Any]]:
    """Return the conversion of each column. Only times in :data:`_ENDS` may be null."""
    return [bytes.decode if name in _TEXTS else _end if name in _ENDS else int for name in names]


_ACCOUNT_READERS, _BUCKET_READERS = _readers(_ACCOUNT_FIELDS), _readers(_BUCKET_FIELDS)
_ACCOUNT_FROM = 7
_BUCKETS_FROM = _ACCOUNT_FROM + len(_ACCOUNT_FIELDS)


def _account(row: WireRow) -> Account | None:
    """Build the account of a row, without buckets; None if it was never opened."""
    if row[_ACCOUNT_FROM] is None:
        return None
    cells = zip(_ACCOUNT_READERS, row[_ACCOUNT_FROM:_BUCKETS_FROM], strict=True)
    made = Account(*[read(value) for read, value in cells])
    if row[6] not in (b"{}", None):
        made.extras = parse_extras(_text(row[6]))
    return made


def _held(wallet_pico: Value, buckets: Value) -> HeldAmounts:
    if wallet_pico is None:  # no hold is open
        return NOTHING
    sums: dict[str, int] = {}
    for one in json.loads(buckets or b""):
        for grant_id, micro in one.items():
            sums[grant_id] = sums.get(grant_id, 0) + int(micro)
    return HeldAmounts(sums, int(wallet_pico))


def _open_holds(holds: Value) -> Callable[[], list[Hold]]:
    return lambda: [] if holds is None else [hold_of_json(one) for one in json.loads(holds)]


def values_of(name: bytes, *values: str | int) -> WireStatement:
    """Return a statement with its values, which are strings and integers."""
    return name, [b"%d" % value if isinstance(value, int) else text(value) for value in values]
