"""Holds on a complete stack: commands leave what is held, and what the pipeline would reject is refused at once."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import httpx
import pytest
from api_rig import Api, check_problem, until
from api_steps import order
from test_reservations import CHARGING, MODEL, asked, balance, gateway, now, opened, reserved, shown

from schemas.times import DAY_US, HOUR_US, format_time_us
from streams.send.send_commands import send_commands

STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


def output_of(admin: httpx.Client, account: str, standard_tokens: int) -> int:
    """Return how many output tokens are worth this many standard tokens."""
    probe = reserved(admin, account, 1_000_000)
    admin.post(f"/v1/reservations/{probe['id']}/release")
    return int(1_000_000 * standard_tokens // Decimal(probe["standard_tokens"]))


def suspended(admin: httpx.Client, account: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = admin.get(f"/v1/suspense?account={account}&resolved=true").json()["items"]
    return items


def taking(other: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("package.transferred.v1", {"grant_id": "g", "amount": "9000000", "to": other}),
        ("package.refunded.v1", {"grant_id": "g", "reason": "r"}),
        ("account.closed.v1", {"reason": "r"}),
        ("balance.adjusted.v1",
         {"target": "g", "amount": "-5000000", "reason": "r", "requested_by": "x", "approved_by": "y"}),
    ]  # fmt: skip


def test_a_command_leaves_what_a_reservation_holds_of_a_package(api: Api, admin: httpx.Client) -> None:
    account, other = opened(api, admin, plan="token-9.9"), opened(api, admin)
    count = output_of(admin, account, 9_000_000)
    made = reserved(admin, account, count)
    for number, (kind, data) in enumerate(taking(other)):
        answer = order(admin, f"/v1/accounts/{account}/commands", {"type": kind, "data": data}, f"{account}-{number}")
        assert "held" in check_problem(answer, 409, "held")["detail"] or kind == "account.closed.v1"
    head = {"specversion": "1.0", "source": "urn:test:elsewhere", "subject": account, "time": now()}
    commands = [*taking(other), ("wallet.topped_up.v1", {"amount": "1", "payment_ref": "last"})]
    send_commands(
        api.kafka,
        [{**head, "id": f"{account}-{n}", "type": kind, "data": data} for n, (kind, data) in enumerate(commands)],
    )
    until(lambda: balance(admin, account)["wallet"] == "21")
    assert admin.get(f"/v1/accounts/{account}").json()["status"] == "open"
    settled = admin.post(f"/v1/reservations/{made['id']}/settle", json={"usage": {"output": count}})
    assert settled.status_code == 200, settled.text
    left = 10_000_000 - Decimal(made["standard_tokens"])
    until(lambda: Decimal(balance(admin, account)["buckets"][0]["remaining"]) == left)
    assert balance(admin, account)["wallet"] == "21" and suspended(admin, account) == []
    kind, data = taking(other)[2]
    until(lambda: shown(admin, made["id"])["state"] == "released")
    closed = order(admin, f"/v1/accounts/{account}/commands", {"type": kind, "data": data}, f"{account}-close")
    assert closed.status_code == 201, closed.text


def test_a_purchase_leaves_what_a_reservation_holds_of_the_wallet(api: Api, admin: httpx.Client) -> None:
    account = opened(api, admin)
    whole = reserved(admin, account, 10**9, accept_partial=True)
    body = {"plan": "token-9.9", "grant_id": "g", "pay_from": "wallet"}
    answer = order(admin, f"/v1/accounts/{account}/purchases", body, f"{account}-1")
    assert "of the wallet is held" in check_problem(answer, 409, "held")["detail"]
    admin.post(f"/v1/reservations/{whole['id']}/settle", json={"usage": whole["usage"]})
    until(lambda: Decimal(balance(admin, account)["wallet"]) == 20 - Decimal(whole["amount"]))
    assert Decimal(balance(admin, account)["wallet"]) >= 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"time": HOUR_US}, "time_in_future"),
        ({"time": -40 * DAY_US}, "time_too_old"),
        ({"usage": {"phonemes": 5}}, "unknown_meter"),
        ({"usage": {"output": 2**70}}, "overflow"),
        ({"usage": {"output": 2**63}}, "overflow"),
        ({"usage": {"video_output": 7}}, "no_price"),
    ],
)
def test_a_settlement_that_would_be_rejected_is_refused_and_the_hold_stays_open(
    api: Api, admin: httpx.Client, change: dict[str, Any], code: str
) -> None:
    account = opened(api, admin)
    made = reserved(admin, account, 1_000)
    if "time" in change:
        change = {"time": format_time_us(time.time_ns() // 1000 + change["time"])}
    body = {"usage": {"output": 1_000}, **change}
    check_problem(admin.post(f"/v1/reservations/{made['id']}/settle", json=body), 422, code)
    assert shown(admin, made["id"])["state"] == "open"
    right = admin.post(f"/v1/reservations/{made['id']}/settle", json={"usage": {"output": 1_000}})
    assert right.status_code == 200, "the refused settlement did not use the key"
    until(lambda: Decimal(balance(admin, account)["wallet"]) == 20 - Decimal(made["amount"]))
    assert suspended(admin, account) == []


def test_used_units_that_would_be_rejected_are_kept_and_the_others_are_billed(api: Api, admin: httpx.Client) -> None:
    admin.put("/v1/rating-groups/1001", json={"model": MODEL})
    account = opened(api, admin)
    begun = admin.post(
        CHARGING, json=gateway(account, 0, [{"ratingGroup": 1001, "requestedUnit": {"serviceSpecificUnits": 4096}}])
    )
    session = begun.headers["location"]

    def used(group: int, units: int) -> dict[str, Any]:
        return {
            "ratingGroup": group,
            "usedUnitContainer": [{"localSequenceNumber": 1, "serviceSpecificUnits": units}],
        }

    price = Decimal(reserved(admin, account, 20, validity_seconds=1)["amount"])
    wrong = [used(1001, 10), used(77, 5), used(1001, 2**64 - 1)]
    shown = admin.post(f"{session}/update", json=gateway(account, 1, wrong)).json()["multipleUnitInformation"]
    assert [one["resultCode"] for one in shown] == ["SUCCESS", "RATING_FAILED", "RATING_FAILED"]
    last = gateway(account, 2, [used(77, 6), used(1001, 10)])
    assert admin.post(f"{session}/release", json=last).status_code == 204
    until(lambda: Decimal(balance(admin, account)["wallet"]) == 20 - price)
    until(lambda: len(suspended(admin, account)) == 3)
    assert sorted(item["reason"] for item in suspended(admin, account)) == ["no_price", "no_price", "overflow"]
    once = gateway(account, 0, [used(77, 7)], oneTimeEvent=True, oneTimeEventType="PEC")
    assert admin.post(CHARGING, json=once).json()["multipleUnitInformation"][0]["resultCode"] == "RATING_FAILED"
    until(lambda: len(suspended(admin, account)) == 4)
    closing = {"type": "account.closed.v1", "data": {"reason": "r"}}
    until(lambda: order(admin, f"/v1/accounts/{account}/commands", closing, api.name("close")).status_code == 201)


def test_usage_that_would_be_rejected_is_refused(api: Api, admin: httpx.Client) -> None:
    account = opened(api, admin)

    def event(number: int, later_us: int = 0, model: str = MODEL, of: str = account, **usage: int) -> dict[str, Any]:
        return {
            "specversion": "1.0", "type": "token.usage.v1", "source": f"urn:test:{account}", "id": f"e{number}",
            "time": format_time_us(time.time_ns() // 1000 + later_us), "subject": of,
            "data": {"model": model, "usage": usage or {"output": 10}},
        }  # fmt: skip

    wrong = {
        "time_in_future": event(1, HOUR_US),
        "time_too_old": event(2, -40 * DAY_US),
        "no_price": event(3, model="nobody-serves-this"),
        "overflow": event(4, output=2**63),
        "unknown_meter": event(5, phonemes=5),
    }
    client = api.clients["ingest"]
    for code, one in wrong.items():
        check_problem(client.post("/v1/usage", content=json.dumps(one), headers=STRUCTURED), 422, code)
    batch = [*wrong.values(), event(6), event(7, of=api.name("never"), model="nobody-serves-this")]
    answer = client.post("/v1/usage", content=json.dumps(batch), headers=BATCH)
    assert answer.status_code == 207
    results = answer.json()["results"]
    assert [(one["problem"] or {}).get("code") for one in results] == [*wrong, None, None]
    assert results[6]["warning"]["code"] == "unknown_account"
    price = Decimal(reserved(admin, account, 10, validity_seconds=1)["amount"])
    until(lambda: Decimal(balance(admin, account)["wallet"]) == 20 - price)
    assert suspended(admin, account) == []


def test_a_device_that_reports_what_would_be_rejected_is_told(api: Api, admin: httpx.Client) -> None:
    account = opened(api, admin)
    granted = admin.post("/v1/offline-grants", json=asked(account, 1_000)).json()
    ahead = format_time_us(time.time_ns() // 1000 + HOUR_US)
    event = {"specversion": "1.0", "type": "token.usage.v1", "source": f"urn:edge:{account}", "id": "e", "time": now(),
             "subject": account, "data": {"model": MODEL, "usage": {"output": 10}}}  # fmt: skip
    path = f"/v1/offline-grants/{granted['id']}/reconcile"
    body = {"token": granted["token"], "events": [event, {**event, "id": "f", "time": ahead}]}
    assert "events[1]" in check_problem(admin.post(path, json=body), 422, "time_in_future")["detail"]
    assert shown(admin, granted["id"])["state"] == "open"


def test_an_extension_is_done_once_however_late_it_is_repeated(api: Api, admin: httpx.Client) -> None:
    account = opened(api, admin)
    path = f"/v1/reservations/{reserved(admin, account, 100)['id']}/extend"

    def extended(key: str) -> int:
        answer = admin.post(path, json={"usage": {"output": 1}}, headers={"idempotency-key": key})
        assert answer.status_code == 200, answer.text
        return int(answer.json()["usage"]["output"])

    assert extended("first") == 101
    assert [extended(f"k{number}") for number in range(40)][-1] == 141
    assert extended("first") == 141
