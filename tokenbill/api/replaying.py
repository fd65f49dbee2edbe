"""Replays for the HTTP API: a program of :mod:`tokenbill.replays` runs in a child process.

One replay runs at a time, for at most :data:`REPLAY_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import Any

from tokenbill.api.context import ApiContext
from tokenbill.api.http.problems import Problem

REPLAY_SECONDS = 60


async def replay(shared: ApiContext, program: str, *arguments: str) -> dict[str, Any]:
    """Run a program of :mod:`tokenbill.replays` and return the JSON document that it writes.

    Raises:
        Problem: ``history_too_long``.
    """
    servers = {"TOKENBILL_KAFKA": shared.settings.kafka, "TOKENBILL_DATABASE_URL": shared.settings.database_url}
    async with shared.replaying:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"tokenbill.replays.{program}", *arguments),
            env={**os.environ, **servers},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), REPLAY_SECONDS)
        except TimeoutError:
            detail = f"Deciding it again took more than {REPLAY_SECONDS} seconds."
            raise Problem("history_too_long", detail) from None
        finally:
            # This also ends the replay of a caller that has disconnected.
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"the replay {program} of {arguments!r} ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(output)
    return answer
