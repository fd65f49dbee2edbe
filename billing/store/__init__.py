"""The SQL edge: one transaction a commit, and every query. SQLAlchemy and psycopg are imported only here."""
