"""Checks of the container files without a Docker engine: every named file, command and option exists."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tokenbill.cli import cli

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
PACKAGES = ("benchmarks", "billing", "cython_ext", "schemas", "streams", "tokenbill")


def test_every_file_that_is_copied_exists() -> None:
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    sources = [source for line in lines for source in line.split()[:-1]]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_the_image_holds_every_package_and_runs_as_an_ordinary_user() -> None:
    for package in PACKAGES:
        assert f"COPY {package} {package}" in DOCKERFILE
    assert DOCKERFILE.index("USER tokenbill") < DOCKERFILE.index("ENTRYPOINT")
    assert DOCKERFILE.count("FROM ") == 2


def test_a_stopped_partition_does_not_make_a_container_unhealthy() -> None:
    """`/readyz` of a worker is 503 with a stopped partition: an orchestrator would restart what bills all others."""
    [check] = re.findall(r"^HEALTHCHECK (?:.*\\\n)*.*$", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"http://127\.0\.0\.1:6066(/\w+)", check) == ["/healthz"]
    probes = [str(service["healthcheck"]) for service in COMPOSE["services"].values() if "healthcheck" in service]
    assert not any("/readyz" in probe or "/health'" in probe for probe in probes)


@pytest.mark.parametrize("service", ["prepare", "worker", "relay", "scheduler", "webhooks", "api"])
def test_every_service_of_ours_calls_a_command_that_exists_with_options_that_exist(service: str) -> None:
    name, *arguments = COMPOSE["services"][service]["command"]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= known


def test_our_services_wait_for_prepare_and_prepare_waits_for_healthy_servers() -> None:
    services = COMPOSE["services"]
    for service in ("worker", "relay", "scheduler", "webhooks", "api"):
        assert services[service]["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}
    assert set(services["prepare"]["depends_on"]) == {"kafka", "postgresql"}
    for server in ("kafka", "postgresql"):
        assert services["prepare"]["depends_on"][server] == {"condition": "service_healthy"}
        assert "healthcheck" in services[server]


def test_the_broker_of_compose_is_the_version_of_the_local_stack() -> None:
    from tokenbill.stack.jars import KAFKA

    assert COMPOSE["services"]["kafka"]["image"] == f"apache/kafka:{KAFKA.rpartition(':')[2]}"


@pytest.mark.docker
def test_the_image_builds_and_its_command_answers() -> None:
    docker = shutil.which("docker")
    assert docker is not None
    build = [docker, "build", "-f", "docker/Dockerfile", "-t", "tokenbill:test", "."]
    subprocess.run(build, cwd=ROOT, check=True, timeout=1500)
    said = subprocess.run(
        [docker, "run", "--rm", "tokenbill:test", "--version"], check=True, capture_output=True, text=True, timeout=60
    )
    assert "tokenbill" in said.stdout
