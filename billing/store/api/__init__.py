"""SQL of the HTTP API: keys, orders, account and catalogue reads."""
