"""Nothing that a gateway reports is lost: requests as gateways send them, over the API, until their units are billed.

The book of these tests prices each meter in digits of its own, so a wallet shows how many units of each were billed.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from api_rig import Api, check_problem, until
from api_steps import order
from gateway_clients import PATH, Free5gcSmf, Open5gsSmf
from test_reservations import balance, gateway, opened

from billing.catalog import load_folder
from billing.store.store import Store

GROUPS = (2001, 2002)
MONEY = 900_000
BOOK = """\
kind: price_book
name: units
version: 1
currency: EUR
effective_from: "2020-01-01T00:00:00Z"
rows:
  - {model: units, per_million: {input: "0.000001", output: "1", milliseconds: "1000000"}}
  - {model: free, per_million: {output: "0"}}
"""


@pytest.fixture(scope="module")
def units(whole_api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The stack with the book and the rating groups of these tests."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "book.yaml").write_text(BOOK)
    with Store(whole_api.database_url) as store:
        assert store.wait_for_workers(store.publish(load_folder(folder)).epoch, 60) == []
    for group in GROUPS:
        put_group(whole_api.clients["admin"], group)
    yield whole_api


def put_group(admin: httpx.Client, group: int, **meaning: Any) -> None:
    assert admin.put(f"/v1/rating-groups/{group}", json={"model": "units", **meaning}).status_code == 200


def account_of(units: Api, amount: str = str(MONEY)) -> str:
    return opened(units, units.clients["admin"], amount, book="units", currency="EUR")


def billed(admin: httpx.Client, account: str, amount: int = MONEY) -> tuple[int, int, int]:
    """Return how many units of input, output and milliseconds an account paid for."""
    pico = int((Decimal(amount) - Decimal(balance(admin, account)["wallet"])).scaleb(12))
    milliseconds, rest = divmod(pico, 10**12)
    return rest % 10**6, rest // 10**6, milliseconds


def until_billed(admin: httpx.Client, account: str, *expected: int, amount: int = MONEY) -> None:
    try:
        until(lambda: billed(admin, account, amount) == expected, 30)
    except AssertionError:
        assert billed(admin, account, amount) == expected


def kept(admin: httpx.Client, account: str, number: int = 1) -> list[tuple[str, dict[str, Any]]]:
    """Return reason and usage of the records of an account in suspense."""
    address = f"/v1/suspense?account={account}"
    until(lambda: len(admin.get(address).json()["items"]) >= number, 30)
    found = []
    for item in admin.get(address).json()["items"]:
        shown = admin.get(f"/v1/suspense/{item['place']}").json()
        found.append((item["reason"], json.loads(shown["value"]["text"])["data"]["usage"]))
    return sorted(found, key=str)


def used(group: Any, *containers: Any, **more: Any) -> dict[str, Any]:
    return {"ratingGroup": group, "usedUnitContainer": list(containers), **more}


def begun(admin: httpx.Client, account: str, *groups: Any, **more: Any) -> str:
    answer = admin.post(PATH, json=gateway(account, 0, list(groups), **more))
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


def test_a_session_of_free5gc_is_billed_to_the_unit(units: Api) -> None:
    admin, account = units.clients["admin"], account_of(units)
    smf = Free5gcSmf(admin, account, 7, [str(uuid.UUID(int=number, version=4)) for number in (1, 2)])
    smf.begin()
    for turn in range(4):
        shown = smf.update(
            smf.report(2001, 10 + turn, 100), smf.report(2001, 1, 2, upf=1), smf.report(2002, 0, 5, method="OFFLINE")
        )
        assert [(one["ratingGroup"], one["uPFID"]) for one in shown] == [
            (2001, smf.upfs[0]), (2001, smf.upfs[1]), (2002, smf.upfs[0]),
        ]  # fmt: skip
        assert [one["resultCode"] for one in shown] == ["SUCCESS"] * 3
        assert [smf.quota_of(one) for one in shown] == [3_000, 3_000, 4_096]
        assert shown[0]["grantedUnit"] == dict.fromkeys(("totalVolume", "uplinkVolume", "downlinkVolume"), 3_000)
        assert shown[0]["volumeQuotaThreshold"] == 750
    smf.release(smf.report(2001, 9, 1))
    until_billed(admin, account, 10 + 11 + 12 + 13 + 4 * 1 + 9, 4 * (100 + 2 + 5) + 1, 0)
    assert admin.get(f"/v1/suspense?account={account}").json()["items"] == []


@pytest.fixture(scope="module")
def charging_client(units: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client that speaks HTTP/2 with prior knowledge to a process with a charging port."""
    ports = free_port(), free_port()
    command = [str(Path(sys.executable).with_name("tokenbill")), "serve", "--port", str(ports[0])]
    command += ["--charging-port", str(ports[1]), "--web-port", str(free_port()), "--data-dir", str(units.folder)]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        headers = {"authorization": f"Bearer {units.tokens['admin']}"}
        url = f"http://127.0.0.1:{ports[1]}"
        with httpx.Client(base_url=url, headers=headers, http1=False, http2=True, timeout=30) as client:
            until(lambda: process.poll() is not None or answers(client), 60)
            assert process.poll() is None, log.read_text()
            yield client
    finally:
        process.terminate()
        process.wait(30)
        assert "Application shutdown complete" in log.read_text()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/").status_code == 404
    except httpx.HTTPError:
        return False


