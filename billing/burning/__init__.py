"""Payment of a rated event: buckets, windows, member caps, overage."""
