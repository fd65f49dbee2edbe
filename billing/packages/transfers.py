"""Transfers of part of a bucket to another account, which may be on another partition: out, in, or back.

The sender's command takes quota and liability out of the bucket, and posts the liability to the control account
``transfer_clearing``. A message carries both to the target's partition like a forwarded command: once, and in order.
There they become a new bucket ``transfer-…/n`` with the plan, scope, validity and alerts of the sender's bucket. If the
target cannot receive the transfer, another message returns it. ``transfer_clearing`` holds only the liability in
transit, by transfer. No SQL, no Kafka, no clock.
"""

from billing import ledger
from billing.accounts.account import (
    ACTIVE,
    CANCELLED,
    EXPIRED,
    FIRST_USE,
    NO_END_US,
    PENDING,
    REFUNDED,
    Account,
    Bucket,
    has_room,
)
from billing.accounts.account_event import AccountEvent
from billing.accounts.command_context import CommandContext, Message
from billing.accounts.movements import granted, of_units
from billing.packages.adjustments import one_bucket, resize, whole_micro
from billing.packages.liability import earned_pico
from billing.packages.sale import too_many_buckets
from schemas.commands import ReceivePackage, ReturnPackage, TransferPackage
from schemas.hashing import identity_hash
from schemas.refusals import Refusal
from schemas.times import format_time_us
from schemas.units import MICRO_PICO, format_micro, format_pico

TRANSFER_SOURCE = "urn:tokenbill:transfer"


def send(data: TransferPackage, account: Account, context: CommandContext) -> Account | Refusal:
    """Take the quota and its share of the liability out of the sender's bucket, and send them to the target.

    The last of the quota takes all of the liability that is left.
    """
    if data.to == account.account:
        return Refusal("same_account", f"account {data.to!r} cannot transfer to itself")
    bucket = one_bucket(account, data.grant_id)
    if isinstance(bucket, Refusal):
        return bucket
    moved_micro = whole_micro(data.amount_pico)
    if isinstance(moved_micro, Refusal):
        return moved_micro
    usable = bucket.status in (PENDING, ACTIVE) and context.now_us < bucket.valid_until_us
    if not usable or bucket.grant_id in account.extras.refunds:
        return Refusal("bucket_ended", f"bucket {bucket.grant_id!r} has ended, is used up, or is being refunded")
    if moved_micro > bucket.remaining_micro:
        return Refusal(
            "insufficient_balance",
            f"bucket {bucket.grant_id!r} has {format_micro(bucket.remaining_micro)} left, less than "
            f"{format_micro(moved_micro)}",
        )
    liability_pico = earned_pico(bucket.liability_pico, moved_micro, bucket.remaining_micro)
    bucket.liability_pico -= liability_pico
    resize(bucket, -moved_micro, context)
    transfer_id = f"transfer-{identity_hash(context.command.source, context.command.id).hex()}"
    _post(context, account, str(bucket.plan_key), transfer_id, liability_pico)
    body = {
        "transfer_id": transfer_id,
        "sender": account.account,
        "grant_id": bucket.grant_id,
        "plan": bucket.plan,
        "plan_version": bucket.plan_version,
        "bucket_no": bucket.bucket_no,
        "unit": bucket.unit,
        "amount": format_micro(moved_micro),
        "liability": format_pico(liability_pico),
        "currency": account.currency,
        "valid_from": format_time_us(bucket.valid_from_us),
        "valid_until": _end(bucket.valid_until_us),
        "lapses_at": _end(bucket.lapse_at_us),
        "carried_cycles": bucket.carried_cycles,
    }
    out = of_units(account, "transfer_out", bucket, -moved_micro, -liability_pico)
    context.movements.append(out | {"transfer_id": transfer_id, "to": data.to})
    context.messages.append(Message(ReceivePackage.TYPE, f"{TRANSFER_SOURCE}:{transfer_id}", "in", data.to, body))
    return account


