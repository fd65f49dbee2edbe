"""Conflicts: usage sent again under the identity of rated usage, with other content."""

IDENTITY_CONFLICT = "identity_conflict"
"""Kind of the finding that a commit reports for each conflict."""
