"""Digest chain of a partition's commits: the content of each digest and its canonical bytes.

``digest = sha256(previous digest + header)``. The header is JSON of columns of the commit row and of the SHA-256 of
the rows that the commit appended: journal, rollup, commands, payments and, where there are any, suspense, conflicts,
foreign records and amounts held of accounts, each as ``COPY`` text in the order of the key. So the digest can be
computed again from SQL. Rows that later commits overwrite or delete (balances, identities, forward numbers, findings)
are covered by the sums of rows after the commit (:mod:`billing.store.summed_tables`), and ``changes_sha256``, which
is stored in the commit row, covers what this commit changed. The digest does not cover the epoch and the wall clock,
so a rebuild gives the same digest.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from billing.commits.commit_record import NO_DIGEST, CommitCounts, CommitRecord, OutboxRow
from billing.commits.copy_text import copy_rows
from billing.store.commits.held_rows import held_rows
from billing.store.commits.suspense_rows import conflict_text, foreign_text, suspense_text

GENESIS = NO_DIGEST
FORMAT = 1
COUNT_COLUMNS = tuple(asdict(CommitCounts()))
OUTBOX_TOPIC_ORDER = (
    "commands.forwarded",
    "usage.forwarded",
    "usage.rated",
    "package.balance",
    "account.events",
    "settlement.entries",
    "usage.rejected",
)


@dataclass(frozen=True, slots=True)
class AppendedText:
    """``COPY`` text of the rows that one commit appends, in the order of the key."""

    journal: bytes
    corrections: bytes
    """Journal lines that correct usage and name no account, as older versions wrote them; with ``concerns``."""
    named: bytes
    """Journal lines that name an account. They have the columns ``concerns``, which may be null, and ``account``."""
    rollup: bytes
    command_seen: bytes
    payment_ref: bytes
    suspense: bytes
    command_held: bytes
    """Amounts that open holds held when commands of the commit were decided."""
    foreign_record: bytes
    conflict: bytes

    def sha256(self) -> dict[str, str]:
        """Return the SHA-256 of the rows of each table, hexadecimal, filtered by :func:`named_digests`."""
        return named_digests({name: hashlib.sha256(rows).hexdigest() for name, rows in asdict(self).items()})


_LATER = ("corrections", "named", "suspense", "conflict", "command_held", "foreign_record")
"""Tables newer than the first release of the digest: a header names them only if the commit has rows in them."""
_LATER_COUNTS = ("foreign", "commands_foreign")
"""Counts newer than the first release of the digest: a header names them only if they are not 0."""
EMPTY = hashlib.sha256().hexdigest()


def named_digests(digests: Mapping[str, str]) -> dict[str, str]:
    """Return those of the table digests that the header of a commit names."""
    return {name: digest for name, digest in digests.items() if name not in _LATER or digest != EMPTY}


ROLLUP_VALUES = (
    "hour_us",
    "price_book",
    "currency",
    "model",
    "hardware_tier",
    "energy_source",
    "site",
    "channel",
    "service_tier",
    "outcome",
    "events",
    "tokens",
    "standard_micro",
    "amount_pico",
    "net_pico",
    "burned_micro",
    "charged_pico",
    "absorbed_micro",
    "absorbed_pico",
    "revenue_pico",
)


def appended_text(record: CommitRecord) -> AppendedText:
    """Return the rows that a commit appends to the tables covered by the digest."""
    key = (record.partition, record.commit_no)
    lines = [
        (line, (*key, number, line.account_code, line.currency, line.detail, line.amount_pico))
        for number, line in enumerate(record.postings, 1)
    ]
    return AppendedText(
        journal=copy_rows(row for line, row in lines if not line.concerns and not line.account),
        corrections=copy_rows((*row, line.concerns) for line, row in lines if line.concerns and not line.account),
        named=copy_rows((*row, line.concerns or None, line.account) for line, row in lines if line.account),
        rollup=copy_rows(
            (*key, number, *(getattr(row, name) for name in ROLLUP_VALUES))
            for number, row in enumerate(record.rollups, 1)
        ),
        command_seen=copy_rows((*key, *seen) for seen in sorted(record.commands_seen, key=_by_code_point)),
        payment_ref=copy_rows((*key, *payment) for payment in sorted(record.payments, key=_by_code_point)),
        suspense=suspense_text(*key, record.suspense),
        command_held=copy_rows((*key, number, *row) for number, row in enumerate(held_rows(record.held), 1)),
        foreign_record=foreign_text(*key, record.foreign),
        conflict=conflict_text(*key, record.conflicts),
    )


def position_list(record: CommitRecord) -> list[list[str | int]]:
    """Return the positions column of the commit row.

    Each item is [topic, start, end], with the number of skipped offsets as a fourth element where there are any.
    """
    return [[move.topic, move.start, move.end, *([move.skipped] if move.skipped else [])] for move in record.positions]


def _by_code_point(row: tuple[str, ...]) -> list[bytes]:
    return [column.encode("utf-8", "surrogatepass") for column in row[:2]]


def sorted_outbox(record: CommitRecord) -> list[OutboxRow]:
    """Return the outbox rows in publishing order: by :data:`OUTBOX_TOPIC_ORDER`, then by sequence."""
    return sorted(record.outbox, key=lambda row: (OUTBOX_TOPIC_ORDER.index(row.topic), row.first_sequence))


def outbox_list(record: CommitRecord) -> list[list[str | int]]:
    """Return the outbox column of the commit row.

    Each item is [topic, number of records, first sequence, SHA-256 of the payload].
    """
    return [
        [row.topic, row.records, row.first_sequence, hashlib.sha256(row.payload).hexdigest()]
        for row in sorted_outbox(record)
    ]


def changes_sha256(record: CommitRecord) -> bytes:
    """Return the SHA-256 of the values that later commits overwrite or delete, and of the findings."""
    parts: list[bytes] = [
        record.changes.accounts_new,
        record.changes.accounts_changed,
        record.changes.accounts_replaced,
        record.changes.buckets_new,
        record.changes.buckets_changed,
        record.changes.buckets_replaced,
    ]
    dedupe = record.dedupe
    parts += [
        repr([(s.source, s.numbered, s.seen_runs, s.refused) for s in dedupe.sources]).encode(),
        *(part for recent in dedupe.recent for part in (recent.source.encode(), recent.payload)),
        *(part for hour in dedupe.hours for part in (f"{hour.hour_us} {hour.log_hour_us}".encode(), hour.payload)),
        repr(sorted(record.next_sequences.items())).encode(),
        repr(sorted(record.forward_next.items())).encode(),
        repr(sorted(record.forward_cursors.items())).encode(),
        repr(sorted(record.book_times.items())).encode(),
        repr([(finding.kind, finding.detail) for finding in record.findings]).encode(),
    ]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def commit_digest(
    previous: bytes,
    *,
    partition: int,
    commit_no: int,
    catalog_epoch: int,
    log_time_us: int,
    positions: Sequence[Sequence[str | int]],
    counts: Mapping[str, int],
    limits: Mapping[str, int],
    outbox: Sequence[Sequence[str | int]],
    changes: bytes,
    appended: Mapping[str, str],
    rows: bytes | None = None,
    administration: tuple[int, bytes] | None = None,
) -> bytes:
    """Return the digest of one commit.

    ``counts`` are by column; ``appended`` is the result of :meth:`AppendedText.sha256`; ``rows`` is that of
    :func:`billing.store.summed_tables.sums_digest`, or None for a commit older than the sums of rows.
    ``administration`` is the head of the log of administrative changes, or None for a commit older than this log.
    """
    header: dict[str, Any] = {
        "format": FORMAT,
        "partition": partition,
        "commit_no": commit_no,
        "catalog_epoch": catalog_epoch,
        "log_time_us": log_time_us,
        "positions": positions,
        "counts": {name: counts[name] for name in COUNT_COLUMNS if counts[name] or name not in _LATER_COUNTS},
        "limits": limits,
        "outbox": outbox,
        "changes": changes.hex(),
        "appended": appended,
    }
    if rows is not None:
        header["rows"] = rows.hex()
    if administration is not None:
        header["administration"] = [administration[0], administration[1].hex()]
    text = json.dumps(header, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(previous + text.encode()).digest()