def test_gateways_speak_http_2_with_prior_knowledge(units: Api, charging_client: httpx.Client) -> None:
    admin, accounts = units.clients["admin"], [account_of(units) for _ in range(2)]
    smf = Free5gcSmf(charging_client, accounts[0], 70)
    smf.begin()
    for turn in range(3):
        [shown] = smf.update(smf.report(2001, 1, 2 + turn))
        assert smf.quota_of(shown) == 3_000
    smf.release(smf.report(2002, 4, 1))
    other = Open5gsSmf(charging_client, accounts[1])
    begun = other.send("create")
    assert begun.http_version == "HTTP/2"
    assert begun.headers["location"] == f"{charging_client.base_url}{PATH}/{other.ref}".replace("//nchf", "/nchf")
    other.send("update", other.report(2001, totalVolume=100))
    other.send("release", other.report(2001, totalVolume=50))
    until_billed(admin, accounts[0], 3 + 4, 2 + 3 + 4 + 1, 0)
    until_billed(admin, accounts[1], 0, 150, 0)
    assert charging_client.get("/v1/plans").status_code == 404, "nothing else is served there"
    with httpx.Client(base_url=charging_client.base_url) as plain:
        assert plain.post(PATH, json={}).status_code == 401


def test_a_repeated_request_of_free5gc_is_billed_once(units: Api) -> None:
    admin, account = units.clients["admin"], account_of(units)
    smf = Free5gcSmf(admin, account, 8)
    smf.begin()
    body = smf.request([smf.report(2001, 3, 4)])
    answers = [admin.post(f"{PATH}/{smf.ref}/update", json=one) for one in (body, body)]
    later = {**body, "retransmissionIndicator": True, "invocationTimeStamp": smf.now()}
    answers.append(admin.post(f"{PATH}/{smf.ref}/update", json=later))
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[0].json() == answers[1].json() == answers[2].json()
    smf.update(smf.report(2001, 3, 4))
    smf.release()
    until_billed(admin, account, 6, 8, 0)


def test_a_volume_that_wrapped_around_is_kept_beside_what_is_right(units: Api) -> None:
    """free5GC casts volumes to int32: three billion are negative."""
    admin, account = units.clients["admin"], account_of(units)
    smf = Free5gcSmf(admin, account, 9)
    smf.begin()
    right, wrong = smf.update(smf.report(2001, 5, 6), smf.report(2002, 0, 3_000_000_000))
    assert right["resultCode"] == "SUCCESS"
    assert wrong == {"ratingGroup": 2002, "uPFID": smf.upfs[0], "resultCode": "RATING_FAILED"}
    smf.release()
    wrapped = 3_000_000_000 - 2**32
    assert kept(admin, account) == [("usage_mismatch", {"downlinkVolume": wrapped, "totalVolume": wrapped})]
    until_billed(admin, account, 5, 6, 0)


def test_a_session_of_open5gs_is_billed_to_the_unit(units: Api) -> None:
    admin, account = units.clients["admin"], account_of(units)
    put_group(admin, 2009, totalVolume="output", model="free")
    smf = Open5gsSmf(admin, account)
    smf.send("create")
    for total in (100, 100, 250):  # equal reports, a moment apart
        shown = smf.send("update", smf.report(2001, totalVolume=total)).json()["multipleUnitInformation"]
        assert shown[0]["grantedUnit"] == {"totalVolume": 4_096}
    great = smf.send("update", smf.report(2009, totalVolume=10**15), smf.report(2002, uplinkVolume=7, time=30))
    assert [one["resultCode"] for one in great.json()["multipleUnitInformation"]] == ["SUCCESS", "SUCCESS"]
    smf.send("release", smf.report(2001, totalVolume=50, uplinkVolume=20, downlinkVolume=30))
    until_billed(admin, account, 27, 450 + 30, 0)
    assert admin.get(f"/v1/suspense?account={account}").json()["items"] == []


