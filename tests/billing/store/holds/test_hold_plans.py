"""Statements of holds find rows by key with any statistics: a plan is kept while the statistics change."""

import psycopg
import pytest
from own_database import PreparedDatabase

from billing.store.database import connection_parameters, schema_url
from billing.store.holds import hold_rows
from billing.store.holds.hold_book import OPTIONS

OF_ONE_ACCOUNT = """
INSERT INTO tokenbill.hold (reservation_id, account, kind, state, held_micro, wallet_pico, terms, steps, created_us,
    expires_us)
SELECT n::text, 'a', 'reservation', 'open', '{}', 0, '{}', '{}', n, n FROM generate_series(1, 300) AS n
"""


@pytest.mark.parametrize("one_account", [False, True], ids=["empty", "all of one account"])
@pytest.mark.parametrize(
    ("statement", "index"), [(hold_rows.READ, "hold_open"), (hold_rows.READ_OPEN, "hold_open"),
                             (hold_rows.LOCK_HOLDS, "hold_pkey")]
)  # fmt: skip
def test_a_plan_of_a_small_table_reads_no_more_when_it_is_large(
    database: PreparedDatabase, statement: str, index: str, one_account: bool
) -> None:
    with psycopg.connect(database.admin_url.replace("+psycopg", ""), autocommit=True) as admin:
        if one_account:
            admin.execute(OF_ONE_ACCOUNT)
        admin.execute("VACUUM (ANALYZE) tokenbill.hold")  # with few rows, every access path looks cheap
    parameters = connection_parameters(schema_url(database.app_url), "test of plans")
    parameters["options"] += f" {OPTIONS}"
    with psycopg.connect(**parameters) as connection:
        connection.execute(f"PREPARE asked (text[]) AS {statement}")
        plan = "\n".join(line for (line,) in connection.execute("EXPLAIN EXECUTE asked('{a,b}')").fetchall())
    assert "Seq Scan on hold" not in plan
    assert {name for name in ("hold_pkey", "hold_open", "hold_expires") if name in plan} == {index}
