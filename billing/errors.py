"""Exceptions for faults. A refusal of usage or of a command is a return value, not an exception.

::

    BrokenInvariant             the worker stops; an operator must investigate
    ├── UnbalancedError         a journal entry does not balance
    └── Fenced                  another writer owns the partition: this writer stops
    StoreError                  a database operation failed
    ├── Fenced
    ├── NotPrepared             the schema or this partition is missing: run `tokenbill prepare`
    ├── DatabaseDown            no answer: reload from SQL and retry
    ├── OutboxDamaged           the outbox is not what the commits wrote: nothing more is published
    ├── DecideAgain             what a decision read has changed, and nothing was written: decide again
    │   ├── CatalogMoved        decided with an old catalogue
    │   └── HeldMoved           a hold was taken on what a command took away
    └── CatalogConflict         a catalogue cannot be published: the publisher corrects it
    ForwardLost                 a forwarded record is missing: its target partition stops, the others go on
    StreamFault                 faults of Kafka and its clients (streams.stream_errors)
"""


class BrokenInvariant(RuntimeError):
    """A condition that must always hold is violated: the worker stops, and an operator must investigate."""


class UnbalancedError(BrokenInvariant):
    """Journal lines do not add up to zero: a defect in a rule, never in its input."""


class StoreError(Exception):
    """A database operation failed."""


class Fenced(BrokenInvariant, StoreError):
    """The database has another owner or another position for the partition: this writer stops the partition."""


class NotPrepared(StoreError):
    """The database is not prepared for this schema or partition; ``tokenbill up`` or ``prepare`` prepares it."""


class DatabaseDown(StoreError):
    """The connection or the server failed. A transaction in progress may or may not be committed: reload and retry."""


class OutboxDamaged(StoreError):
    """The outbox lacks rows that a commit wrote, or has others: the partition is not published until a person looks."""


class DecideAgain(StoreError):
    """A decision rests on data that has changed since; nothing was written. The same input is decided again."""


class HeldMoved(DecideAgain):
    """A hold counts on what a command of the batch took: it was taken after the decision read what is held."""


class CatalogMoved(DecideAgain):
    """The catalogue is at ``new_epoch``, not at the epoch the batch was decided with; nothing was written."""

    def __init__(self, new_epoch: int) -> None:
        super().__init__(f"the catalogue moved to epoch {new_epoch}; decide the batch again")
        self.new_epoch = new_epoch


class CatalogConflict(StoreError):
    """A catalogue cannot be published; ``reasons`` has one sentence per rejected entry."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class ForwardLost(Exception):
    """A forwarded record never arrived: one that was forwarded after it did. Its target partition stops.

    Nothing of the commit is written, so nothing is lost in SQL. Only a record that a digest proves to be forwarded can
    show that one is missing.
    """

    def __init__(self, topic: str, partition: int, offset: int, origin: int, expected: int, found: int) -> None:
        missing = f"number {expected}" if found == expected + 1 else f"numbers {expected} to {found - 1}"
        super().__init__(
            f"{topic}[{partition}] offset {offset}: forward {found} from partition {origin} arrived, but {missing} "
            f"did not; nothing of partition {partition} is decided until they are found in the log of {topic} or in "
            f"the outbox of partition {origin}"
        )
        self.topic, self.partition, self.offset = topic, partition, offset
        self.origin, self.expected, self.found = origin, expected, found
