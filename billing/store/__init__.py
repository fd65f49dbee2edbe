"""SQL layer of billing: one transaction per commit, and every query. SQLAlchemy and psycopg are imported only here."""
