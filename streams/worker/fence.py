"""Command fence: every command acknowledged before the usage was produced is applied first.

The log's end, read after the usage was fetched, proves it. For the usage in the buffer the fence notes two kinds of
offsets, together called a cut: where the buffered usage ends, and where the command topics ended when they were asked
after the usage had arrived. A command acknowledged before the usage was produced lies below those ends. So the usage
waits until the commands below the ends are part of the same commit or of an earlier one.

This is another fence than the epoch fence in SQL, which stops a second writer (:class:`billing.errors.Fenced`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from billing.commits.input_batch import InputBatch
from schemas.topics import COMMAND_FORWARDED_TOPIC, COMMAND_TOPIC, USAGE_FORWARDED_TOPIC, USAGE_TOPIC
from streams.stream_errors import BrokerDown
from streams.worker.intake import InputPartition, Intake, Log
from streams.worker.worker_metrics import WorkerMetrics

log = logging.getLogger("tokenbill.writer")

COMMAND_TOPICS = (COMMAND_TOPIC, COMMAND_FORWARDED_TOPIC)
USAGE_TOPICS = (USAGE_TOPIC, USAGE_FORWARDED_TOPIC)
_BROKER_RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Cut:
    """The buffered usage, below ``usage``, waits for the commands below ``commands``; both map a topic to its end."""

    usage: dict[str, int]
    commands: dict[str, int]


class CommandFence:
    """Command fence of one partition: chooses the input of its next commit."""

    def __init__(
        self,
        partition: int,
        intakes: Mapping[str, Intake],
        kafka_log: Log,
        metrics: WorkerMetrics,
        wait_seconds: float,
    ) -> None:
        """Commands below the fence that do not arrive within ``wait_seconds`` are read again from the log."""
        self._partition = partition
        self._intakes = intakes
        self._log = kafka_log
        self._metrics = metrics
        self._wait_seconds = wait_seconds
        self._cut: _Cut | None = None

    def clear(self) -> None:
        """Forget the fence: the reading position has changed."""
        self._cut = None

    async def next_input(self, limit: int, more: asyncio.Event) -> list[InputBatch]:
        """Return the next commit's input in topic order, at most ``limit`` records of each topic.

        Empty after waiting for ``more``, so that the caller checks again.
        """
        if self._cut is None and any(self._intakes[topic].pending for topic in USAGE_TOPICS):
            self._cut = await self._read(limit)
        commands = [batch for topic in COMMAND_TOPICS if (batch := self._intakes[topic].peek(limit))]
        if self._cut is not None and self._reach(commands, self._cut.commands):
            cut, self._cut = self._cut.usage, None
            usage = [self._intakes[topic].peek(limit, until=end) for topic, end in cut.items()]
            return commands + [batch for batch in usage if batch]
        if not commands:
            await self._wait_for(more)
        return commands

    async def _read(self, limit: int) -> _Cut:
        # The command ends are read after the usage was fetched: a command acknowledged before one of these usage events
        # was produced is then below the ends.
        cut = {
            topic: min(intake.tail, intake.next + limit)
            for topic in USAGE_TOPICS
            if (intake := self._intakes[topic]).pending
        }
        ends = await log_ends(self._log, self._partition, [(topic, self._partition) for topic in COMMAND_TOPICS])
        return _Cut(cut, {topic: end for (topic, _), end in ends.items()})

    def _reach(self, commands: list[InputBatch], ends: Mapping[str, int]) -> bool:
        reached = {topic: self._intakes[topic].next for topic in COMMAND_TOPICS} | {
            one.topic: one.end for one in commands
        }
        return all(reached[topic] >= end for topic, end in ends.items())

    async def _wait_for(self, more: asyncio.Event) -> None:
        try:
            await asyncio.wait_for(more.wait(), self._wait_seconds if self._cut is not None else None)
        except TimeoutError:
            fence = self._cut.commands if self._cut is not None else {}
            late = {
                (topic, self._partition): self._intakes[topic].tail
                for topic, end in fence.items()
                if self._intakes[topic].tail < end
            }
            log.warning("p%d: commands to %s did not arrive: reading again from %s", self._partition, fence, late)
            self._metrics.rewinds.labels("commands_late").inc()
            await self._log.rewind(late)


async def log_ends(kafka_log: Log, partition: int, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
    """Return the ends of the logs, retrying for as long as the broker is down."""
    return await _asked(kafka_log.end_offsets, partition, list(places))


async def log_starts(kafka_log: Log, partition: int, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
    """Return the first offsets that the logs still hold, retrying for as long as the broker is down."""
    return await _asked(kafka_log.start_offsets, partition, list(places))


async def _asked(
    ask: Callable[[list[InputPartition]], Awaitable[Mapping[InputPartition, int]]],
    partition: int,
    wanted: list[InputPartition],
) -> Mapping[InputPartition, int]:
    while True:
        try:
            return await ask(wanted)
        except BrokerDown as error:
            log.warning("p%d: broker down, retrying: %s", partition, error)
            await asyncio.sleep(_BROKER_RETRY_SECONDS)
