"""Account commands, topic ``account.commands`` (docs/reference/account-commands.md). This module checks only the form.

A rule may refuse a command later. Amounts become integers of 1e-12 (``…_pico``): of the currency for the wallet, of
the bucket's unit for a bucket. A null field is treated as absent; unknown fields are ignored. ``starts_at`` and ``at``
default to the command's time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, PlainValidator, ValidationError, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from schemas.cloudevents import Envelope, read_envelope
from schemas.fields import (
    MONEY_SCHEMA,
    AmountPico,
    CreditPico,
    Currency,
    Flag,
    Name,
    PositivePico,
    TimeUs,
    VersionNumber,
    WireText,
    check_credit_pico,
    explain,
    one_of,
)
from schemas.meters import METERS
from schemas.refusals import Refusal, Refused
from schemas.times import format_time_us
from schemas.usage import COUNT_SCHEMA, DIALECT_GIVEN, PLAIN_SCHEMA, AddedMeters, DialectName, read_counts

PAYMENTS = ("prepaid", "postpaid")
PAY_FROM = ("external", "wallet")
EFFECTIVE = ("cycle_end", "now")


def _word(*choices: str) -> Any:
    return WithJsonSchema({"enum": [*choices, None], "type": ["string", "null"]})


PaymentKind = Annotated[str, one_of(*PAYMENTS), _word(*PAYMENTS)]
PayFrom = Annotated[str, one_of(*PAY_FROM), _word(*PAY_FROM)]
Effective = Annotated[str, one_of(*EFFECTIVE), _word(*EFFECTIVE)]


def _optional_time(schema: dict[str, Any]) -> None:
    """Mark the time as optional in the JSON Schema; its default is the command's time, not a constant."""
    schema.pop("default", None)
    schema["type"] = ["string", "null"]


def _read_counts(value: object, info: ValidationInfo) -> tuple[tuple[str, int], ...]:
    """Return the counts of a correction, whose dialect and meters were read before."""
    if not isinstance(value, dict):
        raise PydanticCustomError("expected", "expected an object of counts by meter")
    dialect = info.data.get("usage_dialect")
    try:
        counts = read_counts(value, dialect, info.data.get("meters")).counts
    except Refused as problem:
        raise PydanticCustomError("count", "{detail}", {"detail": str(problem)}) from None
    if dialect is not None and not counts:
        detail = "data.usage counts nothing: void the usage (usage.voided.v1) if nothing was used"
        raise PydanticCustomError("count", "{detail}", {"detail": detail})
    return counts


Cycles = Annotated[int, Field(strict=True, ge=0)]
BillDay = Annotated[int, Field(strict=True, ge=1, le=28)]
DueDays = Annotated[int, Field(strict=True, ge=0, le=365)]
CreditLimit = Annotated[int, PlainValidator(check_credit_pico), WithJsonSchema(MONEY_SCHEMA)]
UsageCounts = Annotated[
    tuple[tuple[str, int], ...],
    PlainValidator(_read_counts),
    WithJsonSchema({"type": "object", "properties": dict.fromkeys(METERS, COUNT_SCHEMA)}),
]


class CommandData(WireText):
    """The ``data`` of a command; ``TYPE`` is the command's type."""

    TYPE: ClassVar[str]


class OpenAccount(CommandData):
    """Open an account and bind its price book permanently."""

    TYPE: ClassVar[str] = "account.opened.v1"
    currency: Currency = Field(description="the currency of the account, such as CNY")
    price_book: Name | None = Field(default=None, description="the price book; required if several books fit")
    payment: PaymentKind = Field(default="prepaid", description="prepaid or postpaid")
    credit_limit_pico: CreditPico | None = Field(
        default=None, alias="credit_limit", description="how far the wallet may fall below zero, currency"
    )
    bill_day: BillDay | None = Field(default=None, description="day of the month of a postpaid account's bill, 1 to 28")
    due_days: DueDays | None = Field(default=None, description="days from a bill to its due date; default 30")


class TopUpWallet(CommandData):
    """Put money into the wallet."""

    TYPE: ClassVar[str] = "wallet.topped_up.v1"
    amount_pico: PositivePico = Field(alias="amount", description="the amount, currency, greater than 0")
    payment_ref: Name = Field(description="the payment, unique per account")
    gift: Flag = Field(default=False, description="true if the operator gives the amount and no payment was made")


class PurchasePackage(CommandData):
    """Grant one cycle of a plan's buckets."""

    TYPE: ClassVar[str] = "package.purchased.v1"
    plan: Name = Field(description="the plan's name")
    plan_version: VersionNumber | None = Field(default=None, description="plan version; default: the latest")
    grant_id: Name = Field(description="the grant, unique per account")
    starts_at_us: TimeUs = Field(
        default=0,
        alias="starts_at",
        description="when the first cycle begins; default: the command's time, whose whole second it then covers",
        json_schema_extra=_optional_time,
    )
    pay_from: PayFrom = Field(default="external", description="external: the fee was paid elsewhere; or wallet")


