"""A simulation that keeps its commits, so that a test can read what each one published."""

import json
from typing import Any

from billing.commits.commit_record import CommitRecord
from billing.commits.outbox_frames import Frame, unpack_batches
from billing.engine.simulation import Simulation
from schemas.topics import ACCOUNT_EVENT_TOPIC


class RecordedSimulation(Simulation):
    """A simulation that keeps every commit it made."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.records: list[CommitRecord] = []
        super().__init__(*arguments, **options)

    def _take(self, record: CommitRecord) -> None:
        self.records.append(record)
        super()._take(record)

    def published(self, topic: str) -> list[dict[str, Any]]:
        """Return the events of an output topic in order."""
        return [event for record in self.records for event, _ in published(record, topic)]

    def outcomes(self) -> list[str]:
        """Return ``accepted`` or the reason of the refusal, for each command in order."""
        return [
            event["data"].get("reason", "accepted")
            for event in self.published(ACCOUNT_EVENT_TOPIC)
            if event["type"].startswith("command.")
        ]


def published(record: CommitRecord, topic: str) -> list[tuple[dict[str, Any], Frame]]:
    """Return the events that one commit publishes to a JSON topic, with their frames."""
    found: list[tuple[dict[str, Any], Frame]] = []
    for row in record.outbox:
        if row.topic == topic:
            found += [(json.loads(frame.value or b""), frame) for frame in unpack_batches(row.payload)]
    return found
