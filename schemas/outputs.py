"""Models of the output events, by topic (docs/reference/topics.md). They define the wire form only.

Every output is a CloudEvent whose ``sequence`` rises by one per topic and partition. Amounts are decimal strings
without exponent, trailing zeros or minus zero; times are UTC with ``Z``. Fields may be added but never removed.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.fields import DIGEST_PATTERN
from schemas.refusal_codes import REASONS

DECIMAL_OUT_PATTERN = r"^(0|-?(0\.[0-9]*[1-9]|[1-9][0-9]*(\.[0-9]*[1-9])?))$"
TIME_OUT_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?Z$"

Decimal = Annotated[str, Field(pattern=DECIMAL_OUT_PATTERN)]
Time = Annotated[str, Field(pattern=TIME_OUT_PATTERN)]
Count = Annotated[int, Field(ge=0)]
Status = Literal["pending", "active", "used_up", "expired", "suspended", "refunded", "cancelled"]


class Output(BaseModel):
    """A body that Tokenbill writes: types are strict, and readers must ignore unknown fields."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class OutputEvent(Output):
    """The ``data`` of an output event; ``TYPE`` is its event type, ``TOPIC`` the topic it is published on."""

    TYPE: ClassVar[str]
    TOPIC: ClassVar[str]


class RatedMeter(Output):
    """One priced meter of an event."""

    meter: str = Field(description="the meter")
    quantity: Count = Field(description="the quantity that is billed: the count of the meter, or more by an increment")
    used: Count | None = Field(default=None, description="what was used of the quantity; left out: all of it")
    per_million: Decimal = Field(description="price per million units, currency, after adjustments")
    amount: Decimal = Field(description="price of the quantity, currency, tax included")
    standard_tokens: Decimal = Field(description="standard tokens of the quantity")


class BurnedBucket(Output):
    """Quota that one usage event burned from one bucket."""

    grant_id: str = Field(description="the bucket")
    standard_tokens: Decimal = Field(description="standard tokens burned; 0 for a bucket of another unit")
    amount: Decimal | None = Field(default=None, description="for a bucket of another unit: the quantity burned")
    unit: str | None = Field(default=None, description="for a bucket of another unit: its unit")


class UnitQuantity(Output):
    """A quantity of a unit of quota."""

    unit: str = Field(description="the unit")
    amount: Decimal = Field(description="the quantity")


class RatedEvent(Output):
    """One usage event, priced and paid."""

    source: str = Field(description="source of the usage event")
    id: str = Field(description="id of the usage event")
    account: str = Field(description="the account that pays")
    currency: str = Field(description="currency of the amounts")
    amount: Decimal = Field(description="price, tax included")
    net: Decimal = Field(description="price, tax excluded")
    standard_tokens: Decimal = Field(description="standard tokens of the event")
    price_book: str = Field(description="the book and its version, such as retail-cn@3")
    lines: list[RatedMeter] = Field(description="one line per meter, in canonical order")
    offset: int = Field(ge=0, description="offset of the record in the input topic")
    time: Time | None = Field(default=None, description="time of the usage event: when the request completed")
    model: str | None = Field(default=None, description="the model that served the request")
    hardware_tier: str = Field(default="unknown", description="chip and system; left out: unknown")
    energy_source: str = Field(default="unknown", description="source of the electricity; left out: unknown")
    site: str = Field(default="unknown", description="the computing site; left out: unknown")
    channel: str = Field(default="cloud", description="sales channel; left out: cloud")
    service_tier: str = Field(default="standard", description="service tier; left out: standard")
    outcome: str = Field(default="completed", description="outcome of the request; left out: completed")
    attributes: dict[str, str] = Field(
        default_factory=dict, description="attributes that a price book declares as dimensions, if the event has any"
    )
    request_id: str | None = Field(default=None, description="id of the request, if the usage event names one")
    member: str | None = Field(default=None, description="the member of the account, if the usage event names one")
    burned: list[BurnedBucket] = Field(description="quota burned, in deduction order")
    charged: Decimal = Field(description="amount paid by the wallet, currency")
    absorbed: Decimal = Field(description="standard tokens absorbed: recorded, not charged")
    absorbed_unit: UnitQuantity | None = Field(
        default=None, description="for a plan that caps another unit: what was absorbed, in the unit of its bucket"
    )
    owed: Decimal = Field(default="0", description="standard tokens that the next grant of the plan pays")


