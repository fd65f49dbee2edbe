"""Recognition of duplicates (docs/reference/usage-events.md, "Identity"), and the memory after a restart."""

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from billing_samples import Line, MakeCalculator, buy, catalog, encode, opened, plan, simulate, use
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.calculator.dedupe import CONFLICT, DUPLICATE, NEW, Dedupe, NumberRuns
from billing.commits.commit_record import Finding, PartitionState
from billing.commits.identities import RECENT_NUMBERS, DedupeChange, HashHour, LogPart, RecentNumbers, SourceState
from billing.engine.simulation import Simulation
from billing.log_time import SEQUENCE_JUMP, IdentityRules
from schemas.refusals import Refusal, record_refusal
from schemas.times import HOUR_US
from schemas.usage import UsageEvent

JUMP = 2 * RECENT_NUMBERS
FUTURE_US = 600_000_000
RULES = IdentityRules(True, JUMP, FUTURE_US)
EVENT = UsageEvent(
    source="s", id="1", sequence=1, time_us=0, account="a", model="m", hardware_tier="unknown",
    energy_source="unknown", site="unknown", channel="cloud", service_tier="standard", outcome="completed",
    requested_model=None, member=None, request_id=None, reservation=None, counts=(("input", 1),),
)  # fmt: skip


def event(number: int | None, id: str | None = None, **changes: object) -> UsageEvent:
    return replace(EVENT, sequence=number, id=str(number) if id is None else id, **changes)  # type: ignore[arg-type]


def refusal(of: UsageEvent) -> Refusal:
    return record_refusal("no_price", "no row", of.source, of.id, of.sequence, of.account)


def rate(memory: Dedupe, of: UsageEvent) -> None:
    """Record a new event as rated."""
    assert memory.look(of, []) == NEW
    memory.rated(of)


@dataclass
class Stored:
    """The identities of one partition as SQL stores them: every change, applied."""

    sources: dict[str, SourceState]
    recent: list[RecentNumbers]
    hours: dict[int, list[HashHour]]
    parts: dict[LogPart, list[bytes]]
    commit_no: int = 1

    @classmethod
    def empty(cls) -> "Stored":
        return cls({}, [], defaultdict(list), defaultdict(list))

    def take(self, change: DedupeChange) -> None:
        self.sources.update((source.source, source) for source in change.sources)
        self.recent += change.recent
        for hour in change.hours:
            self.hours[hour.hour_us].append(hour)
            if hour.log_hour_us is not None:
                self.parts[LogPart(hour.log_hour_us, self.commit_no, self.commit_no)].append(hour.payload)
        self.commit_no += 1

    def load(self) -> Dedupe:
        memory = Dedupe(PartitionState(0, 1, sources=list(self.sources.values()), recent=list(self.recent)))
        for part, payloads in self.parts.items():
            memory.put_part(part, payloads)
        return memory


# Through the whole engine, with either calculator


def outcome(calculator: MakeCalculator, *usage: Line) -> tuple[dict[str, int], dict[str, int]]:
    """Return counts and rejections of some usage after account ``a`` was opened."""
    document = simulate(calculator(), catalog(), [opened(), *usage])
    return document["events"], document["rejections"]


@pytest.mark.parametrize("number", [None, 7])
def test_a_resent_event_is_a_duplicate(number: int | None, calculator: MakeCalculator) -> None:
    again = use(5, id="x", number=number)
    assert outcome(calculator, again, again, again) == ({"rated": 1, "duplicate": 2, "rejected": 0}, {})


def test_the_same_id_of_another_source_is_another_event(calculator: MakeCalculator) -> None:
    counts, _ = outcome(calculator, use(5, id="x", source="one"), use(5, id="x", source="two"))
    assert counts == {"rated": 2, "duplicate": 0, "rejected": 0}


