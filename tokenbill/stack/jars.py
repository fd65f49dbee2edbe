"""The jars of Apache Kafka: resolved by jgo, verified against a lock file of SHA-256 sums, kept in the user's cache.

The lock file lists every jar, so the set of jars is fixed: each comes from the cache or is downloaded, and is refused
if its checksum differs from the lock. `python -m tokenbill.stack.jars` downloads missing jars (`make build` runs it);
with `--write-lock` it writes a new lock file after a change of version.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenbill.stack.files import locked
from tokenbill.user_errors import UserError

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA = "org.apache.kafka:kafka_2.13:4.1.0"
# Kafka logs through slf4j; this binding forwards it to log4j, which is among Kafka's dependencies.
ROOTS = (KAFKA, "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3")
LOCK_FILE = Path(__file__).with_name("kafka-jars.lock")
PARALLEL_DOWNLOADS = 6
DOWNLOAD_TIMEOUT_SECONDS = 60
ANOTHER_DOWNLOAD_SECONDS = 600.0
HOW_TO_GO_ON = (
    "Run the same command again: what is there is kept. Behind a mirror, name it in the [repositories] section of "
    "jgo's configuration file (JGO_CONFIG_FILE, else jgo.conf in the configuration folder) as `central = URL`; "
    "a proxy is taken from HTTPS_PROXY, certificates from REQUESTS_CA_BUNDLE, a local Maven repository from M2_REPO."
)


@dataclass(frozen=True)
class LockedJar:
    """A jar in the lock file: its SHA-256 sum and Maven coordinate."""

    sha256: str
    coordinate: str


def read_lock() -> list[LockedJar]:
    lines = LOCK_FILE.read_text(encoding="utf-8").splitlines()
    pairs = [line.split() for line in lines if line and not line.startswith("#")]
    return [LockedJar(sha256, coordinate) for sha256, coordinate in pairs]


def classpath(fallback_cache: Path, on_progress: Callable[[int, int], None] = lambda done, total: None) -> list[Path]:
    """Return the paths of all jars, verified; missing jars are downloaded first.

    `fallback_cache` is used if jgo's own cache is not writable. `on_progress` gets the numbers of verified jars and of
    all jars.

    Raises:
        UserError: a jar cannot be downloaded or verified, or another download does not finish in time.
    """
    context = _context(fallback_cache)
    jars = read_lock()
    context.repo_cache.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    # jgo downloads a jar under its final name, so a concurrent process could read an incomplete file.
    with locked(context.repo_cache / ".tokenbill.lock", ANOTHER_DOWNLOAD_SECONDS) as held:
        if not held:
            raise UserError(
                "The Kafka jars are not available", "another process is still downloading them", "Try later."
            )
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            for path in pool.map(lambda jar: _fetch(context, jar), jars):
                paths.append(path)
                on_progress(len(paths), len(jars))
    return paths


def cache_folder() -> Path:
    """Return the folder of jgo's downloads, which has the layout of a Maven repository."""
    from jgo.config import GlobalSettings

    return Path(GlobalSettings.load().repo_cache)


def _context(fallback_cache: Path) -> MavenContext:
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    settings = GlobalSettings.load()
    cache = settings.repo_cache if _writable(settings.repo_cache) else fallback_cache
    defaults = MavenContext().remote_repos
    return MavenContext(
        repo_cache=cache,
        remote_repos={**defaults, **settings.repositories},
        timeout=DOWNLOAD_TIMEOUT_SECONDS,
    )


def _writable(folder: Path) -> bool:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(nearest, os.W_OK | os.X_OK)


def _fetch(context: MavenContext, jar: LockedJar) -> Path:
    """Return the verified file of one jar; a file with a wrong checksum (a broken download) is fetched once more."""
    artifact = context.create_dependency(jar.coordinate).artifact
    path = _resolve(artifact, jar)
    if _sha256(path) == jar.sha256:
        return path
    path.unlink()
    path = _resolve(artifact, jar)
    found = _sha256(path)
    if found != jar.sha256:
        path.unlink()
        why = f"{jar.coordinate} has the SHA-256 {found}, locked is {jar.sha256}"
        raise UserError("A Kafka jar is not the one that was locked", why, f"Is the mirror sound? {HOW_TO_GO_ON}")
    return path


def _resolve(artifact: Any, jar: LockedJar) -> Path:
    import requests

    try:
        return Path(artifact.resolve())
    except (requests.RequestException, OSError, RuntimeError) as error:
        # jgo raises RuntimeError if no repository has the file.
        raise UserError(f"The Kafka jar {jar.coordinate} could not be downloaded", str(error), HOW_TO_GO_ON) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_lock() -> None:
    """Resolve `ROOTS` anew and write the resulting jars to the lock file."""
    import jgo
    from jgo.config import GlobalSettings

    repositories = GlobalSettings.load().repositories
    found: dict[str, str] = {}
    for root in ROOTS:
        for artifact in jgo.resolve(root, repositories=repositories):
            coordinate = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
            found.setdefault(f"{artifact.groupId}:{artifact.artifactId}", coordinate)
    context = _context(Path.cwd())
    lines = [
        f"{_sha256(Path(context.create_dependency(coordinate).artifact.resolve()))} {coordinate}"
        for coordinate in sorted(found.values())
    ]
    head = f"# SHA-256 and coordinate of every jar of {KAFKA}; written by `python -m tokenbill.stack.jars --write-lock`"
    LOCK_FILE.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")


def _main() -> int:
    if sys.argv[1:] == ["--write-lock"]:
        write_lock()
        return 0
    try:
        classpath(Path.cwd() / ".tokenbill" / "maven")
    except UserError as error:
        print(f"{error.message}\n{error.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
