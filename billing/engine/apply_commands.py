"""Application of the account commands of a commit, in log order: one decision and one outcome per command.

Never: a rule of a command (:mod:`billing.decide.command_rules`), SQL, Kafka, the clock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pydantic_core import PydanticCustomError

from billing.accounts.account import Account
from billing.accounts.command_context import CommandContext
from billing.accounts.held import NO_HOLDS
from billing.calculator.interface import Calculator
from billing.catalog.model import Catalog
from billing.commits.commit_record import ACCEPTED, Finding, PartitionState
from billing.commits.input_batch import InputBatch, Record
from billing.corrections.correct import CORRECTION_POSTED, HISTORY_DIFFERS, correct
from billing.corrections.history import AccountHistory, Step
from billing.decide.carry_out import READ_NO_HOLDS, carry_out
from billing.decide.command_rules import decide
from billing.engine.commit_draft import CommitDraft
from billing.engine.loader import Loader, load_missing
from billing.engine.open_accounts import OpenAccounts
from billing.ledger import Postings
from billing.log_time import DecidedAt, TimeLimits, decided_at, rules_of
from billing.record_keys import RecordKeys, forged, own_fault, read_forward
from schemas.commands import CollectBill, Command, CorrectUsage, TopUpWallet, VoidUsage, parse_command
from schemas.fields import check_name
from schemas.refusals import Refusal, record_refusal
from schemas.routing import partition_of
from schemas.sources import is_own
from schemas.topics import COMMAND_FORWARDED_TOPIC, COMMAND_TOPIC

_CORRECTING = (VoidUsage.TYPE.encode(), CorrectUsage.TYPE.encode())
UNKNOWN_SUBJECT = "unknown"
"""Subject of the outcome of a command that names no account, neither in its event nor in its record's key."""


