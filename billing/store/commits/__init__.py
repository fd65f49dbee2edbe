"""SQL of the commit: its transaction, its rows as COPY text, and the digest chain."""
