"""Resubmission by the command line: rejected events are kept, sent again, and rated once."""

import base64
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from pipeline_rig import PARTITIONS, Pipeline, Traffic, until

from schemas.routing import partition_of
from schemas.topics import USAGE_TOPIC


def suspense(pipeline: Pipeline, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "tokenbill", "suspense", *arguments, "--data-dir", str(pipeline.folder)],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    return done


def listed(pipeline: Pipeline, account: str) -> list[dict[str, Any]]:
    done = suspense(pipeline, "list", "--all", "--account", account, "--format", "json")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def counts(traffic: Traffic) -> tuple[int, int, int]:
    traffic.settle()
    found = traffic.books.counts()
    return found.rated, found.duplicate, found.rejected


def test_usage_of_an_unknown_account_is_rated_once_when_it_is_opened(pipeline: Pipeline, traffic: Traffic) -> None:
    account = traffic.account(0)
    event = traffic.event(1, account)
    # Sent to a wrong partition, so that it is rejected on the partition of its account.
    away = (partition_of(account, PARTITIONS) + 1) % PARTITIONS
    traffic.send_usage(event, account, partition=away, remember=False, headers=[("trace", b"\x00\xff")])
    assert counts(traffic) == (0, 0, 1)
    [row] = listed(pipeline, account)
    assert (row["reason"], row["topic"], row["state"]) == ("unknown_account", "usage.forwarded", "open")
    assert json.loads(suspense(pipeline, "show", row["place"], "--json").stdout)["value"] == {"text": event.decode()}
    assert suspense(pipeline, "show", "usage.forwarded", *row["place"].split("/")[1:], "--bytes").stdout == event

    suspense(pipeline, "resubmit", row["place"], "--by", "wang")
    assert counts(traffic) == (0, 0, 2)
    [first, second] = listed(pipeline, account)
    assert (first["state"], second["state"]) == ("rejected_again", "open")
    assert first["sent_to"] == second["place"]

    traffic.open_one(account)
    traffic.settle()
    done = suspense(pipeline, "resubmit", "--reason", "unknown_account", "--account", account)
    assert done.stdout == b"1 resubmitted\n"
    assert counts(traffic) == (1, 0, 2)
    assert [one["state"] for one in listed(pipeline, account)] == ["rejected_again", "rated"]
    done = suspense(pipeline, "resubmit", "--account", account)
    assert done.stdout == b"0 resubmitted\n"

    assert b"sent again before" in suspense(pipeline, "resubmit", second["place"], code=2).stderr
    suspense(pipeline, "resubmit", second["place"], "--again")
    assert counts(traffic) == (1, 1, 2)
    found = traffic.books.counts()
    assert found.decided == found.rated + found.duplicate + found.rejected == 4
    assert pipeline.audit_problems() == []
    with pipeline.admin() as connection:
        resolutions = connection.execute(
            "SELECT how, resolved_by FROM suspense JOIN suspense_resolution USING (partition, commit_no, row_no)"
            " WHERE account = %s ORDER BY resolution_no",
            (account,),
        ).fetchall()
    assert [how for how, _ in resolutions] == ["as_it_was"] * 3
    assert resolutions[0][1] == "wang"


def test_an_event_that_was_rejected_several_times_is_sent_once(
    pipeline: Pipeline, traffic: Traffic, tmp_path: Path
) -> None:
    """Unnumbered and numbered events, 261 records of 112 events: a repair of one copy resolves the others too."""
    account = traffic.account(0)
    bare = {"source": f"urn:test:{traffic.name}:bare", "sequence": None}
    values = [traffic.event(n, account, **({} if n % 2 else bare | {"id": f"b-{n}"})) for n in range(112)]
    for copy in range(3):
        for value in values[: 112 - 37 * copy]:
            traffic.send_usage(value, account, remember=False)
    last = json.loads(values[0])
    other = json.dumps(last | {"data": last["data"] | {"usage": {"input": 1}}}).encode()
    traffic.send_usage(other, account, remember=False)
    assert counts(traffic) == (0, 0, 112 + 75 + 38 + 1)
    rows = listed(pipeline, account)
    assert [row["id"] for row in rows] == sorted(
        (row["id"] for row in rows), key=[json.loads(v)["id"] for v in values].index
    )
    assert [row["copies"] for row in rows[:4]] == [4, 4, 4, 4]

    traffic.open_one(account)
    traffic.settle()
    done = suspense(pipeline, "resubmit", rows[0]["place"])
    assert len(done.stdout.splitlines()) == 3 and b"with other bytes" in done.stderr
    done = suspense(pipeline, "resubmit", "--account", account)
    assert done.stdout == b"111 resubmitted, and 111 more records of the same events\n"
    assert counts(traffic) == (112, 0, 226)
    left = [row for row in listed(pipeline, account) if row["state"] != "rated"]
    assert [row["id"] for row in left] == ["b-0"] and left[0]["state"] == "open"
    assert b"--again" in suspense(pipeline, "resubmit", left[0]["place"], code=2).stderr
    assert counts(traffic) == (112, 0, 226)
    assert pipeline.audit_problems() == []


