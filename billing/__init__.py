"""The rules: pricing, packages, ledger; then their SQL edge (``billing.store``). No Kafka, no HTTP, no clock."""
