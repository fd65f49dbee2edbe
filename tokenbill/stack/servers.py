"""Which Kafka and which PostgreSQL a stack uses: embedded, containers, or somebody else's, and how to run ours."""

from __future__ import annotations

from tokenbill.errors import UserError
from tokenbill.stack.config import DATABASE_VARIABLE, KAFKA_VARIABLE, StackConfig, external_database, external_kafka
from tokenbill.stack.layout import Layout
from tokenbill.stack.progress import Progress
from tokenbill.stack.ready import why_not_ready
from tokenbill.stack.spec import ProcessSpec, ReadyCheck
from tokenbill.stack.waiting import wait_for

CONTAINER_READY_SECONDS = 180.0


def choose(config: StackConfig, docker: bool, found: bool) -> None:
    """Write into `config` which servers are used and where; a running stack cannot change them."""
    from tokenbill.stack import postgresql

    before = config.kafka, config.admin_database_url, dict(config.parts)
    ours = "docker" if docker or config.containers else "embedded"
    kafka, database = external_kafka(), external_database()
    config.parts = {"kafka": "external" if kafka else ours, "postgresql": "external" if database else ours}
    config.kafka = kafka or f"127.0.0.1:{config.port('kafka')}"
    config.admin_database_url = database or postgresql.url(config.port("postgresql"), config.admin_password)
    if before == (config.kafka, config.admin_database_url, config.parts):
        return
    if found:
        why = "--docker, TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL count when a stack starts"
        raise UserError("The running stack uses other servers", why, "End it first: tokenbill down")
    # Other servers: whether they are prepared, and with how many partitions, is not known.
    config.database_url, config.partitions = None, None


def embedded_specs(
    layout: Layout, config: StackConfig, living: dict[str, ProcessSpec], progress: Progress
) -> list[ProcessSpec]:
    """How to run the embedded servers. One that lives keeps its spec: its files must not change under it."""
    from tokenbill.stack import kafka, postgresql

    specs: list[ProcessSpec] = []
    if config.parts["kafka"] == "embedded":
        report = lambda done, total: progress.waiting(f"kafka: {done} of {total} jars present")  # noqa: E731
        ports = config.port("kafka"), config.port("kafka-controller")
        specs.append(living.get("kafka") or kafka.spec(layout, *ports, report))
    if config.parts["postgresql"] == "embedded":
        progress.waiting("postgresql: looking after its folder")
        port = config.port("postgresql")
        specs.append(living.get("postgresql") or postgresql.spec(layout, port, config.admin_password))
    return specs


def start_containers(layout: Layout, config: StackConfig, progress: Progress) -> None:
    names = [name for name, part in config.parts.items() if part == "docker"]
    if not names:
        return
    from tokenbill.stack import docker, postgresql

    known = dict(config.containers)
    config.containers = docker.start(
        known, {name: config.port(name) for name in names}, config.admin_password, progress
    )
    if config.containers != known:
        # New containers are empty.
        config.database_url, config.partitions = None, None
    config.save(layout)
    maintenance = postgresql.url(config.port("postgresql"), config.admin_password, "postgres")
    checks = {
        "kafka": ReadyCheck("kafka", str(config.kafka), CONTAINER_READY_SECONDS),
        "postgresql": ReadyCheck("postgresql", maintenance, CONTAINER_READY_SECONDS),
    }
    wait_for(layout, {name: checks[name] for name in names}, progress, lambda: None)


def check_external(config: StackConfig) -> None:
    """A server of somebody else is not waited for: it answers now, or its address is wrong."""
    checks = {
        "kafka": ReadyCheck("kafka", str(config.kafka)),
        "postgresql": ReadyCheck("postgresql", str(config.admin_database_url)),
    }
    variables = {"kafka": KAFKA_VARIABLE, "postgresql": DATABASE_VARIABLE}
    for name, check in checks.items():
        if config.parts[name] != "external":
            continue
        why = why_not_ready(check)
        if why is not None:
            variable = variables[name]
            raise UserError(
                f"The {name} server named by {variable} does not answer", why, f"Correct or unset {variable}."
            )


def create_database(config: StackConfig) -> None:
    if config.parts["postgresql"] == "external" or config.admin_database_url is None:
        return
    from billing.store import server
    from tokenbill.stack import postgresql

    maintenance = postgresql.url(config.port("postgresql"), config.admin_password, "postgres")
    server.create_database(maintenance, postgresql.DATABASE)
