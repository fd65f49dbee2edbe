"""Open holds in SQL: the columns of a hold, the condition for an open one, and what open holds hold of accounts.

Operations on holds are in :mod:`billing.store.holds`; commits read here what their commands must leave. Never writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

from billing.accounts.held import Held, HeldAmounts
from billing.reservations.hold import Hold, Terms
from billing.reservations.operations import BURNED_LATE_US
from billing.store.database import Connection

HOLD: LiteralString = (
    "json_build_array(h.reservation_id, h.account, h.kind, h.state, h.held_micro, h.wallet_pico, h.terms, h.created_us,"
    " h.expires_us, h.steps, h.event)"
)
_CLOCK: LiteralString = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
IS_OPEN_HOLD: LiteralString = "h.account = wanted.account AND h.state = 'open' AND h.expires_us + 0 > clock.now_us"
"""Condition for the open holds of an account. ``+ 0`` keeps the planner from the index on ``expires_us``: with the
statistics of a small table it looks as good as the index on the account, but reads every hold for each account."""
_FROM: LiteralString = f"""
FROM (SELECT {_CLOCK} AS now_us OFFSET 0) AS clock CROSS JOIN unnest(%s::text[]) AS wanted (account)
    JOIN hold AS h ON {IS_OPEN_HOLD}
"""
_HELD: LiteralString = f"""
SELECT h.account, count(*), sum(h.wallet_pico), coalesce(max(h.expires_us) FILTER (WHERE h.wallet_pico > 0), 0),
    json_agg(h.held_micro) FILTER (WHERE h.held_micro <> '{{}}')
{_FROM} GROUP BY h.account
"""
_HOLDS: LiteralString = f"SELECT h.account, clock.now_us, {HOLD} {_FROM} ORDER BY h.created_us, h.reservation_id"


def lock_heads(accounts: LiteralString) -> LiteralString:
    """Return the statement that locks the heads of accounts, which are the parameter ``accounts``.

    An existing row is locked and not changed. A new row is locked by the transaction that inserts it until it commits.
    """
    return f"""
INSERT INTO hold_head AS head (account) SELECT unnest({accounts}::text[])
    ON CONFLICT (account) DO UPDATE SET account = head.account WHERE false
"""


def read_held(connection: Connection, accounts: Sequence[str]) -> dict[str, Held]:
    """Return what the rows of the open holds of these accounts hold, by account; those without a hold are left out."""
    return {
        account: Held(
            HeldAmounts(_sums(buckets or ()), int(wallet_pico)),
            holds,
            until_us + BURNED_LATE_US if until_us else 0,
        )
        for account, holds, wallet_pico, until_us, buckets in connection.execute(
            _HELD, (list(accounts),), prepare=False
        )
    }


def read_open_holds(connection: Connection, account: str) -> tuple[int, list[Hold]]:
    """Return the time and the open holds of one account, the oldest first."""
    rows = connection.execute(_HOLDS, ([account],), prepare=False).fetchall()
    return (rows[0][1] if rows else 0), [hold_of_json(row[2]) for row in rows]


def _sums(buckets: Sequence[dict[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for one in buckets:
        for grant_id, micro in one.items():
            sums[grant_id] = sums.get(grant_id, 0) + int(micro)
    return sums


def hold_of_json(columns: Sequence[Any]) -> Hold:
    """Build a hold from the JSON array :data:`HOLD` of its row."""
    name, account, kind, state, held_micro, wallet_pico, terms, created_us, expires_us, steps, event = columns
    held = HeldAmounts({grant_id: int(micro) for grant_id, micro in held_micro.items()}, int(wallet_pico))
    return Hold(name, account, kind, state, held, _terms(terms), created_us, expires_us, steps, event)


def _terms(body: dict[str, Any]) -> Terms:
    counts = tuple((meter, int(count)) for meter, count in body["counts"])
    amounts = (int(body["amount_pico"]), int(body["standard_micro"]))
    return Terms(body["dimensions"], counts, *amounts, bool(body["partial"]), body.get("attributes", {}))
