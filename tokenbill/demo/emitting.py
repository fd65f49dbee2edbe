"""One emitter of the demo, a process of its own: sends its share of the events and counts what it sent.

    python -m tokenbill.demo.emitting    (an :class:`EmitterTask` as JSON on standard input)

Writes JSON lines to standard output: ``{"sent": n}`` as progress, and at the end one line with ``done``. The totals
count events by minute of event time and shape. With the price list, they give the expected price of all usage without
asking the pipeline.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import sys
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException

from schemas.times import DAY_US, MINUTE_US, format_time_us
from streams.send.emitter import Emitter
from streams.stream_errors import DeliveryFailed
from tokenbill.demo.faults import FAULTS, UNREADABLE
from tokenbill.demo.trace import built_in_sizes, read_trace
from tokenbill.demo.traffic import DEMO_LATE_US, TRAFFIC_KINDS, account_name, make_shapes, popularity

EMITTER_PATIENCE_SECONDS = 240.0
"""Longest time that broker failures may last; librdkafka itself keeps a record for 300 s."""
CHUNK = 500
"""Number of events that share one event time and are drawn together."""
LATE_EVERY = 20
"""One chunk in this many is late usage."""
DUPLICATE_SHARE = ASTRAY_SHARE = 0.01
REMEMBERED = 2_000
"""A duplicate repeats one of the last events, up to this many back."""
REPORT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class EmitterTask:
    """The task of one emitter. ``events`` counts every record; ``bad`` counts those that must be rejected."""

    kafka: str
    run: str
    number: int
    events: int
    bad: int
    accounts: int
    kinds: list[int]
    trace: str | None

    @property
    def source(self) -> str:
        """Source of the emitter's events, without the suffix ``#p`` and the partition that each event adds."""
        return f"urn:demo:{self.run}:node-{self.number}"


@dataclass(slots=True)
class SentCounts:
    """Counts of what one emitter sent: ``rated`` + ``duplicate`` + the sum of ``rejected`` is ``sent``."""

    sent: int
    rated: int
    duplicate: int
    astray: int
    rejected: dict[str, int]
    usage: list[tuple[int, int, int]]
    """Events that must be rated, as (minute of event time since 1970, shape, events)."""


def main() -> None:
    """Read the task from standard input, send its events, and report the totals."""
    order = EmitterTask(**json.loads(sys.stdin.read()))
    emitter = _patient_emitter(order)
    sent = emit(order, emitter)
    _flush(emitter)
    _report({"done": dataclasses.asdict(sent)})


def emit(order: EmitterTask, emitter: Emitter) -> SentCounts:
    """Send all events of a task. The last records may not be acknowledged yet on return."""
    chance = random.Random(f"{order.run}/{order.number}")
    sizes = built_in_sizes() if order.trace is None else read_trace(Path(order.trace))
    shapes = make_shapes(sizes, [TRAFFIC_KINDS[place] for place in order.kinds])
    names = [account_name(order.run, number) for number in range(order.accounts)]
    weights = popularity(order.accounts)
    every_shape = range(len(shapes))
    # Every emitter begins with a different reason, so that a small number of bad events still covers many reasons.
    reasons = list(itertools.islice(itertools.cycle(FAULTS), 4 * order.number, 4 * order.number + order.bad))
    usage: Counter[tuple[int, int]] = Counter()
    rejected: Counter[str] = Counter()
    recent: list[tuple[int, bytes, bytes]] = []
    duplicates = astray = chunks = 0
    next_report = 0.0
    while emitter.sent < order.events:
        now_us = time.time_ns() // 1000
        time_us = now_us - (DEMO_LATE_US if chunks % LATE_EVERY == LATE_EVERY - 1 else 0)
        minute, text = time_us // MINUTE_US, format_time_us(time_us)
        size = min(CHUNK, order.events - emitter.sent)
        owed = order.bad * (emitter.sent + size) // order.events
        for reason in reasons[sum(rejected.values()) : owed]:
            _send_fault(emitter, order, reason, names, now_us, shapes[0].data)
            rejected[reason] += 1
            size -= 1
        people = chance.choices(names, cum_weights=weights, k=size)
        drawn = chance.choices(every_shape, k=size)
        for account, shape, luck in zip(people, drawn, (chance.random() for _ in people), strict=True):
            if luck < DUPLICATE_SHARE and recent:
                emitter.send_raw(*chance.choice(recent))
                duplicates += 1
                continue
            if luck > 1 - ASTRAY_SHARE and emitter.partitions > 1:
                _send_astray(emitter, order, account, text, shapes[shape].data)
                astray += 1
            else:
                partition, value = emitter.send(account, text, shapes[shape].data)
                if luck < 4 * DUPLICATE_SHARE:
                    recent.append((partition, account.encode(), value))
            usage[minute, shape] += 1
        del recent[:-REMEMBERED]
        chunks += 1
        if time.monotonic() >= next_report:
            next_report = time.monotonic() + REPORT_SECONDS
            _report({"sent": emitter.sent})
    return SentCounts(
        sent=emitter.sent,
        rated=sum(usage.values()),
        duplicate=duplicates,
        astray=astray,
        rejected=dict(rejected),
        usage=[(minute, shape, events) for (minute, shape), events in sorted(usage.items())],
    )


def _send_fault(emitter: Emitter, order: EmitterTask, reason: str, names: list[str], now_us: int, data: bytes) -> None:
    account = f"{names[0]}-nobody" if reason == "unknown_account" else names[emitter.sent % len(names)]
    partition = emitter.partition_of(account)
    sequence = emitter.next_sequences[partition]
    if reason not in UNREADABLE:
        emitter.next_sequences[partition] += 1
    source = f"{order.source}#p{partition}"
    body = {
        "specversion": "1.0",
        "type": "token.usage.v1",
        "source": source,
        "id": f"{source}-{sequence}-{reason}",
        "sequence": str(sequence),
        "time": format_time_us(now_us + DAY_US if reason == "time_in_future" else now_us),
        "subject": account,
        "data": json.loads(data),
    }
    emitter.send_raw(partition, account.encode(), FAULTS[reason](body))


def _send_astray(emitter: Emitter, order: EmitterTask, account: str, time_text: str, data: bytes) -> None:
    """Send a good event to a partition that does not own its account, chosen with librdkafka's default hash."""
    key = account.encode()
    own = emitter.partition_of(account)
    sequence = emitter.next_sequences[own]
    emitter.next_sequences[own] += 1
    value = (
        b'{"specversion":"1.0","type":"token.usage.v1","source":"%b#p%d","id":"astray-%d","sequence":"%d",'
        b'"time":"%b","subject":"%b","data":%b}'
    ) % (order.source.encode(), own, sequence, sequence, time_text.encode(), key, data)
    chosen = zlib.crc32(key) % emitter.partitions
    emitter.send_raw(chosen if chosen != own else (own + 1) % emitter.partitions, key, value)


def _patient_emitter(order: EmitterTask) -> Emitter:
    deadline = time.monotonic() + EMITTER_PATIENCE_SECONDS
    while True:
        try:
            return Emitter(order.kafka, order.source)
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def _flush(emitter: Emitter) -> None:
    deadline = time.monotonic() + EMITTER_PATIENCE_SECONDS
    while True:
        try:
            emitter.flush()
            return
        except DeliveryFailed:
            if time.monotonic() > deadline:
                raise


def _report(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
