"""The baseline of the pipeline: a plain Faust agent that does the same job the usual way, in a process of its own.

One agent handles one event at a time, with Faust's own Kafka transport: it decodes the JSON, drops duplicates by a set,
prices by a dictionary, burns the account's package in a dictionary, and adds up. Nothing is durable and nothing is
published, which favours the baseline.

    python -m benchmarks.plain_faust KAFKA TOPIC EVENTS ACCOUNTS

Prints events per second, measured from the first event to the last.
"""

import asyncio
import json
import os
import sys
import time
from collections import defaultdict

import faust

from benchmarks import workload
from billing.pricing.match import Combination, candidates
from billing.pricing.rate import unit_prices


class _Job:
    """The work of the agent on each event, with its state in dictionaries."""

    def __init__(self, accounts: int) -> None:
        self._book = workload.catalog().price_books[0]
        self._prices: dict[tuple[str, str, str], dict[str, tuple[int, int]]] = {}
        self._remaining = dict.fromkeys(workload.account_names(accounts), 80_000_000 * 10**6)
        self._seen: set[tuple[str, str]] = set()
        self._sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        self.done = 0
        self.first_at = 0.0

    def apply(self, event: dict) -> None:  # type: ignore[type-arg]
        """Dedupe, price, burn and add up one decoded event."""
        if not self.done:
            self.first_at = time.perf_counter()
        self.done += 1
        identity = (event["source"], event["id"])
        if identity in self._seen:
            return
        self._seen.add(identity)
        data = event["data"]
        key = (data["model"], data["hardware_tier"], data["energy_source"])
        prices = self._prices.get(key)
        if prices is None:
            combination = Combination(*key, data["site"], data["channel"], data["service_tier"])
            row = candidates(self._book, combination)[0]
            prices = self._prices[key] = unit_prices(self._book, row, combination)
        amount_pico = standard_micro = 0
        for meter, count in data["usage"].items():
            price_pico, coefficient_micro = prices[meter]
            amount_pico += count * price_pico
            standard_micro += count * coefficient_micro
        self._remaining[event["subject"]] -= standard_micro
        sums = self._sums[key]
        sums[0] += 1
        sums[1] += amount_pico
        sums[2] += standard_micro


def main(kafka: str, topic_name: str, events: int, accounts: int) -> None:
    """Read ``events`` events and print the rate."""
    app = faust.App(
        f"plain-{time.time_ns()}",
        broker=f"kafka://{kafka}",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        value_serializer="raw",
        stream_wait_empty=False,
    )
    topic = app.topic(topic_name, value_type=bytes, value_serializer="raw")
    job = _Job(accounts)

    @app.agent(topic)
    async def bill(stream):  # type: ignore[no-untyped-def]
        async for value in stream:
            job.apply(json.loads(value))
            if job.done == events:
                rate = events / (time.perf_counter() - job.first_at)
                os.write(1, f"events_per_second {rate:.0f}\n".encode())
                os._exit(0)  # Faust swallows an agent's SystemExit; no state has to be saved

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = faust.Worker(app, loglevel="ERROR", loop=loop)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
