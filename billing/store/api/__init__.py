"""SQL of the HTTP API: keys, orders, rating groups, and reads of accounts, catalogue and suspense."""
