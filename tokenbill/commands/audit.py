"""`tokenbill audit`: verifies that the stored figures agree with each other; exit code 1 if a check fails."""

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import click
from confluent_kafka import KafkaException

from billing.store.proofs.anchors import PublishedAnchor, check_anchors
from billing.store.proofs.audit import AuditResult, result_of
from billing.store.proofs.audit import audit as run_audit
from streams.relay.published_anchors import read_anchors, read_positions
from streams.stream_errors import ReadbackTimeout, TopicMismatch
from streams.topic_setup import partition_count
from tokenbill.command_database import database_url, explained
from tokenbill.stack.config import DATABASE_VARIABLE, KAFKA_VARIABLE
from tokenbill.stack.info import info
from tokenbill.stack.ready import why_not_ready
from tokenbill.stack.spec import ReadyCheck

NOT_COMPARED = "not compared with Kafka"
NOT_COMPARED_SENTENCE = "digests that only Kafka has show whether the chain itself was rewritten or cut off"


@click.command(epilog="Exit codes: 0 every check holds (findings may be listed), 1 a check failed.")
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder of the stack's data and logs."
)
@click.option(
    "--kafka", "kafka", help=f"Kafka's address [default: {KAFKA_VARIABLE}, else that of the stack, if it runs]."
)
@click.option("--all-records", is_flag=True, help="Compare all published records with the chain, not only the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def audit(data_dir: Path | None, kafka: str | None, all_records: bool, as_json: bool) -> None:
    """Verify sums, digest chain, gaps and sub-ledgers of the database.

    The chain is compared with the digests that published records carry, so that a chain that was written anew is found.
    Findings are listed separately and do not make the audit fail.

    \b
    Example:
      tokenbill audit --json
    """
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


def _address(data_dir: Path | None) -> str | None:
    if data_dir is None and os.environ.get(DATABASE_VARIABLE):
        return os.environ.get(KAFKA_VARIABLE)
    return info(data_dir).kafka


def _published(kafka: str | None, url: str, all_records: bool) -> AuditResult | str:
    """Compare the chain with the published digests; return the reason if that is impossible."""
    if kafka is None:
        return f"no address of Kafka is known; give it with --kafka or {KAFKA_VARIABLE}"
    why = why_not_ready(ReadyCheck("kafka", kafka))
    if why is not None:
        return f"Kafka at {kafka} does not answer: {why}"
    try:
        partitions = partition_count(kafka)
        positions = {number: (one.commit_no, one.digest) for number, one in read_positions(kafka, partitions).items()}
        records = [
            PublishedAnchor(record.topic, record.partition, record.offset, anchor)
            for record, anchor in read_anchors(kafka, partitions, every_record=all_records)
        ]
    except (KafkaException, ReadbackTimeout, TopicMismatch) as error:
        return f"Kafka at {kafka} could not be read: {error}"
    return check_anchors(url, positions, records)


def _list(result: AuditResult) -> None:
    for text in result.shown:
        click.echo(f"        {text}")
    if result.count > len(result.shown):
        click.echo(f"        … and {result.count - len(result.shown)} more")