class UsageRated(OutputEvent):
    """Usage that was rated and paid, in commit order; at most 1,000 events per record."""

    TYPE: ClassVar[str] = "usage.rated.v1"
    TOPIC: ClassVar[str] = "usage.rated"
    events: list[RatedEvent] = Field(max_length=1000, description="rated events in commit order")


class BalanceBucket(Output):
    """One bucket of an account."""

    grant_id: str = Field(description="the bucket")
    plan: str = Field(description="the plan of the bucket")
    unit: str = Field(description="unit of the bucket: STD_TOKEN, a currency, REQUEST, ...")
    amount: Decimal = Field(description="quantity granted")
    remaining: Decimal = Field(description="quantity left; once the bucket ended, the quantity that expired unused")
    reserved: Decimal = Field(
        default="0",
        description="quantity on hold; only in answers of the HTTP API, because holds are not part of a commit",
    )
    valid_from: Time = Field(description="start of the validity, included")
    valid_until: Time | None = Field(description="end of the validity, excluded; null: no end")
    status: Status = Field(description="the bucket's state")


class BalanceSubscription(Output):
    """One subscription of an account."""

    subscription_id: str = Field(description="the subscription")
    plan: str = Field(description="the plan of the current cycle")
    plan_version: Count = Field(description="its version")
    pay_from: Literal["external", "wallet"] = Field(description="who collects the fee: somebody else, or the wallet")
    status: Literal["active", "unpaid", "suspended", "ended"] = Field(description="the subscription's state")
    cycle: Count = Field(description="number of the current cycle, from 1")
    granted: bool = Field(description="true if the current cycle is granted")
    last_cycle: Count | None = Field(description="the last cycle of a cancelled subscription")
    next_plan: str | None = Field(description="the plan from the next cycle on, if it changes")
    next_plan_version: Count | None = Field(description="its version")


class OpenBill(Output):
    """A bill that is not paid, or not whole."""

    bill_id: str = Field(description="the bill")
    amount: Decimal = Field(description="amount of the bill, currency, tax included")
    paid: Decimal = Field(description="part of it that was collected")
    begin: Time = Field(description="start of the period")
    end: Time = Field(description="end of the period, when the bill was issued")
    due: Time = Field(description="due time")


class PackageBalance(OutputEvent):
    """The complete state of an account after a commit, holds excepted, which are not part of a commit; compacted by
    account, so gaps in ``sequence`` are normal."""

    TYPE: ClassVar[str] = "package.balance.v1"
    TOPIC: ClassVar[str] = "package.balance"
    account: str = Field(description="the account")
    currency: str = Field(description="currency of wallet and absorbed_amount")
    wallet: Decimal = Field(description="balance of the wallet, may be negative")
    absorbed: Decimal = Field(description="standard tokens absorbed so far: recorded, not charged")
    absorbed_amount: Decimal = Field(description="price of the absorbed usage, currency")
    buckets: list[BalanceBucket] = Field(description="buckets, sorted by grant id")
    status: Literal["open", "suspended", "closed"] = Field(
        default="open", description="suspended: a bill is past due; closed: usage is rejected"
    )
    price_book: str | None = Field(default=None, description="the price book that the account is bound to")
    payment: Literal["prepaid", "postpaid"] = Field(default="prepaid", description="payment mode")
    credit_limit: Decimal = Field(default="0", description="how far the wallet may fall below zero for what is refused")
    gift: Decimal = Field(default="0", description="the part of the wallet that the operator gave; spent first")
    subscriptions: list[BalanceSubscription] = Field(
        default=[], description="subscriptions in the order of their start"
    )
    open_bills: list[OpenBill] = Field(default=[], description="bills that are not paid, in the order of issue")
    absorbed_units: dict[str, Decimal] = Field(
        default={}, description="usage absorbed so far by plans that cap other units, by unit of their bucket"
    )
    owed: dict[str, Decimal] = Field(
        default={}, description="standard tokens owed, by plan; the next grant of the plan pays them"
    )