class StartSubscription(CommandData):
    """Start a subscription: a plan whose buckets renew each cycle until it is cancelled."""

    TYPE: ClassVar[str] = "subscription.started.v1"
    plan: Name = Field(description="the plan's name")
    subscription_id: Name = Field(description="the subscription, unique per account")
    starts_at_us: TimeUs = Field(
        default=0,
        alias="starts_at",
        description="when the first cycle begins; default: the command's time, whose whole second it then covers",
        json_schema_extra=_optional_time,
    )
    pay_from: PayFrom = Field(default="external", description="external: the fee was paid elsewhere; or wallet")


class CancelSubscription(CommandData):
    """End a subscription at the end of the cycle that contains ``at``."""

    TYPE: ClassVar[str] = "subscription.cancelled.v1"
    subscription_id: Name = Field(description="the subscription")
    at_us: TimeUs = Field(
        default=0,
        alias="at",
        description="a time in the last cycle; default: the command's time",
        json_schema_extra=_optional_time,
    )
    immediately: Flag = Field(
        default=False,
        description="true: end it now, with its buckets; the plan says what is refunded; at is ignored",
    )


class ChangeSubscription(CommandData):
    """Change the plan of a subscription: from its next cycle on, or now with fee and quota prorated by time."""

    TYPE: ClassVar[str] = "subscription.changed.v1"
    subscription_id: Name = Field(description="the subscription")
    plan: Name = Field(description="the new plan's name")
    plan_version: VersionNumber | None = Field(default=None, description="plan version; default: the latest")
    effective: Effective = Field(default="cycle_end", description="cycle_end: from the next cycle on; or now")


class SuspendSubscription(CommandData):
    """Suspend a subscription: its buckets cannot be used but still expire at their end, and it does not renew."""

    TYPE: ClassVar[str] = "subscription.suspended.v1"
    subscription_id: Name = Field(description="the subscription")


class ResumeSubscription(CommandData):
    """Resume a suspended subscription; a cycle that began during the suspension is granted now."""

    TYPE: ClassVar[str] = "subscription.resumed.v1"
    subscription_id: Name = Field(description="the subscription")


class RefundPackage(CommandData):
    """Refund a grant: end it now and pay back the unused part of its fee."""

    TYPE: ClassVar[str] = "package.refunded.v1"
    grant_id: Name = Field(description="the grant")
    reason: Name = Field(description="why")


class TransferPackage(CommandData):
    """Transfer part of a grant to another account."""

    TYPE: ClassVar[str] = "package.transferred.v1"
    grant_id: Name = Field(description="the grant")
    amount_pico: PositivePico = Field(alias="amount", description="how much of the bucket's unit, greater than 0")
    to: Name = Field(description="the account that receives it")


class AdjustBalance(CommandData):
    """Correct a balance by hand; one person requests it, another approves it."""

    TYPE: ClassVar[str] = "balance.adjusted.v1"
    target: Name = Field(description='"wallet" or a grant id')
    amount_pico: AmountPico = Field(alias="amount", description="the change, currency or the bucket's unit, signed")
    reason: Name = Field(description="why")
    requested_by: Name = Field(description="who asked for it")
    approved_by: Name = Field(description="who approved it")


class VoidUsage(CommandData):
    """Void one usage event."""

    TYPE: ClassVar[str] = "usage.voided.v1"
    source: Name = Field(description="the source of the usage event")
    id: Name = Field(description="the id of the usage event")
    reason: Name = Field(description="why")


class CorrectUsage(CommandData):
    """Replace the counts of one usage event; ``usage`` is read as canonical counts of any meters.

    With ``usage_dialect``, ``usage`` is the usage object of a provider, and ``meters`` are added, as in a usage event.
    """

    model_config = ConfigDict(json_schema_extra={"if": DIALECT_GIVEN, "else": PLAIN_SCHEMA})

    TYPE: ClassVar[str] = "usage.corrected.v1"
    source: Name = Field(description="the source of the usage event")
    id: Name = Field(description="the id of the usage event")
    usage_dialect: DialectName = Field(default=None, description="dialect of `usage`; absent: disjoint meters")
    meters: AddedMeters = Field(default=None, description="counts by meter that are added to those of a dialect")
    usage: UsageCounts = Field(description="the correct counts by disjoint meter")
    reason: Name = Field(description="why")


class ConsentOverage(CommandData):
    """Consent to pay for usage beyond a plan's quota, for a plan that requires consent."""

    TYPE: ClassVar[str] = "overage.consented.v1"
    plan: Name = Field(description="the plan's name")
    until_us: TimeUs | None = Field(
        default=None,
        alias="until",
        description="end of the consent, excluded; default: no end; a time in the past withdraws the consent",
    )


class SetWalletAlert(CommandData):
    """Set the amount below which the wallet triggers an alert; without an amount, alerts stop."""

    TYPE: ClassVar[str] = "wallet.alert_set.v1"
    below_pico: AmountPico | None = Field(default=None, alias="below", description="the amount, currency")


