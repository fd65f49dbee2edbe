"""Public bug reports about charging functions and their clients, tried here; each test names its report."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

from api_rig import Api, check_problem, until
from gateway_clients import PATH, Free5gcSmf
from test_gateway_replays import MONEY, account_of, begun, put_group, units, until_billed, used
from test_reservations import balance, gateway

__all__ = ["units"]  # a fixture

ONLINE = {"quotaManagementIndicator": "ONLINE_CHARGING", "localSequenceNumber": 1}


def groups_of(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code in (200, 201), answer.text
    found: list[dict[str, Any]] = answer.json()["multipleUnitInformation"]
    return found


def test_online_usage_without_a_requested_unit_is_billed(units: Api) -> None:
    """github.com/free5gc/free5gc/issues/929: update and release failed, and the usage was lost."""
    admin, account = units.clients["admin"], account_of(units)
    session = begun(admin, account)
    report = used(2001, {**ONLINE, "totalVolume": 5})
    assert groups_of(admin.post(f"{session}/update", json=gateway(account, 1, [report]))) == [
        {"ratingGroup": 2001, "resultCode": "SUCCESS"}
    ]
    assert admin.post(f"{session}/release", json=gateway(account, 2, [report])).status_code == 204
    until_billed(admin, account, 0, 10, 0)


def test_a_request_without_its_consumer_blocks_no_later_one(units: Api) -> None:
    """github.com/free5gc/free5gc/issues/1023 and 927: a lock of the subscriber was never released."""
    admin, account = units.clients["admin"], account_of(units)
    session = begun(admin, account)
    whole = gateway(account, 1, [used(2001, {"totalVolume": 5})])
    without = {name: value for name, value in whole.items() if name != "nfConsumerIdentification"}
    for address in (PATH, f"{session}/update", f"{session}/release"):
        problem = check_problem(admin.post(address, json=without), 400, "invalid_request")
        assert problem["cause"] == "MANDATORY_IE_MISSING"
    assert admin.post(f"{session}/update", json=whole).status_code == 200
    until_billed(admin, account, 0, 5, 0)


def test_a_session_needs_no_information_about_a_pdu_session(units: Api) -> None:
    """github.com/free5gc/free5gc/issues/759: a missing part of it failed the request."""
    admin, account = units.clients["admin"], account_of(units)
    for information in ({}, {"pDUSessionChargingInformation": {"chargingId": 12345}}):
        assert begun(admin, account, used(2001, {"totalVolume": 1}), chargingId=len(information), **information)
    until_billed(admin, account, 0, 2, 0)


def test_a_wrong_reference_touches_no_session_of_the_subscriber(units: Api) -> None:
    """github.com/free5gc/free5gc/issues/950: the usage went to the latest session of the subscriber, or failed it."""
    admin, account = units.clients["admin"], account_of(units)
    sessions = [begun(admin, account, chargingId=number) for number in (1, 2)]
    report = gateway(account, 1, [used(2001, {"totalVolume": 3})])
    wrong = sessions[0][:-4] + "0000"
    assert (
        check_problem(admin.post(f"{wrong}/update", json=report), 404, "unknown_session")["cause"] == "CHARGING_FAILED"
    )
    for session in sessions:
        assert admin.post(f"{session}/update", json=report).status_code == 200
    until_billed(admin, account, 0, 6, 0)


def test_quota_ends_at_the_balance_and_what_was_used_beyond_it_is_recorded(units: Api) -> None:
    """github.com/free5gc/free5gc/issues/654: the quota went below zero, by another amount each time."""
    admin, account = units.clients["admin"], account_of(units, "1")
    smf = Free5gcSmf(admin, account, 654, requested=300_000)
    smf.begin()
    granted, consumed = 0, 0
    [shown] = smf.update(smf.report(2001, 0, 0))
    while (quota := smf.quota_of(shown)) and len(str(consumed)) < 9:
        granted += quota
        consumed += quota
        [shown] = smf.update(smf.report(2001, 0, quota))
    assert shown["resultCode"] == "QUOTA_LIMIT_REACHED" and granted <= 1_000_000
    smf.release(smf.report(2001, 0, 7))
    until(lambda: Decimal(balance(admin, account)["wallet"]) == 1 - Decimal(consumed + 7).scaleb(-6), 30)


def test_many_subscribers_charge_at_once(units: Api) -> None:
    """github.com/free5gc/free5gc/issues/634: the ninth concurrent subscriber failed."""
    admin = units.clients["admin"]
    accounts = [account_of(units) for _ in range(12)]

    def charge(number: int) -> None:
        with units.client(units.tokens["admin"]) as client:
            smf = Free5gcSmf(client, accounts[number], 634 + number)
            smf.begin()
            smf.update(smf.report(2001, 1, number))
            smf.release(smf.report(2001, 1, 1))

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(charge, range(12)))
    for number, account in enumerate(accounts):
        until_billed(admin, account, 2, number + 1, 0)


def test_each_rating_group_has_its_own_grant_and_result(units: Api) -> None:
    """github.com/cgrates/cgrates/issues/1302: every group was answered with the smallest grant."""
    admin, account = units.clients["admin"], account_of(units, "1")
    asked = {2001: 600_000, 2002: 900_000, 2008: 5}
    put_group(admin, 2008)
    wanted = [{"ratingGroup": group, "requestedUnit": {"totalVolume": units_}} for group, units_ in asked.items()]
    full, partial, nothing = groups_of(admin.post(PATH, json=gateway(account, 0, wanted)))
    assert full["grantedUnit"] == {"totalVolume": 600_000} and "finalUnitIndication" not in full
    assert partial["grantedUnit"]["totalVolume"] <= 400_000 and "finalUnitIndication" in partial
    assert partial["grantedUnit"]["totalVolume"] > 390_000
    assert nothing["resultCode"] in ("QUOTA_LIMIT_REACHED", "SUCCESS")


def test_a_duplicate_record_debits_nothing(units: Api) -> None:
    """github.com/cgrates/cgrates/issues/243: a duplicate was not stored, and debited nevertheless."""
    admin, account = units.clients["admin"], account_of(units)
    once = gateway(account, 0, [used(2001, {"serviceSpecificUnits": 5})], oneTimeEvent=True, oneTimeEventType="PEC")
    for _ in range(3):
        assert admin.post(PATH, json=once).status_code == 201
    later = {**once, "invocationTimeStamp": "2026-11-22T09:20:00+08:00"}
    assert admin.post(PATH, json=later).status_code == 201
    until_billed(admin, account, 0, 10, 0)


def test_an_unknown_subscriber_is_an_error_and_not_a_success(units: Api) -> None:
    """github.com/cgrates/cgrates/issues/535: the client got a success, and the service was given for nothing."""
    asked = [{"ratingGroup": 2001, "requestedUnit": {"totalVolume": 1}}]
    answer = units.clients["admin"].post(PATH, json=gateway(units.name("nobody"), 0, asked))
    assert check_problem(answer, 404, "unknown_account")["cause"] == "USER_UNKNOWN"


def test_a_report_that_asks_for_nothing_gets_no_validity_of_zero(units: Api) -> None:
    """github.com/ostelco/ostelco-core/issues/890 and 918: a validity of 0 ended the session of the client."""
    admin, account = units.clients["admin"], account_of(units)
    session = begun(admin, account, {"ratingGroup": 2001, "requestedUnit": {"totalVolume": 100}})
    held = used(2001, {"totalVolume": 1, "triggers": [{"triggerType": "QHT", "triggerCategory": "IMMEDIATE_REPORT"}]})
    [shown] = groups_of(admin.post(f"{session}/update", json=gateway(account, 1, [held])))
    assert shown == {"ratingGroup": 2001, "resultCode": "SUCCESS"}
    until_billed(admin, account, 0, 1, 0)


def test_the_start_of_a_flow_is_granted_quota_without_any_usage(units: Api) -> None:
    """github.com/free5gc/gtp5g/pull/80: the report of a flow's start measures nothing."""
    admin, account = units.clients["admin"], account_of(units)
    smf = Free5gcSmf(admin, account, 80)
    smf.begin()
    [shown] = smf.update(smf.report(2001, 0, 0))
    assert shown["resultCode"] == "SUCCESS" and smf.quota_of(shown) == 3_000
    smf.release()
    assert Decimal(balance(admin, account)["wallet"]) == MONEY