def test_a_number_used_again_by_another_id_is_rejected(calculator: MakeCalculator) -> None:
    events = [use(5, id="x", number=1), use(5, id="y", number=1), use(5, id="y", number=1), use(5, id="x", number=1)]
    counts, rejections = outcome(calculator, *events)
    assert (counts, rejections) == ({"rated": 1, "duplicate": 1, "rejected": 2}, {"sequence_reused": 2})


@pytest.mark.parametrize("number", [None, 7])
def test_a_rejected_event_sent_again_is_rated_once(number: int | None, calculator: MakeCalculator) -> None:
    early, late = use(5, id="x", number=number), use(6, id="y", number=None if number is None else 8)
    document = simulate(calculator(), catalog(), [early, early, late, opened(), early, late, early, late])
    assert document["events"] == {"rated": 2, "duplicate": 2, "rejected": 3}
    assert document["rejections"] == {"unknown_account": 3}
    assert document["accounts"]["a"]["wallet"] == "-11.66"


def test_an_event_repaired_under_its_number_is_rated_once(calculator: MakeCalculator) -> None:
    broken, repaired = use(-5, id="x", number=3), use(5, id="x", number=3)
    counts, rejections = outcome(calculator, broken, repaired, repaired, broken)
    assert (counts, rejections) == ({"rated": 1, "duplicate": 1, "rejected": 2}, {"usage_mismatch": 2})


def test_numbers_may_arrive_in_any_order(calculator: MakeCalculator) -> None:
    events = [use(1, id=f"x{n}", number=n) for n in (5, 1, 3, 2, 4, 3, 5, 1)]
    assert outcome(calculator, *events)[0] == {"rated": 5, "duplicate": 3, "rejected": 0}


def test_a_numbered_source_stays_numbered(calculator: MakeCalculator) -> None:
    counts, rejections = outcome(calculator, use(1, id="x", number=1), use(1, id="y"))
    assert (counts, rejections) == ({"rated": 1, "duplicate": 0, "rejected": 1}, {"invalid_event": 1})


def test_an_unnumbered_source_stays_unnumbered(calculator: MakeCalculator) -> None:
    """The numbers of such a source are ignored; the id is the identity."""
    counts, _ = outcome(calculator, use(1, id="x"), use(1, id="y", number=1), use(1, id="z", number=1))
    assert counts == {"rated": 3, "duplicate": 0, "rejected": 0}


@pytest.mark.parametrize("number", [None, 7])
def test_a_resend_with_other_content_is_a_duplicate_and_a_finding(
    number: int | None, calculator: MakeCalculator
) -> None:
    found: list[Finding] = []

    class Watching(Simulation):
        def _take(self, record: object) -> None:
            found.extend(record.findings)  # type: ignore[attr-defined]
            super()._take(record)  # type: ignore[arg-type]

    simulation = Watching(catalog(), calculator())
    first, other = use(5, id="x", number=number), use(6, id="x", number=number)
    simulation.feed(encode([opened(), first, first, other]))
    assert simulation.document()["events"] == {"rated": 1, "duplicate": 2, "rejected": 0}
    assert [finding.kind for finding in found] == ["identity_conflict"]


def test_one_source_may_serve_many_accounts(calculator: MakeCalculator) -> None:
    steps = [opened("a"), opened("b"), use(1, number=1, id="1"), use(1, account="b", number=2, id="2")]
    assert simulate(calculator(), catalog(), steps)["events"] == {"rated": 2, "duplicate": 0, "rejected": 0}


def test_a_duplicate_burns_nothing_wherever_commits_fall(calculator: MakeCalculator) -> None:
    steps = [opened(), buy("A", "G"), *[use(1, id=f"{n % 7}", number=n % 7 + 1) for n in range(40)]]
    documents = [simulate(calculator(), catalog(plan("A")), steps, lines_per_commit=size) for size in (1, 3, 1000)]
    assert documents[0]["accounts"]["a"]["buckets"][0]["remaining"] == "93"
    assert documents[0] == documents[1] == documents[2]


