"""HTTP routes of account commands, under idempotency keys."""
