"""The events that leave, as their readers may rely on them: topics of CONTRACT §4. Models of the wire, nothing more.

Every output is a CloudEvent whose ``sequence`` rises by one per topic and partition. Amounts are decimal strings
without exponent, trailing zeros or minus zero; times are UTC with ``Z``. Fields may be added, never taken away.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.refusal_codes import REASONS

DECIMAL_OUT_PATTERN = r"^(0|-?(0\.[0-9]*[1-9]|[1-9][0-9]*(\.[0-9]*[1-9])?))$"
TIME_OUT_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?Z$"

Decimal = Annotated[str, Field(pattern=DECIMAL_OUT_PATTERN)]
Time = Annotated[str, Field(pattern=TIME_OUT_PATTERN)]
Count = Annotated[int, Field(ge=0)]
Status = Literal["pending", "active", "used_up", "expired", "suspended", "refunded", "cancelled"]


class Output(BaseModel):
    """A body that we write: types are exact, and a reader ignores fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class OutputEvent(Output):
    """The ``data`` of an output event; ``TYPE`` is its event type, ``TOPIC`` where it is published."""

    TYPE: ClassVar[str]
    TOPIC: ClassVar[str]


class RatedMeter(Output):
    """One priced meter of an event."""

    meter: str = Field(description="the meter")
    quantity: Count = Field(description="how many")
    per_million: Decimal = Field(description="price of a million, currency, after adjustments")
    amount: Decimal = Field(description="currency")
    standard_tokens: Decimal = Field(description="standard tokens")


class BurnedBucket(Output):
    """What one bucket covered."""

    grant_id: str = Field(description="the bucket")
    standard_tokens: Decimal = Field(description="standard tokens burned from it")
    amount: Decimal | None = Field(default=None, description="where it counts another unit: what was burned of that")
    unit: str | None = Field(default=None, description="that unit")


class RatedEvent(Output):
    """One usage event, priced and paid."""

    source: str = Field(description="source of the usage event")
    id: str = Field(description="id of the usage event")
    account: str = Field(description="the account that pays")
    currency: str = Field(description="currency of the amounts")
    amount: Decimal = Field(description="price, tax included")
    net: Decimal = Field(description="price without tax")
    standard_tokens: Decimal = Field(description="standard tokens of the event")
    price_book: str = Field(description="the book and its version, such as retail-cn@3")
    lines: list[RatedMeter] = Field(description="one line per meter, canonical order")
    offset: int = Field(ge=0, description="offset of the record in the input topic")
    burned: list[BurnedBucket] = Field(description="what packages covered, in deduction order")
    charged: Decimal = Field(description="what the wallet paid, currency")
    absorbed: Decimal = Field(description="standard tokens that nobody paid")


class UsageRated(OutputEvent):
    """Usage that was rated and paid, in commit order, at most 1,000 events in a record."""

    TYPE: ClassVar[str] = "usage.rated.v1"
    TOPIC: ClassVar[str] = "usage.rated"
    events: list[RatedEvent] = Field(max_length=1000, description="rated events in commit order")


class BalanceBucket(Output):
    """One bucket of an account."""

    grant_id: str = Field(description="the bucket")
    plan: str = Field(description="the plan it was sold with")
    unit: str = Field(description="what it counts: STD_TOKEN, a currency, REQUEST, ...")
    amount: Decimal = Field(description="what was granted")
    remaining: Decimal = Field(description="what is left, or what lapsed once it ended")
    reserved: Decimal = Field(description="what is on hold")
    valid_from: Time = Field(description="first instant")
    valid_until: Time | None = Field(description="first instant after; null: no end")
    status: Status = Field(description="the bucket's state")


class PackageBalance(OutputEvent):
    """The whole state of an account after a commit; compacted by account, so holes in ``sequence`` are normal."""

    TYPE: ClassVar[str] = "package.balance.v1"
    TOPIC: ClassVar[str] = "package.balance"
    account: str = Field(description="the account")
    currency: str = Field(description="currency of wallet and absorbed_amount")
    wallet: Decimal = Field(description="the wallet, may be negative")
    absorbed: Decimal = Field(description="standard tokens that nobody paid")
    absorbed_amount: Decimal = Field(description="their price, currency")
    buckets: list[BalanceBucket] = Field(description="buckets by grant id")


