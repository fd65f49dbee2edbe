"""Kafka and PostgreSQL as containers of the official images, by testcontainers, for `up --docker`.

The containers outlive the command that started them; `down` stops them by their ids, and Docker restarts them on the
same port. The module is imported only with `--docker`, because testcontainers is a development dependency.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from tokenbill.stack.progress import Progress
from tokenbill.user_errors import UserError

KAFKA_IMAGE = "apache/kafka:4.1.0"
POSTGRESQL_IMAGE = "postgres:18"
KAFKA_PORT, POSTGRESQL_PORT = 9092, 5432
RESTART = {"restart_policy": {"Name": "always"}}


def start(running: dict[str, str], ports: dict[str, int], password: str, progress: Progress) -> dict[str, str]:
    """Start each container named in `ports` that is not running; return all container ids by name.

    `running` holds the ids of the containers started before.
    """
    client = _client()
    known = {name: container for name, container in running.items() if _is_running(client, container)}
    for name, port in ports.items():
        if name not in known:
            progress.waiting(f"{name}: starting a container (the first time its image is fetched)")
            container = _kafka(port) if name == "kafka" else _postgresql(port, password)
            container.start()
            known[name] = str(container.get_wrapped_container().id)
    return known


def stop(containers: dict[str, str]) -> list[str]:
    """Stop and remove the containers; return one line per container that describes the result."""
    client = _client()
    said = []
    for name, identifier in containers.items():
        try:
            container = client.containers.get(identifier)
        except _errors().NotFound:
            said.append(f"{name} (container {identifier[:12]}) was gone")
            continue
        container.stop(timeout=30)
        container.remove()
        said.append(f"{name} (container {identifier[:12]}) stopped")
    return said


def _client() -> Any:
    # Without this setting, testcontainers' helper container stops ours as soon as the command returns.
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    fix = "Leave out --docker to use the embedded servers."
    try:
        importlib.import_module("testcontainers.core.container")
        engine = importlib.import_module("docker")
    except ImportError as error:
        why = f"{error.name} is not installed"
        raise UserError("--docker is not possible", why, f"Install tokenbill[dev]. {fix}") from error
    try:
        client = engine.from_env()
        client.ping()
    except _errors().DockerException as error:
        raise UserError("--docker is not possible", f"no Docker engine answers ({error})", fix) from error
    return client


def _errors() -> Any:
    # Imported by name, because a type checker takes our folder docker/ for that package.
    return importlib.import_module("docker.errors")


def _is_running(client: Any, identifier: str) -> bool:
    try:
        return bool(client.containers.get(identifier).status == "running")
    except _errors().NotFound:
        return False


def _kafka(port: int) -> Any:
    from testcontainers.core.container import DockerContainer

    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{KAFKA_PORT},CONTROLLER://:9093",
        # The address that clients outside the container connect to.
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "3000",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_LOG_RETENTION_MS": "-1",
        "KAFKA_OFFSETS_RETENTION_MINUTES": "2147483647",
        "KAFKA_MESSAGE_MAX_BYTES": "16777216",
        "KAFKA_REPLICA_FETCH_MAX_BYTES": "16777216",
    }
    container: Any = DockerContainer(KAFKA_IMAGE)
    container.with_bind_ports(KAFKA_PORT, ("127.0.0.1", port)).with_kwargs(**RESTART)
    for name, value in settings.items():
        container.with_env(name, value)
    return container


def _postgresql(port: int, password: str) -> Any:
    from testcontainers.core.container import DockerContainer

    container: Any = DockerContainer(POSTGRESQL_IMAGE)
    return (
        container.with_bind_ports(POSTGRESQL_PORT, ("127.0.0.1", port))
        .with_env("POSTGRES_PASSWORD", password)
        .with_command("postgres -c jit=off -c shared_buffers=512MB -c max_wal_size=4GB -c max_connections=200")
        .with_kwargs(**RESTART)
    )