@pytest.mark.parametrize("number", [None, 7])
def test_an_identity_belongs_to_its_account(number: int | None, calculator: MakeCalculator) -> None:
    """Account ``a`` sends the source and id of ``b`` first; unnumbered usage of ``b`` is billed all the same."""
    steps = [opened("a"), opened("b"), use(5, id="x", number=number), use(7, account="b", id="x", number=number)]
    document = simulate(calculator(), catalog(), steps)
    if number is None:
        assert document["events"] == {"rated": 2, "duplicate": 0, "rejected": 0}
        assert document["accounts"]["b"]["wallet"] == "-7.42"
    else:  # a number belongs to the source: the second use of it is told, never silently a duplicate
        assert document["events"] == {"rated": 1, "duplicate": 0, "rejected": 1}
        assert document["rejections"] == {"sequence_reused": 1}


def test_a_rejected_event_decides_nothing_about_its_source(calculator: MakeCalculator) -> None:
    """Numbers of an account that was never opened do not make a source numbered, nor the other way round."""
    foreign = [use(1, account="nobody", id=f"f{n}", number=n) for n in (1, 2, 3)]
    unnumbered = [use(5, id="x"), use(5, id="x"), use(5, id="y")]
    counts, rejections = outcome(calculator, *foreign, *unnumbered)
    assert (counts, rejections) == ({"rated": 2, "duplicate": 1, "rejected": 3}, {"unknown_account": 3})
    numbered = [use(1, account="nobody", id="f"), use(5, id="x", number=1), use(5, id="x", number=1)]
    counts, rejections = outcome(calculator, *numbered)
    assert (counts, rejections) == ({"rated": 1, "duplicate": 1, "rejected": 1}, {"unknown_account": 1})


def test_a_number_far_ahead_is_refused_and_leaves_no_gap(calculator: MakeCalculator) -> None:
    sources: list[SourceState] = []

    class Watching(Simulation):
        def _take(self, record: object) -> None:
            sources.extend(record.dedupe.sources)  # type: ignore[attr-defined]
            super()._take(record)  # type: ignore[arg-type]

    far = [use(1, id="far", number=2**62), use(1, id="one above", number=SEQUENCE_JUMP + 1)]
    broken = use(-1, id="broken", number=2**62)
    allowed = [use(1, id="last", number=SEQUENCE_JUMP), use(1, id="next", number=2 * SEQUENCE_JUMP)]
    simulation = Watching(catalog(), calculator())
    simulation.feed(encode([opened(), *far, broken, use(1, id="x", number=1)]))
    assert sources[-1] == SourceState("test", True, ((1, 1),), ())
    assert simulation.document()["rejections"] == {"invalid_event": 2, "usage_mismatch": 1}
    counts, rejections = outcome(calculator, *allowed, use(1, id="far", number=3 * SEQUENCE_JUMP + 1))
    assert (counts, rejections) == ({"rated": 2, "duplicate": 0, "rejected": 1}, {"invalid_event": 1})


def test_the_refusal_of_a_number_far_ahead_names_it_the_highest_one_and_the_limit() -> None:
    memory = Dedupe()
    memory.decide_by(IdentityRules(True, 100, FUTURE_US))
    rate(memory, event(7))
    refused = memory.look(event(108), [])
    assert isinstance(refused, Refusal) and refused.code == "invalid_event"
    assert refused.detail.startswith("sequence: 108 is more than 100 above 7, the highest number seen of source 's'")
    assert memory.look(event(107), []) == NEW


# The plain memory


def test_a_reuse_is_known_within_the_last_65536_numbers_and_silent_beyond() -> None:
    memory = Dedupe()
    highest = RECENT_NUMBERS + 2
    for number in (1, 2, 3, highest):
        rate(memory, event(number))
    findings: list[Finding] = []
    assert memory.look(event(2, "other"), findings) == DUPLICATE  # highest - 65,536
    assert findings == []
    refused = memory.look(event(3, "other"), findings)
    assert isinstance(refused, Refusal) and refused.code == "sequence_reused"
    assert [finding.kind for finding in findings] == ["sequence_reused"]
    memory.refused(refused)
    assert memory.look(event(3), []) == DUPLICATE


