"""A running stack keeps everything to its user, whatever the umask, and prints no password."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy import create_engine, text

from billing.store.server import with_password_file
from tokenbill.hidden_secrets import without_secrets
from tokenbill.stack import info, remove
from tokenbill.stack.config import DATABASE_VARIABLE, KAFKA_VARIABLE, StackConfig
from tokenbill.stack.control import python_environment
from tokenbill.stack.files import OTHERS
from tokenbill.stack.layout import Layout
from tokenbill.stack.password_file import PasswordFile
from tokenbill.user_errors import UserError

SECONDS = 300


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """Run `tokenbill` with a umask that takes no right from anybody."""
    outside = {name: value for name, value in os.environ.items() if name not in (KAFKA_VARIABLE, DATABASE_VARIABLE)}
    return subprocess.run(
        [sys.executable, "-m", "tokenbill", *options],
        env={**outside, **python_environment()},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        umask=0,
    )


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """Start a whole stack in a folder that others may read, as an earlier version left it."""
    folder = Path(tempfile.mkdtemp(prefix="tokenbill-private-"))
    try:
        for path in (folder / "logs", folder / "kafka" / "data"):
            path.mkdir(parents=True)
        (folder / "logs" / "relay.log").write_text("of yesterday\n")
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        done = run("up", "--data-dir", str(folder), "--partitions", "1")
        assert done.returncode == 0, done.stderr
        yield folder
    finally:
        remove(folder)


def readable_by_others(folder: Path) -> list[str]:
    """Return the paths in a folder, itself included, on which group or others have a right."""
    found = [folder, *folder.rglob("*")]
    modes = {str(path): path.lstat().st_mode for path in found if path.exists() or path.is_symlink()}
    return [f"{stat.filemode(mode)} {path}" for path, mode in modes.items() if stat.S_IMODE(mode) & OTHERS]


def passwords(data_dir: Path) -> list[str]:
    config = StackConfig.load(Layout.of(data_dir))
    assert config is not None
    return [config.admin_password, config.app_password, config.report_password]


def test_every_file_and_folder_of_a_running_stack_is_private(data_dir: Path) -> None:
    database = Path(Layout.of(data_dir).postgresql_pointer.read_text().strip())
    assert readable_by_others(data_dir) == []
    assert readable_by_others(database.parent) == []


def test_up_corrects_what_became_readable(data_dir: Path) -> None:
    (data_dir / "logs" / "worker-1.log").chmod(0o644)
    (data_dir / "kafka").chmod(0o755)
    assert run("up", "--data-dir", str(data_dir)).returncode == 0
    assert readable_by_others(data_dir) == []


def test_no_output_command_line_or_log_has_a_password(data_dir: Path) -> None:
    said = [run("status", "--data-dir", str(data_dir), *more) for more in ((), ("--json",))]
    printed = "".join(one.stdout + one.stderr for one in said)
    running = "".join(" ".join(psutil.Process(pid).cmdline()) for pid in info(data_dir).pids.values())
    logs = "".join(path.read_text(errors="replace") for path in (data_dir / "logs").iterdir())
    environments = "".join(str(psutil.Process(pid).environ()) for pid in info(data_dir).pids.values())
    for password in passwords(data_dir):
        assert password not in printed
        assert password not in running
        assert password not in logs
        assert password not in environments


def test_the_printed_url_connects_without_a_password_in_it(data_dir: Path) -> None:
    url = json.loads(run("status", "--data-dir", str(data_dir), "--json").stdout)["database_url"]
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("tokenbill_app",)
    with create_engine(url.replace("postgresql://", "postgresql+psycopg://")).connect() as other:
        assert other.execute(text("SELECT count(*) FROM tokenbill.partition_state")).scalar_one() == 1
    # The password is needed: another user of this machine, who cannot read the file, is refused.
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url.partition("?")[0])


def test_addresses_stored_by_an_earlier_version_lose_their_password(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path / "a stack: with marks")
    layout.create()
    given = r"postgresql://tokenbill_app:p%40ss%3Aw\rd@127.0.0.1:5433/tokenbill?sslmode=disable"
    passwords = PasswordFile(layout)
    url = passwords.without_password(given)
    passwords.add("postgres", 5433, "other")
    passwords.save()
    assert url is not None and "p%40ss" not in url and "sslmode=disable" in url
    assert psycopg.conninfo.conninfo_to_dict(url)["passfile"] == str(layout.password_file)
    again = PasswordFile(layout)
    assert again.without_password(url) == url
    again.without_password(given.replace("p%40ss", "new"))
    again.save()
    assert layout.password_file.read_text() == (
        "127.0.0.1:5433:*:tokenbill_app:new\\:w\\\\rd\n127.0.0.1:5433:*:postgres:other\n"
    )
    assert stat.S_IMODE(layout.password_file.stat().st_mode) == 0o600


def test_an_address_without_password_stays_as_it_is(tmp_path: Path) -> None:
    url = "postgresql://tokenbill_app@db.example:5432/tokenbill?passfile=.pgpass"
    assert with_password_file(url, tmp_path) == (url, None)


def test_a_folder_for_all_users_is_no_data_folder(tmp_path: Path) -> None:
    (tmp_path / "of somebody").touch()
    tmp_path.chmod(0o1777)
    with pytest.raises(UserError, match="a folder for all users"):
        Layout.of(tmp_path).create()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("postgresql://app:p@ss:word@db:5432/t failed", "postgresql://app:***@db:5432/t failed"),
        ("connect with host=db password='a b' user=app", "connect with host=db password=*** user=app"),
        ("postgresql://app@db/t?password=abc&x=1", "postgresql://app@db/t?password=***&x=1"),
        ("key tbk_0123456789ab_Zm9v-YmFy refused", "key tbk_0123456789ab_*** refused"),
        ("signed with whsec_MfKQ9r8G/+Yq==", "signed with whsec_***"),
        ("http://127.0.0.1:80/a@b and a:b@c", "http://127.0.0.1:80/a@b and a:b@c"),
    ],
)
def test_secrets_in_texts_are_hidden(secret: str, shown: str) -> None:
    assert without_secrets(secret) == shown
