"""Holds in SQL (DESIGN 16): operations on accounts, decided under each account's lock, many in one transaction.

The order is the whole safety of it: lock the heads of the accounts, then read balances and holds in ONE statement (a
commit that burns and closes a hold is seen entirely or not at all), decide, write, commit. READ COMMITTED, so that the
read sees what the owner of the lock before wrote. Locks are taken in the order of their keys: heads, then holds; a
commit takes holds only, in the same order. The clock is the database's. Rules are in :mod:`billing.reservations`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from threading import Lock
from typing import Any, LiteralString

from psycopg.types.json import Jsonb

from billing.accounts import NO_END_US, Account, Bucket
from billing.extras import parse_extras
from billing.holds import Held, Tariff
from billing.reservations import Hold, Operation, Scene, Terms
from billing.store.catalog import read_catalog
from billing.store.database import Connection, Database
from billing.store.errors import DatabaseDown, NotPrepared

KEEP_US = 24 * 3_600_000_000
"""How long a hold that ended is kept, for repeated requests and for readers."""
HANGING_MS = 3_000
"""After so long a process that stopped in the middle loses its locks."""
_CLEAN_AT_ONCE = 5_000

_MAKE_HEADS: LiteralString = (
    "INSERT INTO hold_head (account) SELECT unnest(%s::text[]) ON CONFLICT (account) DO NOTHING"
)
_LOCK_HOLDS: LiteralString = (
    "SELECT FROM hold WHERE reservation_id = ANY (%s::text[]) ORDER BY reservation_id FOR UPDATE"
)
_HOLD_JSON: LiteralString = (
    "json_build_array(h.reservation_id, h.account, h.kind, h.state, h.held_micro, h.wallet_pico, h.terms, h.created_us,"
    " h.expires_us, h.steps, h.event)"
)
_READ: LiteralString = """
WITH clock AS MATERIALIZED (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us)
SELECT clock.now_us, catalog_state.epoch, wanted.account, to_jsonb(a),
    (SELECT json_agg(to_jsonb(b)) FROM bucket AS b
     WHERE b.account = wanted.account AND (b.lapse_at_us IS NULL OR b.lapse_at_us > clock.now_us)),
    (SELECT coalesce(sum(h.wallet_pico), 0) FROM hold AS h
     WHERE h.account = wanted.account AND h.state = 'open' AND h.expires_us > clock.now_us),
    (SELECT json_object_agg(key, total) FROM (
        SELECT e.key, sum(e.value::numeric) AS total FROM hold AS h, jsonb_each_text(h.held_micro) AS e
        WHERE h.account = wanted.account AND h.state = 'open' AND h.expires_us > clock.now_us GROUP BY e.key) AS sums),
    CASE WHEN wanted.account = %s THEN
        (SELECT json_agg(HOLD_JSON) FROM hold AS h WHERE h.reservation_id = ANY (%s::text[])) END,
    CASE WHEN %s THEN (SELECT json_agg(HOLD_JSON) FROM hold AS h
     WHERE h.account = wanted.account AND h.state = 'open' AND h.expires_us > clock.now_us) END
FROM clock CROSS JOIN catalog_state CROSS JOIN unnest(%s::text[]) AS wanted (account)
    LEFT JOIN account AS a ON a.account = wanted.account
""".replace("HOLD_JSON", _HOLD_JSON)
_WRITE: LiteralString = """
INSERT INTO hold (reservation_id, account, kind, state, held_micro, wallet_pico, terms, steps, event, created_us,
    expires_us)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::jsonb[], %s::numeric[], %s::jsonb[],
    %s::jsonb[], %s::text[], %s::bigint[], %s::bigint[])
ON CONFLICT (reservation_id) DO UPDATE SET state = excluded.state, held_micro = excluded.held_micro,
    wallet_pico = excluded.wallet_pico, terms = excluded.terms, steps = excluded.steps, expires_us = excluded.expires_us
