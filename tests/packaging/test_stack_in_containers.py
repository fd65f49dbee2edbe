"""``tokenbill up --docker`` starts official images instead of the embedded servers. Needs a Docker engine."""

from pathlib import Path

import pytest

from tokenbill import stack


@pytest.mark.docker
def test_servers_in_containers_answer(tmp_path: Path) -> None:
    try:
        started = stack.start(tmp_path, docker=True, only_servers=True)
        assert started.parts == {"kafka": "docker", "postgresql": "docker"}
    finally:
        stack.stop(tmp_path)