def test_more_than_a_hundred_groups_and_containers_are_all_billed(units: Api) -> None:
    admin, account = units.clients["admin"], account_of(units)
    session = begun(admin, account)
    many = [used(2001, {"localSequenceNumber": n, "uplinkVolume": 1}, uPFID=f"upf-{n}") for n in range(150)]
    many.append(used(2002, *({"localSequenceNumber": n, "downlinkVolume": 2} for n in range(300))))
    answer = admin.post(f"{session}/update", json=gateway(account, 1, many))
    assert answer.status_code == 200, answer.text
    shown = answer.json()["multipleUnitInformation"]
    assert [one["resultCode"] for one in shown] == ["SUCCESS"] * 151
    assert [one.get("uPFID") for one in shown] == [f"upf-{n}" for n in range(150)] + [None]
    assert admin.post(f"{session}/release", json=gateway(account, 2, [])).status_code == 204
    until_billed(admin, account, 150, 600, 0)


def test_what_cannot_be_counted_refuses_nothing_else_and_is_kept(units: Api) -> None:
    admin, account = units.clients["admin"], account_of(units)
    session = begun(admin, account)
    groups = [
        used(2001, {"serviceSpecificUnits": 2**64 - 1}, {"serviceSpecificUnits": 3}, {"localSequenceNumber": 1}),
        used(2002, {"totalVolume": "12"}, {"totalVolume": 4.0}, {"uplinkVolume": 1, "totalVolume": 1, "watts": 9}),
        used(77, {"serviceSpecificUnits": 5}, requestedUnit={}),
        used(-1, {"totalVolume": 6}),
        used(None, {"totalVolume": 7}),
        used(2001, {"uplinkVolume": 1, "downlinkVolume": 2, "totalVolume": 10}),
        used(2002, {"uplinkVolume": 8, "downlinkVolume": 8, "totalVolume": 8}),
        {"ratingGroup": 2001, "requestedUnit": {"serviceSpecificUnits": 2**64 - 1}},
        {"ratingGroup": 2002, "requestedUnit": {"totalVolume": -3}, "usedUnitContainer": None},
    ]
    answer = admin.post(f"{session}/update", json=gateway(account, 1, groups))
    assert answer.status_code == 200, answer.text
    shown = answer.json()["multipleUnitInformation"]
    failed, fine = "RATING_FAILED", "SUCCESS"
    assert [one["resultCode"] for one in shown] == [*[failed] * 7, fine, fine]
    assert [one.get("ratingGroup") for one in shown] == [2001, 2002, 77, -1, None, 2001, 2002, 2001, 2002]
    assert admin.post(f"{session}/release", json=gateway(account, 2, [])).status_code == 204
    until_billed(admin, account, 1 + 1, 3 + 4 + 2, 0)
    assert kept(admin, account, 8) == sorted(
        [
            ("overflow", {"output": 2**64 - 1}),
            ("invalid_event", {"totalVolume": '"12"'}),
            ("unknown_meter", {"watts": 9}),
            ("no_price", {"output": 5}),
            ("no_price", {"output": 6}),
            ("no_price", {"output": 7}),
            ("unknown_meter", {"totalVolume beyond uplinkVolume and downlinkVolume": 7}),
            ("unknown_meter", {"totalVolume": 8, "uplinkVolume": 8, "downlinkVolume": 8}),
        ],
        key=str,
    )


def test_time_is_a_quota_and_is_billed(units: Api) -> None:
    admin, account = units.clients["admin"], account_of(units)
    put_group(admin, 2003)
    put_group(admin, 2004, time="output", unitsPerSecond=50, unit="time")
    put_group(admin, 2005, unitsPerSecond=0)
    session = begun(admin, account, {"ratingGroup": 2003, "requestedUnit": {"time": 120}})
    report = [
        used(2003, {"time": 60}, requestedUnit={}),
        used(2004, {"time": 3, "totalVolume": 999}, requestedUnit={}),
        used(2005, {"time": 3600}, {"serviceSpecificUnits": 4}),
    ]
    shown = admin.post(f"{session}/update", json=gateway(account, 1, report)).json()["multipleUnitInformation"]
    assert [one["resultCode"] for one in shown] == ["SUCCESS"] * 3
    assert [one.get("grantedUnit") for one in shown] == [{"time": 60}, {"time": 60}, None]
    assert shown[0]["timeQuotaThreshold"] == 15
    assert admin.post(f"{session}/release", json=gateway(account, 2, [])).status_code == 204
    until_billed(admin, account, 0, 150 + 4, 60_000)


