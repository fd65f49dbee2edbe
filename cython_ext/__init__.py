"""The compiled calculator: decode, dedupe, rate, burn, aggregate over columns of integers. No policy, no I/O."""
