"""Live authorisation over HTTP on a complete stack: reservations, offline grants, 3GPP charging and their burns."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_rig import Api, check_problem, until

from billing.catalog import load_folder
from billing.store.store import Store
from streams.send.emitter import Emitter
from streams.send.send_commands import send_commands

MODEL = "deepseek-v3.2"
TIME = "2026-11-22T01:00:00Z"
CHARGING = "/nchf-convergedcharging/v3/chargingdata"


def opened(
    api: Api, admin: httpx.Client, amount: str = "20", plan: str | None = None, book: str = "retail-cn",
    currency: str = "CNY",
) -> str:  # fmt: skip
    """Open a new account with money in its wallet and, if ``plan`` is given, a package; return its id."""
    account = api.name("res")
    commands: list[dict[str, Any]] = [
        {"type": "account.opened.v1", "data": {"currency": currency, "price_book": book}},
    ]
    if amount != "0":
        commands.append({"type": "wallet.topped_up.v1", "data": {"amount": amount, "payment_ref": "p"}})
    if plan is not None:
        commands.append({"type": "package.purchased.v1", "data": {"plan": plan, "grant_id": "g"}})
    head = {"specversion": "1.0", "source": "urn:test:crm", "subject": account, "time": now()}
    send_commands(api.kafka, [{**head, "id": f"{account}-{n}", **one} for n, one in enumerate(commands)])
    buckets = 1 if plan is not None else 0

    def ready() -> bool:
        answer = admin.get(f"/v1/accounts/{account}/balance")
        found = answer.status_code == 200
        return (
            found and (amount == "0" or answer.json()["wallet"] == amount) and len(answer.json()["buckets"]) == buckets
        )

    until(ready)
    return account


def now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def asked(account: str, output: int = 1_000_000, **more: Any) -> dict[str, Any]:
    return {"account": account, "model": MODEL, "usage": {"output": output}, **more}


def reserved(admin: httpx.Client, account: str, output: int = 1_000_000, **more: Any) -> dict[str, Any]:
    answer = admin.post("/v1/reservations", json=asked(account, output, **more))
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/reservations/{body['id']}"
    return body


def shown(admin: httpx.Client, reservation: str) -> dict[str, Any]:
    body: dict[str, Any] = admin.get(f"/v1/reservations/{reservation}").json()
    return body


def balance(admin: httpx.Client, account: str) -> dict[str, Any]:
    body: dict[str, Any] = admin.get(f"/v1/accounts/{account}/balance").json()
    return body


def test_a_reservation_lives_until_the_usage_that_names_it_is_burned(api: Api, admin: httpx.Client) -> None:
    account = opened(api, admin, plan="token-9.9")
    made = reserved(admin, account, 100_000)
    [held] = made["reserved"]["buckets"]
    assert made["state"] == "open" and held["grant_id"] == "g/1"
    assert held["reserved"] == made["standard_tokens"] != "0"
    [bucket] = balance(admin, account)["buckets"]
    assert bucket["reserved"] == held["reserved"] and bucket["remaining"] == bucket["amount"]
    with Emitter(api.kafka, f"urn:test:{account}") as worker:
        data = {"model": MODEL, "reservation": made["id"], "usage": {"output": 40_000}}
        worker.send(account, now(), json.dumps(data).encode())
    until(lambda: shown(admin, made["id"])["state"] == "closed")
    [after] = balance(admin, account)["buckets"]
    assert after["reserved"] == "0"
    assert Decimal(after["remaining"]) == Decimal(bucket["amount"]) - Decimal(made["standard_tokens"]) * 2 / 5


def test_a_reservation_over_the_balance_is_refused_and_a_part_of_it_may_be_granted(
    api: Api, admin: httpx.Client
) -> None:
    account = opened(api, admin, "1")
    refused = admin.post("/v1/reservations", json=asked(account, 10**9))
    assert "is free" in check_problem(refused, 402, "insufficient_balance")["detail"]
    part = reserved(admin, account, 10**9, accept_partial=True)
    assert part["partial"] and 0 < part["usage"]["output"] < 10**9
    assert Decimal(part["reserved"]["wallet"]) == Decimal(part["amount"]) <= 1
    check_problem(admin.post("/v1/reservations", json=asked(account, 10_000)), 402, "insufficient_balance")
    assert admin.post(f"/v1/reservations/{part['id']}/release").json()["state"] == "released"
    reserved(admin, account, 10_000)


def test_a_repeated_key_gets_the_same_reservation_and_another_body_is_refused(api: Api, admin: httpx.Client) -> None:
    account = opened(api, admin)
    key = {"idempotency-key": account}
    first = admin.post("/v1/reservations", json=asked(account), headers=key)
    again = admin.post("/v1/reservations", json=asked(account), headers=key)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    other = admin.post("/v1/reservations", json=asked(account, 7), headers=key)
    check_problem(other, 422, "idempotency_key_reused")
    elsewhere = admin.post("/v1/reservations", json=asked(opened(api, admin)), headers=key)
    check_problem(elsewhere, 422, "idempotency_key_reused")


def test_a_reservation_is_extended_and_settled_in_parts(api: Api, admin: httpx.Client) -> None:
    account = opened(api, admin)
    made = reserved(admin, account, 300_000)
    path = f"/v1/reservations/{made['id']}"
    longer = admin.post(f"{path}/extend", json={"usage": {"output": 100_000}, "validity_seconds": 900}).json()
    assert longer["usage"] == {"output": 400_000} and longer["expires"] > made["expires"]
    nameless = admin.post(f"{path}/settle", json={"usage": {"output": 1}, "final": False})
    check_problem(nameless, 400, "idempotency_key_required")
    part = {"usage": {"output": 150_000}, "final": False}
    for _ in range(2):
        done = admin.post(f"{path}/settle", json=part, headers={"idempotency-key": "1"})
        assert done.status_code == 200 and done.json()["event"]["id"] == f"{made['id']}/1"
    other = admin.post(f"{path}/settle", json={**part, "usage": {"output": 2}}, headers={"idempotency-key": "1"})
    check_problem(other, 422, "idempotency_key_reused")
    assert shown(admin, made["id"])["usage"] == {"output": 250_000}
    cut = admin.post(f"{path}/settle", json={"usage": {"output": 50_000}})
    assert cut.json()["reservation"]["state"] == "released"
    paid = Decimal(longer["amount"]) / 2  # 200,000 of 400,000 were used, each part once
    until(lambda: Decimal(balance(admin, account)["wallet"]) == 20 - paid)


def test_usage_settled_after_expiry_is_recorded_and_has_its_own_code(api: Api, admin: httpx.Client) -> None:
    account = opened(api, admin)
    made = reserved(admin, account, 100_000, validity_seconds=1)
    until(lambda: shown(admin, made["id"])["state"] == "expired")
    path = f"/v1/reservations/{made['id']}"
    check_problem(admin.post(f"{path}/extend", json={"validity_seconds": 60}), 410, "reservation_expired")
    late = admin.post(f"{path}/settle", json={"usage": {"output": 100_000}})
    problem = check_problem(late, 410, "reservation_expired")
    assert problem["recorded"] is True and problem["event"]["id"] == f"{made['id']}/final"
    until(lambda: Decimal(balance(admin, account)["wallet"]) == 20 - Decimal(made["amount"]))


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"usage": {}}, 422, "nothing_asked"),
        ({"usage": {"output": -1}}, 422, "usage_mismatch"),
        ({"usage": {"output": 2**70}}, 422, "overflow"),
        ({"model": "nobody-serves-this"}, 422, "no_price"),
        ({"account": "nobody-opened-this"}, 404, "unknown_account"),
        ({"validity_seconds": 0}, 400, "invalid_request"),
        ({"speed": "fast"}, 400, "invalid_request"),
    ],
)
def test_what_cannot_be_reserved_is_refused_with_a_code(
    api: Api, admin: httpx.Client, change: dict[str, Any], status: int, code: str
) -> None:
    body = {**asked("x"), **change}
    if code == "no_price":
        body["account"] = opened(api, admin)
    check_problem(admin.post("/v1/reservations", json=body), status, code)


def test_who_may_reserve(api: Api, admin: httpx.Client, nobody: httpx.Client) -> None:
    check_problem(nobody.post("/v1/reservations", json=asked("x")), 401, "key_required")
    check_problem(api.clients["read"].post("/v1/reservations", json=asked("x")), 403, "role_not_enough")
    account = opened(api, admin)
    made = reserved(api.clients["ingest"], account, 10)
    with api.client(api.key("operator", account="another")) as stranger:
        check_problem(stranger.post("/v1/reservations", json=asked(account)), 403, "other_account")
        check_problem(stranger.get(f"/v1/reservations/{made['id']}"), 403, "other_account")
        check_problem(stranger.get("/v1/reservations/rsv-none"), 404, "unknown_reservation")


def test_sixteen_clients_over_http_hold_no_more_than_there_is(api: Api, admin: httpx.Client) -> None:
    accounts = [opened(api, admin, "1") for _ in range(2)]
    whole = reserved(admin, accounts[0], 10**9, accept_partial=True)
    admin.post(f"/v1/reservations/{whole['id']}/release")
    tokens = whole["usage"]["output"] // 10

    def client(number: int) -> list[tuple[str, Decimal]]:
        held = []
        with api.client(api.tokens["ingest"]) as caller:
            for turn in range(10):
                account = accounts[(number + turn) % 2]
                answer = caller.post("/v1/reservations", json=asked(account, tokens))
                if answer.status_code == 201:
                    held.append((account, Decimal(answer.json()["reserved"]["wallet"])))
                else:
                    check_problem(answer, 402, "insufficient_balance")
        return held

    with ThreadPoolExecutor(16) as threads:
        granted = [one for held in threads.map(client, range(16)) for one in held]
    for account in accounts:
        assert sum(1 for name, _ in granted if name == account) == 10
        assert sum(money for name, money in granted if name == account) <= 1


def test_an_offline_grant_is_signed_and_reconciled_once(api: Api, admin: httpx.Client) -> None:
    account = opened(api, admin)
    granted = admin.post("/v1/offline-grants", json=asked(account, 500_000)).json()
    assert granted["state"] == "open" and granted["token"].count(".") == 2
    path = f"/v1/offline-grants/{granted['id']}/reconcile"
    events = [
        {"specversion": "1.0", "type": "token.usage.v1", "source": f"urn:edge:{account}", "id": f"e{n}", "time": now(),
         "subject": account, "data": {"model": MODEL, "usage": {"output": 100_000}}}
        for n in range(3)
    ]  # fmt: skip
    forged = granted["token"][:-2] + ("AA" if granted["token"][-2:] != "AA" else "BB")
    check_problem(admin.post(path, json={"token": forged, "events": events}), 422, "invalid_token")
    wrong = [events[0], {**events[1], "subject": "another"}]
    check_problem(admin.post(path, json={"token": granted["token"], "events": wrong}), 422, "invalid_event")
    done = admin.post(path, json={"token": granted["token"], "events": events})
    assert done.json() == {"grant": granted["id"], "recorded": 3}
    until(lambda: shown(admin, granted["id"])["state"] == "closed")
    spent = Decimal(granted["amount"]) * 3 / 5
    assert Decimal(balance(admin, account)["wallet"]) == 20 - spent
    late = [*events, {**events[0], "id": "e3"}]
    again = admin.post(path, json={"token": granted["token"], "events": late})
    assert check_problem(again, 409, "reservation_closed")["recorded"] == 4
    until(lambda: Decimal(balance(admin, account)["wallet"]) == 20 - spent * 4 / 3)


def gateway(account: str, number: int, usage: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "subscriberIdentifier": f"nai-{account}@token.example.cn",
        "nfConsumerIdentification": {"nodeFunctionality": "CEF", "nFFqdn": "token-gw.example.cn"},
        "tenantIdentifier": "CUST-1",
        "invocationTimeStamp": "2026-11-22T09:15:03+08:00",
        "invocationSequenceNumber": number,
        "serviceSpecificationInfo": "ai-token-inference-1",
        "multipleUnitUsage": usage,
        **more,
    }


def test_a_telecom_gateway_charges_a_session_in_its_own_words(api: Api, admin: httpx.Client) -> None:
    assert admin.put("/v1/rating-groups/1001", json={"model": MODEL}).status_code == 200
    assert admin.get("/v1/rating-groups").json()["items"]["1001"]["model"] == MODEL
    account = opened(api, admin)
    price = Decimal(reserved(admin, account, 4096, validity_seconds=1)["amount"])
    begun = admin.post(
        CHARGING, json=gateway(account, 0, [{"ratingGroup": 1001, "requestedUnit": {"serviceSpecificUnits": 4096}}])
    )
    assert begun.status_code == 201
    [quota] = begun.json()["multipleUnitInformation"]
    assert quota["resultCode"] == "SUCCESS" and quota["grantedUnit"] == {"serviceSpecificUnits": 4096}
    assert quota["validityTime"] == 300 and quota["unitQuotaThreshold"] == 1024
    session = begun.headers["location"]
    used = [
        {"localSequenceNumber": 1, "serviceSpecificUnits": 3000},
        {"localSequenceNumber": 2, "serviceSpecificUnits": 96},
    ]
    report = gateway(account, 1, [{"ratingGroup": 1001, "requestedUnit": {}, "usedUnitContainer": used}])
    first = admin.post(f"{session}/update", json=report)
    repeated = admin.post(f"{session}/update", json={**report, "retransmissionIndicator": True})
    assert first.status_code == 200 and first.json() == repeated.json()
    assert first.json()["multipleUnitInformation"][0]["grantedUnit"] == {"serviceSpecificUnits": 4096}
    other = admin.post(f"{session}/update", json={**report, "multipleUnitUsage": []})  # of the same time
    check_problem(other, 422, "idempotency_key_reused")
    last = gateway(
        account,
        2,
        [{"ratingGroup": 1001, "usedUnitContainer": [{"localSequenceNumber": 3, "serviceSpecificUnits": 1000}]}],
    )
    for _ in range(2):
        ended = admin.post(f"{session}/release", json=last)
        assert ended.status_code == 204 and ended.content == b""
    until(lambda: Decimal(balance(admin, account)["wallet"]) == 20 - price)


def test_a_gateway_hears_of_exhausted_quota_and_unknown_users(api: Api, admin: httpx.Client) -> None:
    admin.put("/v1/rating-groups/1001", json={"model": MODEL})
    ask = [{"ratingGroup": 1001, "requestedUnit": {"serviceSpecificUnits": 10**9}}]
    unknown = admin.post(CHARGING, json=gateway("nobody-opened-this", 0, ask))
    assert check_problem(unknown, 404, "unknown_account")["cause"] == "USER_UNKNOWN"
    account = opened(api, admin, "1")
    begun = admin.post(CHARGING, json=gateway(account, 0, [*ask, {"ratingGroup": 77, "requestedUnit": {}}]))
    some, unpriced = begun.json()["multipleUnitInformation"]
    assert some["finalUnitIndication"] == {"finalUnitAction": "TERMINATE"}
    assert 0 < some["grantedUnit"]["serviceSpecificUnits"] < 10**9
    assert unpriced == {"ratingGroup": 77, "resultCode": "RATING_FAILED"}
    more = admin.post(
        CHARGING, json=gateway(account, 0, ask, chargingId=5, invocationTimeStamp="2026-11-22T09:15:04+08:00")
    )
    assert more.json()["multipleUnitInformation"][0]["resultCode"] == "QUOTA_LIMIT_REACHED"
    seconds = [{"ratingGroup": 77, "usedUnitContainer": [{"localSequenceNumber": 1, "time": 60}]}]
    timed = admin.post(CHARGING, json=gateway(account, 0, seconds))
    assert timed.json()["multipleUnitInformation"] == [{"ratingGroup": 77, "resultCode": "RATING_FAILED"}]
    nowhere = admin.post(f"{CHARGING}/chg-none/update", json=gateway(account, 1, []))
    assert check_problem(nowhere, 404, "unknown_session")["cause"] == "CHARGING_FAILED"
    bad = admin.post(CHARGING, json={"invocationSequenceNumber": 0})
    assert check_problem(bad, 400, "invalid_request")["cause"] == "MANDATORY_IE_MISSING"


def test_sessions_that_begin_in_one_second_are_told_apart(api: Api, admin: httpx.Client) -> None:
    admin.put("/v1/rating-groups/1001", json={"model": MODEL})
    account = opened(api, admin)
    ask = [{"ratingGroup": 1001, "requestedUnit": {"serviceSpecificUnits": 100}}]
    place = {"userLocation": {"longitude": 31.2345}}
    requests = [gateway(account, 0, ask, chargingId=number, pDUSessionChargingInformation=place) for number in (1, 2)]
    begun = [admin.post(CHARGING, json=one).headers["location"] for one in requests]
    assert begun[0] != begun[1]
    again = admin.post(CHARGING, json={**requests[0], "retransmissionIndicator": True})
    assert again.headers["location"] == begun[0]
    used = [{"localSequenceNumber": 1, "serviceSpecificUnits": 50}]
    for session, number in zip(begun, (1, 2), strict=True):
        report = gateway(account, 1, [{"ratingGroup": 1001, "usedUnitContainer": used}], chargingId=number)
        assert admin.post(f"{session}/update", json=report).status_code == 200
        # A session is not a reservation: it is used through its own addresses only.
        name = session.rpartition("/")[2]
        check_problem(admin.get(f"/v1/reservations/{name}"), 404, "unknown_reservation")
        for action, body in (
            ("settle", {"usage": {"output": 1}}),
            ("extend", {"usage": {"output": 1}}),
            ("release", {}),
        ):
            answer = admin.post(f"/v1/reservations/{name}/{action}", json=body)
            check_problem(answer, 404, "unknown_reservation")
    priced = Decimal(reserved(admin, account, 100, validity_seconds=1)["amount"])
    until(lambda: Decimal(balance(admin, account)["wallet"]) == 20 - priced)


def test_a_one_time_event_pays_for_what_it_is_granted(api: Api, admin: httpx.Client) -> None:
    admin.put("/v1/rating-groups/1001", json={"model": MODEL})
    account = opened(api, admin, "1")
    priced = Decimal(reserved(admin, account, 1000, validity_seconds=1)["amount"])

    def once(units: int, kind: str, second: int) -> str:
        ask = [{"ratingGroup": 1001, "requestedUnit": {"serviceSpecificUnits": units}}]
        time = f"2026-11-22T09:15:{second:02}+08:00"
        body = gateway(account, 0, ask, oneTimeEvent=True, oneTimeEventType=kind, invocationTimeStamp=time)
        answers = [admin.post(CHARGING, json=one) for one in (body, {**body, "retransmissionIndicator": True})]
        assert answers[0].status_code == 201 and answers[0].json() == answers[1].json()
        [group] = answers[0].json()["multipleUnitInformation"]
        return str(group["resultCode"])

    assert once(1000, "IEC", 1) == "SUCCESS"
    assert once(10**9, "IEC", 2) == "QUOTA_LIMIT_REACHED"
    assert once(1000, "PEC", 3) == "SUCCESS"
    until(lambda: Decimal(balance(admin, account)["wallet"]) == 1 - priced)


def test_charging_data_are_read_as_strictly_as_events(api: Api, admin: httpx.Client) -> None:
    asked_twice = json.dumps(gateway("x", 0, [])).replace(
        '"tenantIdentifier"', '"tenantIdentifier": "a", "tenantIdentifier"'
    )
    headers = {"content-type": "application/json"}
    answer = admin.post(CHARGING, content=asked_twice, headers=headers)
    assert check_problem(answer, 400, "invalid_request")["cause"] == "INVALID_MSG_FORMAT"


def test_a_key_for_one_account_does_not_say_what_a_rating_group_means(api: Api) -> None:
    with api.client(api.key("admin", "one", "urn:one")) as bound:
        check_problem(bound.put("/v1/rating-groups/1002", json={"model": MODEL}), 403, "other_account")


def test_a_device_reports_what_a_price_book_declares(api: Api, admin: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "book.yaml").write_text(
        "kind: price_book\nname: robots\nversion: 1\ncurrency: EUR\nmeters: [steps]\n"
        'effective_from: "2026-01-01T00:00:00Z"\nrows:\n  - {model: walker, per_million: {steps: "1"}}\n'
    )
    with Store(api.database_url) as store:
        assert store.wait_for_workers(store.publish(load_folder(tmp_path)).epoch, 60) == []
    account = opened(api, admin, book="robots", currency="EUR")
    granted = admin.post("/v1/offline-grants", json={"account": account, "model": "walker", "usage": {"steps": 10**6}})
    assert granted.status_code == 201, granted.text
    event = {"specversion": "1.0", "type": "token.usage.v1", "source": "urn:edge:r", "id": account, "time": now(),
             "subject": account, "data": {"model": "walker", "usage": {"steps": 10**6}}}  # fmt: skip
    body = {"token": granted.json()["token"], "events": [event]}
    done = admin.post(f"/v1/offline-grants/{granted.json()['id']}/reconcile", json=body)
    assert done.json() == {"grant": granted.json()["id"], "recorded": 1}
    until(lambda: balance(admin, account)["wallet"] == "19")


def test_what_is_held_has_the_attributes_that_a_price_book_declares(
    api: Api, admin: httpx.Client, tmp_path: Path
) -> None:
    (tmp_path / "book.yaml").write_text(
        "kind: price_book\nname: videos\nversion: 1\ncurrency: EUR\n"
        'effective_from: "2026-01-01T00:00:00Z"\ndimensions: {resolution: attributes.resolution}\nrows:\n'
        '  - {model: film, per_million: {output: "1"}}\n'
        '  - {model: film, resolution: "1080", per_million: {output: "4"}}\n'
    )
    with Store(api.database_url) as store:
        assert store.wait_for_workers(store.publish(load_folder(tmp_path)).epoch, 60) == []
    account = opened(api, admin, book="videos", currency="EUR")
    assert reserved(admin, account, model="film", validity_seconds=1)["amount"] == "1"
    dear = reserved(admin, account, model="film", attributes={"resolution": 1080, "shot": ["wide"]})
    assert (dear["amount"], dear["attributes"]) == ("4", {"resolution": 1080, "shot": ["wide"]})
    unreadable = admin.post("/v1/reservations", json=asked(account, model="film", attributes={"resolution": [1080]}))
    assert 'ttributes."resolution" is a list' in check_problem(unreadable, 422, "invalid_data")["detail"]
    more = admin.post(f"/v1/reservations/{dear['id']}/extend", json={"usage": {"output": 10**6}})
    assert more.json()["amount"] == "8"
    done = admin.post(f"/v1/reservations/{dear['id']}/settle", json={"usage": {"output": 10**6}})
    assert done.status_code == 200, done.text
    until(lambda: balance(admin, account)["wallet"] == "16")
    meaning = {"model": "film", "attributes": {"resolution": "1080"}}
    assert admin.put("/v1/rating-groups/1080", json=meaning).json()["attributes"] == {"resolution": "1080"}
    used = [{"localSequenceNumber": 1, "serviceSpecificUnits": 10**6}]
    begun = admin.post(CHARGING, json=gateway(account, 0, [{"ratingGroup": 1080, "requestedUnit": {}}]))
    end = gateway(account, 1, [{"ratingGroup": 1080, "usedUnitContainer": used}])
    assert admin.post(f"{begun.headers['location']}/release", json=end).status_code == 204
    until(lambda: balance(admin, account)["wallet"] == "12")
    begun = admin.post(CHARGING, json=gateway(account, 0, [{"ratingGroup": 1080}], chargingId=2))
    assert admin.post(f"{begun.headers['location']}/release", json=end).status_code == 204
    until(lambda: balance(admin, account)["wallet"] == "8")
