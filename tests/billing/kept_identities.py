"""Identities of unnumbered sources as SQL keeps them, for tests without SQL."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from billing.commits.commit_record import CommitRecord
from billing.commits.identities import HashHour, LogPart


@dataclass
class KeptIdentities:
    """The identities of every commit. It counts the hours and parts that are loaded."""

    hours: list[tuple[int, int, HashHour]] = field(default_factory=list, init=False)
    """(partition, commit, identities)."""
    hours_loaded: int = field(default=0, init=False)
    parts_loaded: int = field(default=0, init=False)

    def keep(self, record: CommitRecord) -> None:
        self.hours += [(record.partition, record.commit_no, hour) for hour in record.dedupe.hours]

    def load_hours(self, partition: int, hours: Sequence[int]) -> list[HashHour]:
        self.hours_loaded += len(hours)
        return [hour for number, _, hour in self.hours if number == partition and hour.hour_us in hours]

    def log_parts(self, partition: int, from_us: int, at_most: int) -> list[LogPart]:
        """Every commit is a part of its own."""
        return sorted(
            {
                LogPart(hour.log_hour_us, commit_no, commit_no)
                for number, commit_no, hour in self.hours
                if number == partition and hour.log_hour_us is not None and hour.log_hour_us >= from_us
            },
            key=lambda part: (part.log_hour_us, part.first_commit),
        )

    def load_part(self, partition: int, part: LogPart) -> list[bytes]:
        self.parts_loaded += 1
        return [
            hour.payload
            for number, commit_no, hour in self.hours
            if number == partition
            and hour.log_hour_us == part.log_hour_us
            and part.first_commit <= commit_no <= part.last_commit
        ]
