"""Time-driven changes of an account (docs/reference/principles.md, "Time-driven change").

Buckets begin, are carried over and end; subscriptions renew; commitments are settled; bills are issued and fall due.
Changes are applied in order of time, so an account rolled forward once over a year equals one rolled forward every
day. No usage, no commands, no SQL, no clock: the caller passes log time as ``now_us``.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from billing import ledger
from billing.accounts.account import (
    ACTIVE,
    CANCELLED,
    EXPIRED,
    LIVE,
    NO_END_US,
    PENDING,
    USED_UP,
    Account,
    Bucket,
    waits_for_use,
)
from billing.accounts.account_event import AccountEvent
from billing.accounts.alerts import forget_ended, near_end, near_end_us, wallet_alert
from billing.accounts.deduction_order import PlanOf, sort_buckets
from billing.accounts.extras import Subscription
from billing.accounts.movements import of_units
from billing.catalog.model import Catalog, Plan
from billing.invoicing import bills
from billing.invoicing.bills import roll_bills
from billing.invoicing.commitments import settle_commitments
from billing.invoicing.true_ups import settle_true_ups
from billing.ledger import Postings
from billing.log_time import CURRENT_RULES, RulesByTime
from billing.packages.carry_over import kept_micro, leave_behind
from billing.packages.cycles import cycle_end_us
from billing.packages.debts import pay_debt
from billing.packages.grants import begin, is_carried_on, lapse_us
from billing.packages.portions import later_end_us
from billing.packages.refunds import bucket_ended, pay_back
from billing.packages.subscriptions import cycle_start, renew, renewal_us

_BEGIN, _NEAR_END, _CARRY_ON, _LAPSE, _TRUE_UP, _SETTLE, _BILL, _RENEW = range(8)
"""Kinds of change, in the order in which changes at the same time are applied."""


@dataclass(frozen=True, slots=True)
class _Moment:
    due_us: int
    what: int
    name: str
    """Id of the bucket, counter, account or subscription; orders changes of the same kind at the same time."""
    subject: Bucket | Subscription | None = None
    by_usage: bool = False
    """True if usage with a time ahead of the log also triggers the change, because the change gives it a bucket."""

    @property
    def place(self) -> tuple[int, int, str]:
        return self.due_us, self.what, self.name


def roll_forward(
    account: Account,
    now_us: int,
    plan_of: PlanOf,
    postings: Postings,
    catalog: Catalog,
    event_us: int = 0,
    rules: RulesByTime = CURRENT_RULES,
) -> list[AccountEvent]:
    """Apply all time-driven changes up to log time ``now_us`` and return their events.

    ``event_us`` is the own time of the usage that is decided next; a cycle that begins by then is granted too.
    ``rules`` decide each change by the time at which it is due.
    """
    events: list[AccountEvent] = []
    begun_us = max(now_us, event_us)
    if begun_us < account.next_due_us:
        return events
    account.hints, changed = None, False
    agenda = _Agenda(account, now_us, begun_us, plan_of)
    while (first := agenda.first()) is not None:
        known = len(account.buckets)
        if first.what == _TRUE_UP:
            events += settle_true_ups(account, first.due_us, postings, catalog)
        elif first.what == _SETTLE:
            events += settle_commitments(account, first.due_us, postings, catalog)
        elif first.what == _BILL:
            events += roll_bills(account, first.due_us, postings, rules.at(first.due_us))
        else:
            events += _apply(account, first, now_us, plan_of, postings)
        agenda.applied(first, account.buckets[known:])
        events += wallet_alert(account)
        changed = True
    if changed:
        forget_ended(account)
    sort_buckets(account, plan_of)
    account.next_due_us = next_due_us(account, plan_of)
    return events


class _Agenda:
    """The changes of an account that are due in one roll, in order.

    Changes of buckets and subscriptions lie in a heap, so that a roll looks at every bucket once and not once for each
    change. A change may make others void: one that is taken from the heap is compared with what its subject has then.
    """

    def __init__(self, account: Account, now_us: int, begun_us: int, plan_of: PlanOf) -> None:
        self._account, self._now_us, self._begun_us, self._plan_of = account, now_us, begun_us, plan_of
        self._heap: list[tuple[tuple[int, int, str], int, _Moment]] = []
        self._pushed = 0
        self._of_grant: dict[str, list[Bucket]] = defaultdict(list)
        self._add(account.buckets)
        for subscription in account.extras.subscriptions:
            self._push(_of_subscription(account, subscription, plan_of))

    def first(self) -> _Moment | None:
        """Return the first change that is due now, or None."""
        due = [moment for moment in _of_account(self._account) if moment.due_us <= self._now_us]
        first = min(due, key=lambda moment: moment.place, default=None)
        while self._heap:
            place, _, moment = self._heap[0]
            if first is not None and first.place < place:
                return first
            heappop(self._heap)
            if any(other.place == place for other in self._of_subject(moment)):
                return moment
        return first

    def applied(self, moment: _Moment, added: Sequence[Bucket]) -> None:
        """Add the changes that a change brought about: of its subject, of buckets of the same grant, of new buckets."""
        if isinstance(moment.subject, Bucket):
            for bucket in self._of_grant[moment.subject.grant]:
                self._push(_of_bucket(self._account, bucket, self._plan_of))
        elif moment.subject is not None:
            self._push(self._of_subject(moment))
        self._add(added)

    def _add(self, buckets: Iterable[Bucket]) -> None:
        for bucket in buckets:
            if bucket.status in LIVE:
                self._of_grant[bucket.grant].append(bucket)
                self._push(_of_bucket(self._account, bucket, self._plan_of))

    def _of_subject(self, moment: _Moment) -> Iterator[_Moment]:
        if isinstance(moment.subject, Bucket):
            yield from _of_bucket(self._account, moment.subject, self._plan_of)
        elif moment.subject is not None:
            yield from _of_subscription(self._account, moment.subject, self._plan_of)

    def _push(self, moments: Iterable[_Moment]) -> None:
        for moment in moments:
            if moment.due_us <= (self._begun_us if moment.by_usage else self._now_us):
                self._pushed += 1  # keeps the heap from comparing moments
                heappush(self._heap, (moment.place, self._pushed, moment))


def next_due_us(account: Account, plan_of: PlanOf) -> int:
    """Return the log time of the account's next time-driven change; ``NO_END_US`` if there is none."""
    return min((moment.due_us for moment in _moments(account, plan_of)), default=NO_END_US)


