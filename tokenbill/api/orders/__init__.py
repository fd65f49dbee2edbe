"""HTTP routes of account commands, made idempotent by keys."""
