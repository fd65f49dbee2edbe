"""Record keys in SQL: read to sign and verify records, rotated by ``tokenbill key``.

The table is readable for the role of the application, not for that of reports (docs/decisions/own-records.md).
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from billing.errors import NotPrepared
from billing.record_keys import HeldRecordKeys, RecordKey, RecordKeys
from billing.store.database import Database

KEYS_READ_SECONDS = 30
"""Time after which a process reads the keys again. A key that was rotated out must verify for longer than this."""
SHORTEST_KEEP_SECONDS = 600
"""Least time for which a key verifies records after it was rotated out."""
_SECRET_BYTES = 32
_LOCK = 0x7462_6B65  # "tbke"

READ_RECORD_KEYS: LiteralString = """
SELECT number, secret, until_us, NULL, NULL, NULL, NULL FROM record_key
UNION ALL SELECT NULL, NULL, NULL, topic, origin, target, before_number FROM unsigned_forward
UNION ALL SELECT NULL, NULL, value::bigint, NULL, NULL, NULL, NULL FROM installation
    WHERE installation.key = 'own_digests_from_us'
"""
"""Everything that verification depends on, in one statement: keys, forwards without digest, start of own digests."""


def held_record_keys(rows: Iterable[Sequence[Any]]) -> HeldRecordKeys:
    """Return the keys from the rows of :data:`READ_RECORD_KEYS`.

    Raises:
        NotPrepared: there is no key.
    """
    keys: dict[int, RecordKey] = {}
    unsigned: dict[tuple[str, int, int], int] = {}
    own_from_us = 0
    for number, secret, us, topic, origin, target, before in rows:
        if number is not None:
            keys[number] = RecordKey(number, bytes(secret), us)
        elif topic is not None:
            unsigned[topic, origin, target] = before
        else:
            own_from_us = us
    if not keys:
        raise NotPrepared("the database has no record key; prepare it with `tokenbill up` or `prepare`")
    return HeldRecordKeys(keys, own_from_us, unsigned)


def read_record_keys(database: Database) -> HeldRecordKeys:
    """Return the keys as of now.

    Raises:
        DatabaseDown, NotPrepared: as :meth:`Database.transaction`.
    """
    with database.transaction() as connection:
        return held_record_keys(connection.execute(READ_RECORD_KEYS).fetchall())


class StoredRecordKeys:
    """The keys of the database, kept in memory and read again after :data:`KEYS_READ_SECONDS`. Thread-safe."""

    def __init__(self, read: Callable[[], HeldRecordKeys]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._held: HeldRecordKeys | None = None
        self._read_at = time.monotonic()

    def now(self) -> RecordKeys:
        """Return the keys as of now, to decide one commit or to sign one record.

        Raises:
            DatabaseDown: the keys have to be read and the server cannot be reached.
        """
        held = self._held
        if held is None or time.monotonic() - self._read_at >= KEYS_READ_SECONDS:
            held = self.renewed(held)
        return _KeysNow(self, held)

    def renewed(self, known: HeldRecordKeys | None) -> HeldRecordKeys:
        """Return keys that are read later than ``known``."""
        with self._lock:
            if self._held is None or self._held is known:
                self._held = self._read()
                self._read_at = time.monotonic()
            return self._held


class _KeysNow:
    """The keys for one commit. They are read again at most once: for a number that is not known yet.

    A key is in the database before it signs, so a look after the commit's records were read finds every key of theirs.
    """

    def __init__(self, stored: StoredRecordKeys, held: HeldRecordKeys) -> None:
        self._stored = stored
        self._held = held
        self._newest = False

    @property
    def own_from_us(self) -> int:
        return self._held.own_from_us

    def signing(self) -> RecordKey:
        return self._held.signing()

    def find(self, number: int) -> RecordKey | None:
        if number > max(self._held.keys) and not self._newest:
            self._held, self._newest = self._stored.renewed(self._held), True
        return self._held.find(number)

    def unsigned_before(self, topic: str, origin: int, target: int) -> int:
        return self._held.unsigned_before(topic, origin, target)


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A record key without its secret. ``until_us`` is None for the key that signs."""

    number: int
    created_at: datetime
    until_us: int | None


def list_record_keys(database: Database) -> list[ListedKey]:
    """Return the keys, oldest first."""
    with database.transaction() as connection:
        rows = connection.execute("SELECT number, created_at, until_us FROM record_key ORDER BY number")
        return [ListedKey(*row) for row in rows]


def rotate_record_key(database: Database, keep_seconds: int) -> ListedKey:
    """Make a new key that signs from now on, and return it; the former one verifies for ``keep_seconds`` more.

    Former keys are not changed. The time is the database's, and is compared with the log time of records.
    """
    with database.transaction() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute(
            "UPDATE record_key SET until_us = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + %s"
            " WHERE until_us IS NULL",
            (keep_seconds * 1_000_000,),
        )
        row = connection.execute(
            "INSERT INTO record_key (number, secret) SELECT max(number) + 1, %s FROM record_key"
            " RETURNING number, created_at, until_us",
            (secrets.token_bytes(_SECRET_BYTES),),
        ).fetchall()[0]
        return ListedKey(*row)
