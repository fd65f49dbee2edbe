"""Usage sent again with other content, by the command line: listed, shown with both contents, and resolved."""

import json
import subprocess
import sys
from typing import Any

from pipeline_rig import PARTITIONS, Pipeline, Traffic, until

from billing.store.proofs.audit import audit
from schemas.routing import partition_of
from schemas.topics import USAGE_TOPIC


def conflict(pipeline: Pipeline, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "tokenbill", "conflict", *arguments, "--data-dir", str(pipeline.folder)],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    return done


def listed(pipeline: Pipeline, account: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(conflict(pipeline, "list", "--all", "--account", account, "--json").stdout)
    return rows


def with_counts(event: bytes, **counts: int) -> bytes:
    body = json.loads(event)
    return json.dumps(body | {"data": body["data"] | {"usage": counts}}).encode()


def correction(row: dict[str, Any], counts: dict[str, int]) -> bytes:
    """The command that resolving a conflict sends, for the simulation."""
    data = {"source": row["source"], "id": row["id"], "usage": counts, "reason": "measured again"}
    head = {"specversion": "1.0", "type": "usage.corrected.v1", "source": "urn:the-same", "id": row["place"]}
    return json.dumps(head | {"time": row["time"], "subject": row["account"], "data": data}).encode()


def test_a_conflict_is_listed_shown_and_resolved(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(1)
    account = traffic.accounts[0]
    first = with_counts(traffic.event(1, account), input=1_000)
    second = with_counts(first, input=2_000)
    away = (partition_of(account, PARTITIONS) + 1) % PARTITIONS
    traffic.send_usage(first, account)
    traffic.settle()
    traffic.send_usage(second, account, headers=[("trace", b"\x00\xff")])
    traffic.send_usage(with_counts(first, input=3_000), account, partition=away)
    traffic.settle()
    rows = listed(pipeline, account)
    assert {(one["account"], one["id"], one["state"]) for one in rows} == {(account, json.loads(first)["id"], "open")}
    assert sorted(one["topic"] for one in rows) == ["usage.events", "usage.forwarded"]
    [direct] = [one for one in rows if one["topic"] == USAGE_TOPIC]
    [forwarded] = [one for one in rows if one["topic"] != USAGE_TOPIC]

    shown = json.loads(conflict(pipeline, "show", direct["place"], "--json").stdout)
    assert shown["value"] == {"text": second.decode()}
    assert shown["headers"] == [{"name": "trace", "content": {"base64": "AP8="}}]
    assert (shown["first"]["usage"]["usage"], shown["second"]["usage"]) == ({"input": 1_000}, {"input": 2_000})
    assert (shown["differs"], shown["first"]["corrections"], shown["first_unknown"]) == (["usage"], [], None)
    assert conflict(pipeline, "show", direct["place"], "--bytes").stdout == second
    text = conflict(pipeline, "show", direct["place"]).stdout.decode()
    assert 'usage            first {"input": 1000}\n                 again {"input": 2000}' in text
    finding = next(one for one in audit(pipeline.database_url).findings if one.name == "open conflicts")
    assert any(account in line for line in finding.shown)

    before = pipeline.audit_problems()
    conflict(pipeline, "resolve", forwarded["place"], "--outcome", "keep", "--reason", "a retry", "--by", "wang")
    conflict(pipeline, "resolve", direct["place"], "--outcome", "correct", "--reason", "measured again", "--by", "li")
    states = {direct["place"]: ("corrected", "li", "measured again"), forwarded["place"]: ("kept", "wang", "a retry")}

    def resolved() -> bool:
        return {o["place"]: (o["state"], o["resolved_by"], o["reason"]) for o in listed(pipeline, account)} == states

    until("the correction is accepted", resolved, every=1.0)
    uncorrected = traffic.expected()["accounts"]
    traffic.lines.append(correction(direct, {"input": 2_000}))
    assert traffic.expected()["accounts"] != uncorrected
    traffic.check()
    assert pipeline.audit_problems() == before == []
    shown = json.loads(conflict(pipeline, "show", direct["place"], "--json").stdout)
    assert [one["usage"] for one in shown["first"]["corrections"]] == [{"input": 2_000}]

    again = conflict(pipeline, "resolve", direct["place"], "--outcome", "keep", "--reason", "x", code=2).stderr
    assert b"was resolved before (corrected) by li; nothing was changed" in again


def test_what_cannot_be_resolved_is_said(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(1)
    account = traffic.accounts[0]
    first = with_counts(traffic.event(1, account), input=1_000)
    traffic.send_usage(first, account)
    body = json.loads(first)
    traffic.send_usage(json.dumps(body | {"data": body["data"] | {"site": "elsewhere"}}).encode(), account)
    traffic.settle()
    [row] = listed(pipeline, account)
    asked = ("resolve", row["place"], "--outcome", "correct", "--reason", "x")
    refused = conflict(pipeline, *asked, code=2).stderr
    assert b"has the counts that were rated first; nothing was sent" in refused
    assert b"it differs in site" in refused
    nowhere = ("resolve", "usage.events/0/999999999", "--outcome", "keep", "--reason", "x")
    assert b"No conflict is at usage.events/0/999999999" in conflict(pipeline, *nowhere, code=2).stderr
    empty = ("resolve", row["place"], "--outcome", "keep", "--reason", "")
    assert b"--reason is ''" in conflict(pipeline, *empty, code=2).stderr
    assert b"is not the place of a record" in conflict(pipeline, "show", "nonsense", code=2).stderr
    assert [one["state"] for one in listed(pipeline, account)] == ["open"]
