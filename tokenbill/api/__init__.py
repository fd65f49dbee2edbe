"""The HTTP API: what a billing system, a shop and an inference worker call. Never holds a rule, a statement of SQL, or
a Kafka client: those are in ``billing``, ``billing.store`` and ``streams``."""
