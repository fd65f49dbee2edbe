"""Balances at a past time, computed by a replay (:mod:`tokenbill.replays.past_balance`) in a child process.

One replay runs at a time, for at most :data:`REPLAY_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from typing import Any

from pydantic_core import PydanticCustomError

from schemas.fields import check_time_us
from tokenbill.api.context import ApiContext
from tokenbill.api.http.problems import Problem

REPLAY_SECONDS = 60


async def balance_at(shared: ApiContext, account: str, at: str) -> dict[str, Any]:
    """Return the data of ``package.balance`` as of the log time ``at``.

    Raises:
        Problem: ``invalid_time``, ``unknown_account``, ``history_not_kept``, ``history_too_long``, ``kafka_down``.
    """
    answer = await _replay(shared, account, _past_us(at))
    if "problem" in answer:
        raise Problem(answer["problem"], answer["detail"])
    return answer


def _past_us(at: str) -> int:
    try:
        at_us = check_time_us(at)
    except PydanticCustomError as error:
        raise Problem("invalid_time", f"at is {at!r}: {error.message()}.") from None
    if at_us > time.time_ns() // 1000:
        raise Problem("invalid_time", f"at is {at!r}: expected a time that has passed.")
    return at_us


async def _replay(shared: ApiContext, account: str, at_us: int) -> dict[str, Any]:
    servers = {"TOKENBILL_KAFKA": shared.settings.kafka, "TOKENBILL_DATABASE_URL": shared.settings.database_url}
    async with shared.replaying:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tokenbill.replays.past_balance", account, str(at_us)),
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
        raise RuntimeError(f"the replay of {account!r} ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(output)
    return answer