class MovedBalance(Output):
    """Money or units that moved. Of money: ``amount``, ``net``, ``tax``, ``wallet``, ``gift``, positive where the
    account gets it. Of units of one bucket: ``unit``, ``quantity``, ``granted``, ``liability``."""

    purpose: Literal[
        "top_up", "gift", "fee", "credit", "pack", "grant", "transfer_out", "transfer_in", "transfer_back",
        "adjustment", "refund", "breakage", "bill", "bill_payment", "chargeback", "commitment", "correction",
        "true_up", "debt",
    ] = Field(description="what it was for")  # fmt: skip
    currency: str = Field(description="currency of the amounts")
    amount: Decimal = Field(default="0", description="the amount, tax included")
    net: Decimal = Field(default="0", description="its part without tax")
    tax: Decimal = Field(default="0", description="its tax")
    wallet: Decimal = Field(
        default="0",
        description="change of the wallet; 0 where the amount is collected, or paid out, elsewhere",
    )
    gift: Decimal = Field(default="0", description="the part of that change that is gift money")
    pay_from: Literal["external", "wallet"] | None = Field(
        default=None, description="of a fee: who collects it, or pays it back: somebody else, or the wallet"
    )
    plan: str | None = Field(default=None, description="plan and version, such as token-9.9@1")
    grant_id: str | None = Field(default=None, description="the grant, or the bucket")
    price_book: str | None = Field(default=None, description="price book and version of a commitment or true-up")
    bill_id: str | None = Field(default=None, description="the bill")
    transfer_id: str | None = Field(default=None, description="the transfer")
    sender: str | None = Field(default=None, description="the account that sent a transfer")
    to: str | None = Field(default=None, description="the account that a transfer was sent to")
    unit: str | None = Field(default=None, description="unit of the bucket")
    quantity: Decimal = Field(default="0", description="change of what is left in the bucket, in its unit")
    granted: Decimal = Field(default="0", description="change of what was granted in the bucket, in its unit")
    liability: Decimal = Field(
        default="0", description="change of the fee, without tax, that the bucket has not earned"
    )


class AccountNotice(OutputEvent):
    """The ``data`` of an event on ``account.events``."""

    TOPIC: ClassVar[str] = "account.events"
    account: str = Field(default="", description="the account, as in `subject`; every event has it")
    movements: list[MovedBalance] = Field(default=[], description="money and units that moved, in order")


class CommandAccepted(AccountNotice):
    """A command was accepted and applied."""

    TYPE: ClassVar[str] = "command.accepted.v1"
    command_type: str = Field(description="type of the command")
    command_source: str = Field(description="source of the command")
    command_id: str = Field(description="id of the command")


class CommandRejected(AccountNotice):
    """A command was refused and not applied. Its type, source and id are null if they could not be read."""

    TYPE: ClassVar[str] = "command.rejected.v1"
    command_type: str | None = Field(description="type of the command, if it could be read")
    command_source: str | None = Field(description="source of the command, if it could be read")
    command_id: str | None = Field(description="id of the command, if it could be read")
    reason: str = Field(description="reason code, such as currency_mismatch")
    detail: str = Field(description="field, value and expected value, for a person")


class CorrectionEntry(Output):
    """One posting of a correction."""

    account_code: str = Field(description="control account, such as customer_deposits")
    currency: str = Field(description="currency of the amount")
    detail: str = Field(description="plan or price book and version, or empty")
    amount: Decimal = Field(description="debit positive, credit negative")