class CommandAccepted(OutputEvent):
    """A command was applied."""

    TYPE: ClassVar[str] = "command.accepted.v1"
    TOPIC: ClassVar[str] = "account.events"
    command_type: str = Field(description="type of the command")
    command_source: str = Field(description="source of the command")
    command_id: str = Field(description="id of the command")


class CommandRejected(OutputEvent):
    """A command was refused; nothing of it was applied. Identity is null where it could not be read."""

    TYPE: ClassVar[str] = "command.rejected.v1"
    TOPIC: ClassVar[str] = "account.events"
    command_type: str | None = Field(description="type of the command, if it could be read")
    command_source: str | None = Field(description="source of the command, if it could be read")
    command_id: str | None = Field(description="id of the command, if it could be read")
    reason: str = Field(description="a word such as currency_mismatch")
    detail: str = Field(description="field, value and expectation, for a person")


class CorrectionEntry(Output):
    """One line of the journal that a correction posted."""

    account_code: str = Field(description="control account, such as customer_deposits")
    currency: str = Field(description="currency of the amount")
    detail: str = Field(description="plan or price book and version, or empty")
    amount: Decimal = Field(description="debit positive, credit negative")


class VoidedEvent(Output):
    """Usage that was taken back."""

    source: str = Field(description="source of the usage event")
    id: str = Field(description="id of the usage event")
    voided: Literal[True] = Field(description="that it was taken back")


class CorrectionPosted(OutputEvent):
    """Usage was voided or corrected. What was posted, and each usage that is paid otherwise than before, as it is now:
    the correction may move what later usage burned and paid. Several parts where there is much; the first has the
    entries."""

    TYPE: ClassVar[str] = "correction.posted.v1"
    TOPIC: ClassVar[str] = "account.events"
    command_type: Literal["usage.voided.v1", "usage.corrected.v1"] = Field(description="type of the command")
    command_source: str = Field(description="source of the command")
    command_id: str = Field(description="id of the command")
    source: str = Field(description="source of the usage event that it names")
    id: str = Field(description="id of the usage event that it names")
    reason: str = Field(description="why, as the command says")
    part: Annotated[int, Field(ge=1)] = Field(description="number of this part, from 1")
    parts: Annotated[int, Field(ge=1)] = Field(description="how many parts there are")
    entries: list[CorrectionEntry] = Field(description="what was posted; they add up to 0")
    events: list[RatedEvent | VoidedEvent] = Field(max_length=1000, description="usage as it is now")


class BucketEnded(OutputEvent):
    """A bucket ended; what was left lapsed."""

    TYPE: ClassVar[str] = "bucket.ended.v1"
    TOPIC: ClassVar[str] = "account.events"
    grant_id: str = Field(description="the bucket")
    plan: str = Field(description="its plan")
    remaining: Decimal = Field(description="what lapsed, in the bucket's unit")
    breakage: Decimal = Field(description="revenue of what lapsed, currency")


class RefundPaid(OutputEvent):
    """What was unused of a grant was paid back; where the fee was paid elsewhere, a person or program pays it out."""

    TYPE: ClassVar[str] = "refund.paid.v1"
    TOPIC: ClassVar[str] = "account.events"
    grant_id: str = Field(description="the grant")
    plan: str = Field(description="its plan")
    amount: Decimal = Field(description="paid back, tax included, currency")
    gift: Decimal = Field(description="what of it went back as gift money")
    paid_to: Literal["wallet", "external"] = Field(description="as the fee was paid")


class CommitmentEnded(OutputEvent):
    """The period of a committed spend ended; what was missing was charged."""

    TYPE: ClassVar[str] = "commitment.ended.v1"
    TOPIC: ClassVar[str] = "account.events"
    price_book: str = Field(description="price book and version")
    commitment: str = Field(description="the commitment's name in the book")
    first_day: str = Field(description="the first day of the period, in the commitment's zone")
    period_end: Time = Field(description="when the period ended")
    committed: Decimal = Field(description="what was committed, currency, tax included")
    drawn: Decimal = Field(description="the price of the usage that drew it")
    charged: Decimal = Field(description="what was missing and was charged, tax included")


