"""The exception for errors that the user can correct: the problem, its reason and its remedy.

`tokenbill.cli.main` prints it without a traceback and exits with code 2. It is never used for bugs, which keep their
own exception type and their traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can correct: `what` happened, `why`, and the `fix`."""

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what, why, fix)
        self.what = what
        self.why = why
        self.fix = fix

    @property
    def message(self) -> str:
        """The problem and its reason, in one text."""
        return f"{self.what}: {self.why}" if self.why else self.what

    @property
    def hint(self) -> str:
        """The remedy; empty if there is none to suggest."""
        return self.fix

    def __str__(self) -> str:
        return f"{self.message}\n{self.fix}" if self.fix else self.message
