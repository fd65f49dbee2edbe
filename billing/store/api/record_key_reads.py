"""Record keys for the HTTP API: read without blocking, and kept for a short time."""

import time

from billing.errors import DatabaseDown
from billing.record_keys import HeldRecordKeys, RecordKeys
from billing.store.api.pool import ApiDatabase
from billing.store.record_key_rows import KEYS_READ_SECONDS, READ_RECORD_KEYS, SHORTEST_KEEP_SECONDS, held_record_keys

_USABLE_SECONDS = SHORTEST_KEEP_SECONDS // 2


class ApiRecordKeys:
    """The keys of the database, for one event loop. They are read again after :data:`KEYS_READ_SECONDS`.

    While the database is away, the keys in memory are used for half of the shortest time that a former key verifies.
    """

    def __init__(self, database: ApiDatabase) -> None:
        self._database = database
        self._held: HeldRecordKeys | None = None
        self._read_at = time.monotonic()

    async def now(self) -> RecordKeys:
        """Return the keys to sign with.

        Raises:
            DatabaseDown: the keys have to be read and the server cannot be reached.
            NotPrepared: the database has no keys.
        """
        age_seconds = time.monotonic() - self._read_at
        if self._held is None or age_seconds >= KEYS_READ_SECONDS:
            try:
                async with self._database.connection() as connection:
                    found = await connection.execute(READ_RECORD_KEYS)
                    self._held, self._read_at = held_record_keys(await found.fetchall()), time.monotonic()
            except DatabaseDown:
                if self._held is None or age_seconds >= _USABLE_SECONDS:
                    raise
        return self._held