class VoidedEvent(Output):
    """A usage event that was voided."""

    source: str = Field(description="source of the usage event")
    id: str = Field(description="id of the usage event")
    voided: Literal[True] = Field(description="always true: the usage event was voided")


class CorrectionPosted(AccountNotice):
    """Usage was voided or corrected. Lists the postings, and the new state of each usage event that is now paid
    differently, because a correction may change what later usage burned and paid. A large correction has several parts;
    the first has the entries."""

    TYPE: ClassVar[str] = "correction.posted.v1"
    command_type: Literal["usage.voided.v1", "usage.corrected.v1"] = Field(description="type of the command")
    command_source: str = Field(description="source of the command")
    command_id: str = Field(description="id of the command")
    source: str = Field(description="source of the corrected usage event")
    id: str = Field(description="id of the corrected usage event")
    reason: str = Field(description="reason given in the command")
    part: Annotated[int, Field(ge=1)] = Field(description="number of this part, from 1")
    parts: Annotated[int, Field(ge=1)] = Field(description="number of parts")
    entries: list[CorrectionEntry] = Field(description="the postings; their amounts add up to 0")
    events: list[RatedEvent | VoidedEvent] = Field(max_length=1000, description="changed usage events, as they are now")


class BucketEnded(AccountNotice):
    """A bucket ended and its remaining quota expired."""

    TYPE: ClassVar[str] = "bucket.ended.v1"
    grant_id: str = Field(description="the bucket")
    plan: str = Field(description="the plan of the bucket")
    remaining: Decimal = Field(description="quantity that expired unused, in the bucket's unit")
    breakage: Decimal = Field(description="revenue from the expired quantity, currency")


class RefundPaid(AccountNotice):
    """The unused part of a grant was refunded. If the fee was paid externally, the refund must be paid out externally
    too."""

    TYPE: ClassVar[str] = "refund.paid.v1"
    grant_id: str = Field(description="the grant")
    plan: str = Field(description="the plan of the grant")
    amount: Decimal = Field(description="amount refunded, tax included, currency")
    gift: Decimal = Field(description="part of the amount that was returned as gift money")
    paid_to: Literal["wallet", "external"] = Field(description="where the refund goes: the way the fee was paid")


class CommitmentEnded(AccountNotice):
    """The period of a spend commitment ended and the shortfall was charged."""

    TYPE: ClassVar[str] = "commitment.ended.v1"
    price_book: str = Field(description="price book and version")
    commitment: str = Field(description="the commitment's name in the book")
    first_day: str = Field(description="the first day of the period, in the commitment's time zone")
    period_end: Time = Field(description="end of the period")
    committed: Decimal = Field(description="committed amount, currency, tax included")
    drawn: Decimal = Field(description="price of the usage that counted towards the commitment")
    charged: Decimal = Field(description="shortfall that was charged, tax included")


class TrueUpPosted(AccountNotice):
    """The volume price of a whole period was applied: the difference to what was charged was posted."""

    TYPE: ClassVar[str] = "true_up.posted.v1"
    price_book: str = Field(description="price book and version that priced the usage")
    rule: str = Field(description="the period rule's name in the book")
    first_day: str = Field(description="the first day of the period, in the rule's time zone")
    period_end: Time = Field(description="end of the period")
    counted: Decimal = Field(description="units counted in the period")
    tier: Count = Field(description="number of the tier that the count reached, from 0")
    charged_before: Decimal = Field(description="what the wallet had paid for the usage, currency, tax included")
    charged: Decimal = Field(description="the difference, tax included; negative: it was given back")


class TransferReceived(AccountNotice):
    """The account received part of another account's bucket, as a new bucket."""

    TYPE: ClassVar[str] = "transfer.received.v1"
    transfer_id: str = Field(description="the transfer; the grant of the new bucket")
    sender: str = Field(description="the account that sent it")
    grant_id: str = Field(description="the new bucket")
    plan: str = Field(description="the plan of the bucket")
    unit: str = Field(description="unit of the bucket")
    amount: Decimal = Field(description="quantity transferred, in that unit")


