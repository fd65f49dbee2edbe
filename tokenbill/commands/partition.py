"""``tokenbill partition``: lists the stopped partitions, and lets one go on after two people looked at it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from confluent_kafka import KafkaException, TopicPartition

from billing.commits.partition_stop import stopped_object
from billing.errors import Fenced
from billing.store import partition_stops as stored
from billing.store.database import Database
from billing.store.partition_resume import ResumeRefused, Resumption
from billing.store.partition_resume import resume as resume_partition
from schemas.topics import INPUT_TOPICS
from streams.kafka_clients import offset_reader
from tokenbill.command_database import explained, opened
from tokenbill.commands.process import servers
from tokenbill.commands.two_keys import agreed, two_keys_options
from tokenbill.user_errors import UserError

_DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path), help="Data folder of the local stack to use.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_ANSWER_SECONDS = 10.0


@click.group(short_help="List stopped partitions; let one go on.")
def partition() -> None:
    """List stopped partitions, and let one go on.

    A partition stops alone when its log lacks records or cannot be read, when a forwarded record did not arrive, or
    when the rules fail on a record. Nothing from that place on is billed until it is resumed; the other partitions go
    on.

    \b
    Examples:
      tokenbill partition list
      tokenbill partition resume 3 --topic usage.events --after 1042 --reason "deleted by retention, INC-88" \\
        --requested-key wang.key --approved-key li.key
    """


@partition.command("list", epilog="Exit codes: 0 no partition is stopped, 1 one is.")
@click.option("--resumed", is_flag=True, help="List what was resumed instead, oldest first.")
@_JSON
@_DATA_DIR
def list_(resumed: bool, as_json: bool, data_dir: Path | None) -> None:
    """List the stopped partitions: since when, where, why, and the command that goes on.

    \b
    Example:
      tokenbill partition list --json
    """
    with opened(data_dir) as database:
        if resumed:
            found = stored.resumptions(database)
        else:
            found = [stopped_object(one) for one in stored.stopped_partitions(database)]
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    elif resumed:
        for one in found:
            what = (
                f"{one['topic']} {one['first_offset']} to {one['last_offset']}" if one["topic"] else "nothing skipped"
            )
            click.echo(
                f"partition {one['partition']}  {one['resumed_at']}  {what}  commit {one['commit_no'] or '–'}"
                f"\n  stopped: {one['stop_reason']}\n  resumed: {one['reason']}"
                f" (requested by {_person(one, 'requested')}, approved by {_person(one, 'approved')})"
            )
    else:
        for one in found:
            where = f"{one['topic']} offset {one['offset']}" if one["topic"] else "no topic"
            click.echo(
                f"partition {one['partition']}  {where}  since {one['since']}  {one['worker']}"
                f"\n  {one['reason']}\n  to go on: {one['resume']}"
            )
        if not found:
            click.echo("No partition is stopped.")
    if found and not resumed:
        sys.exit(1)


@partition.command(epilog="Exit codes: 0 the partition goes on, 2 it does not; the message says why.")
@click.argument("number", type=click.IntRange(min=0), metavar="PARTITION")
@click.option("--topic", type=click.Choice(INPUT_TOPICS), help="Topic whose offsets are skipped; with --after.")
@click.option("--after", type=click.IntRange(min=0), metavar="OFFSET", help="Last offset to skip; with --topic.")
@click.option("--reason", required=True, help="Why it may go on, for the record.")
@two_keys_options
@_JSON
@_DATA_DIR
def resume(
    number: int,
    topic: str | None,
    after: int | None,
    reason: str,
    requested_key: Path | None,
    approved_key: Path | None,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Let a stopped partition go on.

    Without --topic and --after the partition tries again at the same place; after a lost forward it takes the next
    number. With them the offsets up to OFFSET are skipped: what they held is not billed. The step is a commit, which
    the audit and every replay know, and is recorded for good with ids and names of both keys. The keys have the
    role admin, and each is named after the person who holds it.

    \b
    Example:
      tokenbill partition resume 3 --topic usage.events --after 1042 --reason "deleted by retention, INC-88" \\
        --requested-key wang.key --approved-key li.key
    """
    if not reason.strip():
        raise UserError("--reason must not be empty", "", "Say why the partition may go on.")
    if (topic is None) != (after is None):
        raise UserError("--topic and --after belong together", "", "Give both, or neither to try again.")
    kafka, url = servers(data_dir)
    if topic is not None and after is not None:
        _check_end(kafka, topic, number, after)
    with explained(), closing(Database(url, pool_size=2)) as database:
        asked = Resumption(number, reason.strip(), agreed(database, requested_key, approved_key), topic, after)
        try:
            commit_no = resume_partition(database, asked)
        except (ResumeRefused, Fenced) as error:
            raise UserError(
                "The partition is not resumed", str(error), "`tokenbill partition list` shows it."
            ) from error
    if as_json:
        click.echo(json.dumps({"partition": number, "topic": topic, "after": after, "commit": commit_no}))
    else:
        click.echo(f"partition {number} goes on" + (f"; commit {commit_no} records it" if commit_no else ""))


def _person(one: Mapping[str, Any], did: str) -> str:
    key = one[f"{did}_key"]
    return f"{one[f'{did}_by']}" + (f" with key {key}" if key else "")


def _check_end(kafka: str, topic: str, number: int, after: int) -> None:
    reader = offset_reader(kafka, "tokenbill-partition")
    try:
        _, end = reader.get_watermark_offsets(TopicPartition(topic, number), timeout=_ANSWER_SECONDS)
    except KafkaException as error:
        raise UserError("Kafka does not answer", str(error.args[0]), "Is the stack up? `tokenbill status`") from error
    finally:
        reader.close()
    if after >= end:
        raise UserError(
            f"{topic} partition {number} ends at offset {end}",
            f"--after {after} lies beyond it",
            "Name the last offset to skip.",
        )
