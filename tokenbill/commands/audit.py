"""``tokenbill audit`` verifies that the stored figures agree with each other; exit code 1 if a check fails.

``audit --explain`` names the rows of one table, and ``audit accept`` takes them as they are.
"""

import json
import os
import sys
from collections import defaultdict
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from confluent_kafka import KafkaException

from billing.errors import Fenced
from billing.store.database import Database
from billing.store.proofs.anchors import PublishedAnchor, check_anchors
from billing.store.proofs.audit import AuditResult, result_of
from billing.store.proofs.audit import audit as run_audit
from billing.store.proofs.explained_rows import NotExplainable, PublishedBalances, explain_rows
from billing.store.row_acceptance import ACCEPTABLE, AcceptanceRefused, RowsToAccept, accept_rows
from schemas.topics import BALANCE_TOPIC
from streams.read.readback import read_topic
from streams.relay.published_anchors import read_anchors, read_positions
from streams.stream_errors import ReadbackTimeout, TopicMismatch
from streams.topic_setup import partition_count
from tokenbill.command_database import database_url, explained
from tokenbill.commands.two_keys import agreed, two_keys_options
from tokenbill.stack.config import DATABASE_VARIABLE, KAFKA_VARIABLE
from tokenbill.stack.info import info
from tokenbill.stack.ready import why_not_ready
from tokenbill.stack.spec import ReadyCheck
from tokenbill.user_errors import UserError

_DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path), help="Data folder of the local stack to use.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
NOT_COMPARED = "not compared with Kafka"
NOT_COMPARED_SENTENCE = "digests that only Kafka has show whether the chain itself was rewritten or cut off"


@click.group(
    invoke_without_command=True,
    epilog="Exit codes: 0 every check holds (findings may be listed), 1 a check failed, or --explain found rows.",
)
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder of the stack's data and logs."
)
@click.option(
    "--kafka", "kafka", help=f"Kafka's address [default: {KAFKA_VARIABLE}, else that of the stack, if it runs]."
)
@click.option("--all-records", is_flag=True, help="Compare all published records with the chain, not only the newest.")
@click.option("--explain", metavar="TABLE", help="Name the rows of this table that no commit wrote as they are.")
@click.option("--partition", type=click.IntRange(min=0), help="With --explain: only this partition [default: all].")
@_JSON
@click.pass_context
def audit(
    context: click.Context,
    data_dir: Path | None,
    kafka: str | None,
    all_records: bool,
    explain: str | None,
    partition: int | None,
    as_json: bool,
) -> None:
    """Verify sums, digest chain, gaps and sub-ledgers of the database.

    The chain is compared with the digests that published records carry, so that a chain that was written anew is found.
    Findings are listed separately and do not make the audit fail.

    \b
    Examples:
      tokenbill audit --json
      tokenbill audit --explain bucket --partition 3
    """
    if context.invoked_subcommand is not None:
        return
    if explain is not None:
        _explain(data_dir, kafka, explain, partition, as_json)
        return
    if partition is not None:
        raise click.UsageError("--partition belongs to --explain.")
    with explained():
        url = database_url(data_dir)
        # What is published was committed before, so Kafka is read first.
        anchors = _published(kafka or _address(data_dir), url, all_records)
        outcome = run_audit(url)
    if isinstance(anchors, str):
        finding = result_of(NOT_COMPARED, NOT_COMPARED_SENTENCE, [anchors])
        outcome = replace(outcome, findings=(*outcome.findings, finding))
    else:
        outcome = replace(outcome, checks=(*outcome.checks, anchors))
    if as_json:
        document = {"passed": outcome.passed} | asdict(outcome)
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        for result in outcome.checks:
            click.echo(f"{'ok  ' if result.count == 0 else 'FAIL'}  {result.name}: {result.sentence}")
            _list(result)
        for result in outcome.findings:
            if result.count:
                click.echo(f"look  {result.name}: {result.sentence}")
                _list(result)
        failed = [result.name for result in outcome.checks if result.count]
        click.echo(f"{len(failed)} of {len(outcome.checks)} checks failed" if failed else "everything adds up")
    if not outcome.passed:
        sys.exit(1)


