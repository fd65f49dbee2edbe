"""The HTTP API for billing systems, shops and inference workers.

Contains no rules, no SQL and no Kafka client: those are in ``billing``, ``billing.store`` and ``streams``.
"""
