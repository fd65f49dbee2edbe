"""The page docs/customer-life.md is true: each line of the example leads to the stated wallet and account events."""

import json
import re
from pathlib import Path

import pytest

from billing.calculator.compiled import CompiledCalculator
from billing.calculator.interface import Calculator
from billing.calculator.plain import PlainCalculator
from billing.catalog import load_folder
from billing.engine.simulation import Simulation
from schemas.units import format_pico

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "customer-life.md").read_text(encoding="utf-8")
LINES = (ROOT / "examples" / "customer-life.jsonl").read_bytes().splitlines()
ROW = re.compile(r"^\| (?:\d+, )?(\d+) \| [^|]+ \| (\S+) \|([^|]*)\|$", re.MULTILINE)
TOLD = re.compile(r"`((?:command|threshold|subscription|wallet|bucket|transfer|refund|bill|account|pack)\.[a-z]+)`")
REASON = re.compile(r"`command.rejected`: `(\w+)`")


@pytest.mark.parametrize("calculator", [CompiledCalculator(), PlainCalculator()], ids=["compiled", "plain"])
def test_each_step_of_the_page_leads_to_its_wallet_and_tells_what_it_says(calculator: Calculator) -> None:
    rows = {int(number): (wallet, why) for number, wallet, why in ROW.findall(PAGE)}
    assert len(rows) > 25
    published: list[dict[str, object]] = []
    simulation = Simulation(
        load_folder(ROOT / "examples" / "catalog"),
        calculator,
        account_event=lambda _, event: published.append(json.loads(event)),
    )
    for number, line in enumerate(LINES, start=1):
        published.clear()
        simulation.feed([line])
        if number not in rows:
            continue
        wallet, why = rows[number]
        account = calculator.account(json.loads(line)["subject"])
        assert account is not None
        assert (number, format_pico(account.wallet_pico)) == (number, wallet)
        types = {str(event["type"]).removesuffix(".v1") for event in published}
        said = set(TOLD.findall(why))
        assert said <= types, f"line {number} does not tell {said - types}"
        assert types - {"command.accepted"} <= said, f"the page does not say that line {number} tells {types - said}"
        for reason in REASON.findall(why):
            assert reason in json.dumps(published)


def test_every_line_of_the_example_is_an_event_of_its_own() -> None:
    assert len({(json.loads(line)["source"], json.loads(line)["id"]) for line in LINES}) == len(LINES)


def test_figures_of_the_page_are_those_of_the_run() -> None:
    calculator = CompiledCalculator()
    simulation = Simulation(load_folder(ROOT / "examples" / "catalog"), calculator)
    simulation.feed(LINES)
    document = json.dumps(simulation.document())
    assert '"amount": "20645161.290323"' in document
    family, wang = calculator.account("family"), calculator.account("wang")
    assert family is not None and wang is not None
    assert format_pico(family.absorbed_pico) == "20"
    assert [bucket.amount_micro for bucket in wang.buckets] == [5_000_000_000_000]


def test_the_warning_about_boosters_holds() -> None:
    """A blocking 1 yuan pack, last in deduction order, replaces the overage rule of the plan that would charge."""
    calculator = CompiledCalculator()
    simulation = Simulation(load_folder(ROOT / "examples" / "catalog"), calculator)
    pack = json.loads(LINES[8])
    pack["data"]["plan"] = "pack-1-yuan"
    simulation.feed([*LINES[:8], json.dumps(pack).encode(), *LINES[9:11]])
    account = calculator.account("li")
    assert account is not None
    assert format_pico(account.wallet_pico) == "44.1"
    assert account.absorbed_micro == 5_200_000_000_000
