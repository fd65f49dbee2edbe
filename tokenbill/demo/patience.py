"""Retries of requests to a server that may be away for minutes: report the wait, and give up with the reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tokenbill.user_errors import UserError

PATIENCE_SECONDS = 180.0
_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS = 0.25, 3.0
_SILENT_SECONDS = 2.0

_T = TypeVar("_T")
Say = Callable[[str], None]


def retry(
    what: str,
    work: Callable[[], _T],
    failures: tuple[type[Exception], ...],
    say: Say,
    patience_seconds: float = PATIENCE_SECONDS,
) -> _T:
    """Call ``work`` until it no longer raises one of ``failures``, and return its result.

    ``what`` is the name of the server in messages; ``say`` reports a wait.

    Raises:
        UserError: it still fails after ``patience_seconds``.
    """
    began = time.monotonic()
    wait = _FIRST_WAIT_SECONDS
    while True:
        try:
            return work()
        except failures as error:
            lasting = time.monotonic() - began
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if lasting > patience_seconds:
                fix = "`tokenbill status` shows what runs; the logs lie in the data folder."
                raise UserError(f"{what} did not answer for {lasting:.0f} s", why, fix) from error
            if lasting > _SILENT_SECONDS:
                say(f"{what} does not answer ({why}), trying again")
            time.sleep(wait)
            wait = min(2 * wait, _MAX_WAIT_SECONDS)