def due_with_us(account: Account, added: Iterable[Bucket], plan_of: PlanOf) -> int:
    """Return the same result as :func:`next_due_us` if ``next_due_us`` of the account was right before ``added``."""
    moments = (moment for bucket in added for moment in _of_bucket(account, bucket, plan_of))
    return min([account.next_due_us, *(moment.due_us for moment in moments)])


def _moments(account: Account, plan_of: PlanOf) -> Iterator[_Moment]:
    """Yield the next time-driven changes of an account."""
    for bucket in account.buckets:
        yield from _of_bucket(account, bucket, plan_of)
    yield from _of_account(account)
    for subscription in account.extras.subscriptions:
        yield from _of_subscription(account, subscription, plan_of)


def _of_bucket(account: Account, bucket: Bucket, plan_of: PlanOf) -> Iterator[_Moment]:
    """Yield the next time-driven changes of one bucket."""
    if bucket.status not in LIVE:
        return
    plan = plan_of(bucket.plan_key)
    if waits_for_use(bucket, plan):
        if bucket.valid_until_us < NO_END_US:
            yield _Moment(bucket.valid_until_us, _BEGIN, bucket.grant_id, bucket, by_usage=True)
        return
    if bucket.status == PENDING:
        yield _Moment(bucket.valid_from_us, _BEGIN, bucket.grant_id, bucket)
    if bucket.lapse_at_us < NO_END_US:
        yield _Moment(bucket.lapse_at_us, _LAPSE, bucket.grant_id, bucket)
        if bucket.remaining_micro and _carries(account, bucket, plan) and not is_carried_on(bucket, plan):
            yield _Moment(bucket.valid_until_us, _CARRY_ON, bucket.grant_id, bucket, by_usage=True)
        near_us = near_end_us(account, bucket, plan)
        if near_us is not None:
            yield _Moment(near_us, _NEAR_END, bucket.grant_id, bucket)