class TransferReceived(OutputEvent):
    """Another account gave a part of a bucket, which is a bucket of its own here."""

    TYPE: ClassVar[str] = "transfer.received.v1"
    TOPIC: ClassVar[str] = "account.events"
    transfer_id: str = Field(description="the transfer; the grant of the new bucket")
    sender: str = Field(description="the account that gave it")
    grant_id: str = Field(description="the new bucket")
    plan: str = Field(description="its plan")
    unit: str = Field(description="what it counts")
    amount: Decimal = Field(description="how much, in that unit")


class TransferReturned(OutputEvent):
    """A transfer could not be received: the bucket it came from has it again."""

    TYPE: ClassVar[str] = "transfer.returned.v1"
    TOPIC: ClassVar[str] = "account.events"
    transfer_id: str = Field(description="the transfer")
    to: str = Field(description="the account that could not receive it")
    grant_id: str = Field(description="the bucket it came from and is in again")
    unit: str = Field(description="what it counts")
    amount: Decimal = Field(description="how much, in that unit")
    reason: str = Field(description="a word such as account_closed")
    detail: str = Field(description="the reason for a person")


class BillIssued(OutputEvent):
    """A period of a postpaid account closed, and what it owed is to be collected."""

    TYPE: ClassVar[str] = "bill.issued.v1"
    TOPIC: ClassVar[str] = "account.events"
    bill_id: str = Field(description="the bill: account and month of the period")
    amount: Decimal = Field(description="to be collected, tax included, currency")
    begin: Time = Field(description="when the period began")
    end: Time = Field(description="when it ended and the bill was issued")
    due: Time = Field(description="from when on the account is suspended if it is not paid")


class AccountSuspended(OutputEvent):
    """A bill is past due: the account may not buy and not reserve; usage that happens is billed."""

    TYPE: ClassVar[str] = "account.suspended.v1"
    TOPIC: ClassVar[str] = "account.events"
    bill_id: str = Field(description="the bill")


class AccountResumed(OutputEvent):
    """No bill is past due any more."""

    TYPE: ClassVar[str] = "account.resumed.v1"
    TOPIC: ClassVar[str] = "account.events"
    bill_id: str = Field(description="the bill that was paid last")


class ThresholdReached(OutputEvent):
    """An alert level of a plan was crossed."""

    TYPE: ClassVar[str] = "threshold.reached.v1"
    TOPIC: ClassVar[str] = "account.events"
    grant_id: str = Field(description="the bucket")
    plan: str = Field(description="its plan")
    unit: str | None = Field(default=None, description="what it counts")
    threshold: Decimal = Field(description="the level as the plan has it, such as 0.8")
    amount: Decimal = Field(description="what was granted")
    remaining: Decimal = Field(description="what is left")


class PackBought(OutputEvent):
    """A pack was bought from the wallet, because a plan's overage rule says so."""

    TYPE: ClassVar[str] = "pack.bought.v1"
    TOPIC: ClassVar[str] = "account.events"
    grant_id: str = Field(description="the pack's bucket")
    plan: str = Field(description="the plan it extends")
    amount: Decimal = Field(description="standard tokens it holds")
    price: Decimal = Field(description="what the wallet paid, currency, tax included")


class BucketCarried(OutputEvent):
    """What is left of a bucket was carried over into further cycles."""

    TYPE: ClassVar[str] = "bucket.carried.v1"
    TOPIC: ClassVar[str] = "account.events"
    grant_id: str = Field(description="the bucket")
    plan: str = Field(description="its plan")
    remaining: Decimal = Field(description="what is left, in the bucket's unit")
    valid_until: Time | None = Field(description="until when it is valid now; null: without end")


