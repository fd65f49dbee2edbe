"""Decides an account again from its opening, as it was decided and as it would have been with usage corrected.

A *timeline* is the account with the first n corrections made from the beginning; timeline n is what happened from the
n-th correction on. Timelines that are alike are kept once and part where a correction names the usage. What cannot be
taken back is the same in all of them, as it happened: bills that were issued, cash that was paid out, the standing of
the account, alerts that were given. What differs because of that goes to the wallet. Never: SQL, Kafka, the clock.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

from billing import ledger
from billing.accounts.account import CANCELLED, NO_END_US, Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.command_context import WALLET_MAX_PICO, CommandContext, Message
from billing.accounts.deduction_order import PlanOf, sort_buckets
from billing.catalog.model import Catalog
from billing.corrections.history import AccountHistory, Identity, Step
from billing.decide.bill_usage import ROLLUP_SUMS, Billed, UsageRules, bill_usage
from billing.decide.carry_out import Rule, carry_out
from billing.decide.roll_forward import next_due_us, roll_forward
from billing.ledger import Postings
from billing.log_time import DecidedAt
from billing.pricing.rate import Raters
from schemas.commands import ChangeSubscription, Command, CorrectUsage, PurchasePackage, StartSubscription, VoidUsage
from schemas.refusals import Refusal, Refused
from schemas.usage import UsageEvent

Counts: TypeAlias = tuple[tuple[str, int], ...]
Sums: TypeAlias = dict[tuple[object, ...], list[int]]
_WAIVED_PICO = 2 * WALLET_MAX_PICO
_PAID_FOR = (PurchasePackage, StartSubscription, ChangeSubscription)
"""Commands that a wallet that cannot pay would refuse; these were accepted, so they are carried out all the same."""


class Conflict(Refused):
    """What happened afterwards cannot be decided again with the correction: a sentence for a person, and the reason
    where it is the corrected usage itself that is rejected."""

    def __init__(self, detail: str, code: str = "correction_conflict") -> None:
        super().__init__(code, detail)


@dataclass(slots=True)
class Timeline:
    """One or several timelines that are alike so far: of the first ``first`` to ``last`` corrections."""

    first: int
    last: int
    account: Account | None = None
    cash_pico: int = 0
    """What the account ever brought in cash, less what it was paid."""
    postings: Postings = field(default_factory=Postings)
    rollups: Sums = field(default_factory=lambda: defaultdict(lambda: [0] * len(ROLLUP_SUMS)))
    billed: dict[Identity, tuple[Billed, int] | None] = field(default_factory=dict)
    """Usage since the first timelines parted, and the offset of its record; None where it is voided."""
    events: dict[tuple[object, ...], list[AccountEvent]] = field(default_factory=lambda: defaultdict(list))
    """What was told, by what it is about."""

    def part(self, number: int) -> "Timeline":
        """Those from ``number`` on, as timelines of their own."""
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
        """Remember what was told."""
        for event in events:
            self.events[_about(event)].append(event)

    def told_beyond(self, other: "Timeline") -> list[AccountEvent]:
        """What was told here and not there; what was told there more often than here cannot be taken back."""
        return [event for about, events in self.events.items() for event in events[len(other.events.get(about, ())) :]]


def _about(event: AccountEvent) -> tuple[object, ...]:
    """What an event is about, whatever its figures are."""
    named = ("grant_id", "threshold_micro", "subscription_id", "cycle", "bill_id", "days", "commitment", "first_day")
    return (event.type, *(event.data.get(name) for name in named))


class Replay:
    """An account's history with ``corrections`` made, the last of which is the one in question."""

    def __init__(self, history: AccountHistory, correction: Command, rule: Rule) -> None:
        self._history = history
        self._rule = rule
        self._corrections = [step.item for step in history.steps if _corrects(step.item)] + [correction]
        self._edits: dict[Identity, list[tuple[int, Counts | None]]] = defaultdict(list)
        for number, command in enumerate(cast("list[Command]", self._corrections), 1):
            named = cast("VoidUsage | CorrectUsage", command.data)
            counts = named.usage if isinstance(named, CorrectUsage) else None
            self._corrected: Identity = (named.source, named.id)
            self._edits[self._corrected].append((number, counts))
        self._timelines = [Timeline(0, len(self._corrections))]
        self._made = 0
        """Corrections that were made by the step that is decided."""
        self._rules: dict[int, UsageRules] = {}

    def run(self) -> tuple[Timeline, Timeline]:
        """The account as it is, and as it is with the last correction, each after the last step.

        Raises:
            Conflict: something that happened afterwards cannot have happened so.
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
        """Let time pass in the timelines that are left."""
        for timeline in self._timelines:
            if timeline.account is not None:
                postings = Postings()
                timeline.tell(roll_forward(timeline.account, at.now_us, plan_of, postings, catalog))
                self._keep_facts(timeline, postings, plan_of)

    def make_correction(self, plan_of: PlanOf) -> None:
        """From here on the next timeline is what happened; buckets that are not in it were published, so they stay,
        cancelled."""
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
            rules = self._rules[epoch] = UsageRules(catalog, catalog.plans_by_key().__getitem__, Raters())
        return rules

    def _part(self, event: UsageEvent) -> None:
        """Part the timelines between which a correction of this usage lies."""
        for number, _ in self._edits.get((event.source, event.id), ()):
            for place, timeline in enumerate(self._timelines):
                if timeline.first < number <= timeline.last:
                    self._timelines.insert(place + 1, timeline.part(number))
                    break

    def _decide(self, step: Step) -> None:
        sent: list[Message] = []
        if isinstance(step.item, Command):
            # Before its rule: a bill that was issued on the way can be paid by it, in every timeline.
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
        )
        if done.refusal is not None:
            raise Conflict(f"{_named(command)} would be refused: {done.refusal.detail}")
        timeline.account = done.account
        timeline.tell([*done.of_time, *done.events])
        return done.messages

    def _rule_again(self, scene: CommandContext) -> Account | Refusal:
        """The rule of a command that was accepted before: its fee was paid, whatever the wallet holds here. What time
        brings asks the wallet as ever."""
        if scene.account is None or not isinstance(scene.command.data, _PAID_FOR):
            return self._rule(scene)
        scene.account.credit_limit_pico += _WAIVED_PICO
        decided = self._rule(scene)
        if isinstance(decided, Account):
            decided.credit_limit_pico -= _WAIVED_PICO
        return decided

    def _bill(self, timeline: Timeline, step: Step, event: UsageEvent, postings: Postings) -> None:
        account, rules, identity = timeline.account, self._rules_of(step.epoch), (event.source, event.id)
        if account is None:
            raise Conflict(f"usage {event.id!r} came before the account was opened")
        counts: Counts | None = event.counts
        for number, corrected in self._edits.get(identity, ()):
            if number <= timeline.first:
                counts = corrected
        if counts is None:
            if step.at.simulated:
                account.clock_us = step.at.now_us
            timeline.tell(roll_forward(account, step.at.now_us, rules.plan_of, postings, rules.catalog))
            self._keep(timeline, identity, None)
            return
        event = event if counts is event.counts else replace(event, counts=counts)
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
        if len(self._timelines) > 1:  # before that it is the same in all of them
            timeline.billed[identity] = billed

    def _keep_facts(self, timeline: Timeline, postings: Postings, plan_of: PlanOf) -> None:
        """Take over from what happened what cannot be taken back, and keep the lines of the step."""
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
        timeline.postings.merge_lines(postings.lines())


def _corrects(item: UsageEvent | Command) -> bool:
    return isinstance(item, Command) and isinstance(item.data, VoidUsage | CorrectUsage)


def _named(command: Command) -> str:
    return f"{command.type} {command.id!r} of {command.source!r}"


def _issued_pico(account: Account) -> int:
    return sum(bill.amount_pico for bill in account.extras.bills)


def _cash_pico(postings: Postings) -> int:
    return sum(line.amount_pico for line in postings.lines() if line.account_code == ledger.CASH)


def _owe(account: Account, amount_pico: int, code: str, postings: Postings) -> None:
    """Put into the wallet, or take out of it, what a fact differs by."""
    if amount_pico:
        account.wallet_pico += amount_pico
        account.extras.gift_pico = max(0, min(account.extras.gift_pico, account.wallet_pico))
        postings.post(account.currency, (code, "", amount_pico), (ledger.CUSTOMER_DEPOSITS, "", -amount_pico))


def _keep_alerts(account: Account, fact: Account) -> None:
    """An alert that was given is not given again."""
    given = {bucket.grant_id: bucket.alerts_fired for bucket in fact.buckets}
    for bucket in account.buckets:
        bucket.alerts_fired = max(bucket.alerts_fired, given.get(bucket.grant_id, 0))
    for grant_id, alerts in fact.extras.expiry_alerts.items():
        if any(bucket.grant_id == grant_id for bucket in account.buckets):
            account.extras.expiry_alerts[grant_id] = max(alerts, account.extras.expiry_alerts.get(grant_id, 0))


def _keep_names(account: Account, before: Account, plan_of: PlanOf) -> None:
    """Buckets that were published and are not there any more stay: cancelled, whole, for no usage at all."""
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
    """What ``after`` has more than ``before``, sum by sum; only what is not zero."""
    found: Sums = {}
    for key in sorted(before.keys() | after.keys()):
        nothing = [0] * len(ROLLUP_SUMS)
        row = [new - old for old, new in zip(before.get(key, nothing), after.get(key, nothing), strict=True)]
        if any(row):
            found[key] = row
    return found
