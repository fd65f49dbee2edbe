"""Balances at a past time, computed by a replay (:mod:`tokenbill.replays.past_balance`)."""

from __future__ import annotations

import time
from typing import Any

from pydantic_core import PydanticCustomError

from schemas.fields import check_time_us
from tokenbill.api.context import ApiContext
from tokenbill.api.http.problems import Problem
from tokenbill.api.replaying import replay


async def balance_at(shared: ApiContext, account: str, at: str) -> dict[str, Any]:
    """Return the data of ``package.balance`` as of the log time ``at``.

    Raises:
        Problem: ``invalid_time``, ``unknown_account``, ``history_not_kept``, ``history_too_long``, ``kafka_down``.
    """
    answer = await replay(shared, "past_balance", account, str(_past_us(at)))
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