class ExpiryNear(OutputEvent):
    """A bucket of which something is left ends soon."""

    TYPE: ClassVar[str] = "expiry.near.v1"
    TOPIC: ClassVar[str] = "account.events"
    grant_id: str = Field(description="the bucket")
    plan: str = Field(description="its plan")
    days: Count = Field(description="how many days before its end the plan wants this told")
    remaining: Decimal = Field(description="what is left, in the bucket's unit")
    valid_until: Time = Field(description="when it ends")


class WalletLow(OutputEvent):
    """The wallet fell below the amount that was set; told again only after it was back at it."""

    TYPE: ClassVar[str] = "wallet.low.v1"
    TOPIC: ClassVar[str] = "account.events"
    wallet: Decimal = Field(description="the wallet, may be negative")
    below: Decimal = Field(description="the amount that was set")


class SubscriptionCycle(OutputEvent):
    """What the events of a renewal have in common."""

    subscription_id: str = Field(description="the subscription")
    plan: str = Field(description="its plan")
    cycle: Count = Field(description="number of the cycle, from 1")
    fee: Decimal = Field(description="the fee of the cycle, tax included")
    valid_from: Time = Field(description="when the cycle begins")
    valid_until: Time | None = Field(description="when it ends; null: never")


class SubscriptionRenewed(SubscriptionCycle):
    """A cycle of a subscription was granted and its fee taken."""

    TYPE: ClassVar[str] = "subscription.renewed.v1"
    TOPIC: ClassVar[str] = "account.events"


class RenewalUnpaid(SubscriptionCycle):
    """A cycle of a subscription was not granted, because the wallet cannot pay it; each top-up tries it again."""

    TYPE: ClassVar[str] = "renewal.unpaid.v1"
    TOPIC: ClassVar[str] = "account.events"
    reason: Literal["renewal_unpaid"] = Field(description="why")
    detail: str | None = Field(default=None, description="too_many_buckets: not for the wallet, the account is full")
    wallet: Decimal = Field(description="the wallet, may be negative")


class SubscriptionEnded(OutputEvent):
    """A cancelled subscription has ended; its buckets end in their own time."""

    TYPE: ClassVar[str] = "subscription.ended.v1"
    TOPIC: ClassVar[str] = "account.events"
    subscription_id: str = Field(description="the subscription")
    plan: str = Field(description="its plan")
    cycle: Count = Field(description="number of its last cycle")


class SettlementEntry(OutputEvent):
    """What one commit earned one party under one agreement."""

    TYPE: ClassVar[str] = "settlement.entry.v1"
    TOPIC: ClassVar[str] = "settlement.entries"
    party: str = Field(description="the party")
    agreement: str | None = Field(description="agreement and version; null: no agreement, the operator takes all")
    amount: Decimal = Field(description="the share, currency, may be negative")
    base: Decimal = Field(description="tax-excluded amount it was taken from")
    standard_tokens: Decimal = Field(description="standard tokens of these events")
    events: Count = Field(description="how many usage events")


class UsageRejectedHeaders(Output):
    """Headers of a record of ``usage.rejected``, each UTF-8 text; the value is the original value, byte for byte."""

    TOPIC: ClassVar[str] = "usage.rejected"
    reason: Literal[REASONS] = Field(description="why, one word")  # type: ignore[valid-type]
    detail: str = Field(description="field, value and expectation, for a person")
    topic: str = Field(description="input topic of the record")
    partition: Annotated[str, Field(pattern="^[0-9]+$")] = Field(description="its partition")
    offset: Annotated[str, Field(pattern="^[0-9]+$")] = Field(description="its offset")


OUTPUTS: dict[str, type[OutputEvent]] = {
    model.TYPE: model
    for model in (
        UsageRated,
        PackageBalance,
        CommandAccepted,
        CommandRejected,
        CorrectionPosted,
        BucketEnded,
        RefundPaid,
        CommitmentEnded,
        TransferReceived,
        TransferReturned,
        BillIssued,
        AccountSuspended,
        AccountResumed,
        ThresholdReached,
        PackBought,
        BucketCarried,
        ExpiryNear,
        WalletLow,
        SubscriptionRenewed,
        RenewalUnpaid,
        SubscriptionEnded,
        SettlementEntry,
    )
}
"""Every output event by its type."""
