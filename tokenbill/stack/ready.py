"""Readiness checks of processes, one per kind of server; each connects as a client does and changes nothing."""

from __future__ import annotations

import functools
import http.client
import json
import socket
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from tokenbill.stack.spec import ReadyCheck

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

QUESTION_SECONDS = 2.0
_HEALTH_BYTES = 1 << 20


def why_not_ready(check: ReadyCheck) -> str | None:
    """Return None if the process is ready, else the reason in a few words."""
    match check.kind:
        case "none":
            return None
        case "tcp":
            return _tcp(check.target)
        case "http":
            return _http(check.target)
        case "kafka":
            return _tcp(check.target) or _kafka(check.target)
        case "postgresql":
            return _postgresql(check.target)


def _tcp(address: str) -> str | None:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), QUESTION_SECONDS).close()
    except OSError as error:
        return f"{address}: {error.strerror or error}"
    return None


def _http(address: str) -> str | None:
    try:
        with urllib.request.urlopen(address, timeout=QUESTION_SECONDS) as answer:
            status: int = answer.status
    except urllib.error.HTTPError as error:
        # A process that serves although partitions wait for a person lacks nothing that a wait could bring.
        found = _document(error.read(_HEALTH_BYTES))
        return None if found.get("ready") is True or found.get("serving") is True else str(error)
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    return None if status == 200 else f"answers {status}"


def stopped_partitions(address: str) -> list[dict[str, Any]]:
    """Return the partitions that wait for a person, as the health page at this address lists them; [] if it is away."""
    try:
        with urllib.request.urlopen(address, timeout=QUESTION_SECONDS) as answer:
            body: bytes = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read(_HEALTH_BYTES)
    except (OSError, http.client.HTTPException):
        return []
    stopped = _document(body).get("stopped")
    return stopped if isinstance(stopped, list) else []


def _document(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _kafka(address: str) -> str | None:
    from confluent_kafka import KafkaException

    try:
        metadata = _admin(address.split(",")[0]).list_topics(timeout=QUESTION_SECONDS)
    except KafkaException as error:
        return str(error.args[0])
    return None if metadata.brokers else "no broker in the metadata"


@functools.cache
def _admin(address: str) -> AdminClient:
    from streams.kafka_clients import probe_client

    return probe_client(address)


def _postgresql(address: str) -> str | None:
    from billing.store.server import why_no_answer

    return why_no_answer(address, int(QUESTION_SECONDS))
