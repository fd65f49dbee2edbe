"""Hears what became of commands, as any consumer can: ``account.events``, ``read_committed``, from given positions on.

Belongs to no group and commits no offset: whoever listens keeps the positions it hands over. Never writes.
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
    """What became of one command. ``reason`` and ``detail`` are None where it was accepted."""

    source: str
    id: str
    reason: str | None
    detail: str | None


Deliver = Callable[[Mapping[int, int], Sequence[Outcome]], None]
"""Takes the next offset of each partition that moved, and the outcomes before it; returns when they are kept."""


class OutcomeReader:
    """A thread that reads, beginning at ``positions``; a partition without one begins at its end.

    ``source_prefix`` chooses the commands that are told of.
    """

    def __init__(self, kafka: str, positions: Mapping[int, int], source_prefix: str, deliver: Deliver) -> None:
        self._kafka = kafka
        self._positions = dict(positions)
        self._prefix = source_prefix
        self._deliver = deliver
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outcomes", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """End; what was not handed over is read again by whoever starts from the kept positions."""
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
                # Kept at once: what comes after this moment is never missed, whenever we are started again.
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
    """The outcome in a record of ``account.events``; None where it tells of something else."""
    # Most records are of other commands: they are not even parsed.
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