def _of_account(account: Account) -> Iterator[_Moment]:
    """Yield the next time-driven changes of an account's counters and bills."""
    for name, counter in account.extras.counters.items():
        if counter.due_us:
            yield _Moment(counter.due_us, _SETTLE, name)
    for name, true_up in account.extras.true_ups.items():
        if true_up.due_us:
            yield _Moment(true_up.due_us, _TRUE_UP, name)
    bill_us = bills.next_due_us(account)
    if bill_us < NO_END_US:
        yield _Moment(bill_us, _BILL, account.account)


def _of_subscription(account: Account, subscription: Subscription, plan_of: PlanOf) -> Iterator[_Moment]:
    """Yield the next time-driven change of one subscription."""
    due_us = renewal_us(account, subscription, plan_of)
    if due_us < NO_END_US:
        yield _Moment(due_us, _RENEW, subscription.subscription_id, subscription, by_usage=True)


def _apply(account: Account, moment: _Moment, now_us: int, plan_of: PlanOf, postings: Postings) -> list[AccountEvent]:
    if isinstance(moment.subject, Subscription):
        return renew(account, moment.subject, now_us, plan_of, postings)
    bucket = moment.subject
    if bucket is None:
        return []
    plan = plan_of(bucket.plan_key)
    if moment.what == _BEGIN:
        if waits_for_use(bucket, plan):
            begin(account, bucket, plan, bucket.valid_until_us)
        bucket.status = ACTIVE
        return _pay_by_portion(account, bucket, plan, postings)
    if moment.what == _NEAR_END:
        return [near_end(account, bucket, plan)]
    if moment.what == _CARRY_ON:
        _carry_on(account, bucket, plan, plan_of)
        return []
    return _end(account, bucket, plan, plan_of, postings)


def _pay_by_portion(account: Account, bucket: Bucket, plan: Plan, postings: Postings) -> list[AccountEvent]:
    """Pay what is owed of a plan from a portion that begins; one that was ended before it began pays nothing."""
    if not plan.buckets[bucket.bucket_no - 1].every or bucket.valid_until_us <= bucket.valid_from_us:
        return []
    before_micro = account.extras.owed_micro.get(plan.name, 0)
    moved = pay_debt(account, plan, [bucket], postings)
    if not moved:
        return []
    owed_micro = account.extras.owed_micro.get(plan.name, 0)
    data: dict[str, str | int | None] = {
        "grant_id": bucket.grant_id,
        "plan": bucket.plan,
        "paid_micro": before_micro - owed_micro,
        "owed_micro": owed_micro,
    }
    return [AccountEvent(account.account, "debt.paid.v1", data, tuple(moved))]


def _carries(account: Account, bucket: Bucket, plan: Plan) -> int:
    """Return the number of cycles by which the remainder of a bucket is still to be carried over; 0 for none.

    None is if the plan's limits leave nothing of it.
    """
    rule = plan.buckets[bucket.bucket_no - 1]
    if bucket.carried_cycles or bucket.grant_id in account.extras.refunds:
        return 0
    cycles = rule.carry_over_cycles if kept_micro(account, bucket, rule) else 0
    subscription = account.subscription_of(bucket) if cycles else None
    return 0 if subscription is not None and bucket.grant_id in subscription.cut_short else cycles


