"""Schema revisions, one module each. A released revision's statements are never edited."""
