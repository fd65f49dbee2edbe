"""Verification of the digest chain of a partition (``audit``): recompute each digest from the rows and compare.

The rows are read with ``COPY … TO STDOUT``, whose lines are the bytes that were hashed when the rows were written.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, LiteralString

from psycopg import sql

from billing.store.commits.digest import COUNT_COLUMNS, EMPTY, GENESIS, commit_digest, named_digests
from billing.store.database import Connection

_COMMITS: LiteralString = (
    "COPY (SELECT json_build_object('commit_no', commit_no, 'catalog_epoch', catalog_epoch,"
    " 'log_time_us', log_time_us, 'positions', positions, 'limits', limits, 'outbox', outbox,"
    " 'changes', encode(changes_sha256, 'hex'), 'rows', encode(rows_sha256, 'hex'),"
    " 'previous', encode(previous_digest, 'hex'), 'digest', encode(digest, 'hex'),"
    " 'rated', rated, 'duplicate', duplicate, 'rejected', rejected,"
    " 'forwarded', forwarded, 'dropped', dropped, 'commands_accepted', commands_accepted,"
    " 'commands_rejected', commands_rejected, 'commands_duplicate', commands_duplicate,"
    " 'commands_forwarded', commands_forwarded, 'commands_dropped', commands_dropped, 'messages_sent', messages_sent,"
    " 'foreign', \"foreign\", 'commands_foreign', commands_foreign,"
    " 'administration_no', administration_no, 'administration_digest', encode(administration_digest, 'hex'))"
    " FROM commit WHERE partition = {} ORDER BY commit_no) TO STDOUT"
)
_APPENDED: dict[str, LiteralString] = {
    "journal": "COPY (SELECT partition, commit_no, line_no, account_code, currency, detail, amount_pico FROM journal"
    " WHERE partition = {} AND concerns IS NULL AND account IS NULL ORDER BY commit_no, line_no) TO STDOUT",
    "corrections": "COPY (SELECT partition, commit_no, line_no, account_code, currency, detail, amount_pico, concerns"
    " FROM journal WHERE partition = {} AND concerns IS NOT NULL AND account IS NULL ORDER BY commit_no, line_no)"
    " TO STDOUT",
    "named": "COPY (SELECT partition, commit_no, line_no, account_code, currency, detail, amount_pico, concerns,"
    " account FROM journal WHERE partition = {} AND account IS NOT NULL ORDER BY commit_no, line_no) TO STDOUT",
    "rollup": "COPY (SELECT * FROM rollup WHERE partition = {} ORDER BY commit_no, row_no) TO STDOUT",
    "command_seen": "COPY (SELECT partition, commit_no, source, id, outcome FROM command_seen"
    " WHERE partition = {} ORDER BY commit_no, source, id) TO STDOUT",
    "payment_ref": "COPY (SELECT partition, commit_no, account, payment_ref FROM payment_ref"
    " WHERE partition = {} ORDER BY commit_no, account, payment_ref) TO STDOUT",
    "suspense": "COPY (SELECT * FROM suspense WHERE partition = {} ORDER BY commit_no, row_no) TO STDOUT",
    "command_held": "COPY (SELECT * FROM command_held WHERE partition = {} ORDER BY commit_no, row_no) TO STDOUT",
    "foreign_record": "COPY (SELECT * FROM foreign_record WHERE partition = {} ORDER BY commit_no, row_no) TO STDOUT",
    "conflict": "COPY (SELECT * FROM conflict WHERE partition = {} ORDER BY commit_no, row_no) TO STDOUT",
}


@dataclass(frozen=True, slots=True)
class ChainBreak:
    """A commit whose digest does not match its rows, or that does not follow its predecessor."""

    partition: int
    commit_no: int
    reason: str

    def __str__(self) -> str:
        return f"partition {self.partition} commit {self.commit_no}: {self.reason}"


def check_chain(connection: Connection, partition: int) -> Iterator[ChainBreak]:
    """Yield every break in the digest chain of one partition, in order.

    A missing commit number, a last digest other than that of ``partition_state``, and rows of a commit that does not
    exist are breaks too.
    """
    state = connection.execute(
        "SELECT commit_no, digest FROM partition_state WHERE partition = %s", (partition,)
    ).fetchone()
    if state is None:
        return
    appended = {table: _digests(connection, statement, partition) for table, statement in _APPENDED.items()}
    previous, expected_no = GENESIS, 1
    for line in _lines(connection, _COMMITS, partition):
        commit = json.loads(_unescape(line))
        commit_no = commit["commit_no"]
        if commit_no != expected_no:
            yield ChainBreak(partition, commit_no, f"commit {expected_no} was to follow: a commit is missing")
        elif commit["previous"] != previous.hex():
            yield ChainBreak(partition, commit_no, "the predecessor's digest is not the one that is stored")
        stored = bytes.fromhex(commit["digest"])
        found = named_digests({table: digests.pop(commit_no, EMPTY) for table, digests in appended.items()})
        digest = commit_digest(
            bytes.fromhex(commit["previous"]),
            partition=partition,
            commit_no=commit_no,
            catalog_epoch=commit["catalog_epoch"],
            log_time_us=commit["log_time_us"],
            positions=commit["positions"],
            counts={name: commit[name] for name in COUNT_COLUMNS},
            limits=commit["limits"],
            outbox=commit["outbox"],
            changes=bytes.fromhex(commit["changes"]),
            appended=found,
            rows=None if commit["rows"] is None else bytes.fromhex(commit["rows"]),
            administration=_administration(commit),
        )
        if digest != stored:
            yield ChainBreak(partition, commit_no, "the digest does not match the rows (commit row, " + _NAMES + ")")
        previous, expected_no = stored, commit_no + 1
    if (state[0], bytes(state[1])) != (expected_no - 1, previous):
        yield ChainBreak(partition, state[0], "the last commit is not the one that partition_state names")
    for table, digests in appended.items():
        for commit_no in digests:
            yield ChainBreak(partition, commit_no, f"{table} has rows of a commit that does not exist")


_NAMES = ", ".join(_APPENDED)


def _administration(commit: dict[str, Any]) -> tuple[int, bytes] | None:
    if commit["administration_no"] is None or commit["administration_digest"] is None:
        return None
    return int(commit["administration_no"]), bytes.fromhex(commit["administration_digest"])


def _digests(connection: Connection, statement: LiteralString, partition: int) -> dict[int, str]:
    """Return the SHA-256 of the rows of each commit in one table, by commit number."""
    lines = _lines(connection, statement, partition)
    digests: dict[int, str] = {}
    for commit_no, rows in groupby(lines, key=lambda line: int(line.split(b"\t", 2)[1])):
        digest = hashlib.sha256()
        for row in rows:
            digest.update(row)
        digests[commit_no] = digest.hexdigest()
    return digests


def _lines(connection: Connection, statement: LiteralString, partition: int) -> Iterator[bytes]:
    copied = connection.cursor()
    with copied.copy(sql.SQL(statement).format(sql.Literal(partition))) as copy:
        for line in copy:
            yield bytes(line)


def _unescape(line: bytes) -> bytes:
    # JSON text has no control characters, so backslashes are the only characters that COPY escapes in it.
    return line.replace(b"\\\\", b"\\")
