"""SQL of reports, audit and progress: read-only queries over the committed rows."""
