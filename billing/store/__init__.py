"""SQL layer of billing: one transaction per commit, and every query. Only it imports SQLAlchemy and psycopg."""