class PassTime(CommandData):
    """Apply changes that depend on time alone; the scheduler sends it for accounts without other input."""

    TYPE: ClassVar[str] = "time.passed.v1"


class ChangeCredit(CommandData):
    """Set how far the wallet may fall below zero."""

    TYPE: ClassVar[str] = "credit.changed.v1"
    credit_limit_pico: CreditLimit = Field(alias="credit_limit", description="the new limit, currency, 0 or more")


class CollectBill(CommandData):
    """Confirm that a bill, or a part of it, was paid, for example with the phone bill."""

    TYPE: ClassVar[str] = "bill.collected.v1"
    bill_id: Name = Field(description="the bill")
    amount_pico: PositivePico = Field(alias="amount", description="the amount paid, currency, greater than 0")
    payment_ref: Name = Field(description="the payment, unique per account")


class ChargeBackBill(CommandData):
    """Record that a collected amount went back to the payer."""

    TYPE: ClassVar[str] = "bill.charged_back.v1"
    bill_id: Name = Field(description="the bill")
    amount_pico: PositivePico = Field(alias="amount", description="the amount that went back, currency, greater than 0")
    reason: Name = Field(description="why")


class CloseAccount(CommandData):
    """Close an account; later usage is rejected."""

    TYPE: ClassVar[str] = "account.closed.v1"
    reason: Name = Field(description="why")


COMMANDS: dict[str, type[CommandData]] = {
    model.TYPE: model
    for model in (
        OpenAccount,
        TopUpWallet,
        PurchasePackage,
        StartSubscription,
        CancelSubscription,
        ChangeSubscription,
        SuspendSubscription,
        ResumeSubscription,
        RefundPackage,
        TransferPackage,
        AdjustBalance,
        VoidUsage,
        CorrectUsage,
        ConsentOverage,
        SetWalletAlert,
        PassTime,
        ChangeCredit,
        CollectBill,
        ChargeBackBill,
        CloseAccount,
    )
}
"""Every public command by its type (docs/reference/account-commands.md)."""


class ReceivePackage(CommandData):
    """The receiving half of a transfer: quota that another account sent.

    Texts are not checked again: the check of the sender's command covers them.
    """

    TYPE: ClassVar[str] = "package.received.v1"
    transfer_id: str
    sender: str
    grant_id: str = Field(description="the sender's bucket")
    plan: str
    plan_version: VersionNumber
    bucket_no: VersionNumber
    unit: str
    amount_pico: PositivePico = Field(alias="amount")
    liability_pico: CreditPico = Field(alias="liability")
    currency: Currency
    valid_from_us: TimeUs = Field(alias="valid_from")
    valid_until_us: TimeUs | None = Field(default=None, alias="valid_until")
    lapses_at_us: TimeUs | None = Field(default=None, alias="lapses_at")
    carried_cycles: Cycles


class ReturnPackage(CommandData):
    """The return of a transfer that could not be received."""

    TYPE: ClassVar[str] = "package.returned.v1"
    transfer_id: str
    to: str
    grant_id: str
    amount_pico: PositivePico = Field(alias="amount")
    liability_pico: CreditPico = Field(alias="liability")
    reason: str
    detail: str


MESSAGES: dict[str, type[CommandData]] = {model.TYPE: model for model in (ReceivePackage, ReturnPackage)}
"""Internal commands by type, which partitions send each other on ``commands.forwarded``; refused from elsewhere."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command, ready to be decided. ``data`` is the model that COMMANDS names for ``type``."""

    type: str
    source: str
    id: str
    sequence: int | None
    time_us: int
    account: str
    data: CommandData


def read_command(envelope: Envelope) -> Command | Refusal:
    """Read the command in an envelope of a type of :data:`COMMANDS` or :data:`MESSAGES`; see :func:`parse_command`."""
    model = COMMANDS.get(envelope.type) or MESSAGES[envelope.type]
    given = {name: value for name, value in envelope.data.items() if value is not None}
    for name in ("starts_at", "at"):
        given.setdefault(name, format_time_us(envelope.time_us))
    try:
        data = model.model_validate(given)
    except ValidationError as error:
        return envelope.refuse("invalid_event", explain(error, model, "data."))
    return Command(
        envelope.type, envelope.source, envelope.id, envelope.sequence, envelope.time_us, envelope.subject, data
    )


def parse_command(
    value: bytes | None, headers: Sequence[tuple[str, bytes]] = (), *, messages: bool = False
) -> Command | Refusal:
    """Decode one record of ``account.commands``, structured or binary.

    With ``messages`` types of :data:`MESSAGES` are accepted too; only records from a partition may be read so.

    Returns:
        The command, or a refusal with ``invalid_json`` or ``invalid_event`` (also for an unknown type).
    """
    envelope = read_envelope(value, headers, types=COMMANDS | MESSAGES if messages else COMMANDS)
    if isinstance(envelope, Refusal):
        return envelope
    return read_command(envelope)
