"""Sums over the commits since a given moment, for the demo. Never writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from billing.errors import DatabaseDown

_LOST = (psycopg.OperationalError, psycopg.InterfaceError)
_CONNECT_SECONDS = 5

SumRows = Sequence[tuple[Any, ...]]
Retry = Callable[[Callable[[], SumRows]], SumRows]
"""A function that calls a query, and calls it again while it raises :class:`billing.errors.DatabaseDown`."""

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
    """Counts of records by outcome, summed over commits."""

    rated: int
    duplicate: int
    rejected: int
    forwarded: int
    commands_accepted: int
    commands_rejected: int
    commits: int

    @property
    def decided(self) -> int:
        """Number of usage records with a final outcome. A forwarded record counts in the partition that applied it."""
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
    """Sums over accounts and their buckets. ``used_up`` is the number of used-up buckets."""

    accounts: int
    wallet_pico: int
    absorbed_micro: int
    absorbed_pico: int
    buckets: int
    granted_micro: int
    remaining_micro: int
    used_up: int


class CommittedSums:
    """Queries on one connection, which reopens when it breaks. ``retry`` decides how long a query is retried."""

    def __init__(self, database_url: str, retry: Retry) -> None:
        self._url = database_url
        self._retry = retry
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._since: dict[str, list[int]] = {}

    def begin(self) -> None:
        """Start counting: later results exclude the commits made so far."""
        rows = self._ask("SELECT partition, commit_no FROM partition_state ORDER BY partition")
        self._since = {"partitions": [row[0] for row in rows], "commits": [row[1] for row in rows]}

    def counts(self) -> DecidedCounts:
        """Return the counts of the commits since :meth:`begin`."""
        return DecidedCounts(*self._numbers(_COUNTS, self._since))

    def commits(self) -> int:
        """Return the number of all commits, including those before :meth:`begin`."""
        return self._numbers("SELECT sum(commit_no) FROM partition_state", {})[0]

    def usage(self) -> UsageSums:
        """Return the usage sums of the commits since :meth:`begin`."""
        return UsageSums(*self._numbers(_USAGE, self._since))

    def balances(self, prefix: str) -> Balances:
        """Return sums over the accounts whose id begins with ``prefix``."""
        asked = {"prefix": prefix}
        return Balances(*self._numbers(_WALLETS, asked), *self._numbers(_BUCKETS, asked))

    def account_names(self, prefix: str) -> list[str]:
        """Return the ids of the accounts that begin with ``prefix``, sorted."""
        asked = "SELECT account FROM account WHERE starts_with(account, %(prefix)s) ORDER BY account"
        return [row[0] for row in self._ask(asked, {"prefix": prefix})]

    def trial_balance_pico(self) -> dict[str, int]:
        """Return the sum of the whole journal by currency, which must be zero."""
        rows = self._ask("SELECT currency, sum(amount_pico) FROM journal GROUP BY currency ORDER BY currency")
        return {currency: int(amount) for currency, amount in rows}

    def unpublished(self) -> int:
        """Return the number of outbox rows that are not yet published and deleted."""
        return self._numbers("SELECT count(*) FROM outbox", {})[0]

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _numbers(self, query: LiteralString, asked: dict[str, Any]) -> list[int]:
        return [int(value) for value in self._ask(query, asked)[0]]

    def _ask(self, query: LiteralString, asked: dict[str, Any] | None = None) -> SumRows:
        return self._retry(lambda: self._ask_once(query, asked))

    def _ask_once(self, query: LiteralString, asked: dict[str, Any] | None) -> SumRows:
        try:
            if self._connection is None:
                self._connection = psycopg.connect(
                    self._url, autocommit=True, connect_timeout=_CONNECT_SECONDS, application_name="tokenbill demo"
                )
            return self._connection.execute(query, asked).fetchall()
        except _LOST as error:
            self.close()
            raise DatabaseDown(str(error)) from error