"""


def open_hold_book(database_url: str) -> "HoldBook":
    """Holds over a connection of their own. It is not asked whether it lives before each transaction: that costs two
    journeys to the server, and :meth:`HoldBook.transact` begins again where it does not."""
    options = f"-c idle_in_transaction_session_timeout={HANGING_MS}"
    return HoldBook(Database(database_url, 1, "tokenbill holds", pre_ping=False, options=options))


class _CatalogMoved(Exception):
    """The catalogue in memory is not the one in the database."""


class HoldBook:
    """Every operation on holds. Thread-safe; each call of :meth:`transact` is one transaction."""

    LOCK_HEADS: LiteralString = "SELECT FROM hold_head WHERE account = ANY (%s::text[]) ORDER BY account FOR UPDATE"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._prices: tuple[int, Tariff] | None = None
        self._reading = Lock()

    def transact(self, operations: Sequence[Operation]) -> list[Any]:
        """Decide operations in order, each on what those before left, and write what they changed; their answers.

        Raises:
            DatabaseDown: the server cannot be reached, or it is not known whether it happened: ask again with the same
                idempotency keys.
        """
        for attempt in range(4):
            try:
                return self._transact(operations)
            except _CatalogMoved:
                self._read_prices()
            except DatabaseDown:
                # A server that was restarted has broken idle connections; nothing was written unless a commit was
                # under way, and then every operation with a key is found as done.
                if attempt:
                    raise
        raise DatabaseDown("the catalogue changed four times while a reservation was decided; ask again")

    def _transact(self, operations: Sequence[Operation]) -> list[Any]:
        if self._prices is None:
            self._read_prices()
        accounts = sorted({operation.account for operation in operations})
        wanted = sorted({name for operation in operations for name in operation.wanted})
        with self._database.transaction() as connection:
            with connection.pipeline():
                connection.execute(_MAKE_HEADS, (accounts,), prepare=True)
                connection.execute(self.LOCK_HEADS, (accounts,), prepare=True)
                if wanted:
                    connection.execute(_LOCK_HOLDS, (wanted,), prepare=True)
                read = connection.execute(_READ, (accounts[0], wanted, False, accounts), prepare=True)
                rows = read.fetchall()
            scenes = self._scenes(rows, operations)
            if any(scene.needs_allotting() for scene in scenes.values()):
                # Every open hold has to be seen, and with the balance of the same moment: read all again.
                rows = connection.execute(_READ, (accounts[0], wanted, True, accounts), prepare=True).fetchall()
                scenes = self._scenes(rows, operations)
                for row in rows:
                    scene, open_holds = scenes[row[2]], row[8] or ()
                    if scene.needs_allotting():
                        scene.allot(map(hold_of_json, open_holds))
            answers = [operation.decide(scenes[operation.account]) for operation in operations]
            changed = [hold for scene in scenes.values() for hold in scene.changed.values()]
            if changed:
                _write(connection, changed)
        return answers

    def find_account(self, reservation_id: str) -> str | None:
        """The account that a hold is of; None where there is no such hold."""
        with self._database.transaction() as connection:
            found = connection.execute(
                "SELECT account FROM hold WHERE reservation_id = %s", (reservation_id,), prepare=True
            ).fetchone()
        return None if found is None else str(found[0])

    def find_session(self, session: str) -> tuple[str, list[str]] | None:
        """The account of a charging session, and the ids of its open holds; None where there is no such session."""
        with self._database.transaction() as connection:
            # "0" follows "/": ids of the session's holds begin with its own and a slash.
            rows = connection.execute(
                "SELECT reservation_id, account FROM hold WHERE kind = 'charging' AND (reservation_id = %s"
                " OR (reservation_id > %s AND reservation_id < %s AND state = 'open'))",
                (session, f"{session}/", f"{session}0"),
                prepare=True,
            ).fetchall()
        accounts = [account for name, account in rows if name == session]
        return (accounts[0], [name for name, _ in rows]) if accounts else None

    def setting(self, key: str) -> str:
        """A value that was fixed when the database was prepared.

        Raises:
            NotPrepared: there is none.
        """
        with self._database.transaction() as connection:
            found = connection.execute("SELECT value FROM installation WHERE key = %s", (key,)).fetchone()
        if found is None:
            raise NotPrepared(f"the installation has no {key}")
        return str(found[0])

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def clean(self) -> list[str]:
        """Drop holds that ended a day ago. Returns usage events whose commit was not seen for a minute: to be sent
        again, each once (whoever asked for the settlement may have died before they were sent)."""
        with self._database.transaction() as connection:
            connection.execute(
                "DELETE FROM hold WHERE reservation_id IN (SELECT reservation_id FROM hold"
                " WHERE expires_us < (extract(epoch FROM now()) * 1000000)::bigint - %s"
                " ORDER BY expires_us LIMIT %s FOR UPDATE SKIP LOCKED)",
                (KEEP_US, _CLEAN_AT_ONCE),
            )
            rows = connection.execute(
                "UPDATE hold SET sent_again = true WHERE reservation_id IN (SELECT reservation_id FROM hold"
                " WHERE state = 'open' AND event IS NOT NULL AND NOT sent_again"
                " AND created_us < (extract(epoch FROM now()) * 1000000)::bigint - 60000000"
                " ORDER BY reservation_id LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING event",
                (_CLEAN_AT_ONCE,),
            )
            return [event for (event,) in rows]

    def _read_prices(self) -> None:
        with self._reading:
            epoch, catalog = read_catalog(self._database)
            self._prices = epoch, Tariff(catalog)

    def _scenes(self, rows: Sequence[Sequence[Any]], operations: Sequence[Operation]) -> dict[str, Scene]:
        """The scene of each account; each shows the holds that its own operations named, whosever they are."""
        named = {hold.reservation_id: hold for row in rows for hold in map(hold_of_json, row[7] or ())}
        scenes: dict[str, Scene] = {}
        for now_us, epoch, name, account_json, buckets_json, wallet_pico, buckets_micro, _, _ in rows:
            if self._prices is None or epoch != self._prices[0]:
                raise _CatalogMoved
            account = None if account_json is None else account_of_json(account_json, buckets_json or ())
            held = Held(buckets_micro or {}, int(wallet_pico))
            scenes[name] = Scene(now_us, account, held, {}, self._prices[1])
        for operation in operations:
            shown = ((name, named[name]) for name in operation.wanted if name in named)
            scenes[operation.account].holds.update(shown)
        return scenes


_ACCOUNT_FIELDS = frozenset(field.name for field in fields(Account)) - {"buckets", "extras"}
_BUCKET_FIELDS = frozenset(field.name for field in fields(Bucket))
_ENDS = ("next_due_us", "valid_until_us", "lapse_at_us")


def account_of_json(row: Mapping[str, Any], buckets: Iterable[Mapping[str, Any]]) -> Account:
    """An account from its row and its buckets' rows as JSON objects; columns are named as the fields are."""
    made = Account(**_with_ends(row, _ACCOUNT_FIELDS))
    if row["extras"]:
        made.extras = parse_extras(_compact(row["extras"]))
    made.buckets = [Bucket(**_with_ends(bucket, _BUCKET_FIELDS)) for bucket in buckets]
    return made


