"""Prometheus metrics of a worker: names and labels; the code that measures a value sets it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from billing.commits.commit_record import CommitCounts, Finding
from billing.commits.input_batch import InputBatch
from streams.health_pages import DELAY_SECONDS

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


USAGE_OUTCOMES = ("rated", "duplicate", "rejected", "forwarded", "dropped", "foreign")
COMMAND_OUTCOMES = ("accepted", "rejected", "duplicate", "forwarded", "dropped", "foreign")


class WorkerMetrics:
    """The metrics of one worker, in a registry of their own so that a test process can hold several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "tokenbill_events", "Usage records committed, by outcome", ["outcome"], registry=self.registry
        )
        self.commands = Counter(
            "tokenbill_commands", "Account commands committed, by outcome", ["outcome"], registry=self.registry
        )
        self.findings = Counter(
            "tokenbill_findings", "Findings of commits, by kind: something to look at", ["kind"], registry=self.registry
        )
        # A counter that is 0 is there from the start, so that its first increase is seen.
        for outcome in USAGE_OUTCOMES:
            self.events.labels(outcome)
        for outcome in COMMAND_OUTCOMES:
            self.commands.labels(outcome)
        self.commits = Counter("tokenbill_commits", "Commits in SQL", registry=self.registry)
        self.decide_seconds = Histogram(
            "tokenbill_decide_seconds", "Deciding one commit's input", buckets=_SECONDS, registry=self.registry
        )
        self.commit_seconds = Histogram(
            "tokenbill_commit_seconds", "One commit in SQL", buckets=_SECONDS, registry=self.registry
        )
        self.delay = Histogram(
            "tokenbill_produced_to_committed_seconds",
            "From the LogAppendTime of the oldest record of a commit to the commit",
            buckets=DELAY_SECONDS,
            registry=self.registry,
        )
        self.lag = Gauge(
            "tokenbill_lag_records",
            "Records in the log beyond SQL's position",
            ["topic", "partition"],
            registry=self.registry,
        )
        self.rewinds = Counter(
            "tokenbill_rewinds", "Rewinds to the position in SQL, by reason", ["reason"], registry=self.registry
        )
        self.database_failures = Counter(
            "tokenbill_database_failures", "Commits or loads that the database refused or lost", registry=self.registry
        )
        self.stopped = Gauge(
            "tokenbill_partitions_stopped", "Partitions stopped until an operator intervenes", registry=self.registry
        )

        self.partition_stopped = Gauge(
            "tokenbill_partition_stopped",
            "1 for each partition that stays stopped until a person resumes it",
            ["partition"],
            registry=self.registry,
        )

    def count(self, counts: CommitCounts, findings: Sequence[Finding]) -> None:
        """Add the counts and the findings of one commit."""
        self.commits.inc()
        for outcome in USAGE_OUTCOMES:
            self.events.labels(outcome).inc(getattr(counts, outcome))
        for outcome in COMMAND_OUTCOMES:
            self.commands.labels(outcome).inc(getattr(counts, f"commands_{outcome}"))
        for finding in findings:
            self.findings.labels(finding.kind).inc()

    def committed(self, batches: Sequence[InputBatch]) -> None:
        """Add the delay of a commit of these batches, which is in SQL now."""
        times_ms = [batch.records[0].timestamp for batch in batches if len(batch.records)]
        if times_ms:
            self.delay.observe(max(0.0, time.time() - min(times_ms) / 1e3))

    def render(self) -> bytes:
        """Return the page that Prometheus scrapes."""
        return generate_latest(self.registry)
