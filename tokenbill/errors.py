"""The one exception that is meant for a person: what happened, why, and what to do.

`tokenbill.cli.main` prints it without a traceback and ends with exit code 2. It never carries a bug of ours: those keep
their own type and their traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """Something a person can put right: `what` happened, `why`, and the `fix`."""

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what, why, fix)
        self.what = what
        self.why = why
        self.fix = fix

    @property
    def message(self) -> str:
        """What happened and why, in one text."""
        return f"{self.what}: {self.why}" if self.why else self.what

    @property
    def hint(self) -> str:
        """What the reader can do about it; empty when there is nothing to add."""
        return self.fix

    def __str__(self) -> str:
        return f"{self.message}\n{self.fix}" if self.fix else self.message
