"""Billing rules (pricing, packages, ledger) and their SQL layer (``billing.store``). No Kafka, no HTTP, no clock."""
