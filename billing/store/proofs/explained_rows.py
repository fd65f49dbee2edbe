"""Explanation of what an audit finds in one table: the rows that can be named, and what cannot be.

A row whose hash is not its own, and a row that names a commit that does not exist, name themselves. Rows of accounts
and buckets are compared with the last published balances, which show a row that was inserted, deleted, or changed
together with its hash. What no output holds (identities, forward numbers, terms that no balance has) is named only by
deciding the partition's log again.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from billing.commits.output_documents import balance_object
from billing.commits.row_hashes import NO_ROWS
from billing.store.account_rows import load_accounts
from billing.store.commits.digest_chain import check_chain
from billing.store.database import Connection, Database
from billing.store.proofs.row_checks import sum_difference
from billing.store.summed_tables import SUMMED_TABLES, CheckedRows, check_rows, read_sums

PublishedBalances = Mapping[int, Mapping[str, Mapping[str, Any]]]
"""Data of the last published balance by partition and account."""
_COMPARED = ("account", "bucket")
_ACCOUNTS_AT_ONCE = 1_000
_NO_COMMIT_YET = ("partition_state", "relay_position")
"""Tables in which commit 0 stands for the time before the first commit."""


@dataclass(slots=True)
class ExplainedRows:
    """Findings about the rows of one table."""

    table: str
    differ: list[str] = field(default_factory=list)
    """Rows whose hash is missing or another row's."""
    without_commit: list[str] = field(default_factory=list)
    """Rows that name a commit, or belong to an account, that does not exist."""
    of_broken_commits: list[str] = field(default_factory=list)
    """Commits whose digest does not follow from their rows, with their rows in this table."""
    unlike_published: list[str] = field(default_factory=list)
    """Rows that are not as the last published balance says."""
    not_named: list[str] = field(default_factory=list)
    """Sentences on what differs, or could differ, without a row that could be named."""

    @property
    def found(self) -> bool:
        """True if a row was named, or the rows differ from what commits wrote."""
        return bool(self.differ or self.without_commit or self.of_broken_commits or self.unlike_published)


class NotExplainable(ValueError):
    """The table has neither sums nor commit numbers; the message lists the tables that have."""


def explain_rows(
    database_url: str, table: str, partition: int | None, published: PublishedBalances | str
) -> ExplainedRows:
    """Name the rows of a table, of one partition or of all, that no commit wrote as they are.

    ``published`` is the reason as text where published balances cannot be had.

    Raises:
        NotExplainable: the table is none of those that can be explained.
        DatabaseDown, NotPrepared: as :meth:`Database.transaction`.
    """
    found = ExplainedRows(table)
    with closing(Database(database_url, pool_size=2, application_name="tokenbill audit")) as database:
        with database.transaction() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.execute("SELECT set_config('transaction_timeout', '0', true)")
            explainable = _explainable(connection)
            if table not in explainable:
                raise NotExplainable(f"{table} cannot be explained; expected one of {', '.join(sorted(explainable))}")
            known = [number for (number,) in connection.execute("SELECT partition FROM partition_state ORDER BY 1")]
            partitions = known if partition is None else [partition]
            if table in explainable - SUMMED_TABLES.keys() or _has_commit(connection, table):
                found.without_commit += _without_commit(connection, table, partitions)
            if table in SUMMED_TABLES:
                differing = _check_hashes(connection, found, partitions)
            else:
                differing = {}
                for number in partitions:
                    found.of_broken_commits += _of_broken_commits(connection, table, number)
            if table == "bucket":
                found.without_commit += _without_account(connection, partitions)
        if table in _COMPARED:
            _compare(database, found, partitions, published)
    for number, text in differing.items():
        if not found.found:
            found.not_named.append(f"{text}: no row of partition {number} could be named; decide its log again")
    if table in SUMMED_TABLES and table not in _COMPARED:
        found.not_named.append(
            f"rows of {table} that were deleted, or changed or inserted with a hash of their own: nothing published"
            " holds them, and only deciding the partition's log again names them"
        )
    return found


def _explainable(connection: Connection) -> set[str]:
    rows = connection.execute(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'tokenbill'"
        " AND column_name IN ('partition', 'commit_no') GROUP BY 1 HAVING count(*) = 2"
    )
    return {name for (name,) in rows} - {"commit"} | SUMMED_TABLES.keys()


def _has_commit(connection: Connection, table: str) -> bool:
    row = connection.execute(
        "SELECT FROM information_schema.columns WHERE table_schema = 'tokenbill' AND table_name = %s"
        " AND column_name = 'commit_no'",
        (table,),
    ).fetchone()
    return row is not None


def _key(connection: Connection, table: str) -> list[str]:
    rows = connection.execute(
        "SELECT a.attname FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid"
        " AND a.attnum = ANY(i.indkey) WHERE i.indrelid = to_regclass(%s) AND i.indisprimary"
        " ORDER BY array_position(i.indkey::int2[], a.attnum)",
        (f"tokenbill.{table}",),
    )
    return [name for (name,) in rows]


def _named(table: str, columns: Sequence[str], values: Sequence[object]) -> str:
    return f"{table} ({', '.join(f'{column} {value}' for column, value in zip(columns, values, strict=True))})"


