"""Outcome of a scenario, from any implementation, and its comparison with the expected state."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from recorded_simulation import RecordedSimulation
from scenario_files import CLOCK, Scenario

from billing import ledger
from billing.commits.commit_record import OutboxRow
from billing.commits.outbox_frames import Frame, unpack_batches
from billing.commits.output_documents import account_object
from billing.store.store import Store
from schemas.topics import ACCOUNT_EVENT_TOPIC, REJECTED_TOPIC
from schemas.units import format_pico

TRANSFER_ID = re.compile("^transfer-[0-9a-f]+/")
COUNTED = ("rated", "duplicate", "rejected")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The visible result of a run. ``accounts`` has the scenario's names, and documents as ``simulate`` writes them."""

    accounts: Mapping[str, Mapping[str, Any]]
    journal_pico: Mapping[str, int]
    events: str
    findings: Sequence[str]
    rejected: Sequence[str]
    refused: Sequence[str]


def check(scenario: Scenario, outcome: Outcome) -> None:
    """Compare an outcome with everything that the scenario states."""
    account, others = outcome.accounts["a"], {**outcome.accounts}
    del others["a"]
    left = _left_of(account)
    assert {grant: left.get(grant) for grant in scenario.left} == scenario.left
    assert all("/pack-" in grant for grant in left.keys() - scenario.left.keys())
    assert {name: list(_left_of(other).values()) for name, other in others.items()} == scenario.others
    assert {name: other["wallet"] for name, other in others.items()} == dict.fromkeys(others, "0") | scenario.wallets
    journal = outcome.journal_pico
    found = {name: account[name] for name in ("wallet", "absorbed", "absorbed_amount")}
    found["revenue"] = format_pico(-journal.get(ledger.REVENUE_USAGE, 0))
    found["breakage"] = format_pico(-journal.get(ledger.REVENUE_BREAKAGE, 0))
    assert found == {name: getattr(scenario, name) for name in found}
    assert sum(journal.values()) == 0
    assert journal.get(ledger.TRANSFER_CLEARING, 0) == 0
    seen = {"events": outcome.events, "findings": list(outcome.findings)}
    seen |= {"rejected": list(outcome.rejected), "refused": list(outcome.refused)}
    assert seen == {name: getattr(scenario, name) for name in seen}


def _left_of(account: Mapping[str, Any]) -> dict[str, str]:
    return {
        TRANSFER_ID.sub("received/", bucket["grant_id"]): f"{bucket['remaining']} {bucket['status']}"
        for bucket in account["buckets"]
    }


def outcome_of(simulation: RecordedSimulation, as_of_us: int) -> Outcome:
    """Return the outcome of a simulation."""
    document: Any = simulation.document(as_of_us)
    journal_pico: Counter[str] = Counter()
    for record in simulation.records:
        for posting in record.postings:
            journal_pico[posting.account_code] += posting.amount_pico
    rows = [row for record in simulation.records for row in record.outbox]
    return Outcome(
        document["accounts"],
        journal_pico,
        " ".join(f"{document['events'][name]} {name}" for name in COUNTED),
        [finding.kind for record in simulation.records for finding in record.findings],
        **reasons((row.topic, frame) for row in rows for frame in _frames(row)),
    )


def outcome_in_sql(
    connection: psycopg.Connection[Any],
    store: Store,
    names: Mapping[str, str],
    partitions: Sequence[int],
    published: Iterable[tuple[str, Frame]],
) -> Outcome:
    """Return the outcome of a scenario from SQL. The scenario must have had its partitions to itself.

    ``names`` maps the scenario's account names to the stored ones; ``published`` holds the published records.
    """
    stored = {account.account: account_object(account) for account in store.load_accounts(list(names.values()))}
    mine = (list(partitions),)
    sums = connection.execute(
        "SELECT account_code, sum(amount_pico)::text FROM journal WHERE partition = ANY(%s) GROUP BY 1", mine
    )
    found = connection.execute("SELECT kind FROM finding WHERE partition = ANY(%s) ORDER BY partition, commit_no", mine)
    counts = connection.execute(
        "SELECT sum(rated), sum(duplicate), sum(rejected) FROM commit WHERE partition = ANY(%s)", mine
    ).fetchone()
    return Outcome(
        {name: stored[named] for name, named in names.items() if named in stored},
        {code: int(total) for code, total in sums},
        " ".join(f"{count} {name}" for count, name in zip(counts or (), COUNTED, strict=True)),
        [kind for (kind,) in found],
        **reasons(published),
    )


def reasons(records: Iterable[tuple[str, Frame]]) -> dict[str, list[str]]:
    """Return the reasons of ``rejected`` usage and ``refused`` commands, from records of output topics."""
    found: dict[str, list[str]] = {"rejected": [], "refused": []}
    for topic, frame in records:
        if topic == REJECTED_TOPIC:
            found["rejected"].append((dict(frame.headers)["reason"] or b"").decode())
        elif topic == ACCOUNT_EVENT_TOPIC:
            event = json.loads(frame.value or b"")
            if event["type"] == "command.rejected.v1" and event["data"]["command_source"] != CLOCK:
                found["refused"].append(event["data"]["reason"])
    return found


def _frames(row: OutboxRow) -> list[Frame]:
    return list(unpack_batches(row.payload)) if row.topic in (REJECTED_TOPIC, ACCOUNT_EVENT_TOPIC) else []


def in_outbox(rows: Iterable[OutboxRow]) -> list[tuple[str, Frame]]:
    """Return the records of output topics that are still in the outbox."""
    return [(row.topic, frame) for row in rows for frame in _frames(row)]
