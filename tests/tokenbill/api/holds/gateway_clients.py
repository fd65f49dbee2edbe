"""Requests of gateways as their source code writes them, replayed: the SMF of free5GC and the SBI library of Open5GS.

free5GC: `buildConvergedChargingRequest` (github.com/free5gc/smf, internal/sbi/consumer/converged_charging.go) and
`buildMultiUnitUsageFromUsageReport` (internal/sbi/processor/charging_trigger.go), with the JSON names and the
``omitempty`` of github.com/free5gc/openapi, models. Open5GS: `OpenAPI_charging_data_request_t` and
`OpenAPI_used_unit_container_t` (github.com/open5gs/open5gs, lib/sbi/openapi/model), written by cJSON, with the values
of `smf_nchf_build_get` in its forks with an N40 interface (src/smf/nchf-build.c).
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

PATH = "/nchf-convergedcharging/v3/chargingdata"


def int32(volume: int) -> int:
    """Return what Go's ``int32(volume)`` is: greater volumes wrap around."""
    return (volume + 2**31) % 2**32 - 2**31


def present(**fields: Any) -> dict[str, Any]:
    """Return the fields that Go writes with ``omitempty``: none that is zero, empty or nil."""
    return {name: value for name, value in fields.items() if value}


@dataclass
class Free5gcSmf:
    """The SMF of free5GC with one PDU session. Its ``invocationSequenceNumber`` is never set, so it is always 0."""

    client: httpx.Client
    supi: str
    charging_id: int
    upfs: list[str] = field(default_factory=lambda: [str(uuid.uuid4())])
    requested: int = 3_000
    ref: str = ""
    nanoseconds: int = 0

    def now(self) -> str:
        """Return a later time on each call, as Go writes it: nanoseconds, with the offset of the host."""
        self.nanoseconds += 1_234_567
        seconds, nanoseconds = divmod(self.nanoseconds, 10**9)
        return f"2026-11-22T09:15:{seconds:02}.{nanoseconds:09}+08:00"

    def request(self, usage: list[dict[str, Any]]) -> dict[str, Any]:
        triggers = [one for group in usage for used in group["usedUnitContainer"] for one in used["triggers"]]
        return {
            "subscriberIdentifier": self.supi,
            "nfConsumerIdentification": {"nFName": "SMF", "nFIPv4Address": "127.0.0.2", "nodeFunctionality": "SMF"},
            "invocationTimeStamp": self.now(),
            "invocationSequenceNumber": 0,
            **present(chargingId=self.charging_id, multipleUnitUsage=usage, triggers=triggers),
            "notifyUri": f"http://127.0.0.2:8000/nsmf-callback/notify_urn:uuid:{uuid.UUID(int=self.charging_id)}",
            "pDUSessionChargingInformation": {
                **present(chargingId=self.charging_id),
                "userInformation": {"servedGPSI": "msisdn-0900000000"},
                "pduSessionInformation": {
                    "networkSlicingInfo": {"sNSSAI": {"sst": 1, "sd": "010203"}},
                    "pduSessionID": 1,
                    "pduType": "IPV4",
                    "dnnId": "internet",
                    "servingNetworkFunctionID": {"servingNetworkFunctionInformation": {"nodeFunctionality": "AMF"}},
                },
            },
        }

    def report(
        self, rating_group: int, uplink: int, downlink: int, upf: int = 0, method: str = "ONLINE_CHARGING"
    ) -> dict[str, Any]:
        """Return the part of a request for one usage report of the user plane."""
        units = present(
            totalVolume=int32(uplink + downlink), uplinkVolume=int32(uplink), downlinkVolume=int32(downlink)
        )
        asked = {"totalVolume": self.requested, "uplinkVolume": self.requested, "downlinkVolume": self.requested}
        return {
            "ratingGroup": rating_group,
            "requestedUnit": asked if method == "ONLINE_CHARGING" else {},
            "usedUnitContainer": [
                {
                    "quotaManagementIndicator": method,
                    "triggers": [{"triggerType": "QUOTA_THRESHOLD", "triggerCategory": "IMMEDIATE_REPORT"}],
                    "triggerTimestamp": self.now(),
                    **units,
                    "localSequenceNumber": 0,
                }
            ],
            "uPFID": self.upfs[upf],
        }

    def begin(self) -> None:
        """Begin the session. The SMF names no rating group, and takes the last part of ``Location``."""
        answer = self.client.post(PATH, json=self.request([]))
        assert answer.status_code == 201, answer.text
        self.ref = answer.headers["location"].split("/")[-1]

    def update(self, *groups: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self.client.post(f"{PATH}/{self.ref}/update", json=self.request(list(groups)))
        assert answer.status_code == 200, answer.text
        shown: list[dict[str, Any]] = answer.json()["multipleUnitInformation"]
        return shown

    def release(self, *groups: dict[str, Any]) -> None:
        answer = self.client.post(f"{PATH}/{self.ref}/release", json=self.request(list(groups)))
        assert answer.status_code == 204, answer.text

    def quota_of(self, shown: dict[str, Any]) -> int | None:
        """Return the volume that `updateGrantedQuota` of the SMF sets for a group; None where it changes nothing."""
        uuid.UUID(shown["uPFID"])  # without it the SMF reads no further group
        exhausted = any(one["triggerType"] == "QUOTA_EXHAUSTED" for one in shown.get("triggers", []))
        return shown.get("grantedUnit", {}).get("totalVolume", 0) if exhausted else None


def cjson_number(value: int) -> str:
    """Return a number as cJSON prints it: 15 digits, with an exponent where ``%1.15g`` has one."""
    return str(value) if -(2**31) <= value < 2**31 else f"{float(value):1.15g}"


@dataclass
class Open5gsSmf:
    """An SMF on the SBI library of Open5GS. Its requests say 0 for the number and for the charging id."""

    client: httpx.Client
    supi: str
    ref: str = ""
    microseconds: int = 0

    def request(self, usage: str) -> bytes:
        self.microseconds += 700_001
        seconds, microseconds = divmod(self.microseconds, 10**6)
        head = {
            "subscriberIdentifier": self.supi,
            "chargingId": 0,
            "nfConsumerIdentification": {"nFName": "SMF", "nFIPv4Address": "127.0.0.4", "nodeFunctionality": "SMF"},
            "invocationTimeStamp": f"2026-11-22T01:15:{seconds:02}.{microseconds:06}Z",
            "invocationSequenceNumber": 0,
            "notifyUri": "http://127.0.0.4:7777/nsmf-callback/v1/sm-policy-notify/1",
        }
        return (json.dumps(head, indent="\t")[:-2] + f',\n\t"multipleUnitUsage":\t[{usage}]\n}}').encode()

    def report(self, rating_group: int, **units: int) -> str:
        shown = "".join(f',\n"{name}":\t{cjson_number(count)}' for name, count in units.items())
        container = f'{{"localSequenceNumber":\t0{shown}}}'
        return f'{{"ratingGroup":\t{rating_group},\n"requestedUnit":\t{{\n}},\n"usedUnitContainer":\t[{container}]}}'

    def send(self, action: str, *reports: str) -> httpx.Response:
        address = f"{PATH}/{self.ref}/{action}" if self.ref else PATH
        headers = {"content-type": "application/json"}
        answer = self.client.post(address, content=self.request(",".join(reports)), headers=headers)
        assert answer.status_code < 300, answer.text
        if not self.ref:
            self.ref = answer.headers["location"].split("/")[-1]
        return answer
