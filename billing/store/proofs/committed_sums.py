"""Sums over the commits since a given moment, read on one connection that is reopened when it breaks. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from billing.errors import DatabaseDown

_LOST = (psycopg.OperationalError, psycopg.InterfaceError)
_CONNECT_SECONDS = 5

Rows = Sequence[tuple[Any, ...]]
Retry = Callable[[Callable[[], Rows]], Rows]
"""Call a query, and call it again while it raises :class:`DatabaseDown`."""

_COUNTS: LiteralString = """
SELECT coalesce(sum(rated), 0), coalesce(sum(duplicate), 0), coalesce(sum(rejected), 0), coalesce(sum(forwarded), 0),
       coalesce(sum(commands_accepted), 0), coalesce(sum(commands_rejected), 0), count(*)
FROM commit AS c JOIN unnest(%(partitions)s::int[], %(commits)s::bigint[]) AS b (partition, commit_no)
  ON c.partition = b.partition AND c.commit_no > b.commit_no
"""
_USAGE: LiteralString = """
SELECT coalesce(sum(tokens), 0), coalesce(sum(standard_micro), 0), coalesce(sum(amount_pico), 0),
       coalesce(sum(burned_micro), 0), coalesce(sum(charged_pico), 0), coalesce(sum(absorbed_micro), 0),
       coalesce(sum(absorbed_pico), 0)
FROM rollup AS c JOIN unnest(%(partitions)s::int[], %(commits)s::bigint[]) AS b (partition, commit_no)
  ON c.partition = b.partition AND c.commit_no > b.commit_no
"""
_WALLETS: LiteralString = """
SELECT count(*), coalesce(sum(wallet_pico), 0), coalesce(sum(absorbed_micro), 0), coalesce(sum(absorbed_pico), 0)
FROM account WHERE starts_with(account, %(prefix)s)
"""
_BUCKETS: LiteralString = """
SELECT count(*), coalesce(sum(amount_micro), 0), coalesce(sum(remaining_micro), 0),
       count(*) FILTER (WHERE status = 'used_up')
FROM bucket WHERE starts_with(account, %(prefix)s)
"""


@dataclass(frozen=True, slots=True)
class DecidedCounts:
    """What became of records, as the commits say."""

    rated: int
    duplicate: int
    rejected: int
    forwarded: int
    commands_accepted: int
    commands_rejected: int
    commits: int

    @property
    def decided(self) -> int:
        """Usage records that are finished: a forwarded one counts where it was applied."""
        return self.rated + self.duplicate + self.rejected


@dataclass(frozen=True, slots=True)
class UsageSums:
    """Sums of the rollup rows: money in pico, standard tokens in micro."""

    tokens: int
    standard_micro: int
    amount_pico: int
    burned_micro: int
    charged_pico: int
    absorbed_micro: int
    absorbed_pico: int


@dataclass(frozen=True, slots=True)
class Balances:
    """Sums over the accounts of a run and their buckets."""

    accounts: int
    wallet_pico: int
    absorbed_micro: int
    absorbed_pico: int
    buckets: int
    granted_micro: int
    remaining_micro: int
    used_up: int


class CommittedSums:
    """Queries over one connection, which is reopened when it breaks; ``retry`` decides how long a query waits."""

    def __init__(self, database_url: str, retry: Retry) -> None:
        self._url = database_url
        self._retry = retry
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._since: dict[str, list[int]] = {}

    def begin(self) -> None:
        """Count from here on: what was committed before does not matter."""
        rows = self._ask("SELECT partition, commit_no FROM partition_state ORDER BY partition")
        self._since = {"partitions": [row[0] for row in rows], "commits": [row[1] for row in rows]}

    def counts(self) -> DecidedCounts:
        """What the commits since :meth:`begin` counted."""
        return DecidedCounts(*self._numbers(_COUNTS, self._since))

    def commits(self) -> int:
        """How many commits there are at all."""
        return self._numbers("SELECT sum(commit_no) FROM partition_state", {})[0]

    def usage(self) -> UsageSums:
        """What the commits since :meth:`begin` summed up."""
        return UsageSums(*self._numbers(_USAGE, self._since))

    def balances(self, prefix: str) -> Balances:
        """Sums over the accounts whose names begin so."""
        asked = {"prefix": prefix}
        return Balances(*self._numbers(_WALLETS, asked), *self._numbers(_BUCKETS, asked))

    def account_names(self, prefix: str) -> list[str]:
        """The accounts whose names begin so."""
        asked = "SELECT account FROM account WHERE starts_with(account, %(prefix)s) ORDER BY account"
        return [row[0] for row in self._ask(asked, {"prefix": prefix})]

    def trial_balance_pico(self) -> dict[str, int]:
        """The sum of the whole journal by currency."""
        rows = self._ask("SELECT currency, sum(amount_pico) FROM journal GROUP BY currency ORDER BY currency")
        return {currency: int(amount) for currency, amount in rows}

    def unpublished(self) -> int:
        """Rows of the outbox that the relay has not published yet."""
        return self._numbers("SELECT count(*) FROM outbox", {})[0]

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _numbers(self, query: LiteralString, asked: dict[str, Any]) -> list[int]:
        return [int(value) for value in self._ask(query, asked)[0]]

    def _ask(self, query: LiteralString, asked: dict[str, Any] | None = None) -> Rows:
        return self._retry(lambda: self._ask_once(query, asked))

    def _ask_once(self, query: LiteralString, asked: dict[str, Any] | None) -> Rows:
        try:
            if self._connection is None:
                self._connection = psycopg.connect(
                    self._url, autocommit=True, connect_timeout=_CONNECT_SECONDS, application_name="tokenbill demo"
                )
            return self._connection.execute(query, asked).fetchall()
        except _LOST as error:
            self.close()
            raise DatabaseDown(str(error)) from error
