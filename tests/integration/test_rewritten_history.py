"""A database superuser writes history anew: Kafka is the witness, and `tokenbill audit` names partition and commit.

The chain of commits is made consistent again with the product's own functions, or cut off at its end together with all
rows that followed, so that nothing in the database contradicts it. What was published before does.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from pipeline_rig import PARTITIONS, Pipeline, Traffic, examples

from billing.commits.commit_record import NO_DIGEST
from billing.commits.row_hashes import row_hash
from billing.store.commits import digest_chain as chain
from billing.store.commits.digest import COUNT_COLUMNS, EMPTY, commit_digest, named_digests
from billing.store.database import IntegerLoader
from billing.store.proofs.anchors import ANCHORS, PublishedAnchor, check_anchors
from billing.store.summed_tables import SUMMED_TABLES, check_rows, read_sums, sums_digest
from schemas.routing import partition_of
from streams.relay.published_anchors import read_anchors
from tokenbill import stack
from tokenbill.cli import cli
from tokenbill.commands.audit import NOT_COMPARED

Superuser = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    pipeline = Pipeline(Path(tempfile.mkdtemp(prefix="tokenbill-rewritten-")))
    try:
        pipeline.start(1)
        pipeline.publish(examples())
        yield pipeline
    finally:
        stack.remove(pipeline.folder)


def tokenbill(pipeline: Pipeline, *words: str) -> tuple[int, str]:
    """Run a command in this process; return its exit code and what it printed or raised."""
    done = CliRunner().invoke(cli, [*words, "--data-dir", str(pipeline.folder)])
    if done.exception is None or isinstance(done.exception, SystemExit):
        return done.exit_code, done.output
    return 2, str(done.exception)


def audited(pipeline: Pipeline, *, witness: bool = True) -> tuple[int, dict[str, tuple[str, ...]], set[str]]:
    """Run the audit; return its exit code, the failed checks with what they show, and the names of the findings."""
    kafka = () if witness else ("--kafka", "127.0.0.1:1")
    code, said = tokenbill(pipeline, "audit", "--json", *kafka)
    document = json.loads(said)
    failed = {one["name"]: tuple(one["shown"]) for one in document["checks"] if one["count"]}
    return code, failed, {one["name"] for one in document["findings"] if one["count"]}


def test_no_false_alarm_right_after_relay_and_worker_are_killed(pipeline: Pipeline) -> None:
    traffic = Traffic(pipeline, "wolf")
    traffic.open(8)
    with traffic.streaming(200):
        traffic.stream_until(200)
        for name in ("relay", "worker-1", "relay"):
            pipeline.kill(name)
            code, failed, findings = audited(pipeline)
            assert (code, failed) == (0, {}), name
            assert NOT_COMPARED not in findings
        pipeline.kill("worker-1")
        pipeline.kill("relay")
        code, failed, findings = audited(pipeline)
        assert (code, failed) == (0, {})
        assert NOT_COMPARED not in findings
    pipeline.wait_serving(1)
    traffic.check()
    traffic.close()


class Copies:
    """Copies of all tables at several times, which a superuser has, and the partition that is attacked."""

    def __init__(self, pipeline: Pipeline, connection: Superuser) -> None:
        self.pipeline = pipeline
        self.connection = connection
        self.partition = 0
        self.disabled: list[str] = []
        """Statements that put the disabled triggers back."""
        rows = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'tokenbill'"
            " AND table_type = 'BASE TABLE' ORDER BY 1"
        )
        self.tables = [name for (name,) in rows]

    def take(self, name: str) -> None:
        self.connection.execute(f"CREATE SCHEMA {name}")
        for table in self.tables:
            self.connection.execute(f"CREATE TABLE {name}.{table} AS TABLE tokenbill.{table}")

    def put_back(self, name: str) -> None:
        self.connection.execute(f"TRUNCATE {', '.join(self.tables)} CASCADE")
        for table in self.tables:
            self._insert(table, name, "")

    def cut(self, name: str) -> None:
        """Make every row of the partition what it was when the copy was taken."""
        for table in self.tables:
            columns = {column for column, _ in self._columns(table)}
            if "partition" in columns:
                self.connection.execute(f"DELETE FROM {table} WHERE partition = {self.partition}")
                self._insert(table, name, f"WHERE partition = {self.partition}")

    def _columns(self, table: str) -> list[tuple[str, str]]:
        return self.connection.execute(
            "SELECT column_name, is_generated FROM information_schema.columns WHERE table_schema = 'tokenbill'"
            " AND table_name = %s ORDER BY ordinal_position",
            (table,),
        ).fetchall()

    def _insert(self, table: str, name: str, where: str) -> None:
        columns = ", ".join(f'"{column}"' for column, generated in self._columns(table) if generated == "NEVER")
        self.connection.execute(
            f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {name}.{table} {where}"
        )

    @property
    def last(self) -> int:
        return self.commits()[-1]

    def commits(self) -> list[int]:
        rows = self.connection.execute(
            "SELECT commit_no FROM commit WHERE partition = %s ORDER BY commit_no", (self.partition,)
        )
        return [number for (number,) in rows]


@pytest.fixture(scope="module")
def copies(pipeline: Pipeline) -> Iterator[Copies]:
    """A settled pipeline without workers, copies `early`, `late` and `now` of it, and no trigger in the way."""
    traffic = Traffic(pipeline, "rewritten")
    traffic.open(6)
    traffic.use(60)
    traffic.settle()
    with pipeline.admin() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.adapters.register_loader("numeric", IntegerLoader)
        copies = Copies(pipeline, connection)
        copies.partition = partition_of(traffic.accounts[0], PARTITIONS)
        copies.take("early")
        for _ in range(3):
            traffic.use(60)
            traffic.settle()
        copies.take("late")
        traffic.use(60)
        traffic.settle()
        traffic.check()
        traffic.close()
        pipeline.start(0)
        triggers = connection.execute(
            "SELECT tgrelid::regclass::text, tgname, tgenabled::text FROM pg_trigger"
            " WHERE tgname IN ('append_only', 'administration')"
        ).fetchall()
        for table, trigger, enabled in triggers:
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}")
            copies.disabled.append(f"ALTER TABLE {table} ENABLE {'ALWAYS ' * (enabled == 'A')}TRIGGER {trigger}")
        copies.take("now")
        assert len(copies.commits()) > 5
        assert audited(pipeline)[:2] == (0, {})
        yield copies


@pytest.fixture
def attacked(copies: Copies) -> Iterator[Copies]:
    yield copies
    copies.put_back("now")
    assert audited(copies.pipeline)[:2] == (0, {})


def rechain(connection: Superuser, partition: int) -> None:
    """Compute every digest of a partition anew from its rows, with the functions that commits use."""
    appended = {table: chain._digests(connection, query, partition) for table, query in chain._APPENDED.items()}
    commits = [json.loads(chain._unescape(line)) for line in chain._lines(connection, chain._COMMITS, partition)]
    previous = NO_DIGEST
    for commit in commits:
        number = commit["commit_no"]
        digest = commit_digest(
            previous,
            partition=partition,
            commit_no=number,
            catalog_epoch=commit["catalog_epoch"],
            log_time_us=commit["log_time_us"],
            positions=commit["positions"],
            counts={name: commit[name] for name in COUNT_COLUMNS},
            limits=commit["limits"],
            outbox=commit["outbox"],
            changes=bytes.fromhex(commit["changes"]),
            appended=named_digests({table: digests.get(number, EMPTY) for table, digests in appended.items()}),
            rows=None if commit["rows"] is None else bytes.fromhex(commit["rows"]),
            administration=chain._administration(commit),
        )
        connection.execute(
            "UPDATE commit SET previous_digest = %b, digest = %b WHERE (partition, commit_no) = (%s, %s)",
            (previous, digest, partition, number),
        )
        previous = digest
    connection.execute("UPDATE partition_state SET digest = %b WHERE partition = %s", (previous, partition))


def resum(connection: Superuser, partition: int, table: str) -> None:
    """Give every row of a table its own hash, and make sum, last commit and chain those of the rows as they are."""
    covered = SUMMED_TABLES[table]
    columns = ", ".join(covered.columns)
    copied = connection.cursor()
    with copied.copy(f"COPY (SELECT ctid, {columns} FROM {table} WHERE partition = {partition}) TO STDOUT") as copy:
        rows = [bytes(line)[:-1].partition(b"\t") for line in copy]
    for place, _, text in rows:
        connection.execute(
            f"UPDATE {table} SET row_hash = %b WHERE ctid = %s::tid", (row_hash(table, partition, text), place.decode())
        )
    total = check_rows(connection, covered, partition)[partition].total
    connection.execute(
        "UPDATE row_sum SET rows = %s, total = %b WHERE (partition, table_name) = (%s, %s)",
        (total.rows, total.to_bytes(), partition, table),
    )
    connection.execute(
        "UPDATE commit SET rows_sha256 = %b WHERE (partition, commit_no) IN"
        " (SELECT partition, commit_no FROM partition_state WHERE partition = %s)",
        (sums_digest(read_sums(connection, partition)), partition),
    )
    rechain(connection, partition)


def found_by_kafka_alone(attacked: Copies) -> tuple[str, ...]:
    """Check that only the comparison with Kafka finds it; return what it says of the partition."""
    code, failed, findings = audited(attacked.pipeline, witness=False)
    assert (code, failed) == (0, {}), "the database contradicts itself: not the change that this test is about"
    assert NOT_COMPARED in findings
    code, failed, _ = audited(attacked.pipeline)
    assert code == 1
    assert failed.keys() == {ANCHORS}
    return failed[ANCHORS]


def model_changed(attacked: Copies, at: int) -> int:
    """Let the usage of one commit be that of another model; return the number of the commit, which has usage."""
    numbers = [
        number
        for (number,) in attacked.connection.execute(
            "SELECT DISTINCT commit_no FROM rollup WHERE partition = %s ORDER BY 1", (attacked.partition,)
        )
    ]
    number = numbers[at]
    attacked.connection.execute(
        "UPDATE rollup SET model = 'another' WHERE (partition, commit_no) = (%s, %s)", (attacked.partition, number)
    )
    rechain(attacked.connection, attacked.partition)
    return number


@pytest.mark.parametrize("at", [0, 2, -2], ids=["first", "third", "last but one"])
def test_a_commit_that_is_written_anew_is_named(attacked: Copies, at: int) -> None:
    number = model_changed(attacked, at)
    shown = found_by_kafka_alone(attacked)
    named = f"partition {attacked.partition}: commit {number} is the oldest that is not as it was published"
    assert named in shown


def test_the_last_commit_is_compared_with_the_position_of_the_relay(attacked: Copies) -> None:
    number = model_changed(attacked, -1)
    shown = found_by_kafka_alone(attacked)
    assert any(text.startswith(f"partition {attacked.partition}: commit {number} was published with digest") or
               f"commit {number} is the oldest" in text for text in shown)  # fmt: skip


def test_a_balance_that_is_raised_with_hash_sum_and_chain_is_found(attacked: Copies) -> None:
    attacked.connection.execute(
        "UPDATE account SET credit_limit_pico = 10::numeric ^ 15 WHERE account IN"
        " (SELECT account FROM account WHERE partition = %s ORDER BY account LIMIT 1)",
        (attacked.partition,),
    )
    resum(attacked.connection, attacked.partition, "account")
    shown = found_by_kafka_alone(attacked)
    last = attacked.last
    assert f"partition {attacked.partition}: commit {last} is the oldest that is not as it was published" in shown


@pytest.mark.parametrize("copy", ["late", "early"])
def test_a_history_that_is_cut_off_is_found(attacked: Copies, copy: str) -> None:
    published = attacked.last
    attacked.cut(copy)
    assert attacked.last < published
    shown = found_by_kafka_alone(attacked)
    assert any(
        text.startswith(
            f"partition {attacked.partition}: commit {published} is published, and the database ends before it"
        )
        for text in shown
    )
    assert any("which the database does not have" in text for text in shown)


def test_records_alone_are_witnesses_enough(attacked: Copies) -> None:
    """Records that a consumer kept show a rewritten commit, where the broker has forgotten the relay's position."""
    kept = [
        PublishedAnchor(record.topic, record.partition, record.offset, anchor)
        for record, anchor in read_anchors(attacked.pipeline.kafka, PARTITIONS, every_record=True)
    ]
    assert check_anchors(attacked.pipeline.database_url, {}, kept).count == 0
    number = model_changed(attacked, 1)
    result = check_anchors(attacked.pipeline.database_url, {}, kept)
    assert result.shown[0] == (
        f"partition {attacked.partition}: commit {number} is the oldest that is not as it was published"
    )
    assert all(f"partition {attacked.partition}" in text for text in result.shown)