def test_the_window_of_hashes_stays_small() -> None:
    memory = Dedupe()
    rate(memory, event(1))
    source = memory._sources["s"]
    for number in range(2, 3 * RECENT_NUMBERS):
        source.remember(number, number, number)
    assert len(source.recent) <= 2 * RECENT_NUMBERS
    assert [source.recall(number) is None for number in (2 * RECENT_NUMBERS - 1, 2 * RECENT_NUMBERS)] == [True, False]


def test_the_kind_of_a_source_is_stored_with_its_first_rated_event() -> None:
    memory = Dedupe()
    rate(memory, event(None, "x"))
    rate(memory, event(4, source="t"))
    assert memory.look(event(4, source="u"), []) == NEW
    assert [(source.source, source.numbered) for source in memory.take_change().sources] == [("s", False), ("t", True)]
    assert memory.take_change() == DedupeChange()


def test_a_refused_number_is_seen_and_may_still_be_rated() -> None:
    memory = Dedupe()
    memory.look(event(5), [])
    memory.refused(refusal(event(5)))
    assert memory.take_change().sources == [SourceState("s", True, ((5, 5),), (5,))]
    rate(memory, event(5))
    assert memory.take_change().sources == [SourceState("s", True, ((5, 5),), ())]
    memory.refused(refusal(event(5)))
    assert memory.look(event(5), []) == DUPLICATE


def test_hours_are_asked_for_by_events_that_may_repeat_what_was_rated_before_the_window() -> None:
    memory = Dedupe()
    memory.decide_by(RULES)
    events = [event(None, "x", time_us=HOUR_US + 5), event(None, "y", time_us=HOUR_US * 3), event(1, source="numbered")]
    late = [(one, 50 * HOUR_US) for one in events]
    assert memory.missing_hours(late) == [0, HOUR_US, 3 * HOUR_US]  # "numbered" is still unknown
    memory.put_hour(HOUR_US, [])
    rate(memory, event(1, source="numbered"))
    assert memory.missing_hours(late) == [3 * HOUR_US]
    assert memory.missing_hours([(one, 26 * HOUR_US) for one in events]) == []
    assert memory.missing_hours([(one, 27 * HOUR_US) for one in events]) == [3 * HOUR_US]  # may be rated at 02:50


def test_an_identity_is_filed_under_the_hours_of_its_time_and_of_log_time() -> None:
    memory = Dedupe()
    memory.decide_by(RULES, 7)
    memory.rated(event(None, "x", time_us=2 * HOUR_US - 1), 2 * HOUR_US)
    memory.rated(event(None, "y", time_us=2 * HOUR_US), 3 * HOUR_US + 1)
    hours = memory.take_change().hours
    assert [(hour.hour_us, hour.log_hour_us) for hour in hours] == [(HOUR_US, 2 * HOUR_US), (2 * HOUR_US, 3 * HOUR_US)]
    assert [held.part for held in memory.parts_held()] == [LogPart(2 * HOUR_US, 7, 7), LogPart(3 * HOUR_US, 7, 7)]


def test_a_resend_is_recognised_whatever_its_time_says_for_24_hours_of_log_time() -> None:
    first, again = event(None, "x", time_us=0), event(None, "x", time_us=90 * 60_000_000)
    for log_hours, expected in ((2, CONFLICT), (24, CONFLICT), (25, NEW)):
        memory = Dedupe()
        memory.decide_by(RULES)
        memory.rated(first, 0)
        assert memory.look(again, [], log_hours * HOUR_US + HOUR_US - 1) == expected
    memory = Dedupe()  # a simulation has no log
    rate(memory, first)
    assert memory.look(event(None, "x", time_us=10**15), [], 10**15) == CONFLICT


