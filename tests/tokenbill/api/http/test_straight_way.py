"""``POST /v1/reservations`` bypasses the router, but its refusals, limits and headers are those of every other address.

Each answer is one packet.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx
import pytest
from api_rig import Api, check_problem

from tokenbill.api.http.gate import MAX_BODY_BYTES

STRAIGHT = "/v1/reservations"
ROUTED = "/v1/offline-grants"


@pytest.mark.parametrize(
    ("headers", "content", "status", "code"),
    [
        ({"idempotency-key": "no spaces"}, b"{}", 400, "invalid_request"),
        ({"idempotency-key": ""}, b"{}", 400, "invalid_request"),
        ({"content-type": "text/plain"}, b"{}", 415, "unsupported_media_type"),
        ({}, b"[]", 400, "invalid_request"),
        ({}, b'{"account": "a", "account": "b"}', 400, "invalid_request"),
        ({}, b'{"account": "a", "model": "m", "usage": {"input": 1}, "validity_seconds": 5.0}', 422, "invalid_data"),
        ({}, b"{" + b" " * MAX_BODY_BYTES, 413, "too_large"),
        ({"authorization": "Bearer x"}, b"{}", 401, "key_unknown"),
    ],
)
def test_refusals_are_those_of_a_routed_address(
    api: Api, headers: dict[str, str], content: bytes, status: int, code: str
) -> None:
    with api.client(api.tokens["ingest"]) as client:
        client.headers["content-type"] = "application/json"
        answers = [client.post(path, content=content, headers=headers) for path in (STRAIGHT, ROUTED)]
    seen = [check_problem(answer, status, code) for answer in answers]
    assert seen[0] | {"request_id": ""} == seen[1] | {"request_id": ""}


def test_other_methods_and_addresses_are_the_applications(admin: httpx.Client) -> None:
    assert check_problem(admin.put(STRAIGHT), 405, "method_not_allowed")
    assert admin.put(STRAIGHT).headers["allow"] == "POST"
    assert admin.post(f"{STRAIGHT}/").status_code in (307, 404)


@pytest.mark.parametrize("path", [STRAIGHT, ROUTED])
def test_a_body_whose_length_nobody_announced_is_bounded_as_it_comes(api: Api, path: str) -> None:
    with api.client(api.tokens["ingest"]) as client:
        client.headers["content-type"] = "application/json"
        small = client.post(
            path, content=iter([b'{"account": "nobody-opened-this", ', b'"model": "m", "usage": {"input": 1}}'])
        )
        assert check_problem(small, 404, "unknown_account")
        large = client.post(path, content=(b" " * 65_536 for _ in range(MAX_BODY_BYTES // 65_536 + 1)))
        assert check_problem(large, 413, "too_large")


def test_a_redirection_is_to_the_address_that_a_proxy_was_asked_for(admin: httpx.Client) -> None:
    found = admin.post(f"{STRAIGHT}/", headers={"x-forwarded-proto": "https"}, follow_redirects=False)
    assert found.status_code == 307
    assert found.headers["location"].startswith("https://")
    assert found.headers["location"].endswith(STRAIGHT)


def test_an_answer_is_one_packet(api: Api) -> None:
    address = urlsplit(api.url)
    assert address.hostname is not None
    assert address.port is not None
    body = b'{"account": "nobody-opened-this", "model": "m", "usage": {"input": 1}}'
    head = f"POST {STRAIGHT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {api.tokens['ingest']}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        for _ in range(5):
            connection.sendall(head.encode() + body)
            answer = connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 404 ")
            assert answer.endswith(b"}")
