"""The engine of one partition: input batches in, a complete ``CommitRecord`` out.

Owns: the order within a commit (commands, forwarded commands, usage, forwarded usage), forwarding and its numbers,
command identities, and loading of what a decision needs. Never: Kafka, SQL (a loader fetches what is missing), the
clock. The rules are elsewhere: for commands in ``billing.decide.command_rules``, for usage in a calculator.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from pydantic_core import PydanticCustomError

from billing.accounts.account import Account
from billing.accounts.command_context import CommandContext, Refusal
from billing.calculator.interface import Calculator, UsageBatch
from billing.catalog.model import Catalog
from billing.commits.commit_record import CommitRecord, Finding, PartitionState
from billing.commits.identities import HashHour
from billing.commits.input_batch import InputBatch, PositionMove
from billing.commits.output_documents import Stamp
from billing.corrections.correct import CORRECTION_POSTED, HISTORY_DIFFERS, correct
from billing.corrections.history import AccountHistory, HistoryUnavailable, Step
from billing.decide.carry_out import carry_out
from billing.decide.command_rules import decide
from billing.decide.roll_forward import roll_forward
from billing.engine.commit_draft import CommitDraft, forward_number
from billing.errors import BrokenInvariant
from billing.log_time import DecidedAt, TimeLimits, decided_at
from schemas.commands import CollectBill, Command, CorrectUsage, TopUpWallet, VoidUsage, parse_command
from schemas.fields import check_name
from schemas.rejections import Rejection
from schemas.routing import partition_of
from schemas.times import HOUR_US
from schemas.topics import COMMAND_FORWARDED_TOPIC, COMMAND_TOPIC, INPUT_TOPICS, USAGE_FORWARDED_TOPIC, USAGE_TOPIC

_CORRECTING = (VoidUsage.TYPE.encode(), CorrectUsage.TYPE.encode())
IDENTITY_MEMORY_BYTES = 512 << 20
"""Memory limit for identities of unnumbered sources in a worker that holds every partition, in bytes
(docs/reference/principles.md, "Identity")."""
ACCEPTED = "accepted"
UNKNOWN_SUBJECT = "unknown"
"""Subject of the outcome of a command that names no account, neither in its event nor in its record's key."""


