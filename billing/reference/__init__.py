"""The slow, obvious specification of the core: the same interface, one event at a time, plain Python values."""
