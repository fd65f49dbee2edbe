"""The refusal of a record, a command or a request by a rule. It is returned, never raised.

The refusal of a usage record is called its rejection; the record is kept in suspense. Defects are exceptions instead;
:mod:`billing.errors` lists them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from schemas.refusal_codes import CODES, REASONS


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal: a code for programs, a sentence for people, and facts by name.

    ``code`` is one of :data:`schemas.refusal_codes.CODES`. ``detail`` states field, value and expected form, without a
    final full stop. ``fields`` of a refused record are its ``source``, ``id``, ``sequence`` and ``account``, as far as
    they could be read.

    Raises:
        ValueError: the code is not in the table.
    """

    code: str
    detail: str
    fields: Mapping[str, str | int | None] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"{self.code!r} is not a refusal code; schemas/refusal_codes.py lists them")

    @property
    def source(self) -> str | None:
        """CloudEvents source of a refused record; None if absent or invalid."""
        return cast(str | None, self.fields.get("source"))

    @property
    def id(self) -> str | None:
        """CloudEvents id of a refused record; None if absent or invalid."""
        return cast(str | None, self.fields.get("id"))

    @property
    def sequence(self) -> int | None:
        """Sequence number of a refused record, which counts as seen; None if absent or invalid."""
        return cast(int | None, self.fields.get("sequence"))

    @property
    def account(self) -> str | None:
        """Account of a refused record; None if absent or invalid."""
        return cast(str | None, self.fields.get("account"))


class Refused(ValueError):
    """Exception that carries a refusal from a nested reader to the function that returns it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.refusal = Refusal(code, detail)


def record_refusal(
    code: str,
    detail: str,
    source: str | None = None,
    id: str | None = None,
    sequence: int | None = None,
    account: str | None = None,
) -> Refusal:
    """Return the refusal of a record, with the identity fields that could be read.

    Raises:
        ValueError: the code is not one of :data:`schemas.refusal_codes.REASONS`.
    """
    if code not in REASONS:
        raise ValueError(f"{code!r} is not a reason for which a record is rejected")
    return Refusal(code, detail, {"source": source, "id": id, "sequence": sequence, "account": account})