def test_seconds_of_a_group_that_has_no_price_for_time_are_kept_and_billed_after_a_repair(units: Api) -> None:
    admin, account = units.clients["admin"], account_of(units)
    put_group(admin, 2006, time="device_milliseconds")
    session = begun(admin, account)
    report = [used(2006, {"time": 2}), used(2001, {"serviceSpecificUnits": 1})]
    shown = admin.post(f"{session}/release", json=gateway(account, 1, report))
    assert shown.status_code == 204
    assert kept(admin, account) == [("no_price", {"device_milliseconds": 2_000})]
    until_billed(admin, account, 0, 1, 0)


def test_an_empty_request_is_granted_in_the_unit_that_the_group_counts(units: Api) -> None:
    admin, account = units.clients["admin"], account_of(units)
    put_group(admin, 2007, unit="totalVolume")
    groups = [{"ratingGroup": 2007, "requestedUnit": {}}, {"ratingGroup": 2001, "requestedUnit": {}}]
    answer = admin.post(PATH, json=gateway(account, 0, groups))
    shown = answer.json()["multipleUnitInformation"]
    assert [one["grantedUnit"] for one in shown] == [{"totalVolume": 4_096}, {"serviceSpecificUnits": 4_096}]
    assert {one["triggerType"] for one in shown[0]["triggers"]} >= {"QUOTA_THRESHOLD", "QUOTA_EXHAUSTED"}
    zeros = {"serviceSpecificUnits": 0, "uplinkVolume": 0, "downlinkVolume": 0, "time": 0, "totalVolume": 11}
    report = gateway(account, 1, [used(2001, zeros, requestedUnit={})])
    again = admin.post(f"{answer.headers['location']}/update", json=report).json()["multipleUnitInformation"]
    assert again[0]["grantedUnit"] == {"totalVolume": 4_096}
    until_billed(admin, account, 0, 11, 0)


def test_the_location_of_a_session_is_absolute(units: Api) -> None:
    admin, account = units.clients["admin"], account_of(units)
    location = urlsplit(begun(admin, account))
    assert f"{location.scheme}://{location.netloc}" == units.url
    assert location.path.startswith(f"{PATH}/chg-")


def test_usage_of_a_user_that_is_unknown_is_kept(units: Api) -> None:
    admin, account = units.clients["admin"], units.name("never-opened")
    once = gateway(account, 0, [used(2001, {"serviceSpecificUnits": 5})], oneTimeEvent=True, oneTimeEventType="PEC")
    for _ in range(2):
        assert check_problem(admin.post(PATH, json=once), 404, "unknown_account")["cause"] == "USER_UNKNOWN"
    assert kept(admin, account)[0] == ("unknown_account", {"output": 5})


def test_a_number_used_again_for_other_units_is_a_conflict_and_not_lost(units: Api) -> None:
    admin, account = units.clients["admin"], account_of(units)
    session = begun(admin, account)
    for number in (1, 2):
        report = gateway(account, number, [used(2001, {"serviceSpecificUnits": 5})])
        assert admin.post(f"{session}/update", json=report).status_code == 200
    until_billed(admin, account, 0, 10, 0)
    other = gateway(account, 2, [used(2001, {"serviceSpecificUnits": 9}), used(2002, {"serviceSpecificUnits": 4})])
    check_problem(admin.post(f"{session}/update", json=other), 422, "idempotency_key_reused")
    until_billed(admin, account, 0, 14, 0)
    address = f"/v1/conflicts?account={account}"
    until(lambda: len(admin.get(address).json()["items"]) == 1, 30)


def test_many_reports_of_one_session_at_once_are_all_billed(units: Api) -> None:
    admin, account = units.clients["admin"], account_of(units)
    session = begun(admin, account)

    def report(number: int) -> int:
        with units.client(units.tokens["admin"]) as client:
            body = gateway(account, number, [used(2001, {"serviceSpecificUnits": number}, requestedUnit={})])
            answer = client.post(f"{session}/update", json=body)
            assert answer.status_code == 200, answer.text
            return int(answer.json()["invocationSequenceNumber"])

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(report, range(1, 41))) == list(range(1, 41))
    assert admin.post(f"{session}/release", json=gateway(account, 41, [])).status_code == 204
    until_billed(admin, account, 0, sum(range(1, 41)), 0)


