"""Values of one commit: its input records, its output rows, and their serialized forms. No I/O and no rules."""
