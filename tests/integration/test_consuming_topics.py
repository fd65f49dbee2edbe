"""docs/consuming-our-topics.md on the real stack: exactly once, and a snapshot joined with its tail."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
from pipeline_rig import Pipeline, Traffic
from rebuilt_accounts import Rebuilt, RebuiltAccount

from schemas.topics import ACCOUNT_EVENT_TOPIC, BALANCE_TOPIC, RATED_TOPIC
from streams.read.readback import read_topic
from tokenbill import stack

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "consume_topics.py"


def copy(pipeline: Pipeline, path: Path, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, EXAMPLE, pipeline.kafka, path, *options])


def test_a_consumer_that_is_killed_again_and_again_has_everything_once(
    pipeline: Pipeline, traffic: Traffic, tmp_path: Path
) -> None:
    path, rng = tmp_path / "copy.db", random.Random(17)
    traffic.open(20)
    with traffic.streaming():
        for _ in range(6):
            copies = [copy(pipeline, path), copy(pipeline, path)]
            time.sleep(rng.uniform(0.4, 2.5))
            for process in copies:
                process.kill()
                process.wait(60)
    expected = traffic.check()
    last = copy(pipeline, path, "--once")
    assert last.wait(120) == 0
    with sqlite3.connect(path) as database:
        lines = [
            (account, charged, json.loads(line))
            for account, charged, line in database.execute("SELECT account, charged, line FROM rated")
            if account in expected["accounts"]
        ]
        moved = [
            row
            for row in database.execute("SELECT account, wallet, movement FROM movement")
            if row[0] in expected["accounts"]
        ]
    assert len(lines) == expected["events"]["rated"] > 0
    assert max(Counter((line["source"], line["id"]) for _, _, line in lines).values()) == 1
    assert all(line["time"] and line["model"] and line["energy_source"] for _, _, line in lines)
    wallets = {name: Fraction(0) for name in expected["accounts"]}
    for account, charged, _ in lines:
        wallets[account] -= Fraction(charged)
    for account, wallet, _ in moved:
        wallets[account] += Fraction(wallet)
    assert wallets == {name: Fraction(account["wallet"]) for name, account in expected["accounts"].items()}


def started_from(snapshot: dict[str, Any]) -> RebuiltAccount:
    account = RebuiltAccount(Fraction(snapshot["wallet"]))
    for bucket in snapshot["buckets"]:
        account.amount[bucket["grant_id"]] = Fraction(bucket["amount"])
        account.remaining[bucket["grant_id"]] = Fraction(bucket["remaining"])
    return account


def test_a_snapshot_and_the_tail_of_the_topics_are_the_account(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(12)
    traffic.use(400)
    traffic.flush()
    info = stack.info(pipeline.folder)
    command = ["api-key", "create", "reader", "--role", "read", "--data-dir", str(pipeline.folder)]
    made = subprocess.run([sys.executable, "-m", "tokenbill", *command], capture_output=True, text=True, check=True)
    key = made.stdout.split()[-1]
    with traffic.streaming():
        traffic.stream_until(300)
        from_topic: dict[str, tuple[int, dict[str, Any]]] = {}
        for message in read_topic(pipeline.kafka, BALANCE_TOPIC):
            event = json.loads(message.value())
            assert dict(message.headers()) == {
                "content-type": b"application/cloudevents+json", "ce_type": b"package.balance.v1",
            }  # fmt: skip
            assert event["partition"] == str(message.partition())
            if event["subject"] in traffic.accounts:
                from_topic[event["subject"]] = int(event["commit"]), event["data"]
        over_http = {}
        for name in traffic.accounts:
            answer = httpx.get(f"{info.api}/v1/accounts/{name}/balance", headers={"Authorization": f"Bearer {key}"})
            body = answer.raise_for_status().json()
            assert answer.headers["etag"] == f'W/"{body["partition"]}-{body["commit"]}"'
            over_http[name] = body["commit"], body
        traffic.command("wallet.topped_up.v1", traffic.accounts[0], {"amount": "7", "payment_ref": "late"})
    expected = traffic.check()
    for snapshots in (from_topic, over_http):
        assert snapshots.keys() == set(traffic.accounts)
        rebuilt = Rebuilt()
        for name, (_, snapshot) in snapshots.items():
            rebuilt.accounts[name] = started_from(snapshot)
        tail = 0
        for topic, add in ((RATED_TOPIC, rebuilt.add_usage), (ACCOUNT_EVENT_TOPIC, rebuilt.add_notices)):
            for message in read_topic(pipeline.kafka, topic):
                event = json.loads(message.value())
                for part in parts(event):
                    commit = snapshots.get(part[0], (1 << 62, None))[0]
                    if int(event["commit"]) > commit:
                        tail += 1
                        add([part[1]])
        assert tail > 0
        for name, simulated in expected["accounts"].items():
            assert rebuilt.accounts[name].differences(simulated) == []


def parts(event: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return an event cut into one for each account that it concerns."""
    if "events" not in event["data"] or "account" in event["data"]:
        return [(event["data"]["account"], event)]
    return [(line["account"], event | {"data": {"events": [line]}}) for line in event["data"]["events"]]
