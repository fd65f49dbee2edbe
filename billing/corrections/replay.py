"""Replay of an account from its opening, as it was decided and as it would have been with usage corrected.

Timeline n is the account decided with the first n corrections applied from the beginning. It is what happened after
the n-th correction was made. Identical timelines are kept once; they are split at the usage that a correction names.
Irreversible facts are the same in all timelines, as they happened: issued bills, cash paid out, the status of the
account, alerts already sent. The resulting difference goes to the wallet. Never: SQL, Kafka, the clock.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

from billing import ledger
from billing.accounts.account import CANCELLED, NO_END_US, Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.command_context import MAX_WALLET_PICO, CommandContext, Message
from billing.accounts.deduction_order import PlanOf, sort_buckets
from billing.catalog.model import Catalog
from billing.corrections.history import AccountHistory, Identity, Step
from billing.decide.bill_usage import ROLLUP_SUMS, Billed, UsageRules, bill_usage
from billing.decide.carry_out import DecideCommand, carry_out
from billing.decide.roll_forward import next_due_us, roll_forward
from billing.ledger import Postings
from billing.log_time import DecidedAt
from billing.pricing.rate import Raters
from schemas.commands import ChangeSubscription, Command, CorrectUsage, PurchasePackage, StartSubscription, VoidUsage
from schemas.refusals import Refusal, Refused
from schemas.usage import UsageEvent

Sums: TypeAlias = dict[tuple[object, ...], list[int]]
_WAIVED_PICO = 2 * MAX_WALLET_PICO
_PAID_FOR = (PurchasePackage, StartSubscription, ChangeSubscription)
"""Commands that a wallet without money would refuse. They were accepted, so a replay carries them out regardless."""


class Conflict(Refused):
    """A later step cannot be decided again with the correction.

    The message is for a person. ``reason`` is ``correction_conflict``, or the rejection's reason if the corrected usage
    itself is rejected.
    """

    def __init__(self, detail: str, code: str = "correction_conflict") -> None:
        super().__init__(code, detail)


@dataclass(slots=True)
class Timeline:
    """Timelines ``first`` to ``last``, which are identical so far."""

    first: int
    last: int
    account: Account | None = None
    cash_pico: int = 0
    """Cash received from the account so far, minus cash paid out to it, in pico."""
    postings: Postings = field(default_factory=Postings)
    rollups: Sums = field(default_factory=lambda: defaultdict(lambda: [0] * len(ROLLUP_SUMS)))
    billed: dict[Identity, tuple[Billed, int] | None] = field(default_factory=dict)
    """Usage since the first split, with the offset of its record; None if it is voided."""
    events: dict[tuple[object, ...], list[AccountEvent]] = field(default_factory=lambda: defaultdict(list))
    """Account events by their subject (:func:`_about`)."""

    def part(self, number: int) -> "Timeline":
        """Split off the timelines from ``number`` on, as a copy."""
        other = replace(
            self,
            first=number,
            account=deepcopy(self.account),
            postings=deepcopy(self.postings),
            rollups=deepcopy(self.rollups),
            billed=dict(self.billed),
            events=deepcopy(self.events),
        )
        self.last = number - 1
        return other

    def tell(self, events: Sequence[AccountEvent]) -> None:
        """Record account events."""
        for event in events:
            self.events[_about(event)].append(event)

    def told_beyond(self, other: "Timeline") -> list[AccountEvent]:
        """Return the events that this timeline has beyond ``other``; surplus events of ``other`` stay published.

        What they moved is part of what the correction moves, so they do not tell it.
        """
        beyond = (
            event for about, events in self.events.items() for event in events[len(other.events.get(about, ())) :]
        )
        return [replace(event, movements=()) for event in beyond]


def _about(event: AccountEvent) -> tuple[object, ...]:
    """Return the subject of an event: its type and identifying fields, without amounts."""
    named = (
        "grant_id",
        "threshold_micro",
        "subscription_id",
        "cycle",
        "bill_id",
        "days",
        "commitment",
        "rule",
        "first_day",
    )
    return (event.type, *(event.data.get(name) for name in named))


class Replay:
    """Replay of one account's history with all its corrections and one more, ``correction``."""

    def __init__(self, history: AccountHistory, correction: Command, rule: DecideCommand) -> None:
        self._history = history
        self._rule = rule
        self._corrections = [step.item for step in history.steps if _corrects(step.item)] + [correction]
        self._edits: dict[Identity, list[tuple[int, CorrectUsage | None]]] = defaultdict(list)
        for number, command in enumerate(cast("list[Command]", self._corrections), 1):
            named = cast("VoidUsage | CorrectUsage", command.data)
            self._corrected: Identity = (named.source, named.id)
            self._edits[self._corrected].append((number, named if isinstance(named, CorrectUsage) else None))
        self._timelines = [Timeline(0, len(self._corrections))]
        self._made = 0
        """Count of corrections made before the current step."""
        self._rules: dict[int, UsageRules] = {}

    def run(self) -> tuple[Timeline, Timeline]:
        """Decide all steps and return the timeline without and with the last correction.

        Raises:
            Conflict: a later step cannot be decided again with a correction.
        """
        for step in self._history.steps:
            if _corrects(step.item):
                rules = self._rules_of(step.epoch)
                self.roll(step.at, rules.catalog, rules.plan_of)
                self.make_correction(rules.plan_of)
            elif isinstance(step.item, UsageEvent):
                self._part(step.item)
                self._decide(step)
            else:
                self._decide(step)
        return self._timelines[0], self._timelines[-1]

    def roll(self, at: DecidedAt, catalog: Catalog, plan_of: PlanOf) -> None:
        """Roll the accounts of the remaining timelines forward to ``at``."""
        for timeline in self._timelines:
            if timeline.account is not None:
                postings = Postings()
                timeline.tell(roll_forward(timeline.account, at.now_us, plan_of, postings, catalog, rules=at.rules))
                self._keep_facts(timeline, postings, plan_of)

    def make_correction(self, plan_of: PlanOf) -> None:
        """Make the next timeline the one that happened.

        Buckets that it lacks were published before, so they are kept with the status cancelled.
        """
        before = self._timelines[0].account
        self._made += 1
        self._timelines = [timeline for timeline in self._timelines if timeline.last >= self._made]
        for timeline in self._timelines:
            timeline.first = max(timeline.first, self._made)
            if timeline.account is not None and before is not None:
                _keep_names(timeline.account, before, plan_of)

    def _rules_of(self, epoch: int) -> UsageRules:
        rules = self._rules.get(epoch)
        if rules is None:
            catalog = self._history.catalogs[epoch]
            # What was rated, or is corrected to nothing, is known to be 0.
            raters = Raters(zero_is_known=True)
            rules = self._rules[epoch] = UsageRules(catalog, catalog.plans_by_key().__getitem__, raters)
        return rules

    def _part(self, event: UsageEvent) -> None:
        """Split the timelines at each correction of this usage."""
        for number, _ in self._edits.get((event.source, event.id), ()):
            for place, timeline in enumerate(self._timelines):
                if timeline.first < number <= timeline.last:
                    self._timelines.insert(place + 1, timeline.part(number))
                    break

    def _decide(self, step: Step) -> None:
        sent: list[Message] = []
        if isinstance(step.item, Command):
            # Before the command's rule: the command may pay a bill issued until then, in every timeline.
            rules = self._rules_of(step.epoch)
            self.roll(step.at, rules.catalog, rules.plan_of)
        for timeline in self._timelines:
            postings = Postings()
            if isinstance(step.item, Command):
                messages = self._carry_out(timeline, step, step.item, postings)
                if timeline is self._timelines[0]:
                    sent = messages
                elif messages != sent:
                    raise Conflict(f"what {_named(step.item)} sent to another account would be something else")
            else:
                self._bill(timeline, step, step.item, postings)
            self._keep_facts(timeline, postings, self._rules_of(step.epoch).plan_of)

    def _carry_out(self, timeline: Timeline, step: Step, command: Command, postings: Postings) -> list[Message]:
        rules = self._rules_of(step.epoch)
        done = carry_out(
            *(command, timeline.account, step.at, self._rule_again, rules.catalog, rules.plan_of),
            lambda _owner, _ref: False,
            postings,
            step.held,
            again=True,
        )
        if done.refusal is not None:
            raise Conflict(f"{_named(command)} would be refused: {done.refusal.detail}")
        timeline.account = done.account
        timeline.tell([*done.of_time, *done.events])
        return done.messages

    def _rule_again(self, context: CommandContext) -> Account | Refusal:
        """Apply the rule of a command that was accepted before.

        Its fee was paid, so the wallet of a timeline cannot refuse it: the credit limit is raised during the rule.
        Renewals that fall due by time are still checked against the wallet.
        """
        if context.account is None or not isinstance(context.command.data, _PAID_FOR):
            return self._rule(context)
        context.account.credit_limit_pico += _WAIVED_PICO
        decided = self._rule(context)
        if isinstance(decided, Account):
            decided.credit_limit_pico -= _WAIVED_PICO
        return decided

    def _bill(self, timeline: Timeline, step: Step, event: UsageEvent, postings: Postings) -> None:
        account, rules, identity = timeline.account, self._rules_of(step.epoch), (event.source, event.id)
        if account is None:
            raise Conflict(f"usage {event.id!r} came before the account was opened")
        made = [corrected for number, corrected in self._edits.get(identity, ()) if number <= timeline.first]
        last = made[-1] if made else None
        if made and last is None:
            if step.at.simulated:
                account.clock_us = step.at.now_us
            at = step.at
            timeline.tell(roll_forward(account, at.now_us, rules.plan_of, postings, rules.catalog, rules=at.rules))
            self._keep(timeline, identity, None)
            return
        if last is not None:
            event = replace(event, counts=last.usage, dialect=last.usage_dialect)
        billed = bill_usage(account, event, step.at, rules, postings)
        if not isinstance(billed, Billed):
            itself = identity == self._corrected
            raise Conflict(
                f"usage {event.id!r} of {event.source!r} would be rejected: {billed.detail}",
                *((billed.code,) if itself else ()),
            )
        timeline.tell(billed.events)
        self._keep(timeline, identity, (billed, step.offset))
        sums = timeline.rollups[billed.rollup_key]
        for place, value in enumerate(billed.rollup_sums):
            sums[place] += value

    def _keep(self, timeline: Timeline, identity: Identity, billed: tuple[Billed, int] | None) -> None:
        if len(self._timelines) > 1:  # before the first split the timelines cannot differ
            timeline.billed[identity] = billed

    def _keep_facts(self, timeline: Timeline, postings: Postings, plan_of: PlanOf) -> None:
        """Copy the irreversible facts from the timeline that happened, and add the postings of the step.

        The facts are issued bills, cash, bill terms, status and alerts sent. The wallet takes the difference.
        """
        happened, account = self._timelines[0], timeline.account
        timeline.cash_pico += _cash_pico(postings)
        if timeline is not happened and account is not None and happened.account is not None:
            fact = happened.account
            _owe(account, _issued_pico(fact) - _issued_pico(account), ledger.RECEIVABLES, postings)
            _owe(account, happened.cash_pico - timeline.cash_pico, ledger.CASH, postings)
            timeline.cash_pico = happened.cash_pico
            account.extras.bills = deepcopy(fact.extras.bills)
            account.extras.bill_terms = deepcopy(fact.extras.bill_terms)
            account.status = fact.status
            _keep_alerts(account, fact)
            account.next_due_us = next_due_us(account, plan_of)
        timeline.postings.merge(postings)


