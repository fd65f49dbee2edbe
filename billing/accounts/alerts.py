"""Alerts to an account's owner: a bucket that is about to end, a wallet that runs low.

An expiry alert is sent once per threshold, and again if the bucket is carried over. A wallet alert is sent once until
the wallet is back at its threshold. Alerts on used shares of a bucket are sent by :mod:`billing.burning.deduct`. No
clock.
"""

from billing.accounts.account import ACTIVE, LIVE, Account, Bucket
from billing.accounts.account_event import AccountEvent
from billing.catalog.model import Plan
from schemas.times import DAY_US


def wallet_alert(account: Account) -> list[AccountEvent]:
    """Return the event ``wallet.low.v1`` if the wallet fell below the owner's threshold.

    The alert is repeated only after the wallet was back at the threshold or above.
    """
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
    """Return the time of a bucket's next expiry alert, or None.

    None if no alert is left, or if the bucket is not active, is being refunded or was ended early.
    """
    sent = account.extras.expiry_alerts.get(bucket.grant_id, 0)
    if bucket.status != ACTIVE or sent >= len(plan.expiry_alert_days) or bucket.grant_id in account.extras.refunds:
        return None
    subscription = account.subscription_of(bucket)
    if subscription is not None and bucket.grant_id in subscription.cut_short:
        return None
    return max(bucket.valid_until_us - plan.expiry_alert_days[sent] * DAY_US, bucket.valid_from_us)


def near_end(account: Account, bucket: Bucket, plan: Plan) -> AccountEvent:
    """Return the event ``expiry.near.v1`` of a bucket, and count it as sent."""
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
    """Drop the alert counts of buckets that have ended, and what later cycles burned of them."""
    of_buckets = (account.extras.expiry_alerts, account.extras.carried_used_micro)
    if any(of_buckets):
        live = {bucket.grant_id for bucket in account.buckets if bucket.status in LIVE}
        for known in of_buckets:
            for grant_id in known.keys() - live:
                del known[grant_id]
