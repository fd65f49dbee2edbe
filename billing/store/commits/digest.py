"""The digest that chains a partition's commits: what is in it, and its canonical bytes.

``digest = sha256(previous digest + header)``. The header is JSON of the commit row's own columns and of the SHA-256 of
the rows the commit appended (journal, rollup, commands, payments, and suspense where a record was rejected: their
``COPY`` text in the order of their key), so that all of it can be computed again from SQL. What later commits overwrite
(balances, identities, positions of the forwarding) is in ``changes_sha256``, which is kept in the commit row. Not in
it: epoch, wall clock.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from billing.commits.commit_record import CommitCounts, CommitRecord, OutboxRow
from billing.commits.copy_text import copy_rows
from billing.store.commits.suspense_rows import suspense_text

GENESIS = bytes(32)
"""The digest before a partition's first commit."""
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
    """``COPY`` text of the rows one commit appends, in the order of their key."""

    journal: bytes
    corrections: bytes
    """Of the journal, too: lines that name the usage that they correct, in one column more."""
    rollup: bytes
    command_seen: bytes
    payment_ref: bytes
    suspense: bytes

    def sha256(self) -> dict[str, str]:
        """The digest of each table's rows, hexadecimal, as :func:`named_digests` names them."""
        return named_digests({name: hashlib.sha256(rows).hexdigest() for name, rows in asdict(self).items()})


_LATER = ("corrections", "suspense")
"""Kept since later than the first release of the digest: a commit has a digest of them only where it has rows."""
EMPTY = hashlib.sha256().hexdigest()


def named_digests(digests: Mapping[str, str]) -> dict[str, str]:
    """The digests that a commit's header names, of those of all tables."""
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
    """The rows that a commit appends to the tables whose rows the digest covers."""
    key = (record.partition, record.commit_no)
    lines = [
        (line.concerns, (*key, number, line.account_code, line.currency, line.detail, line.amount_pico))
        for number, line in enumerate(record.postings, 1)
    ]
    return AppendedText(
        journal=copy_rows(row for concerns, row in lines if not concerns),
        corrections=copy_rows((*row, concerns) for concerns, row in lines if concerns),
        rollup=copy_rows(
            (*key, number, *(getattr(row, name) for name in ROLLUP_VALUES))
            for number, row in enumerate(record.rollups, 1)
        ),
        command_seen=copy_rows((*key, *seen) for seen in sorted(record.commands_seen, key=_by_code_point)),
        payment_ref=copy_rows((*key, *payment) for payment in sorted(record.payments, key=_by_code_point)),
        suspense=suspense_text(*key, record.suspense),
    )


def _by_code_point(row: tuple[str, ...]) -> list[bytes]:
    return [column.encode("utf-8", "surrogatepass") for column in row[:2]]


def sorted_outbox(record: CommitRecord) -> list[OutboxRow]:
    """Outbox rows in the order in which they are published: a fixed order of topics, then by sequence."""
    return sorted(record.outbox, key=lambda row: (OUTBOX_TOPIC_ORDER.index(row.topic), row.first_sequence))


def outbox_list(record: CommitRecord) -> list[list[str | int]]:
    """What the commit row keeps of its output: topic, records, first sequence, SHA-256 of the payload."""
    return [
        [row.topic, row.records, row.first_sequence, hashlib.sha256(row.payload).hexdigest()]
        for row in sorted_outbox(record)
    ]


def changes_sha256(record: CommitRecord) -> bytes:
    """SHA-256 of everything the commit writes that later commits overwrite or that is dropped when used."""
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
        *(part for hour in dedupe.hours for part in (str(hour.hour_us).encode(), hour.payload)),
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
) -> bytes:
    """The digest of one commit; ``counts`` by column, ``appended`` as :meth:`AppendedText.sha256` gives it."""
    header: dict[str, Any] = {
        "format": FORMAT,
        "partition": partition,
        "commit_no": commit_no,
        "catalog_epoch": catalog_epoch,
        "log_time_us": log_time_us,
        "positions": positions,
        "counts": {name: counts[name] for name in COUNT_COLUMNS},
        "limits": limits,
        "outbox": outbox,
        "changes": changes.hex(),
        "appended": appended,
    }
    text = json.dumps(header, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(previous + text.encode()).digest()