def _with_ends(row: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {
        name: NO_END_US if value is None and name in _ENDS else value for name, value in row.items() if name in names
    }


def hold_of_json(columns: Sequence[Any]) -> Hold:
    """A hold from the JSON array that the read statement makes of its row."""
    name, account, kind, state, held_micro, wallet_pico, terms, created_us, expires_us, steps, event = columns
    held = Held({grant_id: int(micro) for grant_id, micro in held_micro.items()}, int(wallet_pico))
    return Hold(name, account, kind, state, held, _terms(terms), created_us, expires_us, steps, event)


def _terms(body: dict[str, Any]) -> Terms:
    counts = tuple((meter, int(count)) for meter, count in body["counts"])
    return Terms(
        body["dimensions"], counts, int(body["amount_pico"]), int(body["standard_micro"]), bool(body["partial"])
    )


def _terms_json(terms: Terms) -> Jsonb:
    return Jsonb(
        {
            "dimensions": dict(terms.dimensions),
            "counts": terms.counts,
            "amount_pico": terms.amount_pico,
            "standard_micro": terms.standard_micro,
            "partial": terms.partial,
        },
        dumps=_compact,
    )


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _write(connection: Connection, changed: Iterable[Hold]) -> None:
    holds = sorted(changed, key=lambda hold: hold.reservation_id)
    connection.execute(
        _WRITE,
        (
            [hold.reservation_id for hold in holds],
            [hold.account for hold in holds],
            [hold.kind for hold in holds],
            [hold.state for hold in holds],
            [Jsonb(dict(hold.held.buckets_micro), dumps=_compact) for hold in holds],
            [hold.held.wallet_pico for hold in holds],
            [_terms_json(hold.terms) for hold in holds],
            [Jsonb({key: dict(step) for key, step in hold.steps.items()}, dumps=_compact) for hold in holds],
            [hold.event for hold in holds],
            [hold.created_us for hold in holds],
            [hold.expires_us for hold in holds],
        ),
        prepare=True,
    )
