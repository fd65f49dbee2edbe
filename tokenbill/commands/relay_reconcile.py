"""``tokenbill relay reconcile``: publishes what consumers lack after an older copy of the database took over."""

import getpass
import json
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import click
from confluent_kafka import KafkaException, TopicPartition

from billing.store.store import Store
from schemas.topics import INPUT_TOPICS
from streams.kafka_clients import offset_reader
from streams.relay.reconcile import OutputReconciliation, Reconciled
from streams.relay.relay import PartitionRelay, RelaySettings
from streams.relay.relay_metrics import RelayMetrics
from streams.stream_errors import HistoryDiffers, PublisherFailed, PublisherFenced, ReadbackTimeout
from tokenbill.command_database import explained
from tokenbill.commands.process import servers, wait_for_topics
from tokenbill.user_errors import UserError

_SHOWN = 20
_POLL_SECONDS = 0.5
_FOUND = 1


@click.command(
    epilog="Exit codes: 0 published (or nothing to do), 1 consumers have output that the database does not have."
)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data folder of the local stack to use.")
@click.option("--dry-run", is_flag=True, help="Only compare; publish nothing.")
@click.option("--by", default=getpass.getuser, help="Who decides this, for the record [default: the current user].")
@click.option(
    "--wait", "wait_seconds", default=60.0, show_default=True, help="Seconds to wait until all input is decided."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def reconcile(data_dir: Path | None, dry_run: bool, by: str, wait_seconds: float, as_json: bool) -> None:
    """Publish what consumers lack, where the relay has stopped because the database is an older copy.

    Published output is compared with the output of the database by usage event and command, not by number. What
    consumers lack is published under a new history; then the relay goes on. The workers must run, because they first
    have to decide all input again. The command may be repeated: nothing is published twice.

    \b
    Example:
      tokenbill relay reconcile --dry-run
    """
    kafka, database_url = servers(data_dir)
    partitions = wait_for_topics(kafka)
    with explained(), Store(database_url, pool_size=2) as store:
        _wait_until_decided(kafka, store, partitions, wait_seconds)
        settings, never = RelaySettings(kafka, partitions), threading.Event()
        relay = PartitionRelay(0, settings=settings, store=store, metrics=RelayMetrics(), stop=never)
        try:
            done = OutputReconciliation(kafka, partitions, store).run(by, dry_run, relay.forward)
        except HistoryDiffers as error:
            raise UserError(
                "The database cannot be reconciled with Kafka", str(error), "Restore a newer copy."
            ) from error
        except (PublisherFailed, PublisherFenced, KafkaException, ReadbackTimeout) as error:
            raise UserError("The reconciliation was interrupted", str(error), "Run the command again.") from error
    if as_json:
        click.echo(json.dumps([_document(one, dry_run) for one in done], ensure_ascii=False))
    else:
        _print(done, dry_run)
    if any(one.differences for one in done):
        sys.exit(_FOUND)


def _wait_until_decided(kafka: str, store: Store, partitions: int, wait_seconds: float) -> None:
    """Wait until all input that Kafka has now is decided, since published output may come from any of it."""
    places = [TopicPartition(topic, number) for topic in INPUT_TOPICS for number in range(partitions)]
    with closing(offset_reader(kafka, "tokenbill-reconcile")) as reader:
        ends = {(one.topic, one.partition): reader.get_watermark_offsets(one, timeout=30.0)[1] for one in places}
    deadline = time.monotonic() + wait_seconds
    while True:
        positions = store.positions(range(partitions))
        behind = {place: end - positions[place] for place, end in ends.items() if positions[place] < end}
        if not behind:
            return
        if time.monotonic() > deadline:
            (topic, partition), records = next(iter(behind.items()))
            raise UserError(
                "The workers have not decided all input yet",
                f"{records} records of {topic} partition {partition} wait",
                "See with `tokenbill status` whether workers run, then run the command again.",
            )
        time.sleep(_POLL_SECONDS)


def _document(one: Reconciled, dry_run: bool) -> dict[str, object]:
    return {
        "partition": one.partition,
        "why": one.why,
        "common_commit": one.common_commit_no,
        "published_commit": one.published_commit_no,
        "through_commit": one.through_commit_no,
        "history": one.history,
        "published": {} if dry_run else dict(one.published),
        "missing": dict(one.published),
        "differences": one.differences,
    }


def _print(done: list[Reconciled], dry_run: bool) -> None:
    if not done:
        click.echo("The database is the one whose output was published; there is nothing to reconcile.")
    for one in done:
        what = ", ".join(f"{number} of {topic}" for topic, number in sorted(one.published.items()) if number)
        verb = "to publish" if dry_run else "published"
        click.echo(f"partition {one.partition}: {one.why}")
        click.echo(f"  the last common commit is {one.common_commit_no}; compared up to commit {one.through_commit_no}")
        click.echo(f"  {verb} as history {one.history}: {what or 'nothing'}")
        for text in one.differences[:_SHOWN]:
            click.echo(f"  look  {text}")
        if len(one.differences) > _SHOWN:
            click.echo(f"  … and {len(one.differences) - _SHOWN} more")
