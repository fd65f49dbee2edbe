"""``tokenbill simulate`` writes to the given files, or reports in one sentence why it cannot."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from tokenbill.cli import cli
from tokenbill.user_errors import UserError

ROOT = Path(__file__).resolve().parents[2]
LIFE = ROOT / "examples" / "customer-life.jsonl"


def simulate(*more: str) -> Result:
    run = ["simulate", "--catalog", str(ROOT / "examples" / "catalog"), "--events", str(LIFE), *more]
    return CliRunner().invoke(cli, run)


def test_account_events_are_lines_at_the_time_of_what_brought_them_about(tmp_path: Path) -> None:
    published, balances = tmp_path / "published.jsonl", tmp_path / "balances.json"
    until = "2027-03-01T12:00:00+08:00"
    result = simulate("--account-events", str(published), "--out", str(balances), "--as-of", until)
    assert (result.exit_code, result.output) == (0, "")
    events = [json.loads(line) for line in published.read_bytes().splitlines()]
    [refused] = [event for event in events if event["data"].get("reason") == "insufficient_funds"]
    assert refused["time"] == "2026-11-01T02:00:00Z"
    assert [event["time"] for event in events if event["type"] == "subscription.ended.v1"] == ["2027-03-01T04:00:00Z"]
    with_events = json.loads(balances.read_text())
    assert with_events == json.loads(simulate("--as-of", "2027-03-01T12:00:00+08:00").output)


def test_a_file_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    for option in ("--out", "--account-events"):
        result = simulate(option, str(tmp_path / "none" / "x"))
        assert isinstance(result.exception, UserError)
        assert str(tmp_path / "none" / "x") in str(result.exception)


def test_more_of_the_command_line_says_what_is_wrong_before_it_works(tmp_path: Path) -> None:
    missing = str(tmp_path / "none" / "x.json")
    for call, sentence in (
        (["bench", "kernel", "--json", missing], "there is no folder"),
        (["bench", "memory", "--accounts", "0"], "not in the range"),
        (["bench", "reserve", "--clients", "0"], "not in the range"),
    ):
        result = CliRunner().invoke(cli, call)
        assert (result.exit_code, sentence in result.output) == (2, True)
    unknown = CliRunner().invoke(cli, ["webhook", "add", "https://crm.example/h", "--type", "threshold.reached"])
    assert isinstance(unknown.exception, UserError)
    assert "threshold.reached.v1" in unknown.exception.fix
