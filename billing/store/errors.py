"""What the store raises: who must stop, who must decide again, who must wait and reload."""

from billing.invariants import BrokenInvariant

__all__ = [
    "BrokenInvariant",
    "CatalogConflict",
    "CatalogMoved",
    "DatabaseDown",
    "Fenced",
    "NotPrepared",
    "StoreError",
]


class StoreError(Exception):
    """Any failure of the store."""


class Fenced(BrokenInvariant, StoreError):
    """Another owner of the partition, or another position, is in the database: this writer's partition stops."""


class NotPrepared(StoreError):
    """The database was not prepared for this partition or schema; ``tokenbill up`` or ``prepare`` does it."""


class DatabaseDown(StoreError):
    """The connection or the server failed; what was under way may or may not be committed. Reload and try again."""


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