def test_identities_without_a_log_hour_are_found_by_the_hour_of_their_time() -> None:
    before = Dedupe()
    before.decide_by(IdentityRules(False, JUMP, FUTURE_US))
    before.put_hour(0, [])
    before.rated(event(None, "x"), HOUR_US)
    change = before.take_change()
    assert [(hour.hour_us, hour.log_hour_us) for hour in change.hours] == [(0, None)]
    for memory in (before, Dedupe(PartitionState(0, 1, sources=change.sources, unlogged_until_us=HOUR_US))):
        memory.decide_by(RULES)
        assert memory.missing_hours([(event(None, "x"), 2 * HOUR_US)]) == ([] if memory is before else [0])
        memory.put_hour(0, change.hours)
        assert memory.look(event(None, "x"), [], 2 * HOUR_US) == DUPLICATE
        assert memory.look(event(None, "x", account="b"), [], 2 * HOUR_US) == CONFLICT
        assert memory.look(event(None, "x", time_us=HOUR_US), [], 2 * HOUR_US) == NEW


@given(st.lists(st.integers(1, 40) | st.integers(2**63 - 5, 2**63 - 1), max_size=60))
def test_runs_are_the_set_of_numbers(numbers: list[int]) -> None:
    runs, model = NumberRuns(), set[int]()
    for number in numbers:
        assert (number in runs) == (number in model)
        runs.add(number)
        model.add(number)
    written = runs.runs()
    assert {number for first, last in written for number in range(first, last + 1)} == model
    assert all(before[1] + 1 < after[0] for before, after in pairwise(written))
    assert NumberRuns(written).runs() == written


# Against a naive model

EVENTS = st.builds(
    lambda number, id, source, account, count, hour: event(
        number, id, source=source, account=account, time_us=hour * HOUR_US + 7, counts=(("input", count),)
    ),
    number=st.none()
    | st.integers(1, 6)
    | st.sampled_from([RECENT_NUMBERS + 3, JUMP + 1, JUMP + 5, 2 * JUMP, 2**62, 2**63 - 1]),
    account=st.sampled_from(["a", "b"]),
    id=st.sampled_from(["p", "q", "r"]),
    source=st.sampled_from(["s", "t", "u"]),
    count=st.integers(1, 2),
    hour=st.sampled_from([0, 1, 2, 24, 25, 26, 49, 60]),
)
STEPS = st.lists(st.tuples(EVENTS, st.booleans(), st.sampled_from([0, 0, 0, 1, 10, 24, 25])), max_size=50)
"""(event, True if it can be priced, hours by which log time moves before)."""
Timed = tuple[UsageEvent, bool, int]
"""(event, True if it can be priced, log time)."""