@audit.command(epilog="Exit codes: 0 accepted, 2 not; the message says why.")
@click.option("--table", type=click.Choice(ACCEPTABLE), metavar="TABLE", required=True, help="Table of the rows.")
@click.option("--partition", type=click.IntRange(min=0), required=True, help="Partition of the rows.")
@click.option("--reason", required=True, help="Why the rows are right as they are, for the record.")
@two_keys_options
@_JSON
@_DATA_DIR
@click.pass_context
def accept(
    context: click.Context,
    table: str,
    partition: int,
    reason: str,
    requested_key: Path | None,
    approved_key: Path | None,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Accept the rows of a table in a partition as they are, after a repair by hand.

    The step is a commit, which names both sums, the reason and the two keys; every later audit lists it. It posts
    nothing: where a repair changed money or quota, the checks of wallets, liability and quota go on failing until a
    command posts the difference. Stop the workers before the repair, and start them afterwards: a worker that runs
    writes the balances that it has in memory over the repaired ones.

    \b
    Example:
      tokenbill audit accept --table bucket --partition 3 --reason "restored from a backup, INC-91" \\
        --requested-key wang.key --approved-key li.key
    """
    if data_dir is None and context.parent is not None:
        data_dir = context.parent.params["data_dir"]
    if not reason.strip():
        raise UserError("--reason must not be empty", "", "Say why the rows are right.")
    with explained(), closing(Database(database_url(data_dir), pool_size=2)) as database:
        keys = agreed(database, requested_key, approved_key)
        try:
            done = accept_rows(database, RowsToAccept(partition, table, reason.strip(), keys))
        except (AcceptanceRefused, Fenced) as error:
            raise UserError("Nothing was accepted", str(error), "`tokenbill audit` shows what differs.") from error
    if as_json:
        document = {
            "partition": partition,
            "table": table,
            "commit": done.commit_no,
            "before": {"rows": done.before.rows, "sum": done.before.to_bytes().hex()},
            "after": {"rows": done.after.rows, "sum": done.after.to_bytes().hex()},
            "rehashed": done.rehashed,
            "marks": done.marks,
        }
        click.echo(json.dumps(document))
    else:
        click.echo(f"partition {partition}, {table}: {done}; commit {done.commit_no} records it")


def _explain(data_dir: Path | None, kafka: str | None, table: str, partition: int | None, as_json: bool) -> None:
    with explained():
        url = database_url(data_dir)
        balances = _balances(kafka or _address(data_dir)) if table in ("account", "bucket") else ""
        try:
            found = explain_rows(url, table, partition, balances)
        except NotExplainable as error:
            raise UserError(f"--explain {table}", str(error), "Name the table that the audit names.") from error
    if as_json:
        click.echo(json.dumps(asdict(found), ensure_ascii=False))
    else:
        for title, texts in (
            ("not as a commit wrote it", found.differ),
            ("of no commit or account", found.without_commit),
            ("of a commit whose digest does not match", found.of_broken_commits),
            ("not as published", found.unlike_published),
            ("not named", found.not_named),
        ):
            for text in texts:
                click.echo(f"{title}: {text}")
        if not found.found:
            click.echo(f"no row of {table} is named")
    if found.found:
        sys.exit(1)


def _balances(kafka: str | None) -> PublishedBalances | str:
    """Return the last published balances, or the reason why there are none."""
    why = _why_no_kafka(kafka)
    if kafka is None or why is not None:
        return why or ""
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    try:
        for message in read_topic(kafka, BALANCE_TOPIC):
            key, value = message.key(), message.value()
            if isinstance(key, bytes) and isinstance(value, bytes):
                found[message.partition() or 0][key.decode()] = json.loads(value)["data"]
    except (KafkaException, ReadbackTimeout) as error:
        return f"Kafka at {kafka} could not be read: {error}"
    return found


def _why_no_kafka(kafka: str | None) -> str | None:
    if kafka is None:
        return f"no address of Kafka is known; give it with --kafka or {KAFKA_VARIABLE}"
    why = why_not_ready(ReadyCheck("kafka", kafka))
    return None if why is None else f"Kafka at {kafka} does not answer: {why}"


def _address(data_dir: Path | None) -> str | None:
    if data_dir is None and os.environ.get(DATABASE_VARIABLE):
        return os.environ.get(KAFKA_VARIABLE)
    return info(data_dir).kafka


def _published(kafka: str | None, url: str, all_records: bool) -> AuditResult | str:
    """Compare the chain with the published digests; return the reason if that is impossible."""
    missing = _why_no_kafka(kafka)
    if kafka is None or missing is not None:
        return missing or ""
    try:
        partitions = partition_count(kafka)
        found = _compared(kafka, url, partitions, all_records)
        if found.count and not all_records:
            # The newest record shows that something differs; the others show since which commit.
            found = _compared(kafka, url, partitions, True)
    except (KafkaException, ReadbackTimeout, TopicMismatch) as error:
        return f"Kafka at {kafka} could not be read: {error}"
    return found


def _compared(kafka: str, url: str, partitions: int, all_records: bool) -> AuditResult:
    positions = {number: (one.commit_no, one.digest) for number, one in read_positions(kafka, partitions).items()}
    records = [
        PublishedAnchor(record.topic, record.partition, record.offset, anchor)
        for record, anchor in read_anchors(kafka, partitions, every_record=all_records)
    ]
    return check_anchors(url, positions, records)


def _list(result: AuditResult) -> None:
    for text in result.shown:
        click.echo(f"        {text}")
    if result.count > len(result.shown):
        click.echo(f"        … and {result.count - len(result.shown)} more")
