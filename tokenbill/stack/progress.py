"""Progress output of long waits: a spinner on a terminal, plain lines elsewhere, nothing for programs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # Long-running processes import this module and show no progress.
    from rich.console import Console
    from rich.status import Status

PLAIN_INTERVAL_SECONDS = 5.0


class Progress(Protocol):
    """Receiver of the progress of `up` and `down`."""

    def waiting(self, text: str) -> None:
        """Report a wait in progress; may be called many times per second."""

    def done(self, text: str) -> None:
        """Report a finished step, which is shown once and stays visible."""


class Silent:
    """Progress without output, for programs."""

    def waiting(self, text: str) -> None:
        pass

    def done(self, text: str) -> None:
        pass


class Plain:
    """Progress for logs and pipes: one line per step, and one every few seconds while waiting."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = time.monotonic() + PLAIN_INTERVAL_SECONDS

    def waiting(self, text: str) -> None:
        if time.monotonic() >= self._next:
            self.done(text)

    def done(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)
        self._next = time.monotonic() + PLAIN_INTERVAL_SECONDS


class Spinner:
    """Progress for a terminal: the current wait in one animated line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None

    def waiting(self, text: str) -> None:
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)

    def done(self, text: str) -> None:
        self.close()
        self._console.print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
