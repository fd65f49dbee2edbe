"""SQL of the commit: rows, COPY text, digests."""
