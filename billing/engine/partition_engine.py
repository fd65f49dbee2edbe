"""The engine of one partition: input batches in, a complete ``CommitRecord`` out.

Owns: the order within a commit (commands, forwarded commands, usage, forwarded usage), forwarding and its numbers,
command identities, and loading of what a decision needs. Never: Kafka, SQL (a loader fetches what is missing), the
clock. The rules are elsewhere: for commands in ``billing.decide.command_rules``, for usage in a calculator.
"""

from collections.abc import Mapping, Sequence

from billing.calculator.interface import Calculator, OwnCheck, UsageBatch
from billing.catalog.model import Catalog
from billing.commits.commit_record import CommitRecord, PartitionState
from billing.commits.input_batch import InputBatch, PositionMove, Record
from billing.commits.output_documents import Stamp
from billing.decide.roll_forward import roll_forward
from billing.engine.apply_commands import CommandApplier
from billing.engine.commit_draft import CommitDraft
from billing.engine.loader import Loader, load_accounts, load_missing
from billing.errors import BrokenInvariant
from billing.ledger import Postings
from billing.log_time import TimeLimits
from billing.record_keys import own_fault
from schemas.times import HOUR_US
from schemas.topics import COMMAND_FORWARDED_TOPIC, COMMAND_TOPIC, INPUT_TOPICS, USAGE_FORWARDED_TOPIC, USAGE_TOPIC

IDENTITY_MEMORY_BYTES = 512 << 20
"""Memory limit for identities of unnumbered sources in a worker that holds every partition, in bytes
(docs/reference/principles.md, "Identity")."""


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
        self._loader = loader
        self._calculator = calculator
        self._identity_bytes = identity_memory_bytes // state.partitions
        self._undecided: CommitRecord | None = None
        self._commands = CommandApplier(state, loader, calculator)
        calculator.load(state)
        self._decide_by(catalog_epoch, catalog, limits)

    def _decide_by(self, catalog_epoch: int, catalog: Catalog, limits: TimeLimits | None) -> None:
        self._catalog_epoch, self._catalog, self._limits = catalog_epoch, catalog, limits
        self._plan_of = catalog.plans_by_key().__getitem__
        self._calculator.set_catalog(catalog)
        self._commands.decide_by(catalog_epoch, catalog, limits)

    @property
    def positions(self) -> dict[str, int]:
        """The next offset of each input topic, after the commits so far."""
        return self._state.positions

    def continue_with(self, catalog_epoch: int, catalog: Catalog, limits: TimeLimits) -> None:
        """Use this catalogue and these limits from now on, for a replay of commits decided under several of them."""
        self._decide_by(catalog_epoch, catalog, limits)

    def accept_forwards(self, next_numbers: Mapping[tuple[str, int], int]) -> None:
        """Take these forward numbers, by (topic, origin), as next: those before them are given up."""
        self._state.forward_cursors.update(next_numbers)

    def prepare(self, batches: Sequence[InputBatch]) -> None:
        """Read data of these batches that may take seconds to read. Optional: :meth:`decide` reads what is missing."""
        self._commands.prepare(batches)

    def decide(self, batches: Sequence[InputBatch], due: Sequence[str] = ()) -> CommitRecord:
        """Decide the batches of one commit, in the order of ``INPUT_TOPICS``, each contiguous with its position.

        Accounts in ``due`` have a change that depends on time alone. They are rolled forward to the log time of the
        commit, as their next event would do first.

        Raises:
            BrokenInvariant: batches out of order or not contiguous, or the commit before was not confirmed.
            ForwardLost: a forwarded record is missing.
        """
        if self._undecided is not None:
            raise BrokenInvariant("a commit was decided before the one before it was confirmed")
        draft = CommitDraft(self._state, self._loader.record_keys())
        log_time_us = self._state.log_time_us
        moves = self._moves(batches)
        for batch in batches:
            if batch.topic in (COMMAND_TOPIC, COMMAND_FORWARDED_TOPIC):
                log_time_us = self._commands.apply(batch, log_time_us, draft)
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
        self._commands.forget_prepared()
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
        draft = CommitDraft(self._state, self._loader.record_keys())
        self._roll(self._calculator.account_ids(), now_us, draft)
        self._undecided = self._record([], self._state.log_time_us, draft)
        return self._undecided

    def _roll(self, names: Sequence[str], now_us: int, draft: CommitDraft) -> None:
        load_missing(self._loader, self._calculator, names)
        for name in names:
            account = self._calculator.account(name)
            if account is not None and account.next_due_us <= now_us:
                postings = Postings()
                draft.add_events(roll_forward(account, now_us, self._plan_of, postings, self._catalog))
                draft.postings.merge_lines(postings.lines(), name)
                self._calculator.put_account(account, stored=False)

    def _moves(self, batches: Sequence[InputBatch]) -> list[PositionMove]:
        order = [INPUT_TOPICS.index(batch.topic) for batch in batches]
        if order != sorted(order):
            raise BrokenInvariant(f"batches out of order: {[batch.topic for batch in batches]}")
        next_offsets: dict[str, int] = {}
        moves: dict[str, PositionMove] = {}
        for batch in batches:
            expected = next_offsets.get(batch.topic, self._state.positions.get(batch.topic, 0))
            if batch.start != expected or batch.end - batch.start != len(batch.records) + batch.skipped:
                raise BrokenInvariant(
                    f"{batch.topic}[{self._state.partition}]: records {batch.start} to {batch.end} "
                    f"({len(batch.records)} of them, {batch.skipped} offsets skipped) do not follow position {expected}"
                )
            before = moves.get(batch.topic, PositionMove(batch.topic, batch.start, batch.start))
            skipped = before.skipped + batch.skipped
            moves[batch.topic] = PositionMove(batch.topic, before.start, batch.end, skipped)
            next_offsets[batch.topic] = batch.end
        return list(moves.values())

    def _apply_usage(self, batch: InputBatch, log_time_us: int, draft: CommitDraft) -> int:
        state, calculator = self._state, self._calculator
        records = draft.records_to_apply(batch)
        usage = UsageBatch(
            state.partition, state.partitions, records, log_time_us, self._limits, self._own_check(batch.topic, draft)
        )
        decoded = calculator.decode(usage)
        missing = calculator.missing_accounts(decoded)
        if missing:
            load_accounts(self._loader, calculator, missing)
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
        for index, event in outcome.conflicts:
            draft.keep_conflict(batch.topic, records[index], event)
        counts = draft.counts
        counts.rated += outcome.rated
        counts.duplicate += outcome.duplicate
        counts.rejected += len(outcome.rejected)
        counts.forwarded += len(outcome.forwarded)
        draft.add_events(outcome.account_events)
        draft.findings += outcome.findings
        draft.reservations += outcome.reservations
        return outcome.log_time_us

    def _own_check(self, topic: str, draft: CommitDraft) -> OwnCheck | None:
        """Return the check of records with an own source; None if the topic holds only records that are proven."""
        if topic == USAGE_FORWARDED_TOPIC:
            return None

        def check(record: Record) -> str | None:
            fault = own_fault(draft.keys, topic, record)
            if fault is not None:
                draft.forged(topic, record, f"source is one of the product's own, and the record carries {fault}")
            return fault

        return check

    def _record(self, moves: list[PositionMove], log_time_us: int, draft: CommitDraft) -> CommitRecord:
        stamp = Stamp(self._state.partition, self._state.commit_no + 1, log_time_us)
        return draft.record(self._calculator.take_effects(stamp), stamp, moves, self._catalog_epoch, self._limits)
