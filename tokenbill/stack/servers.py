"""Choice and preparation of a stack's Kafka and PostgreSQL servers: embedded, containers or external."""

from __future__ import annotations

from tokenbill.stack.config import DATABASE_VARIABLE, KAFKA_VARIABLE, StackConfig, external_database, external_kafka
from tokenbill.stack.layout import Layout
from tokenbill.stack.password_file import PasswordFile
from tokenbill.stack.progress import Progress
from tokenbill.stack.ready import why_not_ready
from tokenbill.stack.spec import ProcessSpec, ReadyCheck
from tokenbill.stack.waiting import wait_for
from tokenbill.user_errors import UserError

CONTAINER_READY_SECONDS = 180.0


def choose(layout: Layout, config: StackConfig, docker: bool, found: bool) -> None:
    """Store the kinds and addresses of the servers in `config`, and the passwords of the database in their file.

    `found` is True if the stack runs already.

    Raises:
        UserError: the stack runs with other servers.
    """
    from tokenbill.stack import postgresql

    passwords = PasswordFile(layout)
    # Earlier versions stored URLs with passwords.
    config.admin_database_url = passwords.without_password(config.admin_database_url)
    config.database_url = passwords.without_password(config.database_url)
    before = config.kafka, config.admin_database_url, dict(config.parts)
    ours = "docker" if docker or config.containers else "embedded"
    kafka, database = external_kafka(), external_database()
    config.parts = {"kafka": "external" if kafka else ours, "postgresql": "external" if database else ours}
    config.kafka = kafka or f"127.0.0.1:{config.port('kafka')}"
    port = config.port("postgresql")
    if database is None:
        passwords.add(postgresql.SUPERUSER, port, config.admin_password)
    config.admin_database_url = passwords.without_password(database) or postgresql.url(layout, port)
    passwords.save()
    if before == (config.kafka, config.admin_database_url, config.parts):
        return
    if found:
        why = "--docker, TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL count when a stack starts"
        raise UserError("The running stack uses other servers", why, "End it first: tokenbill down")
    # It is unknown whether the new servers are prepared, and with how many partitions.
    config.database_url, config.partitions = None, None


def embedded_specs(
    layout: Layout, config: StackConfig, living: dict[str, ProcessSpec], progress: Progress
) -> list[ProcessSpec]:
    """Return the process specs of the embedded servers.

    A server in `living` keeps its spec, because its files must not change while it runs.
    """
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
    maintenance = postgresql.url(layout, config.port("postgresql"), "postgres")
    checks = {
        "kafka": ReadyCheck("kafka", str(config.kafka), CONTAINER_READY_SECONDS),
        "postgresql": ReadyCheck("postgresql", maintenance, CONTAINER_READY_SECONDS),
    }
    wait_for(layout, {name: checks[name] for name in names}, progress, lambda: None)


def check_external(config: StackConfig) -> None:
    """Check once, without waiting, that each external server answers.

    Raises:
        UserError: a server does not answer, so its address is probably wrong.
    """
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


def create_database(layout: Layout, config: StackConfig) -> None:
    if config.parts["postgresql"] == "external" or config.admin_database_url is None:
        return
    from billing.store import server
    from tokenbill.stack import postgresql

    maintenance = postgresql.url(layout, config.port("postgresql"), "postgres")
    server.create_database(maintenance, postgresql.DATABASE)
