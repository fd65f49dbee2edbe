"""The exceptions for what is broken. A refusal of usage or of a command is a value, not an exception.

::

    BrokenInvariant             the worker stops, and a person looks
    └── Fenced                  another writer owns the partition: this writer stops
    StoreError                  the database did not do what was asked
    ├── Fenced
    ├── NotPrepared             no schema, or not this partition: `tokenbill prepare`
    ├── DatabaseDown            no answer: reload from SQL and retry
    ├── CatalogMoved            decided with an old catalogue: decide again
    └── CatalogConflict         a catalogue cannot be published: the publisher corrects it
"""


class BrokenInvariant(RuntimeError):
    """A condition that must always hold does not: the worker stops, and a person looks."""


class StoreError(Exception):
    """Failure of the store."""


class Fenced(BrokenInvariant, StoreError):
    """Another owner of the partition, or another position, is in the database: this writer's partition stops."""


class NotPrepared(StoreError):
    """The database was not prepared for this partition or schema; ``tokenbill up`` or ``prepare`` does it."""


class DatabaseDown(StoreError):
    """The connection or the server failed; the transaction under way may or may not be committed. Reload and retry."""


class CatalogMoved(StoreError):
    """The catalogue is at ``new_epoch``, another than the batch was decided with; nothing was written."""

    def __init__(self, new_epoch: int) -> None:
        super().__init__(f"the catalogue moved to epoch {new_epoch}; decide the batch again")
        self.new_epoch = new_epoch


class CatalogConflict(StoreError):
    """A catalogue cannot be published: ``reasons`` says why, a sentence for each entry."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons
