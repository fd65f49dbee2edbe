"""Audit: verify sums, digest chains, positions and sub-ledgers. It reads one snapshot and changes nothing."""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from billing.catalog.entries import body_sha256
from billing.store.commits.digest_chain import check_chain
from billing.store.commits.number_runs import unpack_numbers, unpack_runs, without_numbers
from billing.store.database import Connection, Database
from billing.store.proofs.administration import ADMINISTRATION, ADMINISTRATION_SENTENCE, administration_breaks
from billing.store.proofs.audit_checks import CHECKS, FINDINGS
from billing.store.proofs.row_checks import check_sums

MAX_SHOWN = 20
CHAIN = "digest chain"
CHAIN_SENTENCE = "the rows of every commit give its digest, each follows its predecessor, and none is missing"
ROWS = "rows"
ROWS_SENTENCE = "the rows that commits write are as they wrote them, and none was added or removed"
CATALOG = "catalogue"
CATALOG_SENTENCE = "every published entry is as it was when it was published"
SHARED = "numbers used on several partitions"
SHARED_SENTENCE = "a source gave one number to two events whose accounts are on different partitions"
HOLES = "missing numbers of sources"
HOLES_SENTENCE = "usage that a source numbered and that no partition has seen"


@dataclass(frozen=True, slots=True)
class AuditResult:
    """Result of one check: the number of violations, and descriptions of the first :data:`MAX_SHOWN`."""

    name: str
    sentence: str
    count: int
    shown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """Result of an audit: checks, which must have no violation, and findings, which do not fail the audit."""

    checks: tuple[AuditResult, ...]
    findings: tuple[AuditResult, ...]

    @property
    def passed(self) -> bool:
        """True if no check has a violation."""
        return all(result.count == 0 for result in self.checks)


def audit(database_url: str) -> Audit:
    """Run every check and collect the findings.

    Raises:
        DatabaseDown: the server cannot be reached.
        NotPrepared: there is no schema yet.
    """
    with _snapshot(database_url) as connection:
        return audit_in(connection)


def audit_in(connection: Connection) -> Audit:
    """Run every check and collect the findings, in the transaction of a connection."""
    checks = [result_of(check.name, check.sentence, _texts(connection, check.query)) for check in CHECKS]
    checks.append(result_of(CHAIN, CHAIN_SENTENCE, _chains(connection)))
    checks.append(result_of(ROWS, ROWS_SENTENCE, check_sums(connection)))
    checks.append(result_of(CATALOG, CATALOG_SENTENCE, _catalog(connection)))
    checks.append(result_of(ADMINISTRATION, ADMINISTRATION_SENTENCE, administration_breaks(connection)))
    findings = [result_of(check.name, check.sentence, _texts(connection, check.query)) for check in FINDINGS]
    findings.append(result_of(SHARED, SHARED_SENTENCE, _shared(connection)))
    findings.append(result_of(HOLES, HOLES_SENTENCE, _holes(connection)))
    return Audit(tuple(checks), tuple(findings))


@contextmanager
def _snapshot(database_url: str) -> Iterator[Connection]:
    database = Database(database_url, pool_size=1, application_name="tokenbill audit")
    with closing(database), database.transaction() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute("SELECT set_config('transaction_timeout', '0', true)")
        yield connection


def result_of(name: str, sentence: str, texts: Iterable[str]) -> AuditResult:
    """Return the result of a check from its violations."""
    count, shown = 0, []
    for text in texts:
        count += 1
        if count <= MAX_SHOWN:
            shown.append(text)
    return AuditResult(name, sentence, count, tuple(shown))


def _texts(connection: Connection, query: str) -> Iterator[str]:
    for (text,) in connection.execute(query.encode()):
        yield text


def _chains(connection: Connection) -> Iterator[str]:
    partitions = connection.execute("SELECT partition FROM partition_state ORDER BY partition").fetchall()
    for (partition,) in partitions:
        yield from map(str, check_chain(connection, partition))


def _catalog(connection: Connection) -> Iterator[str]:
    rows = connection.execute("SELECT kind, name, version, sha256, body FROM catalog_entry ORDER BY 1, 2, 3")
    for kind, name, version, sha256, body in rows:
        if body_sha256(body) != sha256 or (body["kind"], body["name"], body["version"]) != (kind, name, version):
            yield f"{kind} {name}@{version}: the body does not give its digest"


def _shared(connection: Connection) -> Iterator[str]:
    """Yield the numbers that events of several partitions used, for each numbered source; rejected events use none."""
    used: dict[str, list[tuple[int, int]]] = defaultdict(list)
    rows = connection.execute("SELECT source, seen_runs, refused FROM dedupe_source WHERE numbered")
    for source, seen, refused in rows:
        try:
            used[source] += without_numbers(unpack_runs(seen), unpack_numbers(refused))
        except struct.error:
            yield f"{source}: the numbers seen cannot be read"
    for source in sorted(used):
        last, common = 0, list[str]()
        for first, end in sorted(used[source]):
            if first <= last:
                common.append(_run(first, min(end, last)))
            last = max(last, end)
        if common:
            yield f"{source}: {_some(common)}"


def _run(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}–{last}"


def _some(runs: Sequence[str]) -> str:
    return ", ".join(runs[:5]) + (", …" if len(runs) > 5 else "")


def _holes(connection: Connection) -> Iterator[str]:
    """Yield the numbers below the greatest seen that no partition has seen, for each numbered source."""
    runs: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for source, seen in connection.execute("SELECT source, seen_runs FROM dedupe_source WHERE numbered"):
        try:
            runs[source] += unpack_runs(seen)
        except struct.error:
            yield f"{source}: the numbers seen cannot be read"
    for source in sorted(runs):
        holes, missing = [], 0
        next_number = 1
        for first, last in sorted(runs[source]):
            if first > next_number:
                holes.append(_run(next_number, first - 1))
                missing += first - next_number
            next_number = max(next_number, last + 1)
        if holes:
            yield f"{source}: {missing} missing ({_some(holes)})"