def test_the_canary_of_these_tests(attacked: Copies) -> None:
    """A change without the chain's functions is found without Kafka."""
    attacked.connection.execute(
        "UPDATE rollup SET model = 'another' WHERE (partition, commit_no) IN"
        " (SELECT partition, min(commit_no) FROM rollup WHERE partition = %s GROUP BY 1)",
        (attacked.partition,),
    )
    code, failed, _ = audited(attacked.pipeline, witness=False)
    assert (code, set(failed)) == (1, {"digest chain"})


def test_a_repair_by_hand_is_explained_and_accepted_and_the_worker_goes_on(copies: Copies) -> None:
    """It is the last test of this file: its commit stays."""
    pipeline, partition = copies.pipeline, copies.partition
    for statement in copies.disabled:  # what the program does from here on is logged
        copies.connection.execute(statement)
    [(account,)] = copies.connection.execute(
        "UPDATE account SET credit_limit_pico = 5000000000000 WHERE account IN"
        " (SELECT account FROM account WHERE partition = %s ORDER BY account LIMIT 1) RETURNING account",
        (partition,),
    )
    code, failed, _ = audited(pipeline)
    assert (code, failed.keys()) == (1, {"rows"})
    code, said = tokenbill(pipeline, "audit", "--explain", "account", "--partition", str(partition))
    assert code == 1
    assert f"not as a commit wrote it: partition {partition}: account (account {account})" in said
    assert f"account {account}: credit_limit is 5, the last published balance says 0" in said
    for table in ("bucket", "dedupe_source", "journal"):
        assert tokenbill(pipeline, "audit", "--explain", table)[0] == 0
    words = ("audit", "accept", "--table", "account", "--partition", str(partition), "--reason", "INC-91")
    for name in ("wang", "li"):
        token = tokenbill(pipeline, "api-key", "create", name, "--role", "admin")[1].split()[0]
        (pipeline.folder / f"{name}.key").write_text(token)
    wang, li = (str(pipeline.folder / f"{name}.key") for name in ("wang", "li"))
    assert tokenbill(pipeline, *words, "--requested-key", wang, "--approved-key", wang)[0] == 2
    code, said = tokenbill(pipeline, *words, "--requested-key", wang, "--approved-key", li)
    assert code == 0, said
    code, failed, findings = audited(pipeline)
    assert (code, failed) == (0, {})
    assert "accepted repairs" in findings
    pipeline.kill("relay")  # it found a rewritten chain during a test above, and stopped that partition
    pipeline.start(1)
    traffic = Traffic(pipeline, "after")
    traffic.open(6)
    traffic.use(60)
    traffic.settle()
    traffic.check()
    traffic.close()
    assert audited(pipeline)[:2] == (0, {})
