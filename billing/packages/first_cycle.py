"""Proration of a first cycle that begins within its calendar period: fee, quota or both are shared by time, as the plan
says (docs/reference/plans.md, "Cycles"). Later cycles are whole. No clock.
"""

from billing.accounts.account import NO_END_US, Account, Bucket
from billing.catalog.model import Plan
from billing.packages.cycles import cycle_end_us, period_start_us
from billing.packages.fees import Fee, fee_of


def part_of_period(plan: Plan, starts_us: int) -> tuple[int, int]:
    """Return the part of its calendar period that a cycle beginning at a time lasts, and the period, in microseconds.

    Both are equal for a whole cycle.
    """
    begins_us, ends_us = period_start_us(plan.cycle, starts_us), cycle_end_us(plan.cycle, starts_us, 1)
    return (1, 1) if begins_us == starts_us or ends_us >= NO_END_US else (ends_us - starts_us, ends_us - begins_us)


def fee_of_cycle(plan: Plan, starts_us: int) -> Fee:
    """Return the fee of the cycle that begins at a time."""
    return fee_of(plan, *part_of_period(plan, starts_us)) if plan.proration.fee else fee_of(plan)


def quota_of_cycle(plan: Plan, starts_us: int) -> tuple[int, int]:
    """Return the part of the quota that the cycle beginning at a time grants, and the whole."""
    return part_of_period(plan, starts_us) if plan.proration.quota else (1, 1)


def fee_of_grant(account: Account, bucket: Bucket, plan: Plan) -> int:
    """Return the fee, tax included, for which the cycle of a bucket was granted."""
    if not plan.proration.fee:
        return plan.price_pico
    begins_us = min(one.valid_from_us for one in account.granted(bucket.grant) if one.plan_key == bucket.plan_key)
    return fee_of_cycle(plan, begins_us).gross_pico
