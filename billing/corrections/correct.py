"""Voiding and correction of usage: the account is replayed from its opening, and only the difference is posted.

Every posting names the usage in ``Posting.concerns``. The identity of the usage stays occupied: a resend is a
duplicate. If the replayed history does not lead to the account as it is, the correction is refused
(docs/reference/plans.md, "Void and correction"). Never: the replay itself (:mod:`billing.corrections.replay`), SQL,
Kafka, the clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from billing.accounts.account import NO_END_US, Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.deduction_order import PlanOf, sort_buckets
from billing.accounts.movements import Movement, between
from billing.catalog.model import Catalog
from billing.commits.commit_record import RollupRow
from billing.commits.output_documents import movement_objects, paid_line
from billing.corrections.history import AccountHistory
from billing.corrections.replay import Conflict, Replay, Timeline, difference
from billing.decide.carry_out import DecideCommand
from billing.ledger import Posting, Postings
from billing.log_time import DecidedAt
from schemas.commands import Command, CorrectUsage, VoidUsage
from schemas.json_text import dump_json
from schemas.refusals import Refusal
from schemas.units import format_pico

MAX_STEPS = 100_000
"""Longest history of one account, in steps, that is replayed; the partition waits during the replay."""
LINES_PER_EVENT = 1_000
"""Maximum of usage events in one ``correction.posted.v1``."""
CORRECTION_POSTED = "correction.posted.v1"
HISTORY_DIFFERS = "history_differs"
TOLD_BY_FACTS = frozenset(("bill.issued.v1", "refund.paid.v1", "account.suspended.v1", "account.resumed.v1"))
"""Types of account events about irreversible facts. A correction keeps these facts, so they are not published again."""


@dataclass(frozen=True, slots=True)
class CorrectionResult:
    """Result of a correction."""

    account: Account
    postings: tuple[Posting, ...]
    rollups: tuple[RollupRow, ...]
    """Differences of the sums. ``events`` is 0: a voided event still counts as received."""
    events: list[AccountEvent]
    """Account events that exist only with the correction, to be published now."""
    outcomes: list[dict[str, Any]]
    """Data of ``correction.posted.v1``."""


def correct(
    command: Command,
    account: Account,
    history: AccountHistory,
    at: DecidedAt,
    rule: DecideCommand,
    catalog: Catalog,
    plan_of: PlanOf,
) -> CorrectionResult | Refusal:
    """Void or correct usage of an account that is rolled forward to ``at``; ``rule`` decides the replayed commands.

    Returns:
        The corrected account as a new value, with what to post and publish; or the refusal. ``account`` is unchanged.
    """
    data = command.data
    if not isinstance(data, VoidUsage | CorrectUsage):
        raise TypeError(f"{command.type} corrects no usage")
    if len(history.steps) > MAX_STEPS:
        return Refusal(
            "history_too_long", f"the account has {len(history.steps)} steps; at most {MAX_STEPS} are replayed"
        )
    named = f"usage {data.id!r} of {data.source!r}"
    if _is_voided(data, history):
        return Refusal("usage_voided", f"{named} was voided before")
    replay = Replay(history, command, rule)
    try:
        before, after = replay.run()
        replay.roll(at._replace(rules=history.rules), catalog, plan_of)
    except Conflict as conflict:
        return Refusal(conflict.refusal.code, f"without {named} as it was, {conflict}; nothing was changed")
    if after is before or after.account is None:
        return Refusal("unknown_usage", f"{named} was not rated on account {command.account!r}")
    if _compared(before.account, plan_of) != _compared(account, plan_of):
        return Refusal(
            HISTORY_DIFFERS, f"the history of account {command.account!r} does not lead to its balances; run audit"
        )
    replay.make_correction(plan_of)
    after.account.clock_us = account.clock_us
    concerns = dump_json([command.account, data.source, data.id]).decode()
    postings = Postings()
    for line in after.postings.lines():
        postings.add(line.account_code, line.currency, line.detail, line.amount_pico, concerns)
    for line in before.postings.lines():
        postings.add(line.account_code, line.currency, line.detail, -line.amount_pico, concerns)
    posted = tuple(postings.lines())
    rows: list[list[Any]] = [
        [*key, 0, *sums[1:]] for key, sums in difference(before.rollups, after.rollups).items() if any(sums[1:])
    ]
    return CorrectionResult(
        after.account,
        posted,
        tuple(RollupRow(*row) for row in rows),
        [event for event in after.told_beyond(before) if event.type not in TOLD_BY_FACTS],
        _outcomes(command, data, posted, before, after, between(account, after.account, "correction")),
    )


def _is_voided(data: VoidUsage | CorrectUsage, history: AccountHistory) -> bool:
    return any(
        isinstance(step.item, Command)
        and isinstance(step.item.data, VoidUsage)
        and (step.item.data.source, step.item.data.id) == (data.source, data.id)
        for step in history.steps
    )


def _compared(account: Account | None, plan_of: PlanOf) -> Account | None:
    """Return the part of an account that the replay must reproduce.

    The clock is left out: refused commands move it too, and they are not in the history.
    """
    if account is not None:
        account = replace(account, clock_us=0, next_due_us=NO_END_US, buckets=list(account.buckets))
        sort_buckets(account, plan_of)
    return account


def _outcomes(
    command: Command,
    data: VoidUsage | CorrectUsage,
    posted: Sequence[Posting],
    before: Timeline,
    after: Timeline,
    moved: Sequence[Movement],
) -> list[dict[str, Any]]:
    """Return the data of ``correction.posted.v1``: the postings, all usage that is now paid differently, what moved."""
    changed: list[dict[str, Any]] = []
    for identity, new in after.billed.items():
        old = before.billed[identity]
        new_line = None if new is None else paid_line(new[0].event, new[0].rated, new[1], new[0].burned)
        if old is None or new_line is None:
            if old is not new:
                changed.append(new_line or {"source": identity[0], "id": identity[1], "voided": True})
        elif new_line != paid_line(old[0].event, old[0].rated, old[1], old[0].burned):
            changed.append(new_line)
    parts = [changed[start : start + LINES_PER_EVENT] for start in range(0, len(changed), LINES_PER_EVENT)] or [[]]
    common = {
        "command_type": command.type,
        "command_source": command.source,
        "command_id": command.id,
        "source": data.source,
        "id": data.id,
        "reason": data.reason,
    }
    return [
        common
        | {
            "part": number,
            "parts": len(parts),
            "entries": [_entry(line) for line in posted] if number == 1 else [],
            "events": part,
        }
        | ({"movements": movement_objects(moved)} if number == 1 and moved else {})
        for number, part in enumerate(parts, 1)
    ]


def _entry(line: Posting) -> dict[str, str]:
    return {
        "account_code": line.account_code,
        "currency": line.currency,
        "detail": line.detail,
        "amount": format_pico(line.amount_pico),
    }
