"""Prometheus metrics of the webhook sender."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)


class WebhookMetrics:
    """The metrics of one webhook process, in a registry of their own so that a test process can hold several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.attempts = Counter(
            "tokenbill_webhook_attempts",
            "Attempts to deliver an event: delivered, failed (tried again later), given_up",
            ["outcome"],
            registry=self.registry,
        )
        self.attempt_seconds = Histogram(
            "tokenbill_webhook_attempt_seconds", "One attempt", buckets=_SECONDS, registry=self.registry
        )
        self.lanes = Gauge("tokenbill_webhook_lanes", "Lanes in progress", registry=self.registry)
        self.pending = Gauge(
            "tokenbill_webhook_pending",
            "Deliveries that wait, those of failing webhooks included",
            registry=self.registry,
        )
        self.oldest = Gauge(
            "tokenbill_webhook_oldest_seconds", "Age of the oldest delivery that waits", registry=self.registry
        )
        self.filed = Counter(
            "tokenbill_webhook_deliveries_filed", "Deliveries made of account events", registry=self.registry
        )
        self.events = Counter("tokenbill_webhook_events_read", "Account events read", registry=self.registry)
        self.active = Gauge(
            "tokenbill_webhook_intake_active", "1 if this process reads account events", registry=self.registry
        )
        self.notices = Counter(
            "tokenbill_charging_notices",
            "Attempts to notify a gateway: delivered, failed (tried again later), given_up",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("delivered", "failed", "given_up"):
            self.attempts.labels(outcome)
            self.notices.labels(outcome)