class TransferReturned(AccountNotice):
    """A transfer could not be received and was returned to the sender's bucket."""

    TYPE: ClassVar[str] = "transfer.returned.v1"
    transfer_id: str = Field(description="the transfer")
    to: str = Field(description="the account that could not receive it")
    grant_id: str = Field(description="the sender's bucket, which has the quantity again")
    unit: str = Field(description="unit of the bucket")
    amount: Decimal = Field(description="quantity returned, in that unit")
    reason: str = Field(description="reason code, such as account_closed")
    detail: str = Field(description="the reason, for a person")


class BillIssued(AccountNotice):
    """A billing period of a postpaid account closed, and the amount owed is to be collected."""

    TYPE: ClassVar[str] = "bill.issued.v1"
    bill_id: str = Field(description="the bill: account, and month of the last day of the period")
    amount: Decimal = Field(description="amount to collect, tax included, currency")
    begin: Time = Field(description="start of the period")
    end: Time = Field(description="end of the period, when the bill was issued")
    due: Time = Field(description="due time; the account is suspended if the bill is not paid by then")


class AccountSuspended(AccountNotice):
    """A bill is past due: the account may neither buy nor reserve; usage that happens is still billed."""

    TYPE: ClassVar[str] = "account.suspended.v1"
    bill_id: str = Field(description="the bill that is past due")


class AccountResumed(AccountNotice):
    """The account is no longer suspended, because no bill is past due."""

    TYPE: ClassVar[str] = "account.resumed.v1"
    bill_id: str = Field(description="the bill that was paid last")


class ThresholdReached(AccountNotice):
    """Usage of a bucket reached an alert threshold of its plan."""

    TYPE: ClassVar[str] = "threshold.reached.v1"
    grant_id: str = Field(description="the bucket")
    plan: str = Field(description="the plan of the bucket")
    unit: str | None = Field(default=None, description="unit of the bucket")
    threshold: Decimal = Field(description="the threshold as in the plan, such as 0.8")
    amount: Decimal = Field(description="quantity granted")
    remaining: Decimal = Field(description="quantity left")


class WindowReached(AccountNotice):
    """Usage of a plan reached an alert threshold of one of its windows."""

    TYPE: ClassVar[str] = "window.reached.v1"
    grant_id: str = Field(description="the bucket that was burned")
    plan: str = Field(description="the plan of the window")
    window: Literal["rolling", "from_first_use", "fixed"] = Field(description="kind of the window")
    unit: str = Field(description="unit that the window counts")
    threshold: Decimal = Field(description="the threshold as in the plan, such as 0.8")
    cap: Decimal = Field(description="the cap of the window")
    used: Decimal = Field(description="quantity burned in the window, with this usage")
    begins: Time | None = Field(description="start of the window, included; null: it rolls")
    ends: Time = Field(description="end of the window, excluded; of a rolling window, when its oldest burn leaves it")


class PackBought(AccountNotice):
    """The overage rule of a plan bought a pack from the wallet."""

    TYPE: ClassVar[str] = "pack.bought.v1"
    grant_id: str = Field(description="the bucket of the pack")
    plan: str = Field(description="the plan that the pack extends")
    amount: Decimal = Field(description="standard tokens of the pack")
    price: Decimal = Field(description="amount paid by the wallet, currency, tax included")


class BucketCarried(AccountNotice):
    """The remaining quota of a bucket was carried over to further cycles."""

    TYPE: ClassVar[str] = "bucket.carried.v1"
    grant_id: str = Field(description="the bucket")
    plan: str = Field(description="the plan of the bucket")
    remaining: Decimal = Field(description="quantity left, in the bucket's unit")
    valid_until: Time | None = Field(description="new end of the validity, excluded; null: no end")


class DebtPaid(AccountNotice):
    """A portion that began paid standard tokens that were owed of its plan."""

    TYPE: ClassVar[str] = "debt.paid.v1"
    grant_id: str = Field(description="the bucket that paid")
    plan: str = Field(description="the plan of the bucket")
    paid: Decimal = Field(description="standard tokens paid")
    owed: Decimal = Field(description="standard tokens of the plan that are still owed")


