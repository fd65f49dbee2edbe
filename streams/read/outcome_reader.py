"""Reader of command outcomes from ``account.events``: ``read_committed``, from given positions on.

It joins no consumer group and commits no offset: the caller stores the positions that it delivers. It never writes.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from confluent_kafka import KafkaException, Message

from schemas.topics import ACCOUNT_EVENT_TOPIC
from streams.read.feed import Feed

log = logging.getLogger("tokenbill.outcomes")

_BATCH = 1_000
_WAIT_SECONDS = 0.2
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one command; ``reason`` and ``detail`` are None if it was accepted."""

    source: str
    id: str
    reason: str | None
    detail: str | None


Deliver = Callable[[Mapping[int, int], Sequence[Outcome]], None]
"""Stores the next offset of each partition that moved, together with the outcomes before it."""


class OutcomeReader:
    """Thread that reads outcomes from ``positions`` on; a partition without a position starts at its end.

    Only outcomes of commands whose source begins with ``source_prefix`` are delivered.
    """

    def __init__(self, kafka: str, positions: Mapping[int, int], source_prefix: str, deliver: Deliver) -> None:
        self._kafka = kafka
        self._positions = dict(positions)
        self._prefix = source_prefix
        self._deliver = deliver
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outcomes", daemon=True)

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading; undelivered outcomes are read again by the next reader that starts at the stored positions."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._read()
            except KafkaException as error:
                log.warning("outcomes are not read at this moment: %s", error.args[0])
                self._ending.wait(_RETRY_SECONDS)

    def _read(self) -> None:
        with closing(Feed(self._kafka, ACCOUNT_EVENT_TOPIC, self._positions, from_end=True)) as feed:
            if feed.fresh:
                # Stored at once, so that no later outcome is missed after a restart.
                self._hand_over(feed.fresh, ())
            while not self._ending.is_set():
                self._take(feed.read(_BATCH, _WAIT_SECONDS))

    def _take(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        moved: dict[int, int] = {}
        outcomes: list[Outcome] = []
        for message in messages:
            number, offset = message.partition(), message.offset()
            if number is None or offset is None:
                continue
            moved[number] = offset + 1
            outcome = read_outcome(message.value(), self._prefix)
            if outcome is not None:
                outcomes.append(outcome)
        self._hand_over(moved, outcomes)

    def _hand_over(self, moved: Mapping[int, int], outcomes: Sequence[Outcome]) -> None:
        self._deliver(moved, outcomes)
        self._positions.update(moved)


def read_outcome(value: bytes | None, source_prefix: str) -> Outcome | None:
    """Return the outcome in a record of ``account.events``, or None if the record is another event or command."""
    # Most records concern other commands; this test avoids parsing them.
    if value is None or source_prefix.encode() not in value:
        return None
    event = json.loads(value)
    data = event["data"]
    if event["type"] not in ("command.accepted.v1", "command.rejected.v1") or data["command_id"] is None:
        return None
    source = data["command_source"]
    if source is None or not source.startswith(source_prefix):
        return None
    return Outcome(source, data["command_id"], data.get("reason"), data.get("detail"))
