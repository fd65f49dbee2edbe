"""What pays for a rated event: buckets in deduction order, then overage (CONTRACT §3). The plain, obvious rule.

Owns: deduction order, splitting, revenue of a burn, overage, alert thresholds. Never: prices, SQL, the clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from billing import ledger
from billing.accounts import EXPIRED, REFUNDED, USED_UP, Account, Bucket, PlanKey
from billing.catalog.model import TEXT_DIMENSIONS, Plan
from billing.catalog.patterns import scope_matches
from billing.ledger import Postings
from billing.pricing.rate import net_of_tax
from billing.wallet import take_out
from schemas.units import MILLION, divide_half_even
from schemas.usage import UsageEvent

PlanOf = Callable[[PlanKey], Plan]


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """Something the account's owner should know, for the topic ``account.events``."""

    account: str
    type: str
    data: dict[str, str | int | None]


@dataclass(frozen=True, slots=True)
class Deduction:
    """Standard tokens taken from one bucket, and the revenue that earns."""

    grant_id: str
    burned_micro: int
    revenue_pico: int


@dataclass(slots=True)
class Burned:
    """How one event was paid. Amounts in pico include tax except revenue; quantities in micro standard tokens."""

    deductions: list[Deduction] = field(default_factory=list)
    charged_pico: int = 0
    """What the wallet paid, tax included."""
    charged_net_pico: int = 0
    absorbed_micro: int = 0
    absorbed_pico: int = 0
    events: list[AccountEvent] = field(default_factory=list)

    @property
    def revenue_pico(self) -> int:
        """Tax-excluded revenue this event earned."""
        return self.charged_net_pico + sum(deduction.revenue_pico for deduction in self.deductions)

    @property
    def burned_micro(self) -> int:
        """Standard tokens taken from buckets."""
        return sum(deduction.burned_micro for deduction in self.deductions)


def deduction_order(bucket: Bucket, plan_of: PlanOf) -> tuple[int, int, bool, int, str]:
    """Sort key: priority, earliest expiry, periodic before total, earliest start, grant id."""
    rule = plan_of(bucket.plan_key).buckets[bucket.bucket_no - 1]
    return (rule.priority, bucket.valid_until_us, rule.kind != "periodic", bucket.valid_from_us, bucket.grant_id)


def sort_buckets(account: Account, plan_of: PlanOf) -> None:
    """Put an account's buckets into deduction order."""
    account.buckets.sort(key=lambda bucket: deduction_order(bucket, plan_of))


def alert_floor_micro(bucket: Bucket, alerts_micro: Sequence[int]) -> int:
    """What may remain at most when the bucket's next alert is due; -1 where no alert is left.

    ``alerts_micro`` are the plan's thresholds, as millionths of the bucket's amount that are used.
    """
    if bucket.alerts_fired >= len(alerts_micro):
        return -1
    used_micro = -(-bucket.amount_micro * alerts_micro[bucket.alerts_fired] // MILLION)
    return bucket.amount_micro - used_micro


def earned_pico(liability_pico: int, burned_micro: int, remaining_micro: int) -> int:
    """Revenue of a burn: liability left x burned / remaining before it; the burn that empties takes what is left."""
    if burned_micro == remaining_micro:
        return liability_pico
    return divide_half_even(liability_pico * burned_micro, remaining_micro)


def belongs(bucket: Bucket, event: UsageEvent, plan: Plan) -> bool:
    """Whether an event matches a bucket by time and scope, empty, lapsed or not."""
    if not bucket.valid_from_us <= event.time_us < bucket.valid_until_us:
        return False
    scope = plan.buckets[bucket.bucket_no - 1].scope
    return not scope or scope_matches(scope, {name: getattr(event, name) for name in TEXT_DIMENSIONS})


def burn(
    account: Account,
    event: UsageEvent,
    amount_pico: int,
    standard_micro: int,
    price_book: str,
    tax_rate_micro: int,
    plan_of: PlanOf,
    postings: Postings,
) -> Burned:
    """Pay one rated event from the account, changing it, and post the journal lines.

    The account must have been rolled forward to the log's time. Never refuses: usage that happened is recorded.
    """
    burned = Burned()
    matching = [bucket for bucket in account.buckets if belongs(bucket, event, plan_of(bucket.plan_key))]
    if standard_micro == 0 or not matching:
        _charge_wallet(account, burned, amount_pico, price_book, tax_rate_micro, postings)
        return burned
    uncovered_micro = standard_micro
    for bucket in matching:
        if uncovered_micro == 0:
            break
        if bucket.status in (EXPIRED, REFUNDED) or bucket.remaining_micro == 0:
            continue
        taken_micro = min(uncovered_micro, bucket.remaining_micro)
        uncovered_micro -= taken_micro
        _deduct(account, bucket, taken_micro, plan_of(bucket.plan_key), burned, postings)
    if uncovered_micro:
        uncovered_pico = divide_half_even(amount_pico * uncovered_micro, standard_micro)
        if plan_of(matching[-1].plan_key).overage.mode == "pay_as_you_go":
            _charge_wallet(account, burned, uncovered_pico, price_book, tax_rate_micro, postings)
        else:
            burned.absorbed_micro = uncovered_micro
            burned.absorbed_pico = uncovered_pico
            account.absorbed_micro += uncovered_micro
            account.absorbed_pico += uncovered_pico
    return burned


def _deduct(account: Account, bucket: Bucket, taken_micro: int, plan: Plan, burned: Burned, postings: Postings) -> None:
    revenue_pico = earned_pico(bucket.liability_pico, taken_micro, bucket.remaining_micro)
    bucket.remaining_micro -= taken_micro
    bucket.liability_pico -= revenue_pico
    if bucket.remaining_micro == 0:
        bucket.status = USED_UP
    detail = str(bucket.plan_key)
    postings.post(
        account.currency,
        (ledger.CONTRACT_LIABILITY, detail, revenue_pico),
        (ledger.REVENUE_USAGE, detail, -revenue_pico),
    )
    burned.deductions.append(Deduction(bucket.grant_id, taken_micro, revenue_pico))
    while 0 <= bucket.remaining_micro <= alert_floor_micro(bucket, plan.alerts_micro):
        threshold_micro = plan.alerts_micro[bucket.alerts_fired]
        bucket.alerts_fired += 1
        burned.events.append(
            AccountEvent(
                account.account,
                "threshold.reached.v1",
                {
                    "grant_id": bucket.grant_id,
                    "plan": bucket.plan,
                    "threshold_micro": threshold_micro,
                    "remaining_micro": bucket.remaining_micro,
                    "amount_micro": bucket.amount_micro,
                },
            )
        )


def _charge_wallet(
    account: Account, burned: Burned, amount_pico: int, price_book: str, tax_rate_micro: int, postings: Postings
) -> None:
    net_pico = net_of_tax(amount_pico, tax_rate_micro)
    take_out(account, amount_pico)
    burned.charged_pico += amount_pico
    burned.charged_net_pico += net_pico
    postings.post(
        account.currency,
        (ledger.CUSTOMER_DEPOSITS, "", amount_pico),
        (ledger.REVENUE_USAGE, price_book, -net_pico),
        (ledger.OUTPUT_VAT, price_book, net_pico - amount_pico),
    )
