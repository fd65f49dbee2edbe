"""Kafka's jars: verified against the lock, repaired if broken, taken from a mirror; download errors name the remedy."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenbill.stack import jars
from tokenbill.user_errors import UserError


@pytest.fixture
def cached() -> list[Path]:
    """Return the paths of all jars in the user's own cache."""
    return jars.classpath(Path("unused"))


@pytest.fixture
def mirror(cached: list[Path]) -> Iterator[str]:
    """Serve the cache, which has the layout of a Maven repository, on loopback; yield its URL."""
    handler = functools.partial(_Quiet, directory=str(jars.cache_folder()))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def use_mirror(patch: pytest.MonkeyPatch, folder: Path, url: str) -> None:
    settings = folder / "jgo.conf"
    settings.write_text(f"[repositories]\ncentral = {url}\n")
    patch.setenv("JGO_CONFIG_FILE", str(settings))
    patch.setenv("M2_REPO", str(folder / "cache"))


def test_jars_come_from_the_named_mirror_and_a_broken_one_is_fetched_again(
    cached: list[Path], mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirror(monkeypatch, tmp_path, mirror)
    fetched = jars.classpath(tmp_path)
    assert [path.name for path in fetched] == [path.name for path in cached]
    assert all(path.is_relative_to(tmp_path / "cache") for path in fetched)
    content = fetched[7].read_bytes()
    fetched[7].write_bytes(content[: len(content) // 2])
    jars.classpath(tmp_path)
    assert fetched[7].read_bytes() == content


def test_a_failed_download_names_the_file_the_retry_and_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirror(monkeypatch, tmp_path, "http://127.0.0.1:9")
    with pytest.raises(UserError) as caught:
        jars.classpath(tmp_path)
    assert jars.read_lock()[0].coordinate in caught.value.what
    assert "same command again" in caught.value.fix
    assert "JGO_CONFIG_FILE" in caught.value.fix


def test_a_jar_that_is_not_the_locked_one_is_refused(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirror(monkeypatch, tmp_path, mirror)
    lock = tmp_path / "other.lock"
    lock.write_text(f"{'0' * 64} {jars.read_lock()[0].coordinate}\n")
    monkeypatch.setattr(jars, "LOCK_FILE", lock)
    with pytest.raises(UserError, match="not the one that was locked"):
        jars.classpath(tmp_path)
