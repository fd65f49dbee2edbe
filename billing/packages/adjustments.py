"""Manual balance adjustments, requested by one person and approved by another.

A wallet may be adjusted below zero. A positive adjustment counts as paid money; a negative one takes gift money first.
For a bucket, the granted amount and the remainder change together, so that the used quantity stays the same. The
bucket's contract liability also stays, and is earned over the new remainder; if nothing remains, the liability is
posted to the control account ``adjustments``. No SQL, no clock.
"""

from billing import ledger
from billing.accounts.account import ACTIVE, PENDING, USED_UP, Account, Bucket, never_begun
from billing.accounts.command_context import MAX_WALLET_PICO, CommandContext
from billing.accounts.movements import of_money, of_units, purse
from billing.accounts.wallet import deposit, withdraw
from schemas.commands import AdjustBalance
from schemas.refusals import Refusal
from schemas.units import MICRO_DIGITS, MICRO_PICO, format_micro, format_pico

WALLET = "wallet"
MAX_BUCKET_MICRO = 10 ** (18 + MICRO_DIGITS)
"""Largest amount of a bucket, and the most that a plan may grant; a command that would exceed it is refused."""


def adjust(data: AdjustBalance, account: Account, context: CommandContext) -> Account | Refusal:
    """Adjust the wallet, or a bucket named by its id or by a grant that has only one bucket."""
    if data.requested_by.strip().casefold() == data.approved_by.strip().casefold():
        return Refusal("same_person", f"{data.requested_by!r} asked for it and approved it: another must approve")
    if data.amount_pico == 0:
        return Refusal("invalid_amount", "an adjustment of 0 changes nothing")
    if data.target == WALLET:
        return _adjust_wallet(data.amount_pico, account, context)
    bucket = one_bucket(account, data.target)
    if isinstance(bucket, Refusal):
        return bucket
    change_micro = whole_micro(data.amount_pico)
    if isinstance(change_micro, Refusal):
        return change_micro
    return _adjust_bucket(bucket, change_micro, account, context)


def _adjust_wallet(amount_pico: int, account: Account, context: CommandContext) -> Account | Refusal:
    if abs(account.wallet_pico + amount_pico) > MAX_WALLET_PICO:
        return Refusal("overflow", f"a wallet holds or owes at most {format_pico(MAX_WALLET_PICO)}")
    before = purse(account)
    if amount_pico > 0:
        deposit(account, amount_pico, gift=False)
    else:
        withdraw(account, -amount_pico)
    context.postings.post(
        account.currency,
        (ledger.ADJUSTMENTS, WALLET, amount_pico),
        (ledger.CUSTOMER_DEPOSITS, "", -amount_pico),
    )
    context.movements.append(of_money(account, "adjustment", amount_pico, before))
    return account


def _adjust_bucket(bucket: Bucket, change_micro: int, account: Account, context: CommandContext) -> Account | Refusal:
    usable = bucket.status in (PENDING, ACTIVE, USED_UP) and context.now_us < bucket.lapse_at_us
    if not usable or bucket.grant_id in account.extras.refunds:
        return Refusal("bucket_ended", f"bucket {bucket.grant_id!r} has ended or is being refunded")
    if bucket.remaining_micro + change_micro < 0:
        return Refusal(
            "insufficient_balance",
            f"bucket {bucket.grant_id!r} has {format_micro(bucket.remaining_micro)} left, "
            f"of which {format_micro(-change_micro)} cannot be taken",
        )
    if bucket.amount_micro + change_micro > MAX_BUCKET_MICRO:
        return Refusal("overflow", f"a bucket holds at most {format_micro(MAX_BUCKET_MICRO)}")
    before_pico = bucket.liability_pico
    resize(bucket, change_micro, context)
    if bucket.status == USED_UP:
        # No later burn can earn this liability, and a used-up bucket must not carry any.
        detail, left_pico = str(bucket.plan_key), bucket.liability_pico
        bucket.liability_pico = 0
        context.postings.post(
            account.currency,
            (ledger.CONTRACT_LIABILITY, detail, left_pico),
            (ledger.ADJUSTMENTS, detail, -left_pico),
        )
    context.movements.append(of_units(account, "adjustment", bucket, change_micro, bucket.liability_pico - before_pico))
    return account


def one_bucket(account: Account, name: str) -> Bucket | Refusal:
    """Return the bucket with this id, or the only bucket of this grant; refuse an unknown or ambiguous name."""
    found = account.granted(name)
    if not found:
        return Refusal("unknown_grant", f"there is no grant {name!r} on this account")
    if len(found) > 1:
        named = ", ".join(sorted(bucket.grant_id for bucket in found))
        return Refusal("ambiguous_grant", f"grant {name!r} has several buckets; name one of {named}")
    return found[0]


def whole_micro(amount_pico: int) -> int | Refusal:
    """Convert a quantity from pico to micro of a bucket's unit; refuse a quantity finer than 1e-6."""
    micro, finer = divmod(amount_pico, MICRO_PICO)
    if finer:
        return Refusal("invalid_amount", f"amount: {format_pico(amount_pico)} is finer than 1e-6 of the bucket's unit")
    return micro


def resize(bucket: Bucket, change_micro: int, context: CommandContext) -> None:
    """Change the granted amount and the remainder of a bucket by the same quantity, and update its status."""
    bucket.amount_micro += change_micro
    bucket.remaining_micro += change_micro
    if bucket.remaining_micro == 0:
        bucket.status = USED_UP
    elif bucket.status == USED_UP:
        waits = context.now_us < bucket.valid_from_us or never_begun(bucket, context.plan_of(bucket.plan_key))
        bucket.status = PENDING if waits else ACTIVE
