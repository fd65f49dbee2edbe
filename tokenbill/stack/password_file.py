"""The password file of a stack: passwords of the database roles. URLs name the file instead of containing passwords.

The file has libpq's format and is private. So a URL that `status` prints connects for the stack's user on this machine,
and contains no secret.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from tokenbill.stack.files import write_text
from tokenbill.stack.layout import Layout

_ROLE = re.compile(r"(?:(?:[^:\\]|\\.)*:){4}")
"""The part of a line before the password: host, port, database and user, each followed by a colon."""


class PasswordFile:
    """The lines of the password file, one for each role of a server; a change is written by `save`."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.password_file
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        self._lines = {_role(line): line for line in lines}

    def add(self, user: str, port: int, password: str) -> None:
        """Add the password of a role of the server on this port of loopback."""
        self.without_password(f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{port}/")

    def without_password(self, url: str | None) -> str | None:
        """Return the URL with this file in place of its password, which is added; a URL without password as it is."""
        from billing.store.server import with_password_file

        if url is None:
            return None
        shown, line = with_password_file(url, self._path)
        if line is not None:
            self._lines[_role(line)] = line
        return shown

    def save(self) -> None:
        """Write the file."""
        write_text(self._path, "".join(f"{line}\n" for line in self._lines.values()))


def _role(line: str) -> str:
    found = _ROLE.match(line)
    return line if found is None else found.group()
