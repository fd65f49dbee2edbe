"""Two people agree to a step with API keys of their own, verified from their secrets."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from own_database import PreparedDatabase

from billing.store.api.keys import create_key, revoke_key
from billing.store.database import Database
from billing.store.two_keys import KeysRefused, TwoKeys, two_keys
from tokenbill.commands.two_keys import APPROVED_KEY_VARIABLE, REQUESTED_KEY_VARIABLE, agreed, two_keys_options
from tokenbill.user_errors import UserError


@pytest.fixture
def pool(database: PreparedDatabase) -> Iterator[Database]:
    with closing(Database(database.app_url)) as pool:
        yield pool


def made(
    pool: Database, name: str, role: str = "admin", account: str | None = None, ends: datetime | None = None
) -> str:
    sources = ["urn:worker:a"] if account is not None and role == "admin" else []
    return create_key(pool, name, role, account, ends, sources)[1]


def test_two_keys_of_two_people_are_named(pool: Database) -> None:
    wang, li = made(pool, "wang"), made(pool, "li")
    found = two_keys(pool, wang, f" {li}\n")
    assert found == TwoKeys(wang.split("_")[1], "wang", li.split("_")[1], "li")
    assert str(found) == (f"requested by wang (key {found.requested_key}), approved by li (key {found.approved_key})")
    assert wang.split("_", 2)[2] not in str(found)


def test_one_person_is_not_two(pool: Database) -> None:
    wang, again, upper = made(pool, "wang"), made(pool, "wang"), made(pool, " WANG ")
    for second, why in ((wang, "both are the key"), (again, "both named"), (upper, "both named")):
        with pytest.raises(KeysRefused, match=why):
            two_keys(pool, wang, second)


@pytest.mark.parametrize("place", ["requests", "approves"])
def test_a_key_that_is_not_in_force_or_too_low_is_refused(pool: Database, place: str) -> None:
    wang, revoked = made(pool, "wang"), made(pool, "li")
    revoke_key(pool, revoked.split("_")[1])
    bad = {
        "revoked": revoked,
        "expired": made(pool, "li", ends=datetime.now(UTC) - timedelta(seconds=1)),
        "role operator": made(pool, "li", "operator"),
        "role ingest": made(pool, "li", "ingest"),
        "role read": made(pool, "li", "read"),
        "for account 'a1'": made(pool, "li", "admin", "a1"),
        "no key of this installation": f"tbk_{made(pool, 'li').split('_')[1]}_{wang.split('_', 2)[2]}",
    }
    for token in ("tbk_0f0f0f0f0f0f_hushhush", "tbk__", "", "wang", "Bearer x"):
        bad[f"no key of this installation|{token}"] = token
    for why, token in bad.items():
        tokens = (token, wang) if place == "requests" else (wang, token)
        with pytest.raises(KeysRefused, match=why.split("|")[0]) as refused:
            two_keys(pool, *tokens)
        assert f"the key that {place}" in str(refused.value)
        secret = token.split("_", 2)[-1]
        assert not secret or secret not in str(refused.value)


def test_keys_come_from_files_or_the_environment(
    pool: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wang, li = made(pool, "wang"), made(pool, "li")
    (tmp_path / "wang.key").write_text(f"{wang}\n")
    monkeypatch.setenv(APPROVED_KEY_VARIABLE, li)
    found = agreed(pool, tmp_path / "wang.key", None)
    assert (found.requested_by, found.approved_by) == ("wang", "li")
    monkeypatch.setenv(REQUESTED_KEY_VARIABLE, li)
    with pytest.raises(UserError, match="both are the key"):
        agreed(pool, None, None)
    monkeypatch.delenv(REQUESTED_KEY_VARIABLE)
    with pytest.raises(UserError, match=f"neither --requested-key nor {REQUESTED_KEY_VARIABLE} is set"):
        agreed(pool, None, None)
    with pytest.raises(UserError, match="--requested-key cannot be read"):
        agreed(pool, tmp_path / "none", None)
    with pytest.raises(UserError, match="--requested-key is a key, not a file") as refused:
        agreed(pool, Path(wang), None)
    assert wang.split("_", 2)[2] not in str(refused.value)


def test_the_help_says_where_a_key_comes_from() -> None:
    @click.command()
    @two_keys_options
    def step(requested_key: Path | None, approved_key: Path | None) -> None:
        """Do something."""

    shown = CliRunner().invoke(step, ["--help"]).output
    assert shown.index("--requested-key FILE") < shown.index("--approved-key FILE")
    assert REQUESTED_KEY_VARIABLE in shown and APPROVED_KEY_VARIABLE in shown