def _corrects(item: UsageEvent | Command) -> bool:
    return isinstance(item, Command) and isinstance(item.data, VoidUsage | CorrectUsage)


def _named(command: Command) -> str:
    return f"{command.type} {command.id!r} of {command.source!r}"


def _issued_pico(account: Account) -> int:
    return sum(bill.amount_pico for bill in account.extras.bills)


def _cash_pico(postings: Postings) -> int:
    return sum(line.amount_pico for line in postings.lines() if line.account_code == ledger.CASH)


def _owe(account: Account, amount_pico: int, code: str, postings: Postings) -> None:
    """Post the difference of a fact against the wallet: add ``amount_pico`` to it, with ``code`` as the other side."""
    if amount_pico:
        account.wallet_pico += amount_pico
        account.extras.gift_pico = max(0, min(account.extras.gift_pico, account.wallet_pico))
        postings.post(account.currency, (code, "", amount_pico), (ledger.CUSTOMER_DEPOSITS, "", -amount_pico))


def _keep_alerts(account: Account, fact: Account) -> None:
    """Mark the alerts already sent, so that they are not sent again."""
    given = {bucket.grant_id: bucket.alerts_fired for bucket in fact.buckets}
    for bucket in account.buckets:
        bucket.alerts_fired = max(bucket.alerts_fired, given.get(bucket.grant_id, 0))
    for grant_id, alerts in fact.extras.expiry_alerts.items():
        if any(bucket.grant_id == grant_id for bucket in account.buckets):
            account.extras.expiry_alerts[grant_id] = max(alerts, account.extras.expiry_alerts.get(grant_id, 0))