class CommandApplier:
    """Applier of commands to the accounts of one partition; it keeps the histories that corrections need."""

    def __init__(self, state: PartitionState, loader: Loader, calculator: Calculator) -> None:
        self._state = state
        self._loader = loader
        self._calculator = calculator
        self._prepared: dict[str, AccountHistory] | Refusal = {}
        self._open = OpenAccounts(calculator)

    def decide_by(self, catalog_epoch: int, catalog: Catalog, limits: TimeLimits | None) -> None:
        """Use this catalogue and these limits from now on."""
        self._catalog_epoch, self._catalog, self._limits = catalog_epoch, catalog, limits
        self._plan_of = catalog.plans_by_key().__getitem__

    def prepare(self, batches: Sequence[InputBatch]) -> None:
        """Read the histories of the accounts whose usage these batches correct, which may take seconds.

        Optional: :meth:`apply` reads what was not prepared.
        """
        named: list[Command] = []
        for batch in batches:
            if batch.topic in (COMMAND_TOPIC, COMMAND_FORWARDED_TOPIC):
                keys = self._loader.record_keys()
                may_correct = (one for one in batch.records if any(mark in (one.value or b"") for mark in _CORRECTING))
                if batch.topic == COMMAND_FORWARDED_TOPIC:
                    here = self._state.partition
                    may_correct = (
                        one for one in may_correct if not isinstance(read_forward(keys, batch.topic, here, one), str)
                    )
                parsed = [_read(keys, batch.topic, record) for record in may_correct]
                named += [one for one, _ in parsed if isinstance(one, Command)]
        known = self._loader.known_commands([(one.source, one.id) for one in named]) if named else {}
        self._prepared = {}
        self._prepared = self._histories(one for one in named if (one.source, one.id) not in known)

    def forget_prepared(self) -> None:
        """Drop the prepared histories, because a commit has made them stale."""
        self._prepared = {}

    def apply(self, batch: InputBatch, log_time_us: int, draft: CommitDraft) -> int:
        """Apply a batch of commands to the accounts and the draft; return the log time after it."""
        records = draft.records_to_apply(batch, "commands_")
        parsed: list[Command | Refusal] = []
        for record in records:
            command, foreign = _read(draft.keys, batch.topic, record)
            parsed.append(command)
            if foreign is not None:
                draft.forged(batch.topic, record, foreign)
        mine = [
            command
            for command in parsed
            if isinstance(command, Command) and self._target(command.account) == self._state.partition
        ]
        load_missing(self._loader, self._calculator, (command.account for command in mine))
        known = self._loader.known_commands([(command.source, command.id) for command in mine])
        known.update(((source, id_), outcome) for source, id_, outcome in draft.commands_seen)
        histories = self._histories(command for command in mine if (command.source, command.id) not in known)
        self._read_holds(draft, (command for command in mine if (command.source, command.id) not in known))
        refs = [
            (command.account, command.data.payment_ref)
            for command in mine
            if isinstance(command.data, TopUpWallet | CollectBill)
        ]
        payments = self._loader.known_payments(refs) | set(draft.payments)
        self._open = OpenAccounts(self._calculator)
        for record, command in zip(records, parsed, strict=True):
            log_time_us = max(log_time_us, record.timestamp * 1000)
            if isinstance(command, Refusal):
                draft.counts.commands_rejected += 1
                subject = command.account or _name_in(record.key) or UNKNOWN_SUBJECT
                draft.outcome(subject, command, None, command.code, command.detail)
                continue
            target = self._target(command.account)
            if target != self._state.partition:
                draft.forward(batch.topic, record, target)
                draft.counts.commands_forwarded += 1
            elif (command.source, command.id) in known:
                draft.counts.commands_duplicate += 1
            elif self._apply_command(command, batch.topic, record, log_time_us, payments, histories, draft):
                known[command.source, command.id] = ACCEPTED
                draft.commands_seen.append((command.source, command.id, ACCEPTED))
        self._open.close()
        return log_time_us

    def _apply_command(
        self,
        command: Command,
        topic: str,
        record: Record,
        log_time_us: int,
        payments: set[tuple[str, str]],
        histories: dict[str, AccountHistory] | Refusal,
        draft: CommitDraft,
    ) -> bool:
        """Decide one command and return True if it is accepted.

        Only an accepted command occupies its identity. A refused one may be sent again and accepted later
        (docs/reference/account-commands.md, "Identity and order").
        """
        account = self._open.account(command.account)
        held = draft.held.get(command.account, NO_HOLDS)
        now_us = log_time_us
        if self._limits is None:
            now_us = max(command.time_us, account.clock_us if account else 0)
        at = decided_at(now_us, self._limits)
        quick = not held.holds and self._open.prepare(account, command.data, now_us)

        def rule(context: CommandContext) -> Account | Refusal:
            if isinstance(command.data, VoidUsage | CorrectUsage):
                return self._correct(context, at, histories, draft)
            return decide(context)

        postings = Postings()
        done = carry_out(
            command,
            account,
            at,
            rule,
            self._catalog,
            self._plan_of,
            lambda owner, ref: (owner, ref) in payments,
            postings,
            held,
        )
        draft.postings.merge(postings, command.account)
        draft.add_events(done.of_time)
        for message in done.messages:
            draft.send(message, now_us, topic, record)
        if done.account is not None:
            self._open.put(done.account, quick)
        if done.refusal is not None:
            draft.counts.commands_rejected += 1
            draft.outcome(command.account, command, command.type, done.refusal.code, done.refusal.detail)
            return False
        draft.counts.commands_accepted += 1
        if isinstance(command.data, TopUpWallet | CollectBill):
            payments.add((command.account, command.data.payment_ref))
            draft.payments.append((command.account, command.data.payment_ref))
        draft.accepted[command.account].append(Step(self._catalog_epoch, at, command, held=held))
        draft.took(command.account, done.limit)
        draft.outcome(command.account, command, command.type, None, None, done.movements)
        draft.add_events(done.events)
        return True

    def _read_holds(self, draft: CommitDraft, commands: Iterable[Command]) -> None:
        """Read what is held of the accounts that these commands may take from."""
        named = {one.account for one in commands if not isinstance(one.data, READ_NO_HOLDS)} - draft.held.keys()
        if named:
            found = self._loader.held(sorted(named), self._calculator.account, self._catalog)
            draft.held.update((name, found.get(name, NO_HOLDS)) for name in named)

    def _histories(self, commands: Iterable[Command]) -> dict[str, AccountHistory] | Refusal:
        """Return the histories, up to this commit, of the accounts whose usage the commands correct."""
        if isinstance(self._prepared, Refusal):
            return self._prepared
        wanted = {one.account for one in commands if isinstance(one.data, VoidUsage | CorrectUsage)}
        names = sorted(name for name in wanted - self._prepared.keys() if self._target(name) == self._state.partition)
        found = self._loader.histories(self._state, names) if names else {}
        return found if isinstance(found, Refusal) else self._prepared | found

    def _correct(
        self,
        context: CommandContext,
        at: DecidedAt,
        histories: dict[str, AccountHistory] | Refusal,
        draft: CommitDraft,
    ) -> Account | Refusal:
        """Void or correct usage; add its postings, rollups, events and findings to the commit."""
        name = context.command.account
        if context.account is None:
            return Refusal("unknown_account", f"account {name!r} was never opened")
        if isinstance(histories, Refusal):
            return histories
        known = histories.get(name)
        if known is None:
            return Refusal("history_unavailable", f"what was decided for account {name!r} is not known here")
        catalogs = {**known.catalogs, self._catalog_epoch: self._catalog}
        rules = known.rules.followed_by(rules_of(self._limits).now, self._state.log_time_us)
        mine = (replace(step, at=step.at._replace(rules=rules)) for step in draft.accepted[name])
        history = AccountHistory([*known.steps, *mine], catalogs, rules)
        corrected = correct(context.command, context.account, history, at, decide, self._catalog, self._plan_of)
        if isinstance(corrected, Refusal):
            if corrected.code == HISTORY_DIFFERS:
                draft.findings.append(Finding(HISTORY_DIFFERS, corrected.detail))
            return corrected
        context.postings.merge_lines(corrected.postings)
        context.events += corrected.events
        draft.rollups += corrected.rollups
        draft.corrections += [(name, CORRECTION_POSTED, {"account": name} | data) for data in corrected.outcomes]
        return corrected.account

    def _target(self, account: str) -> int:
        return partition_of(account, self._state.partitions)


def _name_in(key: bytes | None) -> str | None:
    """Return the account that a record's key names, or None if the key is not a valid name."""
    try:
        return check_name((key or b"").decode())
    except (UnicodeDecodeError, PydanticCustomError):
        return None


def _read(keys: RecordKeys, topic: str, record: Record) -> tuple[Command | Refusal, str | None]:
    """Return the command of a record, and the detail of the finding if its source is own and nothing proves it.

    Such a record is refused. Its outcome names no command: the identity in the record belongs to another one.
    """
    forwarded = topic == COMMAND_FORWARDED_TOPIC
    command = parse_command(record.value, record.headers, messages=forwarded)
    if forwarded or not is_own(command.source):
        return command, None
    fault = own_fault(keys, topic, record)
    if fault is None:
        return command, None
    detail = forged(fault, command.source, command.id, command.account).detail
    return record_refusal("invalid_event", detail, account=command.account), f"id {command.id!r}, {detail}"
