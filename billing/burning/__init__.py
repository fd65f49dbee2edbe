"""Payment for a rated event: deduction from buckets, windows, member caps, overage."""
