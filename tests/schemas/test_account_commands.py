"""Checks of account commands: accepted and refused forms."""

from typing import Any

import pytest

from schemas.cloudevents import write_binary, write_structured
from schemas.commands import COMMANDS, Command, PurchasePackage, TopUpWallet, parse_command
from schemas.refusals import Refusal

TIME_US = 1_795_310_103_412_000


def parse(type_name: str, **data: Any) -> Command | Refusal:
    return parse_command(write_structured(type_name, "urn:crm", "cmd-1", TIME_US, "acct-1", data, 5))


def test_every_command_has_a_model() -> None:
    assert list(COMMANDS) == [
        "account.opened.v1",
        "wallet.topped_up.v1",
        "package.purchased.v1",
        "subscription.started.v1",
        "subscription.cancelled.v1",
        "subscription.changed.v1",
        "subscription.suspended.v1",
        "subscription.resumed.v1",
        "package.refunded.v1",
        "package.transferred.v1",
        "balance.adjusted.v1",
        "usage.voided.v1",
        "usage.corrected.v1",
        "overage.consented.v1",
        "wallet.alert_set.v1",
        "time.passed.v1",
        "credit.changed.v1",
        "bill.collected.v1",
        "bill.charged_back.v1",
        "account.closed.v1",
    ]


def test_money_becomes_pico_and_unknown_fields_are_ignored() -> None:
    command = parse("wallet.topped_up.v1", amount="0.000000000001", payment_ref="p", colour="red", gift=None)
    assert isinstance(command, Command)
    assert command.data == TopUpWallet.model_validate({"amount": "0.000000000001", "payment_ref": "p"})
    assert isinstance(command.data, TopUpWallet)
    assert (command.data.amount_pico, command.data.gift) == (1, False)


def test_starts_at_defaults_to_the_time_of_the_command() -> None:
    command = parse("package.purchased.v1", plan="token-9.9", grant_id="g", starts_at=None)
    assert isinstance(command, Command)
    assert isinstance(command.data, PurchasePackage)
    assert command.data.starts_at_us == command.time_us == TIME_US


def test_binary_mode_gives_the_same_command() -> None:
    value, headers = write_binary("account.closed.v1", "urn:crm", "cmd-1", TIME_US, "acct-1", {"reason": "r"}, 5)
    assert parse_command(value, headers) == parse("account.closed.v1", reason="r")


@pytest.mark.parametrize(
    ("type_name", "data", "start"),
    [
        ("account.renamed.v1", {}, 'type is "account.renamed.v1"'),
        ("account.opened.v1", {}, "data.currency is missing"),
        ("account.opened.v1", {"currency": "cny"}, 'data.currency is "cny"'),
        ("account.opened.v1", {"currency": "CNY\n"}, "data.currency is "),
        ("account.opened.v1", {"currency": "CNY", "payment": "later"}, 'data.payment is "later"'),
        ("account.opened.v1", {"currency": "CNY", "credit_limit": "-1"}, 'data.credit_limit is "-1"'),
        ("account.opened.v1", {"currency": "CNY", "price_book": ""}, 'data.price_book is ""'),
        ("wallet.topped_up.v1", {"amount": "0", "payment_ref": "p"}, 'data.amount is "0"'),
        ("wallet.topped_up.v1", {"amount": "-5", "payment_ref": "p"}, 'data.amount is "-5"'),
        ("wallet.topped_up.v1", {"amount": 5, "payment_ref": "p"}, "data.amount is 5"),
        ("wallet.topped_up.v1", {"amount": "1e3", "payment_ref": "p"}, 'data.amount is "1e3"'),
        ("wallet.topped_up.v1", {"amount": "0.0000000000001", "payment_ref": "p"}, "data.amount is "),
        ("wallet.topped_up.v1", {"amount": "1" + "0" * 26, "payment_ref": "p"}, "data.amount is "),
        ("wallet.topped_up.v1", {"amount": "1"}, "data.payment_ref is missing"),
        ("wallet.topped_up.v1", {"amount": "1", "payment_ref": "p", "gift": "yes"}, 'data.gift is "yes"'),
        ("package.purchased.v1", {"plan": "p", "grant_id": "g", "plan_version": "1"}, "data.plan_version is "),
        ("package.purchased.v1", {"plan": "p", "grant_id": "g", "starts_at": "tomorrow"}, "data.starts_at is "),
        ("package.purchased.v1", {"plan": "p", "grant_id": "g", "pay_from": "bank"}, "data.pay_from is "),
        ("subscription.cancelled.v1", {"subscription_id": "s", "at": "2026-01-01"}, "data.at is "),
        ("usage.corrected.v1", {"source": "s", "id": "i", "usage": 5, "reason": "r"}, "data.usage is 5"),
        ("usage.corrected.v1", {"source": "s", "id": "i", "usage": {"input": -1}, "reason": "r"}, "data.usage.input"),
    ],
)
def test_a_wrong_command_is_an_invalid_event(type_name: str, data: dict[str, Any], start: str) -> None:
    rejection = parse(type_name, **data)
    assert isinstance(rejection, Refusal)
    assert rejection.code == "invalid_event"
    assert rejection.detail.startswith(start)
    assert (rejection.source, rejection.id, rejection.sequence, rejection.account) == ("urn:crm", "cmd-1", 5, "acct-1")


def test_a_command_that_is_not_json_is_invalid_json() -> None:
    rejection = parse_command(b"nonsense")
    assert isinstance(rejection, Refusal)
    assert rejection.code == "invalid_json"
