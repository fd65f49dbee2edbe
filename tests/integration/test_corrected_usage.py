"""Usage voided and corrected in a running pipeline gives the result of ``simulate``, also if a worker is killed."""

import json
import time

from pipeline_rig import PARTITIONS, Pipeline, Traffic

from schemas.routing import partition_of
from tokenbill.replays.past_balance import balance_in_past


def named(event: bytes) -> tuple[str, dict[str, str]]:
    """Return the account of a usage event, and the fields with which a correction names the event."""
    body = json.loads(event)
    return body["subject"], {"source": body["source"], "id": body["id"], "reason": "measured twice"}


def void(traffic: Traffic, event: bytes, partition: int | None = None) -> None:
    account, data = named(event)
    traffic.command("usage.voided.v1", account, data, partition=partition)


def correct(traffic: Traffic, event: bytes, usage: dict[str, int]) -> None:
    account, data = named(event)
    traffic.command("usage.corrected.v1", account, data | {"usage": usage})


def test_corrections_in_the_midst_of_usage(pipeline: Pipeline, traffic: Traffic) -> None:
    """The events burned packages or were paid from wallets; one void arrives on the wrong partition."""
    traffic.open(12, plan="pack-1-yuan")
    first = traffic.use(240)
    traffic.settle()
    for event in first[::20]:
        void(traffic, event)
    for number, event in enumerate(first[5::20]):
        correct(traffic, event, {"input": 400_000 * number, "output": 7})
    away = partition_of(json.loads(first[1])["subject"], PARTITIONS)
    void(traffic, first[1], partition=(away + 1) % PARTITIONS)
    traffic.flush()
    pipeline.kill("worker-1")
    traffic.use(120)
    traffic.settle()
    void(traffic, first[5])  # an event that was corrected before
    traffic.flush()
    expected = traffic.check()
    counts = traffic.books.counts()
    assert (counts.rated, counts.rejected, counts.commands_rejected) == (360, 0, 0)
    with pipeline.admin() as connection:
        [[lines, too_much]] = connection.execute(
            "SELECT count(*), sum(amount_pico)::bigint FROM journal WHERE concerns IS NOT NULL"
        ).fetchall()
        [[concerns]] = connection.execute(
            "SELECT count(DISTINCT concerns) FROM journal WHERE concerns IS NOT NULL AND strpos(concerns, %s) > 0",
            (traffic.name,),
        ).fetchall()
    assert lines > 10
    assert too_much == 0
    assert concerns > 10  # not all: absorbed usage posts nothing
    account, _ = named(first[5])
    past = balance_in_past(pipeline.kafka, pipeline.database_url, account, time.time_ns() // 1000)
    assert {name: past[name] for name in ("wallet", "buckets")} == {
        name: expected["accounts"][account][name] for name in ("wallet", "buckets")
    }
