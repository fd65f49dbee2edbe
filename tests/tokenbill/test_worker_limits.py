"""The limits of a worker's commits come from its environment."""

import pytest

from billing.log_time import SEQUENCE_JUMP, TimeLimits
from tokenbill.commands.process import JUMP_VARIABLE, time_limits
from tokenbill.user_errors import UserError


def test_the_sequence_jump_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JUMP_VARIABLE, raising=False)
    assert time_limits() == TimeLimits(sequence_jump=SEQUENCE_JUMP)
    monkeypatch.setenv(JUMP_VARIABLE, "5000")
    assert time_limits().sequence_jump == 5_000


@pytest.mark.parametrize("text", ["0", "-1", "1e9", "", "９", str(2**63)])
def test_a_setting_that_is_no_number_is_said(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(JUMP_VARIABLE, text)
    with pytest.raises(UserError, match=JUMP_VARIABLE):
        time_limits()
