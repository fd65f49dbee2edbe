"""Values of one commit: what it reads, what it writes, and the form of both."""