def timed(steps: list[tuple[UsageEvent, bool, int]]) -> list[Timed]:
    """Return the steps with their log time. An event is at most five minutes ahead of the log."""
    log_time_us, made = HOUR_US // 2, list[Timed]()
    for of, priced, hours in steps:
        log_time_us += hours * HOUR_US
        made.append((replace(of, time_us=min(of.time_us, log_time_us + FUTURE_US // 2)), priced, log_time_us))
    return made


class Naive:
    """A naive memory that keeps every rated event."""

    def __init__(self) -> None:
        self.numbered: dict[str, bool] = {}
        self.highest: dict[str, int] = {}
        self.by_number: dict[tuple[str, int], UsageEvent] = {}
        self.rated: list[tuple[int, UsageEvent]] = []
        """(log time, event) of unnumbered sources."""

    def recall(self, of: UsageEvent, log_time_us: int) -> UsageEvent | None:
        """Return what was rated in the same hour of event time, else in this hour of log time or the 24 before."""
        identity = (of.account, of.source, of.id)
        same = [(at_us, one) for at_us, one in self.rated if (one.account, one.source, one.id) == identity]
        for _, one in same:
            if one.time_us // HOUR_US == of.time_us // HOUR_US:
                return one
        recent = (one for at_us, one in same if log_time_us // HOUR_US - at_us // HOUR_US <= 24)
        return next(recent, None)

    def decide(self, of: UsageEvent, priced: bool, log_time_us: int) -> tuple[str, str]:
        """Return (result for the event, kind of finding or an empty text)."""
        numbered = self.numbered.get(of.source, of.sequence is not None)
        highest_seen = self.highest.get(of.source, 0)
        if numbered and of.sequence is None:
            return "invalid_event", ""
        if numbered and of.sequence is not None:
            if of.sequence > highest_seen + JUMP:
                return "invalid_event", ""
            self.highest[of.source] = max(highest_seen, of.sequence)
            known = self.by_number.get((of.source, of.sequence))
            highest = max((n for source, n in self.by_number if source == of.source), default=0)
            if known is not None and of.sequence <= highest - RECENT_NUMBERS:
                return DUPLICATE, ""
            if known is not None and (known.account, known.id) != (of.account, of.id):
                return "sequence_reused", "sequence_reused"
        else:
            known = self.recall(of, log_time_us)
        if known is not None:
            return (DUPLICATE if known.counts == of.counts and known.time_us == of.time_us else CONFLICT), ""
        if not priced:
            return "no_price", ""
        self.numbered[of.source] = numbered
        if not numbered:
            self.highest.pop(of.source, None)
        if numbered and of.sequence is not None:
            self.by_number[of.source, of.sequence] = of
        else:
            self.rated.append((log_time_us, of))
        return "rated", ""


def decide(memory: Dedupe, of: UsageEvent, priced: bool, log_time_us: int) -> tuple[str, str]:
    """Decide an event as a calculator does."""
    findings: list[Finding] = []
    seen = memory.look(of, findings, log_time_us)
    kind = findings[0].kind if findings else ""
    if seen in (DUPLICATE, CONFLICT):
        return str(seen), kind
    refused = seen if isinstance(seen, Refusal) else None if priced else refusal(of)
    if refused is not None:
        memory.refused(refused)
        return refused.code, kind
    memory.rated(of, log_time_us)
    return "rated", kind


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_memory_decides_as_one_that_keeps_every_event(steps: list[tuple[UsageEvent, bool, int]]) -> None:
    memory, naive, stored = Dedupe(), Naive(), Stored.empty()
    for step in timed(steps):
        memory.decide_by(RULES, stored.commit_no)
        for hour_us in memory.missing_hours([(step[0], step[2])]):
            memory.put_hour(hour_us, stored.hours[hour_us])
        assert decide(memory, *step) == naive.decide(*step)
        stored.take(memory.take_change())


@settings(max_examples=200, deadline=None)
@given(STEPS, st.sets(st.integers(0, 50)), st.sets(st.integers(0, 50)))
def test_a_restart_at_any_commit_changes_no_decision(
    steps: list[tuple[UsageEvent, bool, int]], cuts: set[int], drops: set[int]
) -> None:
    """At other commits some identities leave memory."""
    naive, restarted, stored = Naive(), Dedupe(), Stored.empty()
    for place, step in enumerate(timed(steps)):
        if place in cuts:
            stored.take(restarted.take_change())
            restarted = stored.load()
        elif place in drops:
            stored.take(restarted.take_change())
            for held in restarted.parts_held():
                restarted.shrink_part(held.part)
            for hour_us, _ in restarted.hours_held():
                restarted.drop_hour(hour_us)
        restarted.decide_by(RULES, stored.commit_no)
        asked = [(step[0], step[2])]
        for hour_us in restarted.missing_hours(asked):
            restarted.put_hour(hour_us, stored.hours[hour_us])
        for part in restarted.missing_parts(asked):
            inside = (one for one in stored.parts if part.first_commit <= one.first_commit <= part.last_commit)
            found = [one for one in inside if one.log_hour_us == part.log_hour_us]
            restarted.put_part(part, [payload for one in found for payload in stored.parts[one]])
        assert decide(restarted, *step) == naive.decide(*step)
