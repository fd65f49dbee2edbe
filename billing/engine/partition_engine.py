"""The engine of one partition: input batches in, a complete ``CommitRecord`` out.

Owns: the order within a commit (commands, forwarded commands, usage, forwarded usage), forwarding and its numbers,
command identities, and loading of what a decision needs. Never: Kafka, SQL (a loader fetches what is missing), the
clock. The rules are elsewhere: for commands in ``billing.decide.command_rules``, for usage in a calculator.
"""

from collections.abc import Mapping, Sequence

from billing.calculator.interface import Calculator, Decoded, OwnCheck, UsageBatch
from billing.catalog.model import Catalog
from billing.commits.commit_record import NO_DIGEST, CommitRecord, PartitionState
from billing.commits.input_batch import InputBatch, PositionMove, Record
from billing.commits.output_documents import Stamp
from billing.decide.roll_forward import roll_forward
from billing.engine.apply_commands import CommandApplier
from billing.engine.commit_draft import CommitDraft
from billing.engine.loader import Loader, load_accounts, load_missing
from billing.errors import BrokenInvariant
from billing.ledger import Postings
from billing.log_time import TimeLimits, identity_rules, rules_of
from billing.record_keys import own_fault
from schemas.times import HOUR_US
from schemas.topics import COMMAND_FORWARDED_TOPIC, COMMAND_TOPIC, INPUT_TOPICS, USAGE_FORWARDED_TOPIC, USAGE_TOPIC

IDENTITY_MEMORY_BYTES = 512 << 20
"""Memory limit for identities of unnumbered sources in a worker that holds every partition, in bytes
(docs/reference/principles.md, "Identity")."""
OPEN_PART_SHARE = 8
"""The share of the limit, as a divisor, that the part which takes new identities may fill before a filter stands for
it; also the size of the parts that are loaded."""
IDENTITY_BYTES = 48
"""Approximate memory of one identity of the core, in bytes."""


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
        note_unknown: bool = False,
    ) -> None:
        """Begin with a state. ``note_unknown`` is for a run without limits, which have it too."""
        self._state = state
        self._note_unknown = note_unknown
        self._loader = loader
        self._calculator = calculator
        self._identity_bytes = identity_memory_bytes // state.partitions
        self._parts_loaded = False
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

    def committed(self, digest: bytes = NO_DIGEST) -> None:
        """Confirm that the last decided record is committed in SQL with this digest, and advance to the next one.

        Raises:
            BrokenInvariant: no record was decided.
        """
        record = self._undecided
        if record is None:
            raise BrokenInvariant("nothing was decided that could have been committed")
        self._commands.forget_prepared()
        state = self._state
        state.commit_no = record.commit_no
        state.digest = digest
        state.log_time_us = record.log_time_us
        state.positions.update((move.topic, move.end) for move in record.positions)
        state.next_sequences.update(record.next_sequences)
        state.forward_next.update(record.forward_next)
        state.forward_cursors.update(record.forward_cursors)
        self._undecided = None
        if self._limits is not None:
            rules = identity_rules(self._limits)
            self._bound_identities(record.log_time_us - self._limits.past_us, rules.window_us(record.log_time_us))

    def _bound_identities(self, oldest_us: int, window_us: int) -> None:
        """Drop identities that no event can repeat any more, and those beyond the memory limit, the oldest first.

        What is dropped is in SQL and is loaded again for an event that may repeat it, so the limit changes no decision.
        Hours of event time go first, then the identities of parts, for which filters stand, then filters.
        """
        calculator, limit_bytes = self._calculator, self._identity_bytes
        for held in calculator.parts_held():
            if held.part.log_hour_us < window_us:
                calculator.drop_part(held.part)
        parts, hours = calculator.parts_held(), calculator.hours_held()
        total_bytes = sum(held_bytes for _, held_bytes in hours)
        total_bytes += sum(held.identities_bytes + held.filter_bytes for held in parts)
        for hour_us, held_bytes in hours:
            if hour_us + HOUR_US > oldest_us and total_bytes <= limit_bytes:
                break
            calculator.drop_hour(hour_us)
            total_bytes -= held_bytes
        for with_filter in (False, True):
            for held in calculator.parts_held():
                if total_bytes <= limit_bytes:
                    return
                size = held.filter_bytes if with_filter else held.identities_bytes
                if size == 0 or (held.part == parts[-1].part and size <= limit_bytes // OPEN_PART_SHARE):
                    continue  # the part that takes the next identities stays while it is small
                calculator.shrink_part(held.part)
                total_bytes -= held.identities_bytes + held.filter_bytes
                total_bytes += sum(
                    one.identities_bytes + one.filter_bytes for one in calculator.parts_held() if one.part == held.part
                )

    def _load_identities(self, decoded: Decoded, log_time_us: int) -> None:
        """Load the identities that the batch may repeat and that are not in memory."""
        calculator, loader, partition = self._calculator, self._loader, self._state.partition
        if self._limits is not None and not self._parts_loaded and calculator.has_unnumbered(decoded):
            self._load_parts(identity_rules(self._limits).window_us(log_time_us))  # may drop hours: before they are put
        hours = calculator.missing_hours(decoded)
        if hours:
            stored = loader.load_hours(partition, hours)
            for hour_us in hours:
                calculator.put_hour(hour_us, [part for part in stored if part.hour_us == hour_us])
        for part in calculator.missing_parts(decoded):
            calculator.put_part(part, loader.load_part(partition, part))

    def _load_parts(self, window_us: int) -> None:
        """Load the identities of the window once in the life of the memory; those beyond the limit become filters."""
        part_bytes = self._identity_bytes // OPEN_PART_SHARE
        for part in self._loader.log_parts(self._state.partition, window_us, max(1, part_bytes // IDENTITY_BYTES)):
            self._calculator.put_part(part, self._loader.load_part(self._state.partition, part))
            self._bound_identities(0, window_us)
        self._parts_loaded = True

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
                draft.add_events(
                    roll_forward(account, now_us, self._plan_of, postings, self._catalog, rules=rules_of(self._limits))
                )
                draft.postings.merge(postings, name)
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
            state.partition,
            state.partitions,
            records,
            log_time_us,
            self._limits,
            self._own_check(batch.topic, draft),
            state.commit_no + 1,
            self._note_unknown if self._limits is None else self._limits.note_unknown,
        )
        decoded = calculator.decode(usage)
        missing = calculator.missing_accounts(decoded)
        if missing:
            load_accounts(self._loader, calculator, missing)
        self._load_identities(decoded, log_time_us)
        outcome = calculator.apply(decoded)
        for index, target in outcome.forwarded:
            draft.forward(batch.topic, records[index], target)
        for index, rejection in outcome.rejected:
            draft.reject(batch.topic, records[index], rejection)
        for index, sentences in outcome.unknown:
            draft.unknown_usage(batch.topic, records[index], sentences)
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
        state = self._state
        stamp = Stamp(state.partition, state.commit_no + 1, log_time_us, state.digest, state.history)
        return draft.record(self._calculator.take_effects(stamp), stamp, moves, self._catalog_epoch, self._limits)
