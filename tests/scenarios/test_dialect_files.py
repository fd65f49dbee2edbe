"""Usage objects of providers through ``rate``, ``simulate`` and ``dialects``: the amounts that a customer expects."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from schemas.dialects import TABLES
from tokenbill.cli import cli
from tokenbill.user_errors import UserError

BOOK = """\
kind: price_book
name: b
version: 1
currency: {currency}
effective_from: "2019-01-01T00:00:00Z"
rows:
  - {row}
"""
CHAT = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
EVERY = '{model: "*", per_million: {input: "1000000", output: "1000000"}, standard_tokens: {input: "1", output: "1"}}'


def event(id: str, usage: dict[str, Any], dialect: str, **more: Any) -> dict[str, Any]:
    data = {"model": "m", "usage": usage, "usage_dialect": dialect, **more}
    head = {"specversion": "1.0", "type": "token.usage.v1", "source": "urn:t", "id": id, "subject": "u"}
    return {**head, "time": "2026-01-02T00:00:00+08:00", "data": data}


def command(type: str, id: str, data: dict[str, Any]) -> dict[str, Any]:
    head = {"specversion": "1.0", "type": type, "source": "urn:t", "id": id, "subject": "u"}
    return {**head, "time": "2026-01-01T00:00:00+08:00", "data": data}


ACCOUNT = [
    command("account.opened.v1", "1", {"currency": "CNY"}),
    command("wallet.topped_up.v1", "2", {"amount": "1000", "payment_ref": "p"}),
]


def run(tmp_path: Path, name: str, row: str, events: list[dict[str, Any]], *more: str) -> Result:
    folder, lines = tmp_path / "catalogue", tmp_path / "events.jsonl"
    folder.mkdir(exist_ok=True)
    (folder / "book.yaml").write_text(BOOK.format(currency="CNY", row=row), encoding="utf-8")
    lines.write_text("".join(json.dumps(one) + "\n" for one in events), encoding="utf-8")
    result = CliRunner().invoke(cli, [name, "--catalog", str(folder), "--events", str(lines), *more])
    assert result.exit_code == 0, result.output
    return result


def rated(tmp_path: Path, row: str, *events: dict[str, Any], more: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    out = tmp_path / "rated.jsonl"
    run(tmp_path, "rate", row, list(events), "--out", str(out), *more)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def simulated(tmp_path: Path, *events: dict[str, Any], row: str = EVERY, more: tuple[str, ...] = ()) -> dict[str, Any]:
    out = tmp_path / "balances.json"
    run(tmp_path, "simulate", row, [*ACCOUNT, *events], "--out", str(out), *more)
    return json.loads(out.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


KIMI = '{model: m, per_million: {input: "1", cache_read: "0.1", output: "4"}}'
CLAUDE = '{model: m, per_million: {input: "3", cache_read: "0.3", output: "15"}}'
REALTIME = (
    '{model: m, per_million: {input: "4", cache_read: "0.4", audio_input: "32", audio_cache_read: "0.4", output: "16", '
    'audio_output: "64"}}'
)
SONAR = '{model: m, per_million: {input: "2", output: "8", reasoning: "3", searches: "5000"}}'
COMPACTION = {"type": "compaction", "input_tokens": 180000, "output_tokens": 3500}
MESSAGE = {"type": "message", "input_tokens": 23000, "output_tokens": 1000}
SOUND = {
    "total_tokens": 375,
    "input_tokens": 289,
    "output_tokens": 86,
    "input_token_details": {
        "text_tokens": 89,
        "audio_tokens": 200,
        "cached_tokens": 128,
        "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 64},
    },
    "output_token_details": {"text_tokens": 6, "audio_tokens": 80},
}
DEEP = {"prompt_tokens": 108, "completion_tokens": 3256, "total_tokens": 3364, "reasoning_tokens": 73248}


@pytest.mark.parametrize(
    ("row", "usage", "dialect", "amount"),
    [
        (KIMI, {**CHAT, "cached_tokens": 8}, "openai.chat", "0.0000228"),
        (
            CLAUDE,
            {"input_tokens": 23000, "output_tokens": 1000, "iterations": [COMPACTION, MESSAGE]},
            "anthropic",
            "0.6765",
        ),
        (REALTIME, SOUND, "openai.responses", "0.0097192"),
        (REALTIME, SOUND, "openai.realtime", "0.0097192"),
        (
            SONAR,
            {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150, "x_tools": {"web_search": {"count": 2}}},
            "openai.responses",
            "0.0106",
        ),
        (SONAR, {**DEEP, "citation_tokens": 7299, "num_search_queries": 74}, "perplexity", "0.616008"),
    ],
)
def test_a_provider_s_usage_costs_what_it_should(
    tmp_path: Path, row: str, usage: dict[str, Any], dialect: str, amount: str
) -> None:
    [line] = rated(tmp_path, row, event("e", usage, dialect))
    assert line["amount"] == amount


def test_a_refused_sum_names_who_counts_otherwise(tmp_path: Path) -> None:
    cached = {"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 90}}
    lines = rated(
        tmp_path,
        SONAR,
        event("cache", cached, "openai.responses"),
        event("reasoning", DEEP, "openai.chat"),
        event("names", {"input_tokens": 1}, "openai.chat"),
        event("unknown", {**DEEP, "num_search_queries": 74}, "openai.chat"),
    )
    details = {line["id"]: line["rejected"]["detail"] for line in lines}
    assert details["cache"].endswith("(anthropic counts the cache outside the input); is it usage_dialect anthropic?")
    assert "perplexity" in details["reasoning"]
    assert "is it usage_dialect openai.responses or" in details["names"]
    assert "no meter for it; is it usage_dialect perplexity?" in details["unknown"]


def test_usage_that_is_not_known_takes_no_identity(tmp_path: Path) -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    events = (event("e", zeros, "openai.chat"), event("e", CHAT, "openai.chat"), event("f", {}, "anthropic"))
    for more in ((), ("--reference",)):
        document = simulated(tmp_path, *events, more=more)
        assert document["accounts"]["u"]["wallet"] == "985"
        assert document["events"] == {"rated": 1, "duplicate": 0, "rejected": 2}
        assert document["rejections"] == {"usage_missing": 2}
    free = simulated(tmp_path, *events, row=EVERY.replace("{model", "{unmetered: true, model"))
    assert free["events"] == {"rated": 2, "duplicate": 1, "rejected": 0}


def test_an_unknown_number_is_refused_or_noted_as_the_installation_says(tmp_path: Path) -> None:
    strange = event("e", {**CHAT, "renamed_tokens": 7}, "openai.chat")
    assert simulated(tmp_path, strange)["rejections"] == {"usage_mismatch": 1}
    noted = simulated(tmp_path, strange, more=("--unknown-usage", "note"))
    assert (noted["events"]["rated"], noted["accounts"]["u"]["wallet"]) == (1, "985")
    result = run(tmp_path, "simulate", EVERY, [*ACCOUNT, strange], "--unknown-usage", "note", "--reference")
    assert "1 findings unknown_usage, the first: usage.events[0] offset 0: data.usage.renamed_tokens is 7" in (
        result.output + result.stderr
    )
    [line] = rated(tmp_path, EVERY, strange, more=("--unknown-usage", "note"))
    assert line["amount"] == "15"


def test_the_fee_of_a_request_is_charged_once_whatever_the_dialect(tmp_path: Path) -> None:
    row = '{model: m, per_million: {input: "1", output: "1", requests: "5000"}}'
    lines = rated(
        tmp_path,
        row,
        event("chat", CHAT, "openai.chat"),
        event("claude", {"input_tokens": 10, "output_tokens": 5}, "anthropic"),
        event("counted", CHAT, "openai.chat", meters={"requests": 2}),
    )
    assert [line["amount"] for line in lines] == ["0.005015", "0.005015", "0.010015"]


def test_a_correction_takes_a_dialect_too_and_says_when_it_cannot(tmp_path: Path) -> None:
    def corrected(id: str, usage: dict[str, Any], **more: Any) -> dict[str, Any]:
        data = {"source": "urn:t", "id": "e", "reason": "r", "usage": usage, **more}
        return command("usage.corrected.v1", id, data) | {"time": "2026-01-03T00:00:00+08:00"}

    row = EVERY.replace('output: "1000000"}', 'output: "1000000", requests: "2000000", searches: "0"}')
    claude = {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 0}
    right = corrected("c1", claude, usage_dialect="anthropic", meters={"searches": 1})
    document = simulated(tmp_path, event("e", CHAT, "openai.chat"), right, row=row)
    assert document["accounts"]["u"]["wallet"] == "991", "3 + 4 tokens and the fee of a request"
    told = tmp_path / "told.jsonl"
    for wrong, words in (
        (corrected("c2", {"prompt_tokens": 1, "tokens": 5}, usage_dialect="openai.chat"), "has no meter for it"),
        (corrected("c3", {}, usage_dialect="openai.chat"), "void the usage"),
        (corrected("c4", {"input": 1}, usage_dialect="of nobody"), "expected one of openai.chat"),
    ):
        run(
            tmp_path, "simulate", row, [*ACCOUNT, event("e", CHAT, "openai.chat"), wrong], "--account-events", str(told)
        )
        [refusal] = [line for line in told.read_text(encoding="utf-8").splitlines() if "command.rejected" in line]
        assert words in refusal


def test_dialects_lists_every_table_and_prints_one_with_its_sources() -> None:
    listed = json.loads(CliRunner().invoke(cli, ["dialects", "--json"]).output)
    assert [row["dialect"] for row in listed] == list(TABLES)
    shown = CliRunner().invoke(cli, ["dialects", "anthropic"]).output
    for row in TABLES["anthropic"].rows:
        assert row.path in shown
        assert row.source in shown
    document = json.loads(CliRunner().invoke(cli, ["dialects", "anthropic", "--json"]).output)
    assert [row["path"] for row in document["rows"]] == [row.path for row in TABLES["anthropic"].rows]
    unknown = CliRunner().invoke(cli, ["dialects", "nothing"])
    assert isinstance(unknown.exception, UserError)
