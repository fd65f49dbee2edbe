"""Bills in SQL: the report for the collector, and books that pass the audit after every step."""

from click.testing import CliRunner
from own_database import PreparedDatabase
from test_engine_on_sql import CATALOG, event

from billing.calculator.compiled import CompiledCalculator
from billing.catalog import load_folder
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.engine.partition_engine import PartitionEngine
from billing.store.proofs import reports
from billing.store.proofs.audit import audit
from billing.store.store import Store
from schemas.routing import partition_of
from schemas.times import DAY_US, parse_time_us
from schemas.topics import COMMAND_TOPIC
from tokenbill.commands.report import report

ACCOUNT = "acct-1"
PARTITION = partition_of(ACCOUNT, 4)
LOOK: tuple[str, dict[str, object]] = ("credit.changed.v1", {"credit_limit": "0"})
"""A command that changes nothing; it only advances the log time."""
BEGIN_US = parse_time_us("2026-11-22T01:15:00Z")


def order(store: Store, days: int, *commands: tuple[str, dict[str, object]]) -> None:
    """Decide and commit commands ``days`` after the beginning, by a new owner of the partition."""
    epoch, state = store.acquire(PARTITION)
    engine = PartitionEngine(state, *store.catalog(), store, CompiledCalculator())
    start = engine.positions.get(COMMAND_TOPIC, 0)
    records = [
        PlainRecord(
            start + n, (BEGIN_US + days * DAY_US) // 1000, None, event(kind, f"urn:crm:{days}", n, ACCOUNT, data, False)
        )
        for n, (kind, data) in enumerate(commands)
    ]
    store.commit(epoch, engine.decide([InputBatch(COMMAND_TOPIC, start, start + len(records), records)]))


def problems(database: PreparedDatabase) -> list[str]:
    return [f"{one.name}: {one.shown}" for one in audit(database.report_url).checks if one.count]


def test_a_bill_from_issue_to_chargeback(database: PreparedDatabase, store: Store) -> None:
    store.publish(load_folder(CATALOG))
    opening: dict[str, object] = {"currency": "CNY", "price_book": "retail-cn", "payment": "postpaid", "bill_day": 1}
    owed: dict[str, object] = {
        "target": "wallet", "amount": "-31.805", "reason": "r", "requested_by": "x", "approved_by": "y",
    }  # fmt: skip
    order(store, 0, ("account.opened.v1", opening), ("balance.adjusted.v1", owed))
    assert (list(reports.bills(database.report_url)), problems(database)) == ([], [])
    order(store, 9, LOOK)
    bill = {
        "account": ACCOUNT, "bill_id": f"{ACCOUNT}/2026-11", "currency": "CNY", "amount": "31.8", "paid": "0",
        "open": "31.8", "begin": "2026-11-22T01:15:00Z", "end": "2026-11-30T16:00:00Z", "due": "2026-12-30T16:00:00Z",
    }  # fmt: skip
    assert (list(reports.bills(database.report_url, only_open=True)), problems(database)) == ([bill], [])
    assert next(reports.balances(database.report_url))["wallet"] == "-0.005"
    order(store, 60, LOOK)
    assert store.load_accounts([ACCOUNT])[0].status == "suspended"
    paid: dict[str, object] = {"bill_id": bill["bill_id"], "amount": "31.8", "payment_ref": "phone-1"}
    order(store, 61, ("bill.collected.v1", paid))
    assert list(reports.bills(database.report_url, only_open=True)) == []
    assert list(reports.bills(database.report_url)) == [bill | {"paid": "31.8", "open": "0"}]
    assert (store.load_accounts([ACCOUNT])[0].status, problems(database)) == ("open", [])
    order(store, 62, ("bill.charged_back.v1", {"bill_id": bill["bill_id"], "amount": "1.8", "reason": "disputed"}))
    assert (store.load_accounts([ACCOUNT])[0].status, problems(database)) == ("suspended", [])
    written = CliRunner().invoke(
        report, ["bills", "--open", "--format", "csv"], env={"TOKENBILL_DATABASE_URL": database.app_url}
    )
    assert written.output.splitlines() == [
        ",".join(reports.BILL_COLUMNS),
        f"{ACCOUNT},{ACCOUNT}/2026-11,CNY,31.8,30,1.8,2026-11-22T01:15:00Z,2026-11-30T16:00:00Z,2026-12-30T16:00:00Z",
    ]