def receive(data: ReceivePackage, account: Account, context: CommandContext) -> Account | Refusal:
    """Add the transferred quota to the target account as a new bucket."""
    if data.currency != account.currency:
        return Refusal("currency_mismatch", f"the transfer is in {data.currency}, the account is {account.currency}")
    plan = context.catalog.plan(data.plan, data.plan_version)
    if plan is None:
        return Refusal("unknown_plan", f"there is no plan {data.plan}@{data.plan_version}")
    grant_id = f"{data.transfer_id}/{data.bucket_no}"
    if account.granted(data.transfer_id):
        return Refusal("duplicate_grant_id", f"grant {data.transfer_id!r} exists on this account")
    if not has_room(account, 1):
        return too_many_buckets(account)
    amount_micro = data.amount_pico // MICRO_PICO
    waiting = plan.activation == FIRST_USE and data.lapses_at_us is None
    bucket = Bucket(
        grant_id=grant_id,
        plan=data.plan,
        plan_version=data.plan_version,
        bucket_no=data.bucket_no,
        unit=data.unit,
        amount_micro=amount_micro,
        remaining_micro=amount_micro,
        liability_pico=data.liability_pico,
        valid_from_us=data.valid_from_us,
        valid_until_us=NO_END_US if data.valid_until_us is None else data.valid_until_us,
        lapse_at_us=NO_END_US if data.lapses_at_us is None else data.lapses_at_us,
        alerts_fired=0,
        status=PENDING if context.now_us < data.valid_from_us or waiting else ACTIVE,
        carried_cycles=data.carried_cycles,
    )
    account.buckets.append(bucket)
    account.extras.received[grant_id] = data.sender
    _post(context, account, str(bucket.plan_key), data.transfer_id, -data.liability_pico)
    told: dict[str, str | int | None] = {"transfer_id": data.transfer_id, "sender": data.sender, "grant_id": grant_id}
    told |= {"plan": data.plan, "unit": data.unit, "amount_micro": amount_micro}
    moved = granted(account, bucket, "transfer_in", transfer_id=data.transfer_id, sender=data.sender)
    context.events.append(AccountEvent(account.account, "transfer.received.v1", told, (moved,)))
    return account


def return_transfer(data: ReceivePackage, refusal: Refusal, context: CommandContext) -> None:
    """Return a refused transfer to the account that sent it."""
    body = {
        "transfer_id": data.transfer_id,
        "to": context.command.account,
        "grant_id": data.grant_id,
        "amount": format_pico(data.amount_pico),
        "liability": format_pico(data.liability_pico),
        "reason": refusal.code,
        "detail": refusal.detail,
    }
    context.messages.append(Message(ReturnPackage.TYPE, context.command.source, "back", data.sender, body))


def receive_return(data: ReturnPackage, account: Account, context: CommandContext) -> Account | Refusal:
    """Put a returned transfer back into the sender's bucket.

    A bucket that has ended meanwhile becomes active, and ends again with the returned quota.
    """
    (bucket,) = (one for one in account.buckets if one.grant_id == data.grant_id)
    amount_micro = data.amount_pico // MICRO_PICO
    resize(bucket, amount_micro, context)
    bucket.liability_pico += data.liability_pico
    if bucket.status in (EXPIRED, REFUNDED, CANCELLED):
        bucket.status = ACTIVE
    _post(context, account, str(bucket.plan_key), data.transfer_id, -data.liability_pico)
    told: dict[str, str | int | None] = {"transfer_id": data.transfer_id, "to": data.to, "grant_id": data.grant_id}
    told |= {"unit": bucket.unit, "amount_micro": amount_micro, "reason": data.reason, "detail": data.detail}
    moved = of_units(account, "transfer_back", bucket, amount_micro, data.liability_pico)
    moved |= {"transfer_id": data.transfer_id, "to": data.to}
    context.events.append(AccountEvent(account.account, "transfer.returned.v1", told, (moved,)))
    return account


def _post(context: CommandContext, account: Account, plan: str, transfer_id: str, out_pico: int) -> None:
    context.postings.post(
        account.currency,
        (ledger.CONTRACT_LIABILITY, plan, out_pico),
        (ledger.TRANSFER_CLEARING, transfer_id, -out_pico),
    )


def _end(time_us: int) -> str | None:
    return None if time_us >= NO_END_US else format_time_us(time_us)