def _end(account: Account, bucket: Bucket, plan: Plan, plan_of: PlanOf, postings: Postings) -> list[AccountEvent]:
    """End a bucket after its grace: refund it, carry it over, or let it expire."""
    if bucket.remaining_micro == 0:  # the bucket was used up and then suspended
        bucket.status = USED_UP
        return []
    if bucket.grant_id in account.extras.refunds:
        together = [one for one in account.granted(bucket.grant) if one.grant_id in account.extras.refunds]
        due = [one for one in together if one.status in LIVE and one.lapse_at_us == bucket.lapse_at_us]
        return pay_back(account, due, postings)
    cycles = _carries(account, bucket, plan)
    if cycles:
        return [_carry_over(account, bucket, plan, cycles, plan_of, postings)]
    subscription = account.subscription_of(bucket)
    cut = subscription is not None and bucket.grant_id in subscription.cut_short
    return [_lapse(account, bucket, CANCELLED if cut else EXPIRED, postings)]


def _lapse(account: Account, bucket: Bucket, status: str, postings: Postings) -> AccountEvent:
    """End a bucket and post its remaining liability as breakage revenue."""
    detail = str(bucket.plan_key)
    lapsed_pico = bucket.liability_pico
    moved = of_units(account, "breakage", bucket, 0, -lapsed_pico)
    bucket.status = status
    bucket.liability_pico = 0
    postings.post(
        account.currency,
        (ledger.CONTRACT_LIABILITY, detail, lapsed_pico),
        (ledger.REVENUE_BREAKAGE, detail, -lapsed_pico),
    )
    return bucket_ended(account, bucket, lapsed_pico, moved)


def _carry_on(account: Account, bucket: Bucket, plan: Plan, plan_of: PlanOf) -> None:
    """Make a bucket valid beyond its cycle, from its very end: what is left of it is there in the cycles to come.

    Late usage of its own cycle goes on burning it. Its remainder is carried over when the grace of its cycle is over.
    """
    cycles = _carries(account, bucket, plan)
    subscription = account.subscription_of(bucket)
    if plan.buckets[bucket.bucket_no - 1].every:
        ends_us = later_end_us(account, bucket, plan, subscription, cycles)
    elif subscription is None:
        ends_us = cycle_end_us(plan.cycle, bucket.valid_from_us, 1 + cycles)
    elif bucket.cycle_number >= subscription.anchor_cycle:
        ends_us = cycle_start(subscription, bucket.cycle_number + cycles + 1, plan_of)
    else:  # the subscription has changed to a plan with other cycles
        ends_us = cycle_end_us(plan.cycle, bucket.valid_until_us, cycles)
    bucket.valid_until_us = ends_us
    account.extras.expiry_alerts.pop(bucket.grant_id, None)


def _carry_over(
    account: Account, bucket: Bucket, plan: Plan, cycles: int, plan_of: PlanOf, postings: Postings
) -> AccountEvent:
    """Carry over a bucket's remainder for good: it expires with the last of ``cycles`` cycles.

    The remainder's liability stays, without that of what a maximum does not let be carried.
    """
    left_behind = leave_behind(account, bucket, plan.buckets[bucket.bucket_no - 1], postings)
    if not is_carried_on(bucket, plan):
        _carry_on(account, bucket, plan, plan_of)
    ends_us = bucket.valid_until_us
    bucket.carried_cycles = cycles
    bucket.lapse_at_us = lapse_us(plan, ends_us)
    return AccountEvent(
        account.account,
        "bucket.carried.v1",
        {
            "grant_id": bucket.grant_id,
            "plan": bucket.plan,
            "remaining_micro": bucket.remaining_micro,
            "valid_until_us": None if ends_us >= NO_END_US else ends_us,
        },
        () if left_behind is None else (left_behind,),
    )
