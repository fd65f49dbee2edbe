"""Members of a shared plan: seats, and the quota that each member burned of a grant.

Stored in ``Account.extras.members``. A grant is one cycle, so its counts end with it. Usage without a member counts
as the member ``""``. Plans without ``members`` are not counted. No SQL, no clock.
"""

from billing.accounts.account import Account, Bucket
from billing.burning.windows import NO_LIMIT_MICRO
from billing.catalog.model import Plan


def has_seat(account: Account, bucket: Bucket, plan: Plan, member: str | None) -> bool:
    """Return True if the member already has a seat of this grant, or a seat is free."""
    if plan.members is None or not plan.members.seats:
        return True
    used = account.extras.members.get(bucket.grant, {})
    return (member or "") in used or len(used) < plan.members.seats


def room_micro(account: Account, bucket: Bucket, plan: Plan, member: str | None) -> int:
    """Return what a member may still burn of a bucket of a grant, in its unit; 0 without a seat."""
    if not has_seat(account, bucket, plan, member):
        return 0
    if plan.members is None or not plan.members.cap_micro or bucket.unit != plan.members.unit:
        return NO_LIMIT_MICRO
    used_micro = account.extras.members.get(bucket.grant, {}).get(member or "", 0)
    return max(0, plan.members.cap_micro - used_micro)


def record_burn(
    account: Account, bucket: Bucket, plan: Plan, member: str | None, burned_micro: int, now_us: int
) -> None:
    """Add to the count of what a member burned of a grant; drop the counts of expired grants."""
    if plan.members is None:
        return
    by_grant = account.extras.members
    if bucket.grant not in by_grant:
        alive = {other.grant for other in account.buckets if other.lapse_at_us > now_us}
        for grant in [grant for grant in by_grant if grant not in alive]:
            del by_grant[grant]
        by_grant[bucket.grant] = {}
    used = by_grant[bucket.grant]
    used[member or ""] = used.get(member or "", 0) + burned_micro