def test_a_command_killed_before_it_noted_what_it_sent_costs_a_duplicate(pipeline: Pipeline, traffic: Traffic) -> None:
    account = traffic.account(0)
    traffic.send_usage(traffic.event(1, account), account, remember=False)
    assert counts(traffic) == (0, 0, 1)
    traffic.open_one(account)
    traffic.settle()
    [row] = listed(pipeline, account)
    with pipeline.locked("suspense_resolution"):
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tokenbill",
                "suspense",
                "resubmit",
                row["place"],
                "--data-dir",
                str(pipeline.folder),
            ]
        )
        until("what was sent again is rated", lambda: traffic.books.counts().rated == 1)
        assert process.poll() is None
        process.kill()
        process.wait(60)
    [row] = listed(pipeline, account)
    assert row["state"] == "open"
    suspense(pipeline, "resubmit", row["place"])
    assert counts(traffic) == (1, 1, 1)
    assert [one["state"] for one in listed(pipeline, account)] == ["rated"]
    assert pipeline.audit_problems() == []


def test_an_event_is_repaired(pipeline: Pipeline, traffic: Traffic, tmp_path: Path) -> None:
    traffic.open(1)
    account = traffic.accounts[0]
    right = json.loads(traffic.event(1, account))
    wrong = json.loads(json.dumps(right))
    wrong["data"]["usage"]["input"] = "many"
    traffic.send_usage(json.dumps(wrong).encode(), account, remember=False)
    assert counts(traffic) == (0, 0, 1)
    [row] = listed(pipeline, account)
    file = tmp_path / "event.json"
    file.write_text(json.dumps(wrong))
    refused = suspense(pipeline, "resubmit", row["place"], "--with", str(file), code=2)
    assert b"The repaired event would be rejected" in refused.stderr
    file.write_text(json.dumps(right | {"id": "another"}))
    assert b"keeps the identity" in suspense(pipeline, "resubmit", row["place"], "--with", str(file), code=2).stderr
    file.write_text(json.dumps(right))
    suspense(pipeline, "resubmit", row["place"], "--with", str(file))
    traffic.lines.append(file.read_bytes())
    assert counts(traffic) == (1, 0, 1)
    assert [one["state"] for one in listed(pipeline, account)] == ["rated"]
    traffic.usage_sent += 1
    assert traffic.check(refused_elsewhere=1)["events"] == {"rated": 1, "duplicate": 0, "rejected": 0}


def test_what_the_broker_took_once_it_takes_again(pipeline: Pipeline, traffic: Traffic) -> None:
    """The record is as large as the broker allows, with a key and headers that are not text."""
    mark = traffic.name.encode()
    large = random.Random(2).randbytes(12 << 20)
    producer = Producer({"bootstrap.servers": pipeline.kafka, "message.max.bytes": 16 << 20})
    producer.produce(USAGE_TOPIC, large, b"\xff" + mark, 3, headers=[("mark", b"\xfe"), ("none", None)])
    assert producer.flush(60) == 0
    assert counts(traffic) == (0, 0, 1)
    with pipeline.admin() as connection:
        [(offset,)] = connection.execute(
            "SELECT record_offset FROM suspense WHERE record_key = %s", (b"\xff" + mark,)
        ).fetchall()
    done = suspense(pipeline, "resubmit", f"usage.events/3/{offset}")
    assert done.stdout.startswith(f"usage.events/3/{offset} -> usage.events/3/".encode())
    assert counts(traffic) == (0, 0, 2)
    again = done.stdout.decode().split()[-1]
    about = json.loads(suspense(pipeline, "show", again, "--json").stdout)
    assert (about["reason"], about["bytes"]) == ("invalid_json", 12 << 20)
    assert base64.b64decode(about["key"]["base64"]) == b"\xff" + mark
    assert about["headers"] == [{"name": "mark", "content": {"base64": "/g=="}}, {"name": "none", "content": None}]
    assert suspense(pipeline, "show", again, "--bytes").stdout == large
    assert pipeline.audit_problems() == []


def test_places_that_are_none_are_said_and_send_nothing(pipeline: Pipeline, traffic: Traffic) -> None:
    before = counts(traffic)
    missing = suspense(pipeline, "resubmit", "usage.events/0/999999999", code=2).stderr
    assert b"No event was rejected at usage.events/0/999999999" in missing
    assert b"is not the place of a record" in suspense(pipeline, "resubmit", "nonsense", code=2).stderr
    assert b"Nothing says what to resubmit" in suspense(pipeline, "resubmit", code=2).stderr
    assert b"No event was rejected at" in suspense(pipeline, "show", "usage.events/0/999999999", code=2).stderr
    assert counts(traffic) == before
