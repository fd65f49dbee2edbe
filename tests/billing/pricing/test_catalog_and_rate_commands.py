"""``tokenbill catalog check`` and ``tokenbill rate`` as a person starts them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pricing_samples import HEAD

from tokenbill.commands.catalog import catalog
from tokenbill.commands.explain import explain
from tokenbill.commands.rate import rate
from tokenbill.user_errors import UserError

EXAMPLES = Path(__file__).parents[3] / "examples" / "catalog"
ROWS = 'rows: [{per_million: {input: "1", watts: "1"}}]\nmeters: [watts]\n'


def line(id: str, *, time: str = "2026-11-22T01:15:03.412Z", model: str = "m", **usage: int) -> str:
    data = {"model": model, "usage": usage}
    return json.dumps(
        {
            "specversion": "1.0",
            "type": "token.usage.v1",
            "source": "s",
            "id": id,
            "time": time,
            "subject": "acct",
            "data": data,
        }
    )


def run_rate(folder: Path, *lines: str, options: tuple[str, ...] = ()) -> Result:
    """Rate lines by the catalogue in a folder."""
    (folder / "events.jsonl").write_text("\n".join(lines), encoding="utf-8")
    arguments = ["--catalog", str(folder), "--events", str(folder / "events.jsonl"), *options]
    return CliRunner().invoke(rate, arguments, catch_exceptions=False)


def test_check_prints_findings_and_fails_on_errors(tmp_path: Path) -> None:
    book = tmp_path / "b.yaml"
    book.write_text(HEAD + "rows: [{per_million: {inptu: 1}}]\n", encoding="utf-8")
    result = CliRunner().invoke(catalog, ["check", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stdout == (
        f"{book}:8: rows[0].per_million.inptu: is not a meter; "
        "declare it in 'meters' of the book, or correct the name\n"
    )
    assert result.stderr == "0 price book versions (0 rows), 0 plan versions, 0 holiday tables: 1 error, 0 warnings\n"


def test_check_passes_the_examples() -> None:
    result = CliRunner().invoke(catalog, ["check", str(EXAMPLES)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith("8 plan versions, 1 holiday table: 0 errors, 0 warnings\n")


def test_check_passes_warnings(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(HEAD + 'rows: [{context: [0, 9], per_million: {input: "1"}}]\n', encoding="utf-8")
    result = CliRunner().invoke(catalog, ["check", str(tmp_path)])
    assert result.exit_code == 0
    assert "b.yaml:8: warning: rows[0].context: ends at 9" in result.stdout


def test_rate_writes_a_line_for_every_line_but_blank_ones(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(HEAD + ROWS, encoding="utf-8")
    command = line("9").replace("token.usage.v1", "wallet.topped_up.v1")
    early = "2025-12-31T23:59:59+08:00"
    result = run_rate(
        tmp_path,
        line("1", input=1000, watts=1),
        "",
        "{",
        line("2", output=1),
        line("3", time=early, input=1),
        line("4", amps=1),
        "  ",
        command,
        line("5", time="2026-01-01T00:00:00+08:00", input=1),
    )
    assert result.exit_code == 0
    written = [json.loads(text) for text in result.stdout.splitlines()]
    assert [entry.get("amount") or entry["rejected"]["reason"] for entry in written] == [
        "0.001001",
        "invalid_json",
        "no_price",
        "no_price_book",
        "unknown_meter",
        "invalid_event",
        "0.000001",
    ]
    assert [entry["id"] for entry in written] == ["1", None, "2", "3", "4", "9", "5"]
    assert written[3]["rejected"]["detail"] == (
        "no version of retail is in force at 2025-12-31T15:59:59Z; the first begins at 2025-12-31T16:00:00Z"
    )
    assert result.stderr == "2 rated, 5 rejected\n"


def test_rate_prices_by_the_version_in_force_and_writes_to_a_file(tmp_path: Path) -> None:
    later = HEAD.replace("version: 3", "version: 4").replace("2026-01-01", "2026-06-01") + ROWS.replace('"1"', '"2"')
    (tmp_path / "b.yaml").write_text(HEAD + ROWS + "---\n" + later, encoding="utf-8")
    out = tmp_path / "out.jsonl"
    result = run_rate(
        tmp_path,
        line("1", time="2026-05-31T23:59:59.999999+08:00", input=1),
        line("2", time="2026-06-01T00:00:00+08:00", input=1),
        options=("--out", str(out)),
    )
    assert result.stdout == ""
    written = [json.loads(text) for text in out.read_text(encoding="utf-8").splitlines()]
    assert [(entry["price_book"], entry["amount"]) for entry in written] == [
        ("retail@3", "0.000001"),
        ("retail@4", "0.000002"),
    ]


def test_rate_and_explain_count_per_account_in_the_order_of_the_file(tmp_path: Path) -> None:
    periods = 'periods: {p: {kind: graduated, count: input, tiers: [{up_to: "3"}, {up_to: null, multiply: "0.5"}]}}\n'
    rows = 'rows: [{per_million: {input: "2"}, periods: [p]}]\n'
    (tmp_path / "b.yaml").write_text(HEAD + rows + periods, encoding="utf-8")
    events = [
        line("1", input=2),
        line("2", input=2),
        line("3", input=2).replace('"acct"', '"acct-2"'),
        line("4", input=1),
    ]
    priced = [[(2, "2")], [(1, "2"), (1, "1")], [(2, "2")], [(1, "1")]]
    for options in ((), ("--explain",)):
        written = [json.loads(text) for text in run_rate(tmp_path, *events, options=options).stdout.splitlines()]
        assert [[(item["quantity"], item["per_million"]) for item in of["lines"]] for of in written] == priced
    file = str(tmp_path / "events.jsonl")
    told = CliRunner().invoke(explain, [file, "--catalog", str(tmp_path), "--id", "4", "--format", "json"])
    assert told.exit_code == 0
    (rule,) = json.loads(told.stdout)["explain"]["periods"]
    assert (rule["counted_before"], rule["counted_after"], rule["tiers_used"]) == ("4", "5", [1])


def test_rate_needs_to_know_which_book(tmp_path: Path) -> None:
    other = HEAD.replace("name: retail", "name: other")
    (tmp_path / "b.yaml").write_text(HEAD + ROWS + "---\n" + other + ROWS.replace('"1"', '"7"'), encoding="utf-8")
    with pytest.raises(UserError, match="several price books: other, retail"):
        run_rate(tmp_path, line("1", input=1))
    with pytest.raises(UserError, match="no price book 'wholesale'"):
        run_rate(tmp_path, line("1", input=1), options=("--price-book", "wholesale"))
    chosen = run_rate(tmp_path, line("1", input=1), options=("--price-book", "other"))
    assert json.loads(chosen.stdout)["amount"] == "0.000007"


def test_rate_refuses_a_catalogue_with_errors_and_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(HEAD + 'rows: [{per_million: {input: "-1"}}]\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"b\.yaml:8: rows\[0\]\.per_million\.input"):
        run_rate(tmp_path, line("1", input=1))
    (tmp_path / "b.yaml").write_text(HEAD + ROWS, encoding="utf-8")
    with pytest.raises(UserError, match="cannot read"):
        run_rate(tmp_path, options=("--events", str(tmp_path / "missing")))
    with pytest.raises(UserError, match="cannot write"):
        run_rate(tmp_path, options=("--out", str(tmp_path / "missing" / "out")))


@pytest.mark.parametrize(("command", "arguments"), [(catalog, ["check", "--help"]), (rate, ["--help"])])
def test_help_shows_an_example(command, arguments) -> None:  # type: ignore[no-untyped-def]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0
    assert "Example:" in result.stdout
