"""What an account's owner is told before something ends: a bucket's last days, a wallet that runs low.

Each is told once: for a bucket once in each cycle it is valid for, for a wallet once until it is filled again. (Shares
of a bucket that are used up are told where they are burned: :mod:`billing.burning.burn`.) Never: the clock.
"""

from billing.accounts.account import ACTIVE, LIVE, Account, Bucket
from billing.accounts.account_event import AccountEvent
from billing.catalog.model import Plan
from schemas.times import DAY_US


def wallet_alert(account: Account) -> list[AccountEvent]:
    """Tell that the wallet fell below the amount its owner named; again only after it was back at that amount."""
    extras = account.extras
    if extras.wallet_alert_pico is None:
        return []
    low = account.wallet_pico < extras.wallet_alert_pico
    due = low and not extras.wallet_alert_sent
    extras.wallet_alert_sent = low
    if not due:
        return []
    data: dict[str, str | int | None] = {"wallet_pico": account.wallet_pico, "below_pico": extras.wallet_alert_pico}
    return [AccountEvent(account.account, "wallet.low.v1", data)]


def near_end_us(account: Account, bucket: Bucket, plan: Plan) -> int | None:
    """When the next alert that a bucket ends is due; None where none is left, or it is being taken back."""
    sent = account.extras.expiry_alerts.get(bucket.grant_id, 0)
    if bucket.status != ACTIVE or sent >= len(plan.expiry_alert_days) or bucket.grant_id in account.extras.refunds:
        return None
    subscription = account.subscription_of(bucket)
    if subscription is not None and bucket.grant_id in subscription.cut_short:
        return None
    return max(bucket.valid_until_us - plan.expiry_alert_days[sent] * DAY_US, bucket.valid_from_us)


def near_end(account: Account, bucket: Bucket, plan: Plan) -> AccountEvent:
    """Tell that a bucket ends in so many days."""
    sent = account.extras.expiry_alerts.get(bucket.grant_id, 0)
    account.extras.expiry_alerts[bucket.grant_id] = sent + 1
    return AccountEvent(
        account.account,
        "expiry.near.v1",
        {
            "grant_id": bucket.grant_id,
            "plan": bucket.plan,
            "days": plan.expiry_alert_days[sent],
            "remaining_micro": bucket.remaining_micro,
            "valid_until_us": bucket.valid_until_us,
        },
    )


def forget_ended(account: Account) -> None:
    """Drop the counts of buckets that have no alert to come."""
    if account.extras.expiry_alerts:
        live = {bucket.grant_id for bucket in account.buckets if bucket.status in LIVE}
        for grant_id in account.extras.expiry_alerts.keys() - live:
            del account.extras.expiry_alerts[grant_id]
