"""The compiled core: decode, dedupe, rate, burn and sum up usage over columns of integers. No policy, no I/O."""
