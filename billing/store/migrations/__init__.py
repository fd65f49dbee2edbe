"""The schema's history as Alembic revisions; run by :mod:`billing.store.migrate`, never imported by the rules."""