@dataclass
class Gateway:
    """The side of a gateway that is notified."""

    got: list[dict[str, Any]] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None

    def __post_init__(self) -> None:
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Discard the line: requests are not logged."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.uri = f"http://127.0.0.1:{self.server.server_address[1]}/nsmf-callback/notify_1"


@pytest.fixture
def smf() -> Iterator[Gateway]:
    made = Gateway()
    yield made
    assert made.server is not None
    made.server.shutdown()
    made.server.server_close()


def test_a_gateway_hears_of_a_top_up_and_gets_quota_again(units: Api, smf: Gateway) -> None:
    admin, account = units.clients["admin"], account_of(units, "1")
    ask = {"ratingGroup": 2001, "requestedUnit": {"totalVolume": 2_000_000}}
    answer = admin.post(PATH, json=gateway(account, 0, [ask], notifyUri=smf.uri))
    [quota] = answer.json()["multipleUnitInformation"]
    assert quota["finalUnitIndication"] == {"finalUnitAction": "TERMINATE"}
    report = used(2001, {"downlinkVolume": 1_000_000}, requestedUnit={"totalVolume": 2_000_000})
    session = answer.headers["location"]
    [ended] = admin.post(f"{session}/update", json=gateway(account, 1, [report])).json()["multipleUnitInformation"]
    assert ended["resultCode"] == "QUOTA_LIMIT_REACHED" and "grantedUnit" not in ended
    order(admin, f"/v1/accounts/{account}/top-ups", {"amount": "5", "payment_ref": "p2"}, account)
    until(lambda: len(smf.got) >= 1, 30)  # the top-up that opened the account may be read late, and notified too
    assert smf.got[0] == {"notificationType": "REAUTHORIZATION", "reauthorizationDetails": [{"ratingGroup": 2001}]}
    again = admin.post(f"{session}/update", json=gateway(account, 2, [ask])).json()["multipleUnitInformation"]
    assert again[0]["grantedUnit"] == {"totalVolume": 2_000_000}


def test_a_gateway_hears_of_a_new_price(units: Api, smf: Gateway, tmp_path: Path) -> None:
    (tmp_path / "book.yaml").write_text(BOOK.replace("name: units", "name: moving"))
    with Store(units.database_url) as store:
        assert store.wait_for_workers(store.publish(load_folder(tmp_path)).epoch, 60) == []
        account = opened(units, units.clients["admin"], "1", book="moving", currency="EUR")
        begun(units.clients["admin"], account, {"ratingGroup": 2001, "requestedUnit": {}}, notifyUri=smf.uri)
        assert smf.got == []
        second = BOOK.replace("name: units", "name: moving").replace("version: 1", "version: 2")
        (tmp_path / "book.yaml").write_text(second.replace("2020-01-01", "2021-01-01"))
        store.publish(load_folder(tmp_path))
    until(lambda: len(smf.got) == 1, 30)
    assert smf.got[0]["notificationType"] == "REAUTHORIZATION"


def test_an_aborted_session_is_notified_and_its_last_units_are_billed(units: Api, smf: Gateway) -> None:
    admin, account = units.clients["admin"], account_of(units)
    session = begun(admin, account, {"ratingGroup": 2001, "requestedUnit": {}}, notifyUri=smf.uri)
    ref = session.rpartition("/")[2]
    for _ in range(2):
        assert admin.post(f"/v1/charging-sessions/{ref}/abort").json() == {"session": ref, "notified": True}
    until(lambda: len(smf.got) == 1, 30)
    assert smf.got == [{"notificationType": "ABORT_CHARGING", "reauthorizationDetails": [{"ratingGroup": 2001}]}]
    report = used(2001, {"serviceSpecificUnits": 3}, requestedUnit={})
    [ended] = admin.post(f"{session}/update", json=gateway(account, 1, [report])).json()["multipleUnitInformation"]
    assert ended["resultCode"] == "END_USER_SERVICE_DENIED"
    until_billed(admin, account, 0, 3, 0)
    check_problem(admin.post("/v1/charging-sessions/chg-none/abort"), 404, "unknown_session")
