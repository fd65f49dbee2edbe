"""Settings of a data folder that the first `up` chooses and later ones keep: ports, passwords, server kinds."""

from __future__ import annotations

import dataclasses
import os
import random
import secrets
import socket
import time
from dataclasses import dataclass, field

from tokenbill.stack.files import read_json, write_json
from tokenbill.stack.layout import Layout
from tokenbill.user_errors import UserError

# Below the range that operating systems use for outgoing connections, so that a port stays free while its process
# restarts.
FIRST_PORT, LAST_PORT = 20_000, 32_000
DYING_SECONDS = 5.0
KAFKA_VARIABLE = "TOKENBILL_KAFKA"
DATABASE_VARIABLE = "TOKENBILL_DATABASE_URL"


@dataclass
class StackConfig:
    """Stored settings of a stack.

    `parts` gives the kind of the servers `kafka` and `postgresql`: embedded, docker or external.
    """

    admin_password: str
    app_password: str
    report_password: str
    ports: dict[str, int] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    kafka: str | None = None
    admin_database_url: str | None = None
    database_url: str | None = None
    partitions: int | None = None
    workers: int | None = None
    containers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, layout: Layout) -> StackConfig | None:
        try:
            value = read_json(layout.config)
        except PermissionError as error:
            fix = "Work as its user, or name a folder of your own with --data-dir."
            raise UserError(f"The stack in {layout.root} belongs to another user", str(error), fix) from error
        return None if value is None else cls(**value)

    @classmethod
    def new(cls) -> StackConfig:
        return cls(secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(24))

    def save(self, layout: Layout) -> None:
        write_json(layout.config, dataclasses.asdict(self))

    def port(self, name: str) -> int:
        """Return the port of the process `name`; it is chosen on the first call and then kept."""
        if name not in self.ports:
            self.ports[name] = free_port(set(self.ports.values()))
        return self.ports[name]

    def drop_taken_ports(self, owners_alive: set[str]) -> list[str]:
        """Drop the ports of dead processes on which another program listens; return the names of these processes."""
        taken = [
            name
            for name, port in self.ports.items()
            if name.removesuffix("-controller").removesuffix("-web") not in owners_alive and not becomes_free(port)
        ]
        for name in taken:
            del self.ports[name]
        return taken


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Servers set this too: a closed connection in TIME_WAIT does not occupy the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def becomes_free(port: int) -> bool:
    """True if the port becomes free within `DYING_SECONDS`, the time a killed process may need to end its threads."""
    deadline = time.monotonic() + DYING_SECONDS
    while not is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def free_port(not_these: set[int]) -> int:
    """Return a random free loopback port that is not in `not_these`."""
    source = random.SystemRandom()
    while True:
        port = source.randrange(FIRST_PORT, LAST_PORT)
        if port not in not_these and is_free(port):
            return port


def external_kafka() -> str | None:
    return os.environ.get(KAFKA_VARIABLE) or None


def external_database() -> str | None:
    return named_database(DATABASE_VARIABLE)


def named_database(variable: str) -> str | None:
    """Return the URL of a database that a variable of the environment holds; None if the variable is not set.

    Raises:
        UserError: it is not the URL of a PostgreSQL database.
    """
    text = os.environ.get(variable)
    return checked_database_url(text, variable) if text else None


def checked_database_url(text: str, where: str) -> str:
    """Return the URL of a database, which ``where`` gives: a variable or an option.

    Raises:
        UserError: it is not the URL of a PostgreSQL database.
    """
    from billing.store.database import why_no_database_url

    why = why_no_database_url(text)
    if why is not None:
        fix = f"Set {where} to postgresql://USER:PASSWORD@HOST:PORT/DATABASE; percent-encode special characters."
        raise UserError(f"{where} is not the URL of a PostgreSQL database", why, fix)
    return text