def _keep_names(account: Account, before: Account, plan_of: PlanOf) -> None:
    """Keep published buckets that the account no longer has: cancelled, unused, and valid for no usage."""
    known = {bucket.grant_id for bucket in account.buckets}
    for bucket in before.buckets:
        if bucket.grant_id in known:
            continue
        kept = deepcopy(bucket)
        kept.remaining_micro, kept.liability_pico, kept.status = kept.amount_micro, 0, CANCELLED
        kept.valid_until_us, kept.lapse_at_us = kept.valid_from_us, NO_END_US
        account.buckets.append(kept)
        for subscription in account.extras.subscriptions:
            if kept.grant == subscription.grant and not kept.is_pack:
                number = int(kept.grant_id.rpartition("/")[2])
                subscription.next_bucket = max(subscription.next_bucket, number + 1)
    sort_buckets(account, plan_of)
    account.next_due_us = next_due_us(account, plan_of)


def difference(
    before: Mapping[tuple[object, ...], Sequence[int]], after: Mapping[tuple[object, ...], Sequence[int]]
) -> Sums:
    """Return ``after`` minus ``before``, sum by sum; rows without any difference are left out."""
    found: Sums = {}
    for key in sorted(before.keys() | after.keys()):
        nothing = [0] * len(ROLLUP_SUMS)
        row = [new - old for old, new in zip(before.get(key, nothing), after.get(key, nothing), strict=True)]
        if any(row):
            found[key] = row
    return found
