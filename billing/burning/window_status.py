"""Status of the windows of an account's plans at one time, for the account's owner. Changes nothing, no clock."""

from dataclasses import dataclass

from billing.accounts.account import ACTIVE, SUSPENDED, USED_UP, Account, Bucket
from billing.accounts.deduction_order import PlanOf
from billing.burning import windows
from billing.catalog.model import Plan, Window


@dataclass(frozen=True, slots=True)
class WindowStatus:
    """One window of a plan at one time. Quantities are in micro of its unit."""

    plan: Plan
    window: Window
    used_micro: int
    begins_us: int | None
    """Its start, included; None if it rolls, or begins with the next use."""
    ends_us: int | None
    """Its end, excluded. Of a rolling window, when its oldest burn leaves it; None if it holds none."""

    @property
    def left_micro(self) -> int:
        """The quantity that may still be burned in the window."""
        return max(0, self.window.cap_micro - self.used_micro)


def window_statuses(account: Account, time_us: int, plan_of: PlanOf) -> list[WindowStatus]:
    """Return the windows of the plan versions whose buckets are valid at a time, by plan and in the plan's order."""
    valid: dict[tuple[str, int], Bucket] = {}
    for bucket in account.buckets:
        if bucket.status in (ACTIVE, USED_UP, SUSPENDED) and bucket.valid_from_us <= time_us < bucket.valid_until_us:
            valid.setdefault(bucket.plan_key, bucket)
    return [
        _status(account, bucket, plan, window, time_us)
        for _, bucket in sorted(valid.items(), key=lambda item: item[0])
        for plan in [plan_of(bucket.plan_key)]
        for window in plan.windows
    ]


def _status(account: Account, bucket: Bucket, plan: Plan, window: Window, time_us: int) -> WindowStatus:
    used_micro = windows.used_micro(window, account, bucket, plan, time_us)
    if window.kind == "rolling":
        return WindowStatus(plan, window, used_micro, None, windows.freed_us(window, account, bucket, plan, time_us))
    if window.kind == windows.FIRST_USE_WINDOW and not windows.is_open(window, account, plan, time_us):
        return WindowStatus(plan, window, used_micro, None, None)
    begins_us, last_us = windows.span_us(window, account, bucket, plan, time_us)
    return WindowStatus(plan, window, used_micro, begins_us, last_us + 1)