class ExpiryNear(AccountNotice):
    """A bucket with remaining quota expires soon."""

    TYPE: ClassVar[str] = "expiry.near.v1"
    grant_id: str = Field(description="the bucket")
    plan: str = Field(description="the plan of the bucket")
    days: Count = Field(description="days before the end at which the plan sets this alert")
    remaining: Decimal = Field(description="quantity left, in the bucket's unit")
    valid_until: Time = Field(description="end of the validity, excluded")


class WalletLow(AccountNotice):
    """The wallet fell below its alert amount. The event is sent again only after the wallet has reached the amount."""

    TYPE: ClassVar[str] = "wallet.low.v1"
    wallet: Decimal = Field(description="balance of the wallet, may be negative")
    below: Decimal = Field(description="the alert amount")


class SubscriptionCycle(AccountNotice):
    """Common fields of the events of a renewal."""

    subscription_id: str = Field(description="the subscription")
    plan: str = Field(description="the plan of the subscription")
    cycle: Count = Field(description="number of the cycle, from 1")
    fee: Decimal = Field(description="fee of the cycle, tax included")
    valid_from: Time = Field(description="start of the cycle, included")
    valid_until: Time | None = Field(description="end of the cycle, excluded; null: no end")


class SubscriptionRenewed(SubscriptionCycle):
    """A cycle of a subscription was granted and its fee was charged."""

    TYPE: ClassVar[str] = "subscription.renewed.v1"


class RenewalUnpaid(SubscriptionCycle):
    """A cycle of a subscription was not granted, because the wallet cannot pay its fee; each top-up retries it."""

    TYPE: ClassVar[str] = "renewal.unpaid.v1"
    reason: Literal["renewal_unpaid"] = Field(description="reason code")
    detail: str | None = Field(
        default=None,
        description="too_many_buckets if the account has no room for more buckets, instead of a low wallet",
    )
    wallet: Decimal = Field(description="balance of the wallet, may be negative")


class SubscriptionEnded(AccountNotice):
    """A cancelled subscription ended; its buckets expire at their own end."""

    TYPE: ClassVar[str] = "subscription.ended.v1"
    subscription_id: str = Field(description="the subscription")
    plan: str = Field(description="the plan of the subscription")
    cycle: Count = Field(description="number of the last cycle")


class UsageRejectedHeaders(Output):
    """Headers of a record of ``usage.rejected``, each UTF-8 text; the value is the original value, byte for byte."""

    TOPIC: ClassVar[str] = "usage.rejected"
    reason: Literal[REASONS] = Field(description="reason code")  # type: ignore[valid-type]
    detail: str = Field(description="field, value and expected value, for a person")
    topic: str = Field(description="input topic of the record")
    partition: Annotated[str, Field(pattern="^[0-9]+$")] = Field(description="its partition")
    offset: Annotated[str, Field(pattern="^[0-9]+$")] = Field(description="its offset")
    commit: Annotated[str, Field(pattern="^[0-9]+$")] | None = Field(
        default=None, description="number of the commit that rejected it"
    )
    previousdigest: Annotated[str, Field(pattern=DIGEST_PATTERN)] | None = Field(
        default=None, description="digest of the commit before"
    )
    history: Annotated[str, Field(pattern="^[0-9]+$")] | None = Field(
        default=None, description="number of the history of commits; absent in the first one"
    )


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
        TrueUpPosted,
        TransferReceived,
        TransferReturned,
        BillIssued,
        AccountSuspended,
        AccountResumed,
        ThresholdReached,
        WindowReached,
        PackBought,
        BucketCarried,
        DebtPaid,
        ExpiryNear,
        WalletLow,
        SubscriptionRenewed,
        RenewalUnpaid,
        SubscriptionEnded,
    )
}
"""Every output event by its type."""
