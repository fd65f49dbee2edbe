"""Account state: wallet, buckets, subscriptions, bills, counters, and the deduction order of buckets."""