def _without_commit(connection: Connection, table: str, partitions: Sequence[int]) -> Iterator[str]:
    key = _key(connection, table)
    shown = [*key, *({"partition", "commit_no"} - {*key})]
    query = sql.SQL(
        "SELECT {} FROM {} AS t LEFT JOIN commit AS c USING (partition, commit_no) WHERE c.partition IS NULL"
        " AND t.commit_no >= %s AND partition = ANY(%s) ORDER BY 1, 2"
    ).format(sql.SQL(", ").join(map(sql.Identifier, shown)), sql.Identifier(table))
    least = 1 if table in _NO_COMMIT_YET else -(1 << 63)
    for row in connection.execute(query, (least, list(partitions))):
        yield f"{_named(table, shown, row)}: there is no such commit"


def _without_account(connection: Connection, partitions: Sequence[int]) -> Iterator[str]:
    rows = connection.execute(
        "SELECT b.account, b.grant_id, b.partition FROM bucket AS b LEFT JOIN account AS a USING (account)"
        " WHERE a.account IS NULL AND b.partition = ANY(%s) ORDER BY 1, 2",
        (list(partitions),),
    )
    for account, grant_id, number in rows:
        yield f"partition {number}: bucket (account {account}, grant_id {grant_id}): there is no such account"


def _check_hashes(connection: Connection, found: ExplainedRows, partitions: Sequence[int]) -> dict[int, str]:
    """Add the rows with another hash; return by partition how the rows differ from what was committed."""
    differing = {}
    for number in partitions:
        covered = SUMMED_TABLES[found.table]
        checked = check_rows(connection, covered, number).get(number, CheckedRows())
        found.differ += [f"partition {number}: {name}" for name in checked.differ]
        committed = read_sums(connection, number).get(found.table, NO_ROWS)
        for text in sum_difference(number, found.table, checked.total, committed):
            differing[number] = text
    return differing


def _of_broken_commits(connection: Connection, table: str, partition: int) -> Iterator[str]:
    key = _key(connection, table)
    for one in list(check_chain(connection, partition)):  # it reads with COPY, which has the connection to itself
        query = sql.SQL("SELECT {} FROM {} WHERE partition = %s AND commit_no = %s ORDER BY 1, 2, 3").format(
            sql.SQL(", ").join(map(sql.Identifier, key)), sql.Identifier(table)
        )
        rows = connection.execute(query, (partition, one.commit_no)).fetchall()
        if rows:
            names = "; ".join(_named(table, key, row) for row in rows[:5])
            yield f"{one}; of this commit: {names}{f'; and {len(rows) - 5} more' if len(rows) > 5 else ''}"


def _compare(
    database: Database, found: ExplainedRows, partitions: Sequence[int], published: PublishedBalances | str
) -> None:
    if isinstance(published, str):
        found.not_named.append(f"rows were not compared with published balances: {published}")
        return
    with database.transaction() as connection:
        waiting = {number for (number,) in connection.execute("SELECT DISTINCT partition FROM outbox")}
        accounts: dict[int, list[str]] = defaultdict(list)
        for number, name in connection.execute("SELECT partition, account FROM account ORDER BY account"):
            accounts[number].append(name)
    for number in partitions:
        if number in waiting:
            found.not_named.append(
                f"partition {number} was not compared with published balances: not all of its output is published"
            )
            continue
        balances = published.get(number, {})
        for start in range(0, len(accounts[number]), _ACCOUNTS_AT_ONCE):
            for one in load_accounts(database, accounts[number][start : start + _ACCOUNTS_AT_ONCE])[0]:
                last = balances.get(one.account)
                found.unlike_published += _differences(number, found.table, one.account, balance_object(one), last)
        if found.table == "account":
            found.unlike_published += [
                f"partition {number}: account {name}: a balance was published, and the database has no such account"
                for name in sorted(balances.keys() - {*accounts[number]})
            ]
    columns = {
        "account": "the clock, the time of the next change, and what else of the extras no balance has",
        "bucket": "the terms that no balance has: plan version, liability, lapse, alerts, carried cycles",
    }
    found.not_named.append(f"published balances do not have {columns[found.table]}")


def _differences(
    partition: int, table: str, account: str, stored: Mapping[str, Any], last: Mapping[str, Any] | None
) -> Iterator[str]:
    named = f"partition {partition}: account {account}"
    if last is None:
        if table == "account":
            yield f"{named}: no balance of it was ever published"
        return
    if table == "account":
        for name, value in stored.items():
            if name != "buckets" and last.get(name) != value:
                yield f"{named}: {name} is {value}, the last published balance says {last.get(name)}"
        return
    ours, theirs = ({one["grant_id"]: one for one in balance["buckets"]} for balance in (stored, last))
    for grant in sorted(ours.keys() | theirs.keys()):
        if grant not in theirs:
            yield f"{named}: bucket {grant} is in no published balance"
        elif grant not in ours:
            yield f"{named}: bucket {grant} was published, and the database has no such bucket"
        else:
            for name, value in ours[grant].items():
                if theirs[grant].get(name) != value:
                    yield f"{named}: bucket {grant}: {name} is {value}, published as {theirs[grant].get(name)}"
