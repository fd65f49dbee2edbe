"""Comparison of the digest chain with published records: Kafka and its consumers hold digests outside the database.

A person who can write to the database can also compute the chain again, or cut off its end. Published records stay.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from billing.commits.commit_record import NO_DIGEST
from billing.commits.published_output import Anchor
from billing.store.database import Connection, Database
from billing.store.proofs.audit import AuditResult, result_of

ANCHORS = "published digests"
ANCHORS_SENTENCE = "the commits whose output Kafka has are those of the database"


@dataclass(frozen=True, slots=True)
class PublishedAnchor:
    """The anchor of one published record, and its place in Kafka."""

    topic: str
    partition: int
    offset: int
    anchor: Anchor


def check_anchors(
    database_url: str, positions: Mapping[int, tuple[int, str]], records: Iterable[PublishedAnchor]
) -> AuditResult:
    """Compare the relay's positions, (commit number, digest) by partition, and published records with the commits.

    Both must have been read before, because what is published later may be committed later than the snapshot.
    """
    database = Database(database_url, pool_size=1, application_name="tokenbill audit")
    with closing(database), database.transaction() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        oldest: dict[int, int] = {}
        breaks = list(_breaks(connection, positions, records, oldest))
        first = [
            f"partition {partition}: commit {commit_no} is the oldest that is not as it was published"
            for partition, commit_no in sorted(oldest.items())
        ]
        return result_of(ANCHORS, ANCHORS_SENTENCE, [*first, *breaks])


def _breaks(
    connection: Connection,
    positions: Mapping[int, tuple[int, str]],
    records: Iterable[PublishedAnchor],
    oldest: dict[int, int],
) -> Iterator[str]:
    """Yield what differs; fill ``oldest`` with the least number of a commit with another digest, by partition."""

    def note(partition: int, commit_no: int) -> None:
        oldest[partition] = min(oldest.get(partition, commit_no), commit_no)

    begun: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for partition, history, common in connection.execute(
        "SELECT partition, history, common_commit_no FROM output_history"
    ):
        begun[partition].append((history, common))
    for partition, (commit_no, digest) in sorted(positions.items()):
        found = _digest(connection, partition, commit_no)
        if found is None:
            yield (
                f"partition {partition}: commit {commit_no} is published, and the database ends before it; if it is an"
                " older copy, run `tokenbill relay reconcile`"
            )
        elif digest not in ("", found.hex()):
            note(partition, commit_no)
            yield (
                f"partition {partition}: commit {commit_no} was published with digest {digest}, and the database has"
                f" {found.hex()}; if it is an older copy, run `tokenbill relay reconcile`"
            )
    for record in records:
        anchor = record.anchor
        replaced = any(
            history > anchor.history and anchor.commit_no > common for history, common in begun[record.partition]
        )
        if anchor.previous_digest is None or replaced:
            continue
        where = f"{record.topic} partition {record.partition} offset {record.offset}"
        if _digest(connection, record.partition, anchor.commit_no) is None:
            yield f"{where}: output of commit {anchor.commit_no}, which the database does not have"
            continue
        found = _digest(connection, record.partition, anchor.commit_no - 1)
        if found is None or found.hex() != anchor.previous_digest:
            stored = "none" if found is None else found.hex()
            note(record.partition, anchor.commit_no - 1)
            yield (
                f"{where}: commit {anchor.commit_no - 1} had digest {anchor.previous_digest} when the next one was"
                f" published, and the database has {stored}"
            )


def _digest(connection: Connection, partition: int, commit_no: int) -> bytes | None:
    if commit_no == 0:
        return NO_DIGEST
    row = connection.execute(
        "SELECT digest FROM commit WHERE partition = %s AND commit_no = %s", (partition, commit_no)
    ).fetchone()
    return None if row is None else bytes(row[0])
