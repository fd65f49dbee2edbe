"""Reports return the stored rows with the documented fields, in three formats (docs/reference/command-line.md)."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from own_database import PreparedDatabase
from store_records import Books, account

from billing.commits.copy_text import account_row
from billing.commits.output_documents import account_object
from billing.store.proofs import reports
from billing.store.store import Store
from schemas.times import parse_time_us
from tokenbill.commands.report import report
from tokenbill.user_errors import UserError


@pytest.fixture
def books(database: PreparedDatabase, store: Store, monkeypatch: pytest.MonkeyPatch) -> Books:
    """Two accounts with a bucket and usage, and one account without a bucket."""
    kept = Books()
    epoch, _ = store.acquire(0)
    opening = kept.opening(["a1", "a2"])
    opening.changes.accounts_new += account_row(account("a0", 0))
    store.commit(epoch, opening)
    for model in ("deepseek-v3.2", "qwen3"):
        burning = kept.burning(["a1", "a2"], micro=1_500_000, revenue_pico=9 * 10**11)
        burning.rollups = [replace(row, model=model) for row in burning.rollups]
        store.commit(epoch, burning)
    monkeypatch.setenv("TOKENBILL_DATABASE_URL", database.report_url)
    return kept


def run(*arguments: str) -> str:
    outcome = CliRunner().invoke(report, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


def refused(*arguments: str) -> str:
    """Return the message of a report that is refused as wrong usage."""
    outcome = CliRunner().invoke(report, arguments)
    assert outcome.stdout == ""
    if isinstance(outcome.exception, UserError):
        return str(outcome.exception)
    assert outcome.exit_code == 2, outcome.output
    return outcome.output


def test_balance_has_a_row_a_bucket_and_the_fields_of_simulate(books: Books) -> None:
    rows = json.loads(run("balance", "--format", "json"))
    assert [row["account"] for row in rows] == ["a0", "a1", "a2"]
    expected = {"account": "a1"} | account_object(books.accounts["a1"])
    [bucket] = expected.pop("buckets")
    assert rows[1] == expected | bucket
    assert rows[1]["remaining"] == "9999997"
    assert rows[0] == {
        "account": "a0", "currency": "CNY", "wallet": "0", "absorbed": "0", "absorbed_amount": "0", "grant_id": None,
        "plan": None, "unit": None, "amount": None, "remaining": None, "reserved": None, "valid_from": None,
        "valid_until": None, "status": None,
    }  # fmt: skip


def test_balance_of_one_account(books: Books) -> None:
    assert [row["account"] for row in json.loads(run("balance", "--account", "a2", "--format", "json"))] == ["a2"]
    assert "There is no account 'nobody'" in refused("balance", "--account", "nobody", "--format", "json")


def test_balance_as_csv_and_table(books: Books) -> None:
    csv = run("balance", "--format", "csv").splitlines()
    assert csv[0].startswith("account,currency,wallet,absorbed,absorbed_amount,grant_id,plan,unit,amount,remaining")
    assert csv[1] == "a0,CNY,0,0,0,,,,,,,,,"
    table = run("balance").splitlines()
    assert len(table) == 5
    assert table[3].split()[:3] == ["a1", "CNY", "20"]


def test_usage_by_dimensions_in_a_span(books: Books) -> None:
    rows = json.loads(run("usage", "--by", "model,energy_source,hour", "--format", "json"))
    assert [(row["model"], row["events"], row["hour"]) for row in rows] == [
        ("deepseek-v3.2", 2, "1970-01-01T01:00:00Z"), ("qwen3", 2, "1970-01-01T01:00:00Z"),
    ]  # fmt: skip
    assert (rows[0]["burned"], rows[0]["revenue"], rows[0]["amount"], rows[0]["tokens"]) == ("3", "1.8", "0.004", 2000)
    assert json.loads(run("usage", "--to", "1970-01-01T01:00:00Z", "--format", "json")) == []
    assert len(json.loads(run("usage", "--from", "1970-01-01T01:00:00Z", "--format", "json"))) == 2
    assert "'colour' is none of model" in refused("usage", "--by", "colour")


@pytest.mark.parametrize(
    ("option", "given", "nearest"),
    [
        ("--from", "2026-11-28T19:59:59Z", "Write 2026-11-28T19:00:00Z or 2026-11-28T20:00:00Z."),
        ("--to", "2026-11-28T20:00:01Z", "Write 2026-11-28T20:00:00Z or 2026-11-28T21:00:00Z."),
        ("--to", "2026-11-28T20:00:00.000001Z", "Write 2026-11-28T20:00:00Z or 2026-11-28T21:00:00Z."),
        ("--from", "1969-12-31T23:30:00Z", "Write 1969-12-31T23:00:00Z or 1970-01-01T00:00:00Z."),
        ("--from", "2026-11-28T00:00:00+05:30", "Write 2026-11-27T18:00:00Z or 2026-11-27T19:00:00Z."),
        ("--to", "2026-11-28T00:00:00+05:45", "Write 2026-11-27T18:00:00Z or 2026-11-27T19:00:00Z."),
    ],
)
def test_a_time_within_an_hour_is_refused(books: Books, option: str, given: str, nearest: str) -> None:
    text = refused("usage", option, given)
    assert f"{option} is 19" in text or f"{option} is 2026" in text
    assert nearest in text
    assert ("+05:30, cannot be reported" in text) == given.endswith(("+05:30", "+05:45", ":30:00Z"))
    with pytest.raises(reports.InexactBound):
        reports.usage("postgresql://nobody/", ["model"], parse_time_us(given), None)


@pytest.mark.parametrize("offset", ["Z", "+08:00", "-03:00"])
def test_a_day_of_a_zone_of_whole_hours_is_exact(books: Books, offset: str) -> None:
    assert json.loads(run("usage", "--from", f"1969-12-31T00:00:00{offset}", "--format", "json")) != []
    assert json.loads(run("usage", "--to", f"1969-12-31T00:00:00{offset}", "--format", "json")) == []


@pytest.mark.parametrize("command", ["usage", "revenue"])
@pytest.mark.parametrize("end", ["2026-11-01T00:00:00Z", "2026-10-01T00:00:00Z"])
def test_an_empty_time_range_is_refused(books: Books, command: str, end: str) -> None:
    text = refused(command, "--from", "2026-11-01T00:00:00Z", "--to", end)
    assert "The time range is empty" in text and end in text


def test_trial_balance_adds_up_to_zero(books: Books) -> None:
    assert json.loads(run("trial-balance", "--format", "json")) == {
        "trial_balance": {
            "cash": "58.68", "contract_liability": "-15.08", "customer_deposits": "-40", "revenue_usage": "-3.6",
        },
        "sum": "0",
    }  # fmt: skip
    before = json.loads(run("trial-balance", "--as-of", "1970-01-01T00:00:00.000100Z", "--format", "json"))
    assert before["trial_balance"]["contract_liability"] == "-18.68"
    assert run("trial-balance").splitlines()[-1].split() == ["sum", "0"]


def test_revenue_by_plan_in_a_span(books: Books) -> None:
    whole = json.loads(run("revenue", "--format", "json"))
    assert whole == [{"kind": "usage", "currency": "CNY", "detail": "token-9.9@1", "amount": "3.6"}]
    half = json.loads(run("revenue", "--from", "1970-01-01T00:00:00.000300Z", "--format", "json"))
    assert half[0]["amount"] == "1.8"


def test_no_stack_is_an_error_for_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENBILL_DATABASE_URL", raising=False)
    outcome = CliRunner().invoke(report, ["balance", "--data-dir", str(tmp_path)])
    assert "No database is known" in str(outcome.exception)
    monkeypatch.setenv("TOKENBILL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    outcome = CliRunner().invoke(report, ["balance"])
    assert "The database does not answer" in str(outcome.exception)