class Loader(Protocol):
    """Source of stored data that a partition's memory lacks: ``billing.store.Store``, or memory in ``simulate``."""

    def load_accounts(self, ids: Sequence[str]) -> list[Account]:
        """Return the accounts among ``ids`` that exist."""

    def known_commands(self, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Return the outcomes of the commands among ``ids`` that were decided before, by (source, id)."""

    def known_payments(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return the (account, payment_ref) among ``pairs`` that were used before."""

    def load_hours(self, partition: int, hours: Sequence[int]) -> list[HashHour]:
        """Return all identities stored under these hours."""

    def histories(self, state: PartitionState, accounts: Sequence[str]) -> dict[str, AccountHistory]:
        """Return the known history of these accounts, from all commits of the partition so far.

        Raises:
            HistoryUnavailable: it cannot be read at present.
        """


class PartitionEngine:
    """One partition's memory and decisions. It is discarded after any failed or uncertain commit."""

    def __init__(
        self,
        state: PartitionState,
        catalog_epoch: int,
        catalog: Catalog,
        loader: Loader,
        calculator: Calculator,
        limits: TimeLimits | None = TimeLimits(),
        identity_memory_bytes: int = IDENTITY_MEMORY_BYTES,
    ) -> None:
        self._state = state
        self._catalog_epoch = catalog_epoch
        self._catalog = catalog
        self._loader = loader
        self._calculator = calculator
        self._limits = limits
        self._identity_bytes = identity_memory_bytes // state.partitions
        self._undecided: CommitRecord | None = None
        self._prepared: dict[str, AccountHistory] | HistoryUnavailable = {}
        calculator.load(state)
        calculator.set_catalog(catalog)
        self._plan_of = catalog.plans_by_key().__getitem__

    @property
    def positions(self) -> dict[str, int]:
        """The next offset of each input topic, after the commits so far."""
        return self._state.positions

    def continue_with(self, catalog_epoch: int, catalog: Catalog, limits: TimeLimits) -> None:
        """Use this catalogue and these limits from now on, for a replay of commits decided under several of them."""
        self._catalog_epoch, self._catalog, self._limits = catalog_epoch, catalog, limits
        self._plan_of = catalog.plans_by_key().__getitem__
        self._calculator.set_catalog(catalog)

    def prepare(self, batches: Sequence[InputBatch]) -> None:
        """Fetch the histories of accounts whose usage these batches correct, which may take seconds.

        The call is optional: without it :meth:`decide` fetches them.
        """
        named: list[Command] = []
        for batch in batches:
            if batch.topic in (COMMAND_TOPIC, COMMAND_FORWARDED_TOPIC):
                may_correct = (one for one in batch.records if any(mark in (one.value or b"") for mark in _CORRECTING))
                parsed = (parse_command(record.value, record.headers) for record in may_correct)
                named += [one for one in parsed if isinstance(one, Command)]
        known = self._loader.known_commands([(one.source, one.id) for one in named]) if named else {}
        self._prepared = {}
        self._prepared = self._histories(one for one in named if (one.source, one.id) not in known)

    def decide(self, batches: Sequence[InputBatch], due: Sequence[str] = ()) -> CommitRecord:
        """Decide the batches of one commit, in the order of ``INPUT_TOPICS``, each contiguous with its position.

        Accounts in ``due`` have a change that depends on time alone. They are rolled forward to the log time of the
        commit, as their next event would do first.

        Raises:
            BrokenInvariant: batches out of order or not contiguous, or the commit before was not confirmed.
        """
        if self._undecided is not None:
            raise BrokenInvariant("a commit was decided before the one before it was confirmed")
        draft = CommitDraft(self._state)
        log_time_us = self._state.log_time_us
        moves = self._moves(batches)
        for batch in batches:
            if batch.topic in (COMMAND_TOPIC, COMMAND_FORWARDED_TOPIC):
                log_time_us = self._apply_commands(batch, log_time_us, draft)
        for batch in batches:
            if batch.topic in (USAGE_TOPIC, USAGE_FORWARDED_TOPIC):
                log_time_us = self._apply_usage(batch, log_time_us, draft)
        self._roll(due, log_time_us, draft)
        self._undecided = self._record(moves, log_time_us, draft)
        return self._undecided

    def committed(self) -> None:
        """Confirm that the last decided record is committed in SQL, and advance to the next one.

        Raises:
            BrokenInvariant: no record was decided.
        """
        record = self._undecided
        if record is None:
            raise BrokenInvariant("nothing was decided that could have been committed")
        self._prepared = {}
        state = self._state
        state.commit_no = record.commit_no
        state.log_time_us = record.log_time_us
        state.positions.update((move.topic, move.end) for move in record.positions)
        state.next_sequences.update(record.next_sequences)
        state.forward_next.update(record.forward_next)
        state.forward_cursors.update(record.forward_cursors)
        self._undecided = None
        if self._limits is not None:
            self._bound_identities(record.log_time_us - self._limits.past_us)

    def _bound_identities(self, oldest_us: int) -> None:
        """Drop hours of identities that no acceptable event can fall in, and the oldest hours beyond the memory limit.

        A dropped hour is in SQL and is loaded again for an event of that hour, so the limit changes no decision.
        """
        held = self._calculator.hours_held()
        total_bytes = sum(held_bytes for _, held_bytes in held)
        for hour_us, held_bytes in held:
            if hour_us + HOUR_US > oldest_us and total_bytes <= self._identity_bytes:
                break
            self._calculator.drop_hour(hour_us)
            total_bytes -= held_bytes

    def roll_all(self, now_us: int) -> CommitRecord:
        """Roll every account in memory forward to ``now_us``, as a separate commit (the end of ``simulate``)."""
        draft = CommitDraft(self._state)
        self._roll(self._calculator.account_ids(), now_us, draft)
        self._undecided = self._record([], self._state.log_time_us, draft)
        return self._undecided

    def _roll(self, names: Sequence[str], now_us: int, draft: CommitDraft) -> None:
        self._load_accounts(names)
        for name in names:
            account = self._calculator.account(name)
            if account is not None and account.next_due_us <= now_us:
                draft.tell(roll_forward(account, now_us, self._plan_of, draft.postings, self._catalog))
                self._calculator.put_account(account, stored=False)

    def _moves(self, batches: Sequence[InputBatch]) -> list[PositionMove]:
        order = [INPUT_TOPICS.index(batch.topic) for batch in batches]
        if order != sorted(order):
            raise BrokenInvariant(f"batches out of order: {[batch.topic for batch in batches]}")
        next_offsets: dict[str, int] = {}
        moves: dict[str, PositionMove] = {}
        for batch in batches:
            expected = next_offsets.get(batch.topic, self._state.positions.get(batch.topic, 0))
            if batch.start != expected or batch.end - batch.start != len(batch.records):
                raise BrokenInvariant(
                    f"{batch.topic}[{self._state.partition}]: records {batch.start} to {batch.end} "
                    f"({len(batch.records)} of them) do not follow position {expected}"
                )
            first = moves[batch.topic].start if batch.topic in moves else batch.start
            moves[batch.topic] = PositionMove(batch.topic, first, batch.end)
            next_offsets[batch.topic] = batch.end
        return list(moves.values())

    # Commands

    def _apply_commands(self, batch: InputBatch, log_time_us: int, draft: CommitDraft) -> int:
        records = draft.undropped(batch, "commands_dropped")
        forwarded = batch.topic == COMMAND_FORWARDED_TOPIC
        parsed = [
            parse_command(record.value, record.headers, messages=forwarded and forward_number(record) is not None)
            for record in records
        ]
        mine = [
            command
            for command in parsed
            if isinstance(command, Command) and self._target(command.account) == self._state.partition
        ]
        self._load_accounts(command.account for command in mine)
        known = self._loader.known_commands([(command.source, command.id) for command in mine])
        known.update(((source, id_), outcome) for source, id_, outcome in draft.commands_seen)
        histories = self._histories(command for command in mine if (command.source, command.id) not in known)
        refs = [
            (command.account, command.data.payment_ref)
            for command in mine
            if isinstance(command.data, TopUpWallet | CollectBill)
        ]
        payments = self._loader.known_payments(refs) | set(draft.payments)
        for record, command in zip(records, parsed, strict=True):
            log_time_us = max(log_time_us, record.timestamp * 1000)
            if isinstance(command, Rejection):
                draft.counts.commands_rejected += 1
                subject = command.account or _name_in(record.key) or UNKNOWN_SUBJECT
                draft.outcome(subject, command, None, command.reason, command.detail)
                continue
            target = self._target(command.account)
            if target != self._state.partition:
                draft.forward(batch.topic, record, target)
                draft.counts.commands_forwarded += 1
            elif (command.source, command.id) in known:
                draft.counts.commands_duplicate += 1
            elif self._apply_command(command, log_time_us, payments, histories, draft):
                known[command.source, command.id] = ACCEPTED
                draft.commands_seen.append((command.source, command.id, ACCEPTED))
        return log_time_us

    def _apply_command(
        self,
        command: Command,
        log_time_us: int,
        payments: set[tuple[str, str]],
        histories: dict[str, AccountHistory] | HistoryUnavailable,
        draft: CommitDraft,
    ) -> bool:
        """Decide one command and return True if it is accepted.

        Only an accepted command occupies its identity. A refused one may be sent again and accepted later
        (docs/reference/account-commands.md).
        """
        account = self._calculator.account(command.account)
        now_us = log_time_us
        if self._limits is None:
            now_us = max(command.time_us, account.clock_us if account else 0)
        at = decided_at(now_us, self._limits)

        def rule(scene: CommandContext) -> Account | Refusal:
            if isinstance(command.data, VoidUsage | CorrectUsage):
                return self._correct(scene, at, histories, draft)
            return decide(scene)

        done = carry_out(
            command,
            account,
            at,
            rule,
            self._catalog,
            self._plan_of,
            lambda owner, ref: (owner, ref) in payments,
            draft.postings,
        )
        draft.tell(done.of_time)
        for message in done.messages:
            draft.send(message, now_us)
        if done.account is not None:
            self._calculator.put_account(done.account, stored=False)
        if done.refusal is not None:
            draft.counts.commands_rejected += 1
            draft.outcome(command.account, command, command.type, done.refusal.reason, done.refusal.detail)
            return False
        draft.counts.commands_accepted += 1
        if isinstance(command.data, TopUpWallet | CollectBill):
            payments.add((command.account, command.data.payment_ref))
            draft.payments.append((command.account, command.data.payment_ref))
        draft.accepted[command.account].append(Step(self._catalog_epoch, at, command))
        draft.outcome(command.account, command, command.type, None, None)
        draft.tell(done.events)
        return True

    def _histories(self, commands: Iterable[Command]) -> dict[str, AccountHistory] | HistoryUnavailable:
        """Return the histories, up to this commit, of the accounts whose usage the commands correct."""
        if isinstance(self._prepared, HistoryUnavailable):
            return self._prepared
        wanted = {one.account for one in commands if isinstance(one.data, VoidUsage | CorrectUsage)}
        names = sorted(name for name in wanted - self._prepared.keys() if self._target(name) == self._state.partition)
        try:
            return self._prepared | (self._loader.histories(self._state, names) if names else {})
        except HistoryUnavailable as error:
            return error

    def _correct(
        self,
        scene: CommandContext,
        at: DecidedAt,
        histories: dict[str, AccountHistory] | HistoryUnavailable,
        draft: CommitDraft,
    ) -> Account | Refusal:
        """Void or correct usage; add its postings, rollups, events and findings to the commit."""
        name = scene.command.account
        if scene.account is None:
            return Refusal("unknown_account", f"account {name!r} was never opened")
        if isinstance(histories, HistoryUnavailable):
            return Refusal(histories.reason, str(histories))
        known = histories.get(name)
        if known is None:
            return Refusal("history_unavailable", f"what was decided for account {name!r} is not known here")
        catalogs = {**known.catalogs, self._catalog_epoch: self._catalog}
        history = AccountHistory([*known.steps, *draft.accepted[name]], catalogs)
        corrected = correct(scene.command, scene.account, history, at, decide, self._catalog, self._plan_of)
        if isinstance(corrected, Refusal):
            if corrected.reason == HISTORY_DIFFERS:
                draft.findings.append(Finding(HISTORY_DIFFERS, corrected.detail))
            return corrected
        scene.postings.merge_lines(corrected.postings)
        scene.events += corrected.events
        draft.rollups += corrected.rollups
        draft.posted += [(name, CORRECTION_POSTED, {"account": name} | data) for data in corrected.outcomes]
        return corrected.account

    # Usage

    def _apply_usage(self, batch: InputBatch, log_time_us: int, draft: CommitDraft) -> int:
        state, calculator = self._state, self._calculator
        records = draft.undropped(batch, "dropped")
        usage = UsageBatch(state.partition, state.partitions, records, log_time_us, self._limits)
        decoded = calculator.decode(usage)
        missing = calculator.missing_accounts(decoded)
        if missing:
            self._put_accounts(missing)
        hours = calculator.missing_hours(decoded)
        if hours:
            stored = self._loader.load_hours(state.partition, hours)
            for hour_us in hours:
                calculator.put_hour(hour_us, [part for part in stored if part.hour_us == hour_us])
        outcome = calculator.apply(decoded)
        for index, target in outcome.forwarded:
            draft.forward(batch.topic, records[index], target)
        for index, rejection in outcome.rejected:
            draft.reject(batch.topic, records[index], rejection)
        counts = draft.counts
        counts.rated += outcome.rated
        counts.duplicate += outcome.duplicate
        counts.rejected += len(outcome.rejected)
        counts.forwarded += len(outcome.forwarded)
        draft.tell(outcome.account_events)
        draft.findings += outcome.findings
        draft.reservations += outcome.reservations
        return outcome.log_time_us

    # Shared by commands and usage

    def _target(self, account: str) -> int:
        return partition_of(account, self._state.partitions)

    def _load_accounts(self, names: Iterable[str]) -> None:
        missing = sorted({name for name in names if self._calculator.account(name) is None})
        if missing:
            self._put_accounts(missing)

    def _put_accounts(self, names: Sequence[str]) -> None:
        for account in self._loader.load_accounts(names):
            self._calculator.put_account(account, stored=True)

    def _record(self, moves: list[PositionMove], log_time_us: int, draft: CommitDraft) -> CommitRecord:
        stamp = Stamp(self._state.partition, self._state.commit_no + 1, log_time_us)
        return draft.record(self._calculator.take_effects(stamp), stamp, moves, self._catalog_epoch, self._limits)


def _name_in(key: bytes | None) -> str | None:
    """Return the account that a record's key names, or None if the key is not a valid name."""
    try:
        return check_name((key or b"").decode())
    except (UnicodeDecodeError, PydanticCustomError):
        return None
