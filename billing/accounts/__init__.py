"""State of an account: wallet, buckets, subscriptions, bills, counters, and the order in which buckets pay."""
