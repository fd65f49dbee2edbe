"""SQL layer of billing: one transaction per commit, and every query. No other package of the product imports SQLAlchemy or psycopg."""
